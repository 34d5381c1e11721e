"""`File` and `Dir` at URLs: they mean the content that was found, even if the object changes later."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from tests.bucket import SCHEME, SECRET, endpoint
from tests.integration.shell import Shell
from tests.integration.test_bucket import Flaky, served
from tests.integration.test_files import listing, small_tree
from tests.waiting import kill, wait_for

import perdure
from perdure import runtime
from perdure.api.container_files import ContainerFiles
from perdure.core.ground.clock import wall
from perdure.core.ground.values import codec_for
from perdure.errors import StoreError, StoreUnavailableError, UsageError
from perdure.io import Dir, File
from perdure.store.blobs import client as _bucket
from perdure.store.blobs.directory import LocalBlobs

env = perdure.TaskEnvironment(name="remote")


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    endpoint().use(monkeypatch)
    perdure.init(store=tmp_path / "perdure.db")
    yield
    perdure.init()


@pytest.fixture(params=["bucket", "file"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A URL below which objects may lie."""
    if request.param == "bucket":
        return f"{endpoint().bucket()}/data"
    (tmp_path / "shared").mkdir()
    return f"file://{tmp_path}/shared"


def after_the_clocks_tick() -> None:
    """What is written from here on has a later time than what was written before, as far as a file system tells."""
    resolution = time.clock_getres(time.CLOCK_REALTIME_COARSE) if hasattr(time, "CLOCK_REALTIME_COARSE") else 0.01
    time.sleep(2 * resolution)


def put(url: str, data: bytes) -> None:
    """As another program would."""
    scheme, _, rest = url.partition("://")
    if scheme == "file":
        os.makedirs(os.path.dirname(rest), exist_ok=True)
        Path(rest).write_bytes(data)
        return
    endpoint().put(*rest.split("/", 1), data)


def get(url: str) -> bytes:
    scheme, _, rest = url.partition("://")
    if scheme == "file":
        return Path(rest).read_bytes()
    return endpoint().get(*rest.split("/", 1))


def kept() -> list[str]:
    """What the blob store holds."""
    return [hash for hash, _ in runtime.blobs().older(wall() + 10**9)]


# -- one file ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["data.csv", "a b#c%20d+ü.txt"])
def test_what_lies_at_a_url_stays_there_until_it_is_read(place: str, tmp_path: Path, name: str) -> None:
    url = f"{place}/sub/{name}"
    put(url, b"1,2\n")
    file = File.from_existing_remote(url)
    assert (file.name, file.size, file.hash, file.url) == (name, 4, "", url)
    assert file.etag
    assert repr(file) == f"File(name={name!r}, size=4, url={url!r})"
    for kind, value in ((Any, [file]), (File, file), (list[File | None], [file, None])):
        codec: Any = codec_for(kind, "x")
        assert codec.decode(codec.encode(value)) == value
    again: File = pickle.loads(pickle.dumps(file))
    assert (again, hash(again), again.etag) == (file, hash(file), file.etag)
    assert kept() == []
    with file.open("r") as text:
        assert text.read() == "1,2\n"
    assert Path(file.path).read_bytes() == b"1,2\n"
    assert os.path.basename(file.path) == name
    mine = file.download(tmp_path / "mine")
    Path(mine).write_bytes(b"changed")
    ContainerFiles().link_file(file, str(tmp_path / "staged"))
    assert (tmp_path / "staged").read_bytes() == b"1,2\n"
    assert kept() == [sha256(b"1,2\n").hexdigest()]


def test_a_file_is_fetched_once_and_known_by_its_etag(place: str) -> None:
    url = f"{place}/file"
    put(url, b"first")
    file = File.from_existing_remote(url)
    assert file.open().read() == b"first"
    after_the_clocks_tick()
    put(url, b"other")
    assert file.open().read() == b"first", "it is on this machine"
    changed = File.from_existing_remote(url)
    assert (changed.size, changed == file, changed.etag == file.etag) == (5, False, False)
    assert changed.open().read() == b"other"


def test_what_has_changed_or_gone_since_is_told(place: str) -> None:
    url = f"{place}/file"
    put(url, b"first")
    file = File.from_existing_remote(url)
    after_the_clocks_tick()
    put(url, b"other")
    with pytest.raises(StoreError, match=f"^{url} has changed since it was recorded .*begin a new run$"):
        file.open()
    gone = File(name="x", hash="", size=5, url=f"{place}/gone", etag=file.etag)
    with pytest.raises(StoreError, match=f"^{place}/gone is gone since it was recorded"):
        gone.open()
    assert kept() == []


