"""Blobs in a bucket, over a real endpoint on the loopback: content, sharing, broken transfers, removal, errors."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import obstore
import pytest
from tests.bucket import SCHEME, SECRET, endpoint
from tests.integration.shell import Shell
from tests.waiting import PATIENCE, Stall, kill, wait_for

from perdure.core.ground.clock import US, wall
from perdure.errors import StoreError, StoreUnavailableError, UsageError
from perdure.store import open_blobs
from perdure.store.blobs import bucket as bucket_blobs
from perdure.store.blobs import client as _bucket
from perdure.store.blobs.bucket import BucketBlobs
from perdure.store.blobs.client import Bucket
from perdure.store.blobs.directory import LocalBlobs

LATER = 3600 * US


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint().use(monkeypatch)


@pytest.fixture
def url() -> str:
    return f"{endpoint().bucket()}/flows"


@pytest.fixture
def blobs(url: str, tmp_path: Path) -> BucketBlobs:
    return BucketBlobs(url, LocalBlobs(tmp_path / "here"))


@pytest.fixture
def elsewhere(url: str, tmp_path: Path) -> BucketBlobs:
    """The same bucket from another machine."""
    return BucketBlobs(url, LocalBlobs(tmp_path / "there"))


def put(blobs: Any, path: Path, data: bytes) -> tuple[str, int]:
    path.write_bytes(data)
    [found] = blobs.put([str(path)])
    return found


def objects(blobs: BucketBlobs) -> list[str]:
    return sorted(meta["path"] for page in obstore.list(blobs._bucket.store) for meta in page)


@pytest.mark.parametrize("size", [0, 1, 5_000, 20 << 20])
def test_what_one_machine_puts_another_gets(
    blobs: BucketBlobs, elsewhere: BucketBlobs, tmp_path: Path, size: int
) -> None:
    data = os.urandom(size)
    hash, found = put(blobs, tmp_path / "file", data)
    assert (hash, found) == (sha256(data).hexdigest(), size)
    assert objects(blobs) == [f"sha256/{hash[:2]}/{hash}"]
    with elsewhere.open(hash, size) as file:
        assert file.read() == data
    assert Path(elsewhere.path(hash, size, "name.bin")).read_bytes() == data
    elsewhere.copy(hash, size, str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == data
    elsewhere.link(hash, size, str(tmp_path / "link"), executable=True)
    assert os.access(tmp_path / "link", os.X_OK)
    assert elsewhere.read(hash) == data
    small = blobs.put_bytes(b"small")
    assert elsewhere.read(small) == b"small"


def test_identical_content_is_uploaded_once(
    blobs: BucketBlobs, elsewhere: BucketBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    plain = obstore.put

    def counted(store: Any, key: str, *args: Any, **kwargs: Any) -> Any:
        sent.append(key)
        return plain(store, key, *args, **kwargs)

    monkeypatch.setattr(_bucket.obstore, "put", counted)
    hash, _ = put(blobs, tmp_path / "one", b"same")
    put(blobs, tmp_path / "two", b"same")
    put(elsewhere, tmp_path / "three", b"same")
    assert sent == [f"sha256/{hash[:2]}/{hash}", f"put/{hash}"]


def test_what_lies_damaged_in_the_bucket_is_refused_and_healed(
    blobs: BucketBlobs, elsewhere: BucketBlobs, tmp_path: Path
) -> None:
    hash, size = put(blobs, tmp_path / "file", b"content")
    obstore.put(blobs._bucket.store, f"sha256/{hash[:2]}/{hash}", b"CONTENT")
    with pytest.raises(StoreError, match="damaged where it lies"):
        elsewhere.open(hash, size)
    obstore.put(blobs._bucket.store, f"sha256/{hash[:2]}/{hash}", b"short")
    fresh = BucketBlobs(blobs.url, LocalBlobs(tmp_path / "third"))
    put(fresh, tmp_path / "file", b"content")
    with elsewhere.open(hash, size) as file:
        assert file.read() == b"content"


def test_a_missing_blob_is_named_with_its_bucket(blobs: BucketBlobs, tmp_path: Path) -> None:
    nowhere = sha256(b"nowhere").hexdigest()
    for ask in (
        lambda: blobs.open(nowhere, 7), lambda: blobs.read(nowhere), lambda: blobs.open(nowhere, 0),
        lambda: blobs.copy(nowhere, 7, str(tmp_path / "x")),
    ):  # fmt: skip
        with pytest.raises(StoreError, match=f"{nowhere} is not in {blobs.url}"):
            ask()
    for wrong in ("../x", "a" * 63, "A" * 64):
        with pytest.raises(UsageError):
            blobs.open(wrong, 1)


class Flaky(BaseHTTPRequestHandler):
    """Stands before the endpoint and breaks off every answer's body after some bytes, again and again."""

    target = ""
    limit = 3 << 20
    ranges: list[str]

    def do_GET(self) -> None:
        import urllib.request

        headers = {key: value for key, value in self.headers.items() if key.lower() != "host"}
        self.ranges.append(self.headers.get("Range", ""))
        # The signature covers the host's name, which is this proxy's; the endpoint does not look at it.
        request = urllib.request.Request(f"{self.target}{self.path}", headers=headers)
        with urllib.request.urlopen(request, timeout=20) as answer:
            data = answer.read()
            self.send_response(answer.status)
            for key, value in answer.headers.items():
                self.send_header(key, value)
            self.end_headers()
        self.wfile.write(data[: self.limit])
        if len(data) > self.limit:
            self.connection.close()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def flaky() -> Iterator[str]:
    """Its URL."""
    Flaky.target, Flaky.ranges = endpoint().url, []
    with served(Flaky) as url:
        yield url


