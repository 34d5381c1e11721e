"""Scripts that use `flyte.io`: files, directories and data frames, over kills and with their originals gone."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from tests.flyte.scripts import Scripts
from tests.waiting import PATIENCE

FILES = """
from flyte.io import Dir, File

@env.task
async def write(text: str) -> File:
    mark("write")
    file = File.new_remote("note.txt")
    async with file.open("wb") as stream:
        for letter in text:
            await stream.write(letter.encode())
    return file

@env.task
async def upload(text: str) -> File:
    mark("upload")
    with open("local.txt", "w") as local:
        local.write(text)
    try:
        return await File.from_local("local.txt")
    finally:
        os.unlink("local.txt")

@env.task
async def read(file: File) -> str:
    mark("read")
    async with file.open("rb") as stream:
        return bytes(await stream.read()).decode()

@env.task
def read_sync(file: File) -> str:
    mark("read_sync")
    with file.open_sync("r") as stream, open(file.download_sync()) as copy:
        assert copy.read() == open(file.path).read()
        return stream.read()

@env.task
async def folder(files: list[File]) -> Dir:
    mark("folder")
    os.makedirs("tree/sub", exist_ok=True)
    for number, file in enumerate(files):
        await file.download(f"tree/sub/{number}.txt")
    return await Dir.from_local("tree")

@env.task
async def names(folder: Dir) -> dict[str, str]:
    mark("names")
    return {file.name: await read.func(file) async for file in folder.walk()}

@env.task
async def main(text: str) -> tuple[str, str, dict[str, str]]:
    first, second = await write(text), await upload(text * 2)
    tree = await folder([first, second])
    return await read(first), await read_sync.aio(second), await names(tree)

if __name__ == "__main__":
    flyte.init_from_config()
    print(flyte.run(main, "ab").outputs())
"""
RESULT = "ActionOutputs(o0=\"ab\", o1=\"abab\", o2={'0.txt': 'ab', '1.txt': 'abab'})\n"


@pytest.mark.parametrize("kill_at", [0, 1, 3, 4, 6])
def test_files_and_directories_go_from_task_to_task(scripts: Scripts, kill_at: int) -> None:
    """The family: no kill, a kill while the first file is made, between files, with a directory, at the end."""
    scripts.write(FILES)
    if kill_at:
        scripts.run("script.py", kill_at=kill_at)
    assert scripts.run("script.py") == RESULT
    marks = scripts.marks()
    assert marks.count("write") == 1 + (kill_at == 1)
    assert marks.count("upload") == 1 + (kill_at == 2)


def test_content_that_crossed_a_task_never_changes(scripts: Scripts) -> None:
    """The family: the original is overwritten, removed, or opened for writing by its reference."""
    scripts.write("""
        from flyte.io import File

        @env.task
        async def make() -> File:
            file = File.new_remote("data.txt")
            async with file.open("w") as stream:
                await stream.write("one")
            env.original = file.path
            return file

        @env.task
        async def overwrite(path: str) -> File:
            file = File.from_existing_remote(path)
            async with file.open("ab") as stream:
                await stream.write(b" more")
            with file.open_sync("ab") as stream:
                stream.write(b" still")
            return file

        @env.task
        async def read(file: File) -> str:
            async with file.open("r") as stream:
                return await stream.read()

        @env.task
        async def main() -> list[str]:
            file = await make()
            open(env.original, "w").write("two")
            os.unlink(env.original)
            other = await overwrite(file.path)
            return [await read(file), await read(other), await read(File(path=file.path)), file.name, other.name]

        print(flyte.run(main).outputs()[0])
    """)
    assert scripts.run("script.py") == "['one', 'one more still', 'one', 'data.txt', 'data.txt']\n"


def test_names_formats_and_digests_come_along(scripts: Scripts) -> None:
    scripts.write("""
        import hashlib
        from flyte.io import Dir, File, HashFunction
        from flyte.io._hashing_io import HashlibAccumulator, PrecomputedValue

        @env.task
        def show(file: File) -> str:
            return f"{file.name} {file.format} {file.hash}"

        @env.task
        def show_dir(folder: Dir) -> str:
            return f"{folder.name} {folder.hash} {folder.is_empty} {folder.exists_sync()}"

        open("a.txt", "w").write("hello")
        os.makedirs("d", exist_ok=True)
        sha = HashlibAccumulator.from_hash_name("sha256")
        length = HashFunction.from_fn(lambda data: f"length {len(data)}")
        made = File.new_remote("written", hash_method=HashlibAccumulator.from_hash_name("md5"))
        with made.open_sync("wb") as stream:
            stream.write(b"hel")
            stream.write(b"lo")
        for file in (
            File.from_local_sync("a.txt"), File.from_local_sync("a.txt", hash_method="mine"),
            File.from_local_sync("a.txt", hash_method=sha), File.from_local_sync("a.txt", hash_method=length),
            File.from_local_sync("a.txt", "copy.txt"), File(path="a.txt", name="other", format="csv"), made,
            File.from_existing_remote("s3://bucket/key.bin", file_cache_key="k"), File(path="nothing/there"),
        ):
            print(flyte.run(show, file).outputs()[0])
        for folder in (Dir.from_local_sync("d", dir_cache_key="k"), Dir.empty(), Dir(path="none")):
            print(flyte.run(show_dir, folder).outputs()[0])
    """)
    sha = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    assert scripts.run("script.py").splitlines() == [
        "a.txt  None", "a.txt  mine", f"a.txt  {sha}", "a.txt  length 5", "a.txt  None", "other csv None",
        "written  5d41402abc4b2a76b9719d911017c592", "key.bin  k", "there  None",
        "d k False True", " None True False", "none None False False",
    ]  # fmt: skip


def test_a_cached_task_knows_a_file_by_its_content_or_by_the_digest_of_the_user(scripts: Scripts) -> None:
    scripts.write("""
        from flyte.io import Dir, File

        @env.task(cache="auto")
        async def count(file: File) -> int:
            mark("count")
            return 1

        @env.task
        async def main() -> None:
            for text, digest in (("a", None), ("a", None), ("b", None), ("c", "same"), ("d", "same")):
                file = File.new_remote()
                async with file.open("w") as stream:
                    await stream.write(text)
                file.hash = digest
                await count(file)

        flyte.run(main)
    """)
    scripts.run("script.py")
    assert len(scripts.marks()) == 3


FRAMES = """
import pandas as pd
import pyarrow as pa
from flyte.io import DataFrame

