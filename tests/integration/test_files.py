"""`File` and `Dir` go through a journal as values: the reference is recorded, the content outlives its maker."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import os
import pickle
import re
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

import msgspec
import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.journals import recorded_in

import perdure
from perdure import runtime
from perdure.api.files import folder as folders
from perdure.core.ground.values import ANY, Signature, codec_for, preview
from perdure.core.ground.values import _wire as wire
from perdure.errors import StoreError, UsageError, ValueMismatchError
from perdure.io import Dir, File
from perdure.store.blobs import manifest

env = perdure.TaskEnvironment(name="files")


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))  # where downloads without a place go
    perdure.init(store=tmp_path / "perdure.db")
    yield tmp_path
    perdure.init()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    place = tmp_path / "source"
    place.mkdir()
    return place


def text_file(place: Path, text: str = "hello", name: str = "greeting.txt") -> File:
    (place / name).write_text(text)
    return File.from_local(place / name)


def small_tree(place: Path) -> Path:
    top = place / "tree"
    (top / "sub" / "deep").mkdir(parents=True)
    (top / "empty").mkdir()
    (top / "a.txt").write_text("a")
    (top / "sub" / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (top / "sub" / "run.sh").chmod(0o755)
    (top / "sub" / "deep" / "b.bin").write_bytes(bytes(range(256)))
    (top / "sub" / "up").symlink_to("../a.txt")
    (top / "here").symlink_to(".")
    (top / "dangling").symlink_to("sub/nothing")
    return top


def listing(top: str | Path) -> dict[bytes, object]:
    """All that a Dir keeps of a directory."""
    root = os.fsencode(top)
    found: dict[bytes, object] = {}
    for folder, names, others in os.walk(root):
        for name in (*names, *others):
            path = os.path.join(folder, name)
            relative = os.path.relpath(path, root)
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                found[relative] = ("link", os.readlink(path))
            elif stat.S_ISDIR(mode):
                found[relative] = "dir"
            else:
                with open(path, "rb") as file:
                    found[relative] = ("exec" if mode & 0o100 else "file", file.read())
    return found


# -- one file ----------------------------------------------------------------------------------------------------------


def test_a_file_is_read_in_all_ways(source: Path) -> None:
    file = text_file(source, "grüße\n")
    assert (file.name, file.size) == ("greeting.txt", 8)
    assert re.fullmatch("[0-9a-f]{64}", file.hash)
    assert Path(file.path).read_text() == "grüße\n"
    assert os.path.basename(file.path) == "greeting.txt"
    with file.open() as binary:
        assert binary.read() == "grüße\n".encode()
    with file.open("r") as text:
        assert list(text) == ["grüße\n"]
    with file.open("rt", encoding="latin-1") as text:
        assert text.read() == "grÃ¼Ã\x9fe\n"
    assert repr(file) == f"File(name='greeting.txt', size=8, hash='{file.hash[:12]}…')"


def test_a_download_is_the_users_own(source: Path, tmp_path: Path) -> None:
    file = text_file(source)
    target = file.download(tmp_path / "out" / "copy.txt")
    assert target == str(tmp_path / "out" / "copy.txt")
    Path(target).write_text("changed")
    assert file.download(tmp_path / "out") == str(tmp_path / "out" / "greeting.txt")
    assert file.download(f"{tmp_path}/new/") == str(tmp_path / "new" / "greeting.txt")
    assert Path(file.download(target)).read_text() == "hello", "what is there is replaced"
    temporary = file.download()
    assert Path(temporary).read_text() == "hello"
    shutil.rmtree(os.path.dirname(temporary))
    (tmp_path / "folder" / "greeting.txt").mkdir(parents=True)
    with pytest.raises(UsageError, match="cannot be written"):
        file.download(tmp_path / "folder")


def test_every_call_has_its_async_form(source: Path, tmp_path: Path) -> None:
    async def main() -> None:
        (source / "x").write_text("x")
        file = await File.from_local.aio(source / "x")
        assert file == File.from_local(source / "x")
        assert Path(await file.download.aio(tmp_path / "y")).read_text() == "x"
        with await file.open.aio("r") as text:
            assert text.read() == "x"
        folder = await Dir.from_local.aio(source)
        assert listing(await folder.download.aio()) == {b"x": ("file", b"x")}

    asyncio.run(main())


def test_files_are_values(source: Path, tmp_path: Path) -> None:
    file = text_file(source)
    (tmp_path / "elsewhere").mkdir()
    assert file == text_file(tmp_path / "elsewhere")
    assert hash(file) == hash(text_file(tmp_path / "elsewhere"))
    assert file != text_file(source, "other")
    assert file != text_file(source, name="other.txt")
    assert file != Dir(name=file.name, hash=file.hash, size=file.size)
    assert file != "greeting.txt"
    for change in (lambda: setattr(file, "name", "x"), lambda: delattr(file, "hash"), lambda: setattr(file, "x", 1)):
        with pytest.raises(AttributeError, match="a File never changes"):
            change()
    assert copy.deepcopy(file) == copy.copy(file) == pickle.loads(pickle.dumps(file)) == file


def test_a_file_made_from_a_link_has_the_links_name(source: Path) -> None:
    (source / "real").write_text("x")
    (source / "alias").symlink_to("real")
    assert File.from_local(source / "alias").name == "alias"


@pytest.mark.parametrize("name", [b"caf\xe9.txt", b"new\nline", b"-rf", b" ", "日本".encode(), b"x" * 255])
def test_any_name_of_the_file_system_is_kept(source: Path, name: bytes) -> None:
    place = os.path.join(os.fsencode(source), name)
    with open(place, "w") as file:
        file.write("x")
    stored = codec_for(File).roundtrip(File.from_local(os.fsdecode(place)))[1]
    assert os.fsencode(stored.name) == name
    assert os.fsencode(os.path.basename(stored.path)) == name
    assert os.path.basename(os.fsencode(stored.download())) == name
    tree = Dir.from_local(source)
    assert listing(tree.path) == listing(tree.download()) == {name: ("file", b"x")}
    assert list(tree.files()) == [os.fsdecode(name)]
    repr(stored).encode()  # can be printed


def test_what_cannot_be_stored_is_refused(source: Path, tmp_path: Path) -> None:
    os.mkfifo(source / "fifo")
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: File.from_local(source), r"is a directory.*use Dir\.from_local"),
        (lambda: File.from_local(source / "none"), "none does not exist: check the path"),
        (lambda: File.from_local(source / "fifo"), "is a FIFO.*copy what comes out of it to a file"),
        (lambda: File.from_local("/dev/zero"), "is a device"),
        (lambda: File.from_local(""), "'' is not a path"),
        (lambda: File.from_local(b"bytes"), "is not a path: give text"),  # type: ignore[arg-type]
        (lambda: Dir.from_local(source / "none"), "none does not exist"),
        (lambda: Dir.from_local(source / "fifo"), "is a FIFO"),
        (lambda: Dir.from_local(Path(__file__)), r"use File\.from_local"),
        (lambda: Dir.from_local("/"), "has no name of its own"),
        (lambda: text_file(tmp_path).open("w"), "never changes, so it opens with 'rb' or 'r', not 'w'"),
        (lambda: File(name="x", hash="../x", size=1), "is no content hash"),
        (lambda: File(name="../x", hash="a" * 64, size=1), "is not the name of a file"),
        (lambda: File(name="x", hash="a" * 64, size=-1), "is no size"),
    ]
    for use, message in cases:
        with pytest.raises(UsageError, match=message):
            use()


def test_the_stores_own_files_are_refused(tmp_path: Path) -> None:
    """Reading one would drop SQLite's locks on it, and the workers'."""

    @env.task
    def inside() -> list[str]:
        found = []
        for path in (
            tmp_path / "perdure.db", tmp_path / "perdure.db-wal", tmp_path, tmp_path.parent,
            tmp_path / "perdure.db-workers", next((tmp_path / "perdure.db-workers").iterdir()),
            tmp_path / "perdure.db-blobs",
        ):  # fmt: skip
            try:
                (Dir if path.is_dir() else File).from_local(path)
            except UsageError as error:
                found.append(str(error))
        return found

    text_file(tmp_path)
    refused = perdure.run(inside).result
    assert len(refused) == 7
    assert all("what perdure itself works on" in text and "name something else" in text for text in refused)
    # The content of a File may be named again.
    file = text_file(tmp_path)
    assert File.from_local(file.path) == file


# -- directories -------------------------------------------------------------------------------------------------------


def test_a_directory_keeps_what_is_in_it(source: Path, tmp_path: Path) -> None:
    top = small_tree(source)
    tree = Dir.from_local(top)
    assert (tree.name, tree.size) == ("tree", 1 + 19 + 256)
    expected = listing(top)
    shutil.rmtree(top)
    assert listing(tree.path) == listing(tree.download(tmp_path / "out")) == expected
    assert os.path.basename(tree.path) == "tree"
    assert list(tree.walk()) == [
        ("", ["empty", "sub"], ["a.txt", "dangling", "here"]),
        ("empty", [], []),
        ("sub", ["deep"], ["run.sh", "up"]),
        ("sub/deep", [], ["b.bin"]),
    ]
    assert {path: (file.name, file.size) for path, file in tree.files().items()} == {
        "a.txt": ("a.txt", 1),
        "sub/deep/b.bin": ("b.bin", 256),
        "sub/run.sh": ("run.sh", 19),
    }
    assert tree.files()["a.txt"].open("r").read() == "a"
    assert subprocess.run([f"{tree.path}/sub/run.sh"], capture_output=True, text=True, check=True).stdout == "ran\n"
    assert repr(tree).startswith("Dir(name='tree', size=276, hash='")


def test_staging_a_directory_copies_nothing(source: Path) -> None:
    top = small_tree(source)
    tree = Dir.from_local(top)
    before = tree.path
    assert before == tree.path
    assert os.path.samefile(f"{tree.path}/a.txt", Path(runtime.blobs().url, "sha256", *place_of(tree, "a.txt")))
    assert stat.S_IMODE(os.stat(f"{tree.path}/a.txt").st_mode) == 0o444
    assert stat.S_IMODE(os.stat(f"{tree.path}/sub/run.sh").st_mode) == 0o555
    assert stat.S_IMODE(os.stat(tree.path).st_mode) == 0o755


def place_of(tree: Dir, path: str) -> tuple[str, str]:
    hash = tree.files()[path].hash
    return hash[:2], hash


def test_a_download_can_be_made_again(source: Path, tmp_path: Path) -> None:
    top = small_tree(source)
    tree, expected = Dir.from_local(top), listing(top)
    out = tmp_path / "out"
    tree.download(out)
    (out / "a.txt").write_text("changed")
    (out / "sub" / "up").unlink()
    (out / "mine").write_text("mine")
    assert listing(tree.download(out)) == {**expected, b"mine": ("file", b"mine")}
    # Nothing is written through a link that stands in the way.
    outside = tmp_path / "outside"
    outside.mkdir()
    shutil.rmtree(out / "sub")
    (out / "sub").symlink_to(outside)
    with pytest.raises(UsageError, match="sub is in the way of a directory: remove it"):
        tree.download(out)
    assert not list(outside.iterdir())


def test_the_hash_is_that_of_the_content(source: Path, tmp_path: Path) -> None:
    first = Dir.from_local(small_tree(source))
    (tmp_path / "again").mkdir()
    second_top = small_tree(tmp_path / "again")
    assert Dir.from_local(second_top) == first
    changes: list[Callable[[], object]] = [
        lambda: (second_top / "a.txt").write_text("b"),
        lambda: (second_top / "a.txt").chmod(0o755),
        lambda: (second_top / "a.txt").rename(second_top / "z.txt"),
        lambda: (second_top / "empty").rmdir(),
        lambda: ((second_top / "here").unlink(), (second_top / "here").symlink_to("sub")),
    ]
    hashes = {first.hash}
    for change in changes:
        change()
        hashes.add(Dir.from_local(second_top).hash)
    assert len(hashes) == 1 + len(changes)
    assert Dir.from_local(f"{second_top}/") == Dir.from_local(f"{second_top}/sub/..")
    other = second_top.rename(second_top.with_name("other"))
    assert Dir.from_local(other).name == "other"


@pytest.mark.parametrize(
    ("links", "bad"),
    [
        ({"l": "/etc/passwd"}, "l"),
        ({"l": "../outside"}, "l"),
        ({"l": "sub/../../outside"}, "l"),
        ({"sub/l": "../../outside"}, "sub/l"),
        ({"l": ".."}, "l"),
        ({"here": ".", "up": "here/../x"}, "up"),
        ({"deep": "sub/one/two", "up": "deep/../../../../x"}, "up"),
        ({"a": "b", "b": "a"}, "a"),
        ({"l": "nothing/../../x"}, "l"),
    ],
)  # fmt: skip
def test_a_link_that_leaves_the_directory_is_refused(source: Path, links: dict[str, str], bad: str) -> None:
    (source / "sub" / "one" / "two").mkdir(parents=True)
    for name, target in links.items():
        (source / name).symlink_to(target)
    with pytest.raises(UsageError, match=rf"{bad} is a symbolic link to .* leads out of .* or nowhere: put what"):
        Dir.from_local(source)


@pytest.mark.parametrize(
    "links",
    [{"l": "sub"}, {"sub/l": ".."}, {"sub/l": "../sub/./one//two"}, {"here": ".", "x": "here/here/here"},
     {"deep": "sub/one/two", "up": "deep/../../../f"}, {"l": "f/"}, {"gone": "sub/gone"}],
)  # fmt: skip
def test_a_link_that_stays_inside_is_kept(source: Path, links: dict[str, str]) -> None:
    (source / "sub" / "one" / "two").mkdir(parents=True)
    (source / "f").write_text("f")
    for name, target in links.items():
        (source / name).symlink_to(target)
    tree = Dir.from_local(source)
    assert listing(tree.path) == listing(tree.download()) == listing(source)


def test_a_directory_with_special_files_is_refused(source: Path) -> None:
    (source / "sub").mkdir()
    os.mkfifo(source / "sub" / "pipe")
    with pytest.raises(UsageError, match=r"sub/pipe is a FIFO, and only the content of files"):
        Dir.from_local(source)
    (source / "sub" / "pipe").unlink()
    here = os.getcwd()
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(source)
        try:
            listener.bind("s")
        finally:
            os.chdir(here)
        with pytest.raises(UsageError, match=r"/s is a socket"):
            Dir.from_local(source)


def test_a_directory_that_changes_while_it_is_copied_is_copied_again(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = small_tree(source)
    real = runtime.blobs().put
    changes: list[Callable[[], object]] = [
        lambda: (top / "a.txt").write_text("b"),  # after its copy was made
        lambda: (top / "new").write_text("new"),
        lambda: (top / "sub" / "run.sh").unlink(),
        lambda: None,
    ]
    pending = iter(changes)

    class Changing:
        url = runtime.blobs().url

        def put(self, sources: list[str]) -> object:
            change = next(pending, changes[0])
            if change is changes[2]:
                change()  # gone before it is copied
                return real(sources)
            answer = real(sources)
            change()
            return answer

    def stored_by(blobs: Any, top: Path) -> Any:
        return manifest.taken(str(top), lambda tree, files: folders.put_files(files, tree, blobs))

    entries = stored_by(Changing(), top)
    assert {entry.text for entry in entries} == {os.fsdecode(path) for path in listing(top)}
    assert {entry.text: entry.data.hex() for entry in entries if entry.is_file} == {
        path: file.hash for path, file in Dir.from_local(top).files().items()
    }
    # From now on `a.txt` changes every time.
    with pytest.raises(UsageError, match=r"a\.txt changed each of the 5 times that .*tree was copied: stop"):
        stored_by(Changing(), top)


@st.composite
def trees(draw: st.DrawFn) -> dict[bytes, object]:
    """A tree as `listing` gives it, links inside and any names that a file system may hold."""
    names = st.binary(min_size=1, max_size=8).filter(lambda n: n not in (b".", b"..") and not set(n) & {0, 0x2F})
    found: dict[bytes, object] = {}
    folders = [b""]
    for _ in range(draw(st.integers(0, 14))):
        path = os.path.join(draw(st.sampled_from(folders)), draw(names))
        if path in found:
            continue
        match draw(st.sampled_from(["dir", "dir", "file", "file", "exec", "link"])):
            case "dir":
                found[path] = "dir"
                folders.append(path)
            case "link":
                up = path.count(b"/")
                target = b"/".join([b".."] * draw(st.integers(0, up)) + draw(st.lists(names, min_size=1, max_size=3)))
                found[path] = ("link", target)
            case kind:
                found[path] = (kind, draw(st.binary(max_size=20)))
    return found


def build(tree: dict[bytes, object], top: Path) -> None:
    top.mkdir()
    for path, node in tree.items():
        place = os.path.join(os.fsencode(top), path)
        match node:
            case "dir":
                os.mkdir(place)
            case ("link", target):
                os.symlink(target, place)
            case (kind, data):
                with open(place, "wb") as file:
                    file.write(data)
                os.chmod(place, 0o700 if kind == "exec" else 0o600)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(trees(), st.randoms(use_true_random=False))
def test_any_tree_comes_back_as_it_was(tmp_path: Path, tree: dict[bytes, object], random: Any) -> None:
    top, other = tmp_path / "top", tmp_path / "other" / "top"
    for place in (top, other.parent):
        shutil.rmtree(place, ignore_errors=True)
    build(tree, top)
    try:
        stored = Dir.from_local(top)
    except UsageError as refused:
        if "is a symbolic link" not in str(refused):  # one that leaves through another, or a loop
            raise
        return
    assert listing(stored.path) == listing(stored.download(other)) == listing(top) == tree
    assert {os.fsencode(path) for path in stored.files()} == {
        p for p, node in tree.items() if node[0] in ("file", "exec")
    }
    walked = [os.fsencode(os.path.join(at, name)) for at, names, others in stored.walk() for name in (*names, *others)]
    assert sorted(walked) == sorted(tree)
    # Made in another order, in another place: the same value.
    shutil.rmtree(other)
    parts = list(tree.items())
    random.shuffle(parts)
    parts.sort(key=lambda part: part[0].count(b"/"))
    build(dict(parts), other)
    assert Dir.from_local(other) == stored


# -- as values ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Report:
    title: str
    body: File
    pages: list[File]
    assets: Dir | None = None


class Struct(msgspec.Struct):
    file: File


class Typed(TypedDict):
    file: File
    more: NotRequired[Dir]


class Tuple(NamedTuple):
    file: File
    tree: Dir


class Model(pydantic.BaseModel):
    file: File
    trees: dict[str, Dir] = {}


def test_files_are_recorded_under_every_declaration(source: Path) -> None:
    file, tree = text_file(source), Dir.from_local(small_tree(source))
    cases: list[tuple[Any, object]] = [
        (File, file), (Dir, tree), (list[File], [file, file]), (File | None, None), (File | None, file),
        (dict[str, Dir], {"x": tree}), (File | Dir, file), (File | Dir, tree), (str | File, file), (str | File, "x"),
        (tuple[File, Dir], (file, tree)), (set[File], {file}), (dict[File, int], {file: 1}),
        (Report, Report("t", file, [file], tree)), (Report, Report("t", file, [])), (Struct, Struct(file)),
        (Typed, {"file": file, "more": tree}), (Tuple, Tuple(file, tree)), (Model, Model(file=file, trees={"a": tree})),
        (Any, file), (Any, tree), (Any, [file, {"x": (tree, {file})}]), (object, file),
    ]  # fmt: skip
    for annotation, value in cases:
        data, found = codec_for(annotation).roundtrip(value)
        assert found == value
        assert type(found) is type(value)
        assert len(data) < 400, "the content was written"
        assert preview(data)
    assert preview(codec_for(File).encode(file)) == repr(file)
    assert codec_for(File).encode(file) == ANY.encode(file)


def test_values_are_written_and_read_without_the_file_system(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    value = Report("t", text_file(source), [], Dir.from_local(small_tree(source)))
    shutil.rmtree(runtime.blobs().url)
    shutil.rmtree(source)

    def touched(*_: object) -> object:
        raise AssertionError("the blob store was asked")

    with monkeypatch.context() as patched:
        patched.setattr(runtime, "blobs", touched)
        found = codec_for(Report).roundtrip(value)[1]
    assert found == value
    with pytest.raises(StoreError, match=f"blob {value.body.hash} is not in the blob store {runtime.blobs().url}"):
        found.body.open()
    with pytest.raises(StoreError, match="is not in the blob store"):
        found.assets.files()  # type: ignore[union-attr]


def test_what_is_no_file_is_refused_with_the_remedy(source: Path) -> None:
    file = text_file(source)
    cases: list[tuple[Any, object, str]] = [
        (File, "a/path", r"make one with File\.from_local\(path\)"),
        (Dir, Path("a/path"), r"make one with Dir\.from_local\(path\)"),
        (File, Dir.from_local(source), r"declared `File`, got a value of type `Dir`; `Dir` would fit"),
        (list[File], [file, 3], r"at \[1\]: expected `File`, got int 3"),
        (str, file, r"declared `str`, got a value of type `File`; `File` would fit"),
    ]
    for annotation, value, message in cases:
        with pytest.raises(ValueMismatchError, match=message):
            codec_for(annotation).encode(value)


@pytest.mark.parametrize(
    "parts",
    [
        [b"short", 1, "x"], [bytes(32), -1, "x"], [bytes(32), True, "x"], [bytes(32), "1", "x"], ["0" * 64, 1, "x"],
        [bytes(32), 1, "../x"], [bytes(32), 1, ".."], [bytes(32), 1, ""], [bytes(32), 1, "/x"], [bytes(32), 1, "a\0"],
        [bytes(32), 1, b"x"], [bytes(32), 1, "x" * 300], [bytes(32), 1], [bytes(32), 1, "x", 1], "text", None,
        [bytes(33), 1, "x"], [bytes(32), 1, None], [bytes(32), 2**70 // 2**10, {"x": 1}],
    ],
)  # fmt: skip
@pytest.mark.parametrize("code", [wire.FILE, wire.DIR])
def test_corrupt_references_are_refused(code: int, parts: object) -> None:
    data = wire.encode(msgspec.msgpack.Ext(code, wire.encode(parts)))
    for codec in (codec_for(File), codec_for(Dir), ANY):
        with pytest.raises(ValueMismatchError, match="cannot be read"):
            codec.decode(data)
    assert preview(data).startswith("<unreadable value")


_H = "ab" * 32


@pytest.mark.parametrize(
    "entries",
    [
        [["../x", "file", bytes(32), 1]], [["/x", "file", bytes(32), 1]], [["a/b", "file", bytes(32), 1]],
        [["a", "file", bytes(32), 1], ["a/b", "file", bytes(32), 1]], [["a", "link", b"/etc", 0]],
        [["a", "link", b"..", 0]], [["a", "link", b"", 0]], [["a", "link", b"x\0", 0]], [["a", "device", b"", 0]],
        [["b", "dir", b"", 0], ["a", "dir", b"", 0]], [["a", "dir", b"", 0], ["a", "link", b"b", 0]],
        [["a", "file", b"short", 1]], [["a", "file", bytes(32), -1]], [["", "dir", b"", 0]], [[".", "dir", b"", 0]],
        [["a", "dir", b"", 0], ["a/..", "dir", b"", 0]], [["a", "dir", b"", 0], ["a//b", "dir", b"", 0]],
        [["a", "link", b"b", 0], ["a/b", "file", bytes(32), 1]],
    ],
)  # fmt: skip
def test_a_manifest_that_leads_outside_is_refused(tmp_path: Path, entries: list[list[Any]]) -> None:
    encoded = [[path.encode(), *rest] for path, *rest in entries]
    forged = runtime.blobs().put_bytes(msgspec.msgpack.encode(["perdure.Dir", 1, encoded]))
    tree = Dir(name="tree", hash=forged, size=0)
    for use in (lambda: tree.path, lambda: tree.download(tmp_path / "out"), tree.files, lambda: list(tree.walk())):
        with pytest.raises(StoreError, match=f"blob {forged} .*is not the manifest of directory 'tree'"):
            use()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("data", [b"", b"text", msgspec.msgpack.encode(["perdure.Dir", 3, []])])
def test_what_is_no_manifest_is_told(data: bytes) -> None:
    forged = Dir(name="tree", hash=runtime.blobs().put_bytes(data), size=0)
    with pytest.raises(StoreError, match="is not the manifest of directory 'tree'"):
        forged.files()


def test_identity_is_content_and_name_wherever_it_came_from(source: Path, tmp_path: Path) -> None:
    def typed(file: File, more: list[Dir] | None = None) -> None: ...
    def untyped(file, more=None): ...  # type: ignore[no-untyped-def]

    first = text_file(source)
    (tmp_path / "elsewhere").mkdir()
    second = text_file(tmp_path / "elsewhere")
    for fn in (typed, untyped):
        signature = Signature.of(fn)
        assert signature.identity((first,), {}) == signature.identity((), {"file": second})
        assert signature.identity((first,), {}) != signature.identity((text_file(source, "other"),), {})
        assert signature.identity((first,), {}) != signature.identity((text_file(source, name="other.txt"),), {})
        args, kwargs = signature.decode_inputs(signature.encode_inputs((first,), {}))
        assert (args, kwargs) == ((first,), {})


# -- in runs -----------------------------------------------------------------------------------------------------------

_made: list[str] = []


@env.task
def make(folder: str) -> File:
    _made.append(folder)
    place = Path(folder, "scratch")
    place.mkdir()
    (place / "result.csv").write_text("1,2\n")
    file = File.from_local(place / "result.csv")
    shutil.rmtree(place)
    return file


@env.task
def make_tree(folder: str):  # type: ignore[no-untyped-def]
    place = Path(folder, "tree")
    (place / "sub").mkdir(parents=True)
    (place / "sub" / "x").write_text("x")
    tree = Dir.from_local(place)
    shutil.rmtree(place)
    return {"tree": tree}


@env.task
def read(file: File, tree: Dir) -> str:
    with file.open("r") as text:
        return text.read() + tree.files()["sub/x"].open("r").read()


@env.task
async def pipeline(folder: str) -> tuple[File, str]:
    file, made = await asyncio.gather(make.aio(folder), make_tree.aio(folder))
    return file, await read.aio(file, made["tree"])


def test_a_recorded_file_outlives_its_producer(tmp_path: Path) -> None:
    _made.clear()
    file, text = perdure.run(pipeline, str(tmp_path)).result
    assert text == "1,2\nx"
    assert file.open("r").read() == "1,2\n"
    named = perdure.with_runcontext(name="again")
    first = named.run(pipeline, str(tmp_path)).result
    assert named.run(pipeline, str(tmp_path)).result == first == (file, text)
    assert len(_made) == 2


@env.task(cache="auto")
def cached(file: File) -> int:
    _made.append(file.name)
    return file.size


@env.task
def asks_cached(file: File) -> int:
    return cached(file)


def test_a_cached_task_is_keyed_by_content_and_not_by_name(source: Path) -> None:
    _made.clear()
    assert perdure.run(asks_cached, text_file(source)).result == 5
    shutil.rmtree(source)
    source.mkdir()
    assert perdure.run(asks_cached, text_file(source)).result == 5
    assert _made == ["greeting.txt"]
    assert perdure.run(asks_cached, text_file(source, "other!")).result == 6
    assert perdure.run(asks_cached, text_file(source, name="other.txt")).result == 5
    assert _made == ["greeting.txt", "greeting.txt"]


def test_the_blob_store_lies_beside_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    perdure.init()
    monkeypatch.delenv("PERDURE_STORE", raising=False)
    text_file(tmp_path)
    assert runtime.blobs().url == str(tmp_path / ".perdure" / "blobs")
    assert not (tmp_path / ".perdure" / "perdure.db").exists(), "storing a file needs no database"
    assert stat.S_IMODE((tmp_path / ".perdure").stat().st_mode) == 0o700
    perdure.init(store=f"sqlite:///{tmp_path}/own.db")
    assert runtime.blobs().url == str(tmp_path / "own.db-blobs")
    perdure.init(store="memory://")
    file = text_file(tmp_path)
    assert file.open("r").read() == "hello"
    assert not runtime.blobs().url.startswith(str(tmp_path / ".perdure"))


_SCRIPT = """
import os, signal, sys
import perdure
env = perdure.TaskEnvironment(name="crash")