def test_a_store_that_knows_no_conditions_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"{endpoint().bucket()}/file"
    put(url, b"first")
    file = File.from_existing_remote(url)
    put(url, b"other")
    plain = _bucket.obstore.get
    monkeypatch.setattr(
        _bucket.obstore, "get", lambda store, key, options: plain(store, key, options={"range": options["range"]})
    )
    with pytest.raises(StoreError, match="has changed since"):
        file.open()


@pytest.mark.parametrize("size", [0, 5, 20 << 20])
def test_a_file_is_sent_and_comes_back_checked(place: str, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "out.bin").write_bytes(data)
    file = File.from_local(tmp_path / "out.bin", remote_destination=f"{place}/deep/result")
    assert (file.name, file.size, file.url) == ("result", size, f"{place}/deep/result")
    assert file.hash == sha256(data).hexdigest()
    assert get(file.url) == data
    assert kept() == []
    assert file.open().read() == data
    below = File.from_local(tmp_path / "out.bin", f"{place}/")
    assert (below.name, below.url) == ("out.bin", f"{place}/out.bin")
    found = File.from_existing_remote(below.url)
    assert (found.etag, found.size) == (below.etag, size)


def test_a_slash_stands_for_the_name_in_the_top_of_a_bucket_too(tmp_path: Path) -> None:
    url = endpoint().bucket()
    assert File.from_local(small_tree(tmp_path) / "a.txt", f"{url}/").url == f"{url}/a.txt"
    assert Dir.from_local(f"{tmp_path}/tree/", f"{url}/").files()["a.txt"].url == f"{url}/tree/a.txt"


def test_content_of_another_hash_is_refused(place: str) -> None:
    put(f"{place}/file", b"content")
    found = File.from_existing_remote(f"{place}/file")
    wrong = File(name="file", hash=sha256(b"other").hexdigest(), size=7, url=found.url, etag=found.etag)
    with pytest.raises(StoreError, match="damaged where it lies"):
        wrong.open()
    assert found.open().read() == b"content"


def test_what_was_fetched_may_be_removed_and_is_fetched_again(place: str) -> None:
    put(f"{place}/file", b"content")
    file = File.from_existing_remote(f"{place}/file")
    file.open().close()
    blobs = runtime.blobs()
    assert isinstance(blobs, LocalBlobs)
    notes = Path(blobs.root, "fetched")
    assert len(list(notes.iterdir())) == 1
    line = wall() + 10**9
    assert blobs.remove([sha256(b"content").hexdigest()], line) == [True]
    assert list(notes.iterdir()) == []
    assert file.open().read() == b"content"
    # What is used counts as put just now, so that no collection takes it away from a run (G7).
    [blob] = Path(blobs.root).glob("sha256/*/*")
    os.utime(blob, (1, 1))
    file.open().close()
    assert blob.stat().st_mtime > time.time() - 60


# -- transfers ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def flaky() -> Iterator[str]:
    Flaky.target, Flaky.ranges = endpoint().url, []
    with served(Flaky) as url:
        yield url