@env.task
async def make() -> pd.DataFrame:
    mark("make")
    return pd.DataFrame({"n": [1, 2], "l": [["x"], []]})

@env.task
async def wrap() -> DataFrame:
    mark("wrap")
    return DataFrame.from_df(pd.DataFrame({"n": [3, 4]}))

@env.task
async def wrapped(frame: DataFrame) -> pd.DataFrame:
    mark("wrapped")
    assert frame.format == "parquet" and frame.uri.endswith(".parquet")
    return frame

@env.task
async def join(left: pd.DataFrame, right: DataFrame) -> list[int]:
    mark("join")
    table = await right.open(pa.Table).all()
    return [*left["n"], *table.column("n").to_pylist(), len(right.open(pd.DataFrame).all_sync())]

@env.task
async def main() -> list[int]:
    left, right = await make(), await wrap()
    same = await wrapped(right)
    assert isinstance(same, pd.DataFrame)
    stored = await DataFrame.from_local(same, hash_method="h")
    return [*await join(left, right), *await join(right, left), *await join(same, stored)]

if __name__ == "__main__":
    print(flyte.run(main).outputs()[0])
    print(flyte.run(join, left=DataFrame.from_local_sync(pd.DataFrame({"n": [5]})), right=pd.DataFrame({"n": [6]}))
        .outputs()[0])