@contextmanager
def served(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """A server on the loopback; its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_broken_download_goes_on_where_it_stopped(
    blobs: BucketBlobs, url: str, tmp_path: Path, flaky: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(8 << 20)
    hash, size = put(blobs, tmp_path / "file", data)
    endpoint().use(monkeypatch, flaky)
    broken = BucketBlobs(url, LocalBlobs(tmp_path / "there"))
    with broken.open(hash, size) as file:
        assert file.read() == data
    starts = [int(text.removeprefix("bytes=").partition("-")[0]) for text in Flaky.ranges if text.startswith("bytes=")]
    assert len(starts) >= 3
    assert starts == sorted(set(starts)), starts


FETCH = """
import sys
from perdure.store.blobs.directory import LocalBlobs
from perdure.store.blobs.bucket import BucketBlobs
url, root, hash, size = sys.argv[1:]
BucketBlobs(url, LocalBlobs(root)).open(hash, int(size))
"""


def test_a_download_that_is_killed_goes_on(blobs: BucketBlobs, url: str, tmp_path: Path) -> None:
    data = os.urandom(48 << 20)
    hash, size = put(blobs, tmp_path / "file", data)
    root = tmp_path / "there"
    part = root / "parts" / hash
    process = subprocess.Popen([sys.executable, "-c", FETCH, url, str(root), hash, str(size)], stdin=subprocess.DEVNULL)
    wait_for(lambda: (part.exists() and part.stat().st_size > 0) or process.poll() is not None)
    kill(process)
    there = BucketBlobs(url, LocalBlobs(root))
    kept = part.stat().st_size if part.exists() else size
    with there.open(hash, size) as file:
        assert sha256(file.read()).hexdigest() == hash
    assert kept > 0
    assert not part.exists()


@pytest.mark.parametrize("way", ["up", "down"])
def test_a_large_file_takes_little_memory(url: str, tmp_path: Path, way: str) -> None:
    size = 256 << 20
    file = tmp_path / "large"
    with file.open("wb") as out:
        for number in range(size >> 20):
            out.write(number.to_bytes(4, "big") * (1 << 18))
    hash = sha256(file.read_bytes()).hexdigest()
    code = f"""
import resource
from perdure.store.blobs.directory import LocalBlobs
from perdure.store.blobs.bucket import BucketBlobs
blobs = BucketBlobs({url!r}, LocalBlobs({str(tmp_path)!r} + "/" + {way!r}))
blobs.put_bytes(b"warm")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
blobs.put([{str(file)!r}]) if {way!r} == "up" else blobs.open({hash!r}, {size})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    if way == "down":
        BucketBlobs(url, LocalBlobs(tmp_path / "up")).put([str(file)])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * resource.getpagesize() / 4 < 100 << 20


def test_a_look_at_the_beginning_brings_nothing_here(
    blobs: BucketBlobs, elsewhere: BucketBlobs, tmp_path: Path
) -> None:
    hash, size = put(blobs, tmp_path / "file", b"begins like this, and goes on")
    empty, _ = put(blobs, tmp_path / "empty", b"")
    for place in (blobs, elsewhere):
        assert place.start(hash, size, 11) == b"begins like"
        assert place.start(hash, size, 1000) == b"begins like this, and goes on"
        assert place.start(empty, 0, 6) == b""
    assert not Path(elsewhere.root, "sha256").exists()
    with pytest.raises(StoreError, match="is not in"):
        elsewhere.start(sha256(b"nowhere").hexdigest(), 7, 1)


def test_azure_is_not_asked_to_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may still be at it, and fail, when it has answered."""
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    assert not Bucket("az://container").copy("from", "to")


# -- removal -----------------------------------------------------------------------------------------------------------


def test_what_is_old_is_removed_and_what_was_put_again_stays(
    blobs: BucketBlobs, elsewhere: BucketBlobs, tmp_path: Path
) -> None:
    one, two, three = (put(blobs, tmp_path / name, name.encode())[0] for name in ("one", "two", "three"))
    line = wall() + 1_500_000
    time.sleep(2.6)  # the endpoint tells times to the second
    put(elsewhere, tmp_path / "again", b"two")
    blobs.refresh([three, sha256(b"nowhere").hexdigest()])
    assert {hash for hash, _ in blobs.older(line)} == {one}
    assert blobs.remove([one, two, three], line) == [True, False, False]
    assert {hash for hash, _ in blobs.older(wall() + LATER)} == {two, three}
    assert blobs.remove([two, three, one], wall() + LATER) == [True, True, False]
    assert objects(blobs) == []
    with pytest.raises(StoreError, match="is not in"):
        BucketBlobs(blobs.url, LocalBlobs(tmp_path / "third")).open(two, 3)


def test_a_put_of_content_that_is_being_removed_waits_and_has_it(
    blobs: BucketBlobs, elsewhere: BucketBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BK1, BK2: at every step of the removal, the content is there once the put has returned."""
    for step in range(6):
        data = f"content {step}".encode()
        hash, size = put(blobs, tmp_path / "file", data)
        blobs._put_at.clear()
        reached, go = threading.Event(), threading.Event()
        steps = iter(range(100))
        plain = Bucket.do

        def stepping(self: Bucket, work: Any, **how: Any) -> Any:
            if threading.current_thread().name == "remover" and next(steps) == step:  # noqa: B023
                reached.set()  # noqa: B023
                go.wait(PATIENCE)  # noqa: B023
            return plain(self, work, **how)  # noqa: B023

        monkeypatch.setattr(Bucket, "do", stepping)
        remover = threading.Thread(target=blobs.remove, args=([hash], wall() + LATER), name="remover")
        remover.start()
        assert reached.wait(PATIENCE)
        putter = threading.Thread(target=put, args=(elsewhere, tmp_path / "again", data))
        putter.start()
        putter.join(0.3)  # it waits, or is done: no event tells that it waits
        go.set()
        putter.join(PATIENCE)
        remover.join(PATIENCE)
        monkeypatch.setattr(Bucket, "do", plain)
        assert not putter.is_alive()
        # The remover was told to take even what is new, so only what came after its look may be relied on.
        if blobs._size(hash) is None:
            assert step < 3, step
        else:
            with BucketBlobs(blobs.url, LocalBlobs(tmp_path / f"third-{step}")).open(hash, size) as file:
                assert file.read() == data


def test_a_mark_of_a_dead_remover_is_passed_over(
    blobs: BucketBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BK3."""
    monkeypatch.setattr(bucket_blobs, "_STALE", 1.0)
    hash, _ = put(blobs, tmp_path / "file", b"content")
    blobs._put_at.clear()
    obstore.put(blobs._bucket.store, f"removing/{hash}", b"")
    assert blobs.remove([hash], wall() + LATER) == [False]
    with Stall() as stall:
        put(blobs, tmp_path / "file", b"content")
    assert 1.0 <= stall.took < stall.bound(20.0, work=0.5)
    assert f"removing/{hash}" not in objects(blobs)


# -- settings and errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("s3://", "names no bucket"),
        ("ftp://host/x", "blobs do not lie there"),
        ("file://relative", "a third slash is missing"),
        ("s3:bucket", "two slashes are missing"),
        ("az://container/x", "set AZURE_STORAGE_ACCOUNT_NAME"),
    ],
)
def test_what_is_no_bucket_is_refused(url: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in endpoint().environment():
        monkeypatch.delenv(name)
    with pytest.raises(UsageError, match=text):
        open_blobs(tmp_path / "x.db", url)


@pytest.mark.parametrize(
    ("url", "told", "etag"),
    [
        ("az://container", "0x8D4BCC2E4835CD0", '"0x8D4BCC2E4835CD0"'),  # as Azure lists it
        ("az://container", '"0x8D4BCC2E4835CD0"', '"0x8D4BCC2E4835CD0"'),
        ("s3://bucket", 'W/"x"', 'W/"x"'),
        ("s3://bucket", None, ""),
        ("file:///tmp", "1-2-3", "1-2-3"),
    ],
)
def test_an_etag_is_as_conditions_have_it(
    url: str, told: str | None, etag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    assert Bucket(url).etag({"e_tag": told}) == etag


def test_a_directory_may_be_named_too(tmp_path: Path) -> None:
    for at in (f"file://{tmp_path}/shared", str(tmp_path / "shared")):
        assert open_blobs(tmp_path / "x.db", at).url == str(tmp_path / "shared")


def test_a_bucket_that_is_not_there_or_not_ours_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"x")
    gone = BucketBlobs(f"{SCHEME}://no-such-bucket/x", LocalBlobs(tmp_path / "a"))
    with pytest.raises(StoreUnavailableError, match=f"{SCHEME}://no-such-bucket/x: there is no such bucket") as caught:
        gone.put([str(tmp_path / "file")])
    assert SECRET not in str(caught.value)
    assert len(str(caught.value)) < 700
    endpoint().use(monkeypatch, "http://127.0.0.1:9")
    monkeypatch.setattr(_bucket, "_RETRIES", {"max_retries": 1})
    away = BucketBlobs(f"{SCHEME}://bucket/x", LocalBlobs(tmp_path / "b"))
    with pytest.raises(StoreUnavailableError, match="check the network"):
        away.put([str(tmp_path / "file")])


# -- as a user meets it ------------------------------------------------------------------------------------------------

WORKFLOWS = """
import os
import perdure
from perdure.io import Dir, File

env = perdure.TaskEnvironment(name="wf")
pool = perdure.TaskEnvironment(name="pool", executor="process")

@env.task
def make(text: str = "data") -> File:
    with open("made", "w") as file:
        file.write(text)
    return File.from_local("made")

@pool.task
def shout(file: File) -> Dir:
    os.makedirs("loud", exist_ok=True)
    with open("loud/out", "w") as out:
        out.write(file.open("r").read().upper())
    return Dir.from_local("loud")

@env.task
def main(text: str) -> str:
    folder = shout(make(text))
    return open(folder.path + "/out").read()

@env.task
def read(file: File) -> str:
    return file.open("r").read()
"""


def test_two_machines_share_files_through_a_bucket(tmp_path: Path, url: str) -> None:
    shells = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        shell = Shell(tmp_path / name)
        shell.write("wf.py", WORKFLOWS)
        shell.env |= {**endpoint().environment(), "PERDURE_BLOBS": url}
        shells.append(shell)
    one, two = shells
    assert one.json("run", "wf.py", "main", "--name", "a", "--text", "quiet")["result"] == "QUIET"
    # The other machine has the database (a copy, here), and of the files only what the bucket holds.
    (two.path / ".perdure").mkdir()
    for file in (one.path / ".perdure").glob("perdure.db*"):
        if file.is_file():
            (two.path / ".perdure" / file.name).write_bytes(file.read_bytes())
    made = one.json("run", "wf.py", "make", "--name", "file")
    assert made["status"] == "SUCCEEDED"
    again = two.json("run", "wf.py", "main", "--name", "a", "--text", "quiet")
    assert (again["result"], again["executed"]) == ("QUIET", 0)
    two.write("given", "from two")
    assert two.json("run", "wf.py", "read", "--file", "given")["result"] == "from two"
    gone = one.json("gc", "--older-than", "0s")
    assert len(gone["runs"]) == 2