def test_a_broken_download_goes_on_where_it_stopped(flaky: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = os.urandom(8 << 20)
    file = at_another_url(data)
    endpoint().use(monkeypatch, flaky)
    assert file.open().read() == data
    starts = [int(text.removeprefix("bytes=").partition("-")[0]) for text in Flaky.ranges if text.startswith("bytes=")]
    assert len(starts) >= 3
    assert starts == sorted(set(starts)), starts


def at_another_url(data: bytes) -> File:
    url = f"{endpoint().bucket()}/file"
    put(url, data)
    return File.from_existing_remote(url)


FETCH = """
import sys, perdure
from perdure.io import File
perdure.init(store=sys.argv[1])
File.from_existing_remote(sys.argv[2]).open()
"""


def test_a_download_that_is_killed_goes_on(tmp_path: Path) -> None:
    data = os.urandom(48 << 20)
    parts = Path(runtime.blobs().root, "parts")

    def arrived() -> int:
        return sum(part.stat().st_size for part in parts.glob("*") if part.suffix != ".lock")

    before = 0
    while not before:  # else it was over before it was killed
        file = at_another_url(data)
        process = subprocess.Popen(
            [sys.executable, "-c", FETCH, str(tmp_path / "perdure.db"), file.url], stdin=subprocess.DEVNULL
        )
        wait_for(lambda: arrived() or process.poll() is not None)  # noqa: B023
        kill(process)
        before = arrived()
        assert process.returncode in (0, -signal.SIGKILL)
    fetched: list[int] = []
    plain = _bucket.obstore.get

    def watched(store: Any, key: str, *, options: Any) -> Any:
        fetched.append(options["range"]["offset"])
        return plain(store, key, options=options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_bucket.obstore, "get", watched)
        assert file.open().read() == data
    assert fetched == ([before] if before < len(data) else [])


@pytest.mark.parametrize("way", ["up", "down"])
def test_a_large_file_takes_little_memory(tmp_path: Path, way: str) -> None:
    url, size, large = f"{endpoint().bucket()}/large", 128 << 20, tmp_path / "large"
    with large.open("wb") as out:
        for number in range(size >> 20):
            out.write(number.to_bytes(4, "big") * (1 << 18))
    code = f"""
import resource, perdure
from perdure.io import File
perdure.init(store={str(tmp_path)!r} + "/memory.db")
with open({str(tmp_path)!r} + "/warm", "w") as file: file.write("warm")
File.from_local({str(tmp_path)!r} + "/warm", {url!r} + "-warm")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
File.from_local({str(large)!r}, {url!r}) if {way!r} == "up" else File.from_existing_remote({url!r}).open()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    if way == "down":
        File.from_local(large, url)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * 1024 < 80 << 20


# -- directories -------------------------------------------------------------------------------------------------------


def test_a_directory_of_what_lies_below_a_url(place: str, tmp_path: Path) -> None:
    for name in ("top/a.txt", "top/sub/deep/b.bin", "top/sub/c", "other"):
        put(f"{place}/{name}", name.encode())
    folder = Dir.from_existing_remote(f"{place}/top/")
    put(f"{place}/top/later", b"later")
    assert (folder.name, folder.size, folder.url) == ("top", 36, f"{place}/top")
    assert list(folder.walk()) == [("", ["sub"], ["a.txt"]), ("sub", ["deep"], ["c"]), ("sub/deep", [], ["b.bin"])]
    files = folder.files()
    assert {path: file.url for path, file in files.items()} == {
        path: f"{place}/top/{path}" for path in ("a.txt", "sub/c", "sub/deep/b.bin")
    }
    assert codec_for(Dir, "x").decode(codec_for(Dir, "x").encode(folder)) == folder
    assert kept() == [folder.hash], "only the manifest is on this machine"
    assert files["sub/c"].open().read() == b"top/sub/c"
    for top in (folder.path, folder.download(tmp_path / "mine")):
        assert listing(top) == {
            b"sub": "dir", b"sub/deep": "dir", b"a.txt": ("file", b"top/a.txt"), b"sub/c": ("file", b"top/sub/c"),
            b"sub/deep/b.bin": ("file", b"top/sub/deep/b.bin"),
        }  # fmt: skip
    ContainerFiles().link_dir(folder, str(tmp_path / "staged"))
    assert (tmp_path / "staged" / "sub" / "c").read_bytes() == b"top/sub/c"
    fresh = Dir.from_existing_remote(f"{place}/top")
    assert "later" in fresh.files()
    after_the_clocks_tick()
    put(f"{place}/top/later", b"LATER")
    with pytest.raises(StoreError, match=f"^{place}/top/later has changed since"):
        fresh.download(tmp_path / "never")


def test_empty_objects_in_place_of_directories_are_passed_over() -> None:
    url = endpoint().bucket()
    put(f"{url}/top/sub/", b"")
    put(f"{url}/top/sub/file", b"x")
    put(f"{url}/top/empty", b"")
    put(f"{url}/top/sub/hollow/", b"")
    folder = Dir.from_existing_remote(f"{url}/top")
    assert list(folder.files()) == ["empty", "sub/file"]
    assert list(folder.walk()) == [("", ["sub"], ["empty"]), ("sub", ["hollow"], ["file"]), ("sub/hollow", [], [])]
    assert os.listdir(folder.path) == ["sub", "empty"] or os.listdir(folder.path) == ["empty", "sub"]


def test_a_directory_is_sent_and_comes_back_whole(place: str, tmp_path: Path) -> None:
    tree = small_tree(tmp_path)
    folder = Dir.from_local(tree, remote_destination=f"{place}/results/")
    assert (folder.name, folder.url) == ("tree", f"{place}/results/tree")
    assert get(f"{place}/results/tree/sub/deep/b.bin") == bytes(range(256))
    assert kept() == [folder.hash]
    assert listing(folder.download(tmp_path / "back")) == listing(tree)
    assert listing(folder.path) == listing(tree)
    assert {path: file.hash for path, file in folder.files().items()} == {
        path: file.hash for path, file in Dir.from_local(tree).files().items()
    }


# -- durably -----------------------------------------------------------------------------------------------------------

WORKFLOW = """
import os, sys
import perdure
from perdure.io import Dir, File

env = perdure.TaskEnvironment(name="wf")

@env.task
def size_of(file: File) -> int:
    return file.size

@env.task
async def look(url: str) -> str:
    file = await File.from_existing_remote.aio(url)
    print("size", await size_of.aio(file), flush=True)
    if not os.path.exists("again"):
        os._exit(9)
    return file.open("r").read()

@env.task
def send(url: str) -> File:
    with open("out", "w") as out:
        out.write("result" + "!" * os.path.exists("again"))
    file = File.from_local("out", remote_destination=url)
    if not os.path.exists("again"):
        os._exit(9)
    return file

@env.task
async def send_two(url: str) -> list[str]:
    import asyncio
    names = []
    for name in ("a", "b"):
        with open(name, "w") as out:
            out.write(name)
    files = await asyncio.gather(*(File.from_local.aio(name, url + "/" + name) for name in ("a", "b")))
    if not os.path.exists("again"):
        os._exit(9)
    return [file.url for file in files]

@env.task
def read(file: File, folder: Dir | None = None) -> str:
    return file.open("r").read()

@env.task
def give(file: File) -> File:
    return file
"""


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    (tmp_path / "project").mkdir()
    shell = Shell(tmp_path / "project")
    shell.write("wf.py", WORKFLOW)
    shell.env |= endpoint().environment()
    return shell


def test_a_run_goes_on_with_the_content_that_it_saw(place: str, shell: Shell) -> None:
    for name, change in (("same", b"first"), ("other", b"others")):
        url = f"{place}/{name}"
        put(url, b"first")
        assert shell("run", "wf.py", "look", "--name", name, "--url", url).returncode == 9
        after_the_clocks_tick()
        if change != b"first":
            put(url, change)
    shell.write("again", "")
    done = shell("run", "wf.py", "look", "--name", "same", "--url", f"{place}/same")
    assert (done.returncode, done.stdout) == (0, "first\n"), done.stderr
    done = shell("run", "wf.py", "look", "--name", "other", "--url", f"{place}/other")
    assert done.returncode != 0
    assert "size 5" in done.stderr, "the recorded reference"
    assert f"{place}/other has changed since it was recorded" in done.stderr


def test_a_file_is_sent_once(place: str, shell: Shell) -> None:
    url = f"{place}/out"
    assert shell("run", "wf.py", "send", "--name", "a", "--url", url).returncode == 9
    assert get(url) == b"result"
    put(url, b"mine now")
    shell.write("again", "")
    file = shell.json("run", "wf.py", "send", "--name", "a", "--url", url)["result"]
    assert get(url) == b"mine now"
    assert (file["url"], file["hash"]) == (url, sha256(b"result").hexdigest())
    assert "File.from_local" in shell("show", "a").stdout


def test_files_are_sent_side_by_side(shell: Shell, place: str) -> None:
    assert shell("run", "wf.py", "send_two", "--name", "a", "--url", place).returncode == 9
    shell.write("again", "")
    put(f"{place}/b", b"mine now")
    assert shell.json("run", "wf.py", "send_two", "--name", "a", "--url", place)["result"] == [
        f"{place}/a", f"{place}/b",
    ]  # fmt: skip
    assert (get(f"{place}/a"), get(f"{place}/b")) == (b"a", b"mine now")


def test_a_url_is_an_input_and_a_result_of_the_command(place: str, shell: Shell) -> None:
    put(f"{place}/in/given", b"given")
    done = shell("run", "wf.py", "read", "--file", f"{place}/in/given", "--folder", f"{place}/in")
    assert (done.returncode, done.stdout) == (0, "given\n"), done.stderr
    assert shell("run", "wf.py", "give", "--file", f"{place}/in/given").stdout == f"{place}/in/given\n"
    done = shell("run", "wf.py", "read", "--file", f"{place}/none")
    assert done.returncode == 2
    assert f"{place}/none does not exist" in done.stderr


# -- what cannot be ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("data.csv", "is no URL of an object"),
        ("https://host/file", "is no URL of an object"),
        ("s3://", "names no bucket"),
        ("s3://bucket", "names no object"),
        ("s3://bucket/", "names no object"),
        ("file://relative/path", "a third slash is missing"),
        ("s3://bucket/a//b", "is no name that an object can have"),
        ("s3://key:s3cret-word@bucket/file", r"^s3://bucket/file: credentials come from the environment"),
        ("s3://bucket/file?X-Amz-Signature=s3cret-word", r"^s3://bucket/file: credentials come from the environment"),
    ],
)
def test_what_is_no_url_is_refused(url: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    asks: list[Any] = [lambda: File.from_existing_remote(url), lambda: File.from_local(tmp_path / "file", url)]
    if "a//b" not in url:
        asks.append(lambda: Dir.from_existing_remote(url))
    for ask in asks[: 1 if url.endswith("/") else None]:
        with pytest.raises(UsageError, match=text) as caught:
            ask()
        assert "s3cret-word" not in str(caught.value)
        assert "\n" not in str(caught.value)


@env.task
def leaking(way: str) -> str:
    url = "s3://key:s3cret-word@bucket/file"
    try:
        if way == "look":
            File.from_existing_remote(url)
        else:
            File.from_local(__file__, url)
    except UsageError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("way", ["look", "send"])
def test_a_secret_in_a_url_is_recorded_nowhere(tmp_path: Path, way: str) -> None:
    assert "credentials come from the environment" in perdure.run(leaking, way=way).outputs()[0]
    perdure.init()
    for file in tmp_path.glob("perdure.db*"):
        if file.is_file():
            assert b"s3cret-word" not in file.read_bytes(), file


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    bucket, gone = endpoint().bucket(), f"{SCHEME}://no-such-bucket/x"
    with pytest.raises(UsageError, match=f"^{bucket}/none does not exist: check its name$"):
        File.from_existing_remote(f"{bucket}/none")
    with pytest.raises(UsageError, match=f"^there is nothing below {bucket}/none: check its name$"):
        Dir.from_existing_remote(f"{bucket}/none")
    with pytest.raises(UsageError, match=f"^{gone}: there is no such bucket: make it"):
        File.from_existing_remote(gone)
    with pytest.raises(StoreUnavailableError, match=f"^{gone}: there is no such bucket: make it"):
        Dir.from_existing_remote(gone)
    with pytest.raises(StoreUnavailableError, match=f"^{gone}: there is no such bucket: make it"):
        File.from_local(tmp_path / "file", gone)
    with pytest.raises(UsageError, match=r"^file:///no/such/file does not exist: check its name$"):
        File.from_existing_remote("file:///no/such/file")


class Closed(BaseHTTPRequestHandler):
    """A bucket that refuses every request."""

    def do_GET(self) -> None:
        self.send_response(403)
        self.end_headers()
        self.wfile.write(b"<Error><Code>AccessDenied</Code></Error>")

    do_HEAD = do_PUT = do_POST = do_GET  # noqa: N815 - the server's names

    def log_message(self, *_: Any) -> None:
        pass


def test_a_bucket_that_is_closed_to_us_or_away_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    bucket = f"{SCHEME}://bucket"
    asks = (
        lambda: File.from_existing_remote(f"{bucket}/x"),
        lambda: Dir.from_existing_remote(f"{bucket}/x"),
        lambda: File.from_local(tmp_path / "file", f"{bucket}/x"),
        lambda: File(name="x", hash="", size=1, url=f"{bucket}/x", etag="e").open(),
    )
    with served(Closed) as url:
        endpoint().use(monkeypatch, url)
        for ask in asks:
            with pytest.raises(StoreUnavailableError, match=rf"^{bucket}(/x)?: it does not let us in") as caught:
                ask()
            assert SECRET not in str(caught.value)
    monkeypatch.setattr(_bucket, "_RETRIES", {"max_retries": 0})
    for ask in asks[:3]:
        with pytest.raises(StoreUnavailableError, match=rf"^{bucket}/x: it cannot be used .*check the network"):
            ask()


def test_a_missing_extra_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("obstore", "perdure.store.blobs.remote"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.setitem(sys.modules, "obstore.exceptions", None)
    monkeypatch.delattr("perdure.store.blobs.remote", raising=False)
    with pytest.raises(UsageError, match=r"needs obstore, which is not installed: pip install 'perdure\[s3\]'"):
        File.from_existing_remote("s3://bucket/x")


def test_a_reference_that_makes_no_sense_is_refused() -> None:
    lone_url, lone_etag = {"hash": "", "url": "s3://b/x"}, {"hash": "", "etag": "e"}
    for wrong in ({"hash": ""}, lone_url, lone_etag, {"hash": "x", "url": "s3://b/x", "etag": "e"}):
        with pytest.raises(UsageError, match="use File"):
            File(**{"name": "x", "size": 1, **wrong})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="use Dir"):
        Dir(name="x", size=1, hash="", url="s3://b/x")