"""


@pytest.mark.parametrize("kill_at", [0, 2, 4])
def test_data_frames_go_from_task_to_task(scripts: Scripts, kill_at: int) -> None:
    """The family: plain and wrapped, each where the other is declared, with a kill in between."""
    scripts.write(FRAMES)
    if kill_at:
        scripts.run("script.py", kill_at=kill_at)
    assert scripts.run("script.py") == "[1, 2, 3, 4, 2, 3, 4, 1, 2, 2, 3, 4, 3, 4, 2]\n[5, 6, 1]\n"
    assert scripts.marks().count("make") == 1


def test_files_and_frames_are_fields_of_dataclasses_and_models(scripts: Scripts) -> None:
    scripts.write("""
        from dataclasses import dataclass
        from typing import NamedTuple, Optional, TypedDict

        import pandas as pd
        from flyte.io import DataFrame, Dir, File
        from pydantic import BaseModel

        @dataclass
        class Record:
            file: File
            folder: Optional[Dir] = None

        class Model(BaseModel):
            file: File
            frame: DataFrame
            more: dict[str, File] = {}

        class Pair(NamedTuple):
            file: File
            record: Record

        class Keyed(TypedDict):
            file: File

        @env.task
        async def record(text: str) -> Record:
            file = File.new_remote("r.txt")
            async with file.open("w") as stream:
                await stream.write(text)
            return Record(file)

        @env.task
        async def model(record: Record) -> Model:
            frame = DataFrame.from_df(pd.DataFrame({"n": [7]}))
            return Model(file=record.file, frame=frame, more={"k": record.file})

        @env.task
        async def pair(model: Model) -> Pair:
            assert model.model_dump(mode="json")["file"]["name"] == "r.txt"
            return Pair(model.more["k"], Record(model.file))

        @env.task
        async def keyed(pair: Pair) -> Keyed:
            return {"file": pair.record.file}

        @env.task
        async def main() -> str:
            made = await model(await record("text"))
            found = await keyed(await pair(made))
            frame = await made.frame.open(pd.DataFrame).all()
            async with found["file"].open("r") as stream:
                return f"{await stream.read()} {frame['n'][0]}"

        print(flyte.run(main).outputs()[0])
    """)
    assert scripts.run("script.py") == "text 7\n"


def test_walks_of_a_directory_are_as_deep_as_in_flyte(scripts: Scripts) -> None:
    scripts.write("""
        from flyte.io import Dir

        @env.task
        async def main(folder: Dir) -> list[list[str]]:
            walks = [{}, {"recursive": False}, {"max_depth": 1}, {"max_depth": 2}]
            deep = [[file.name async for file in folder.walk(**walk)] for walk in walks]
            flat = [[file.name for file in folder.walk_sync(**walk)] for walk in walks]
            named = [file.name for file in folder.walk_sync(file_pattern="*.txt")]
            found = await folder.get_file("sub/b.txt")
            missing = await folder.get_file("no.txt")
            copy = await folder.download("copy/")
            return [*deep, *flat, named, [found.name, str(missing)], sorted(os.listdir(copy))]

        os.makedirs("top/sub/deep", exist_ok=True)
        for name in ("a.txt", "c.bin", "sub/b.txt", "sub/deep/z.txt"):
            open(f"top/{name}", "w").write(name)
        for line in flyte.run(main, Dir.from_local_sync("top")).outputs()[0]:
            print(*line)
    """)
    whole, two, one = "a.txt c.bin b.txt z.txt", "a.txt c.bin b.txt", "a.txt c.bin"
    assert scripts.run("script.py").splitlines() == [
        whole, two, one, two, whole, whole, one, two, "a.txt b.txt z.txt", "b.txt None", "a.txt c.bin sub",
    ]  # fmt: skip


@pytest.mark.parametrize("kill_at", [1, 2, 3])
def test_a_body_that_makes_temporary_files_again_calls_with_the_same_paths(scripts: Scripts, kill_at: int) -> None:
    """The family: a temporary directory, a temporary file with a suffix, a new file without a name."""
    scripts.write("""
        import tempfile
        from flyte.io import Dir, File

        @env.task
        async def seen(path: str) -> bool:
            mark("seen")
            return os.path.exists(path) and (os.path.isdir(path) or path.endswith((".txt", "file")))

        @env.task
        async def same(file: File) -> File:
            return file

        @env.task
        async def main() -> list[bool]:
            top = tempfile.mkdtemp(prefix="made_")
            with tempfile.NamedTemporaryFile("w", suffix=".txt", delete=False) as temporary:
                temporary.write("text")
            open(f"{top}/a.txt", "w").write("a")
            folder, file, new = await Dir.from_local(top), await File.from_local(temporary.name), File.new_remote()
            async with new.open("w") as stream:
                await stream.write("new")
            assert folder.name == os.path.basename(top) and file.name == os.path.basename(temporary.name)
            return [await seen(folder.path), await seen(file.path), await seen((await same(new)).path)]

        if __name__ == "__main__":
            print(flyte.run(main).outputs()[0])
    """)
    scripts.run("script.py", kill_at=kill_at)
    assert scripts.run("script.py") == "[True, True, True]\n"
    assert len(scripts.marks()) == 4


def test_the_command_takes_files_directories_and_frames_by_their_paths(scripts: Scripts) -> None:
    scripts.write("""
        import pandas as pd
        from flyte.io import DataFrame, Dir, File

        @env.task
        async def main(file: File, folder: Dir, frame: DataFrame, plain: pd.DataFrame) -> list[str]:
            async with file.open("r") as stream:
                text = await stream.read()
            rows = len(await frame.open(pd.DataFrame).all())
            return [text, file.name, *[each.name async for each in folder.walk()], str(rows), str(len(plain))]
    """)
    top = scripts.directory
    (top / "a.txt").write_text("hello")
    (top / "tree").mkdir()
    (top / "tree" / "b.txt").write_text("b")
    pd.DataFrame({"n": [1, 2, 3]}).to_parquet(top / "in.parquet")
    words = ["--file", "a.txt", "--folder", "tree", "--frame", "in.parquet", "--plain", "in.parquet"]
    process = scripts.start("perdure", "run", "script.py", "main", *words, "--json", PERDURE_FLYTE="1")
    out, err = process.communicate(timeout=PATIENCE)
    assert json.loads(out)["result"] == ["hello", "a.txt", "b.txt", "3", "3"], err


@pytest.mark.parametrize("kill_at", [0, 1, 2])
def test_files_and_frames_need_no_declared_type(scripts: Scripts, kill_at: int) -> None:
    """The family: a file, a directory, both kinds of data frames, in bare dicts and lists, without an annotation."""
    scripts.write("""
        from typing import Any

        import pandas as pd
        from flyte.io import DataFrame, Dir, File

        @env.task
        async def make() -> dict[str, Any]:
            mark("make")
            file = File.new_remote("a.txt")
            async with file.open("w") as stream:
                await stream.write("hi")
            frame = pd.DataFrame({"n": [1]})
            return {"file": file, "list": [DataFrame.from_df(frame), Dir.empty()], "frame": frame}

        @env.task
        async def read(held, files: list) -> str:
            mark("read")
            async with held["file"].open("r") as stream:
                text = await stream.read()
            frame = await held["list"][0].open(pd.DataFrame).all()
            return f"{text} {len(frame)} {held['list'][1].is_empty} {files[0].name} {held['frame']['n'][0]}"

        @env.task
        async def main() -> str:
            held = await make()
            return await read(held, [held["file"]])

        if __name__ == "__main__":
            run = flyte.run(main)
            print(run.name, run.outputs()[0])
    """)
    if kill_at:
        scripts.run("script.py", kill_at=kill_at)
    name, result = scripts.run("script.py").split(maxsplit=1)
    assert result == "hi 1 True a.txt 1\n"
    assert scripts.marks().count("make") == 1 + (kill_at == 1)
    assert "flyte.io.File({'content': File(name='a.txt', size=2" in scripts.perdure("show", name)


def test_files_have_the_methods_of_models_without_pydantic(scripts: Scripts) -> None:
    """The family: dump, JSON, copy and validation, under the names of pydantic 1 and 2."""
    scripts.write("""
        sys.modules["pydantic"] = None  # as where the package is not installed
        from flyte.io import DataFrame, Dir, File

        file = File(path="/a/b.txt", format="csv")
        print(file.model_dump(), file.dict(exclude={"hash"}), file.model_dump(include=["path"]))
        print(file.json(), file.model_dump_json(exclude_none=True))
        copy = file.copy(update={"format": "txt"})
        print(copy.format, file.format, copy == file, File.parse_obj(file.dict()) == file)
        print(File.model_validate_json(file.json()) == file, File.schema_match(File.schema()), Dir.schema_match({}))
        print(DataFrame(uri="/x").dict(), File(path="/a/b.txt"), repr(Dir(path="/c")))

        @env.task
        async def echo(file: File) -> File:
            return file

        print(flyte.run(echo, file={"path": "/a/b.txt"}).outputs()[0].path)
    """)
    assert scripts.run("script.py").splitlines() == [
        "{'path': '/a/b.txt', 'name': 'b.txt', 'format': 'csv', 'hash': None} "
        "{'path': '/a/b.txt', 'name': 'b.txt', 'format': 'csv'} {'path': '/a/b.txt'}",
        '{"path":"/a/b.txt","name":"b.txt","format":"csv","hash":null} '
        '{"path":"/a/b.txt","name":"b.txt","format":"csv"}',
        "txt csv False True",
        "True True False",
        "{'uri': '/x', 'format': '', 'hash': None} path='/a/b.txt' name='b.txt' format='' hash=None hash_method=None "
        "Dir(path='/c', name='c', format='', hash=None)",
        "/a/b.txt",
    ]