@perdure.trace
def make(folder):
    from perdure.io import Dir, File
    os.makedirs(folder + "/scratch/sub")
    with open(folder + "/scratch/data.txt", "w") as file:
        file.write("data")
    return File.from_local(folder + "/scratch/data.txt"), Dir.from_local(folder + "/scratch")

@perdure.trace
def die(folder):
    if os.path.exists(folder + "/scratch"):
        import shutil
        shutil.rmtree(folder + "/scratch")
        os.kill(os.getpid(), signal.SIGKILL)
    return "perdure.io" in sys.modules

@env.task
def main(folder: str) -> str:
    file, tree = make(folder)
    assert die(folder), "perdure.io was not imported, and yet there is a File"
    return file.open("r").read() + " " + ",".join(tree.files()) + " " + str(sorted(os.listdir(tree.path)))

if __name__ == "__main__":
    assert "perdure.io" not in sys.modules
    print(perdure.with_runcontext(name="one").run(main, sys.argv[1]).result)
"""


def test_a_killed_run_finds_its_files_again(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(_SCRIPT))
    command = [sys.executable, str(script), str(tmp_path)]
    environment = {**os.environ, "PERDURE_STORE": str(tmp_path / "crash.db")}
    first = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert first.returncode == -9
    second = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert second.stdout == "data data.txt ['data.txt', 'sub']\n", second.stderr
    # The content is in the blob store, only references are in the journal.
    assert b"data.txt" in b"".join(entry.value or b"" for _, entry in recorded_in(tmp_path / "crash.db"))


def test_importing_perdure_does_not_import_its_files() -> None:
    script = "import sys, perdure; perdure.run; assert 'perdure.io' not in sys.modules; perdure.io.File; print('fine')"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "fine\n"
