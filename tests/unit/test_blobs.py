"""The local blob store: each content once, whole or not there, read-only, on disk before its hash is known."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from perdure.core.ground.trees import remove_tree
from perdure.errors import StoreError, StoreUnavailableError, UsageError
from perdure.store.blobs import copying, user_files
from perdure.store.blobs.directory import LocalBlobs
from perdure.store.blobs.user_files import settled


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    return LocalBlobs(tmp_path / "blobs")


def blob_files(blobs: LocalBlobs) -> list[Path]:
    return sorted(path for path in Path(blobs.root, "sha256").rglob("*") if path.is_file())


def leftovers(blobs: LocalBlobs) -> list[str]:
    return os.listdir(Path(blobs.root, "staging"))


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


# -- in --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 4096, 65_537, 1 << 20, (1 << 20) + 1, 3_500_000])
def test_what_goes_in_comes_out(blobs: LocalBlobs, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    [(hash, length)] = blobs.put([write(tmp_path / "x", data)])
    assert (hash, length) == (sha(data), size)
    with blobs.open(hash, size) as file:
        assert file.read() == data
    blobs.copy(hash, size, str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == data
    assert Path(blobs.path(hash, size, "x.csv")).read_bytes() == data
    assert not leftovers(blobs)


def test_identical_content_is_stored_once(blobs: LocalBlobs, tmp_path: Path) -> None:
    first = blobs.put([write(tmp_path / "a", b"same")])
    [kept] = blob_files(blobs)
    number = kept.stat().st_ino
    second = blobs.put([write(tmp_path / "b", b"same"), write(tmp_path / "c", b"same")])
    assert second == first * 2
    assert blob_files(blobs) == [kept]
    assert kept.stat().st_ino == number


def test_a_blob_is_read_only_and_a_copy_of_its_own(blobs: LocalBlobs, tmp_path: Path) -> None:
    source = tmp_path / "x"
    [(hash, _)] = blobs.put([write(source, b"before")])
    [kept] = blob_files(blobs)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o444
    assert not os.path.samefile(kept, source)
    assert source.stat().st_nlink == kept.stat().st_nlink == 1
    source.write_bytes(b"later!")
    assert blobs.read(hash) == b"before"


def test_blobs_are_written_and_synced_before_they_are_named(
    blobs: LocalBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[tuple[str, object]] = []
    real_fsync, real_rename = os.fsync, os.rename

    def fsync(fd: int) -> None:
        real_fsync(fd)
        found = os.fstat(fd)
        events.append(("folder" if stat.S_ISDIR(found.st_mode) else "file", found.st_ino))

    def rename(source: str, to: str) -> None:
        assert ("file", os.stat(source).st_ino) in events, "a blob got its name before it was on disk"
        real_rename(source, to)
        events.append(("rename", os.stat(os.path.dirname(to)).st_ino))

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    found = blobs.put([write(tmp_path / str(n), b"%d" % n) for n in range(5)])
    assert [kind for kind, _ in events].count("rename") == 5
    for hash, _ in found:
        shard = os.stat(Path(blobs.root, "sha256", hash[:2])).st_ino
        assert events.index(("folder", shard)) > max(
            n for n, event in enumerate(events) if event == ("rename", shard)
        ), "its name was not on disk when put returned"
    for above in ("sha256", ".", ".."):
        assert ("folder", os.stat(Path(blobs.root, above)).st_ino) in events
    # What is there already is synced too: the process that put it may not have come to that yet.
    events.clear()
    blobs.put([write(tmp_path / "again", b"0")])
    assert [kind for kind, _ in events] == ["folder"]


def mutate_while_copying(monkeypatch: pytest.MonkeyPatch, change: Callable[[int], None]) -> None:
    """Call `change` with 1, 2, … after the first chunk of each attempt to copy."""
    real = os.readv
    seen: list[int] = []

    def readv(fd: int, buffers: Any) -> int:
        if os.lseek(fd, 0, os.SEEK_CUR) == 0:
            count = real(fd, buffers)
            seen.append(fd)
            change(len(seen))
            return count
        return real(fd, buffers)

    monkeypatch.setattr(copying, "clone", lambda source, out: False)
    monkeypatch.setattr(os, "readv", readv)


def rewrite(source: Path, data: bytes) -> None:
    source.write_bytes(data)


def rewrite_and_restore_times(source: Path, data: bytes) -> None:
    found = source.stat()
    source.write_bytes(data)
    os.utime(source, ns=(found.st_atime_ns, found.st_mtime_ns))


def replace(source: Path, data: bytes) -> None:
    found = source.stat()
    other = source.with_name("other")
    other.write_bytes(data)
    os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
    other.replace(source)


@pytest.mark.parametrize("how", [rewrite, rewrite_and_restore_times, replace])
def test_a_source_that_changes_while_it_is_copied_is_copied_again(
    blobs: LocalBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: Callable[[Path, bytes], None]
) -> None:
    source = tmp_path / "x"
    old, new = b"a" * 2_500_000, b"b" * 2_500_000
    write(source, old)
    mutate_while_copying(monkeypatch, lambda n: how(source, new) if n == 1 else None)
    assert blobs.put([str(source)]) == [(sha(new), len(new))]
    assert [path.name for path in blob_files(blobs)] == [sha(new)]


def test_a_source_that_does_not_stop_changing_is_refused(
    blobs: LocalBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "growing.log"
    write(source, b"a" * 1_500_000)

    def grow(n: int) -> None:
        with open(source, "ab") as file:
            file.write(b"more")

    mutate_while_copying(monkeypatch, grow)
    with pytest.raises(UsageError, match=r"growing\.log changed each of the 5 times that it was copied: stop"):
        blobs.put([str(source)])
    assert not blob_files(blobs)
    assert not leftovers(blobs)


def test_a_change_within_one_tick_of_the_file_system_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_files, "_tick", lambda: 100_000_000)
    source = tmp_path / "x"
    write(source, b"1")
    fd = os.open(source, os.O_RDONLY)
    found = settled(fd)
    assert found is not None
    assert time.time_ns() - found.st_ctime_ns > 100_000_000

    def never(seconds: float) -> None:
        raise AssertionError("an old file waits for nothing")

    monkeypatch.setattr(time, "sleep", never)
    assert settled(fd) == found
    # One that has changed again after the wait is still changing.
    source.write_bytes(b"2")
    monkeypatch.setattr(user_files, "_tick", lambda: 10**15)
    monkeypatch.setattr(time, "sleep", lambda seconds: source.write_bytes(b"3"))
    assert settled(fd) is None
    os.close(fd)


def test_only_the_content_of_files_is_stored(blobs: LocalBlobs, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(tmp_path)  # a socket's path is short
        try:
            listener.bind("socket")
        finally:
            os.chdir(here)
        for path, kind in ((tmp_path / "fifo", "FIFO"), (tmp_path / "socket", "socket"), ("/dev/null", "device")):
            with pytest.raises(UsageError, match=f"is a {kind}, and only the content of files"):
                blobs.put([str(path)])
    with pytest.raises(UsageError, match=r"is a directory.*: use Dir\.from_local"):
        blobs.put([str(tmp_path)])
    with pytest.raises(UsageError, match="nothing does not exist: check the path"):
        blobs.put([str(tmp_path / "nothing")])
    assert not leftovers(blobs)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_files_without_a_size_are_stored(blobs: LocalBlobs) -> None:
    [(hash, size)] = blobs.put(["/proc/self/status"])
    assert size > 0
    assert blobs.read(hash).startswith(b"Name:")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_and_leaves_nothing(
    blobs: LocalBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    source = write(tmp_path / "x", b"data")

    def full(fd: int, data: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(copying, "clone", lambda source, out: False)
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StoreUnavailableError, match=f"the disk of the blob store {blobs.root} is full: free some"):
        blobs.put([source])
    assert not leftovers(blobs)
    assert not blob_files(blobs)


def test_a_missing_parent_is_told(tmp_path: Path) -> None:
    source = write(tmp_path / "x", b"data")
    with pytest.raises(StoreUnavailableError, match="create the directory of the blob store"):
        LocalBlobs(tmp_path / "no" / "blobs").put([source])


def test_many_at_once_from_threads(blobs: LocalBlobs, tmp_path: Path) -> None:
    sources = [write(tmp_path / str(n), b"%d" % (n % 7)) for n in range(70)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: LocalBlobs(blobs.root).put(sources), range(8)))
    assert all(answer == answers[0] for answer in answers)
    assert sorted(path.name for path in blob_files(blobs)) == sorted(sha(b"%d" % n) for n in range(7))
    assert not leftovers(blobs)


# -- blocks shared -----------------------------------------------------------------------------------------------------


def test_blocks_are_shared_where_the_file_system_can(
    blobs: LocalBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Really so on Btrfs and XFS (`pytest --basetemp`); elsewhere with a stand-in for the kernel."""
    data = os.urandom(3_000_000)
    source = write(tmp_path / "x", data)
    with open(source, "rb") as given, open(tmp_path / "probe", "w+b") as probe:
        able = copying.clone(given.fileno(), probe.fileno())
    real = fcntl.ioctl
    answers: list[int] = []

    def ioctl(out: int, code: int, given: int) -> int:
        assert code == 0x40049409
        answers.append(real(out, code, given) if able else os.sendfile(out, given, 0, len(data)))
        return 0

    def never(*_: object) -> int:
        raise AssertionError("the bytes were copied all the same")

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    monkeypatch.setattr(os, "readv", never)
    [(hash, size)] = blobs.put([source])
    assert (hash, size) == (sha(data), len(data))
    blobs.copy(hash, size, str(tmp_path / "copy"))
    assert len(answers) == 2
    assert (tmp_path / "copy").read_bytes() == blobs.read(hash) == data


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.EPERM])
def test_without_shared_blocks_the_bytes_are_copied(
    blobs: LocalBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    data = os.urandom(2_000_000)
    [(hash, size)] = blobs.put([write(tmp_path / "x", data)])
    blobs.copy(hash, size, str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == blobs.read(hash) == data


def test_holes_stay_holes(blobs: LocalBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "clone", lambda source, out: False)
    source = tmp_path / "sparse"
    with open(source, "wb") as file:
        file.truncate(50_000_000)
        file.seek(20_000_000)
        file.write(b"something")
    [(hash, size)] = blobs.put([str(source)])
    [kept] = blob_files(blobs)
    assert kept.stat().st_size == size == 50_000_000
    assert kept.stat().st_blocks * 512 < 3_000_000
    assert kept.read_bytes() == source.read_bytes()
    assert hash == sha(source.read_bytes())


_MEMORY = """
import sys, tracemalloc
from perdure.store.blobs import copying, directory as module
copying.clone = lambda source, out: False
blobs = module.LocalBlobs(sys.argv[1])
small, large, copy = sys.argv[2:5]
[(hash, size)] = blobs.put([small])
blobs.copy(hash, size, copy)
def peak():
    # Not ru_maxrss, which remembers the process that this one was forked from.
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) // 1024
before = peak()
[(hash, size)] = blobs.put([large])
blobs.copy(hash, size, copy)
blobs.path(hash, size, "large")
with blobs.open(hash, size) as file:
    file.read(10)
print(peak() - before)
tracemalloc.start()
blobs.put([large])
print(tracemalloc.get_traced_memory()[1] >> 20)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_large_file_takes_no_memory(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    block = os.urandom(1 << 20)
    with open(tmp_path / "large", "wb") as file:
        for _ in range(300):
            file.write(block)
    write(tmp_path / "small", b"small")
    arguments = [str(tmp_path / name) for name in ("blobs", "small", "large", "copy")]
    done = subprocess.run(
        [sys.executable, "-c", _MEMORY, *arguments], capture_output=True, text=True, check=True, timeout=100
    )
    resident, traced = map(int, done.stdout.split())
    record_property("MiB", (resident, traced))
    assert resident < 16, f"{resident} MiB more in memory after 300 MiB were copied in and out"
    assert traced < 4


# -- crashes ---------------------------------------------------------------------------------------------------------

_PUTS = """
import sys
from perdure.store.blobs.directory import LocalBlobs
blobs = LocalBlobs(sys.argv[1])
print("ready", flush=True)
for n in range(1000):
    blobs.put([f"{sys.argv[2]}/{name}" for name in range(40)])
    blobs.tree("%064x" % n, "tree", lambda top: blobs.link(*blobs.put([f"{sys.argv[2]}/0"])[0], top + "/file"))
    blobs.path(*blobs.put([f"{sys.argv[2]}/1"])[0], str(n))
    blobs.put_bytes(b"%d" % n)
    import os
    for shard in os.listdir(f"{sys.argv[1]}/sha256"):
        for name in os.listdir(f"{sys.argv[1]}/sha256/{shard}"):
            os.unlink(f"{sys.argv[1]}/sha256/{shard}/{name}")
"""


def test_sigkill_leaves_no_half_blob_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    sources = tmp_path / "sources"
    sources.mkdir()
    for n in range(40):
        write(sources / str(n), os.urandom(1 + 40_000 * (n % 5)))
    root = tmp_path / "blobs"
    stale = 0
    for trial in range(12):
        process = subprocess.Popen([sys.executable, "-c", _PUTS, root, sources], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline()
        time.sleep(0.015 * (trial + 1))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
        blobs = LocalBlobs(root)
        stale += len(leftovers(blobs)) if Path(root, "staging").exists() else 0
        for path in blob_files(blobs):
            assert sha(path.read_bytes()) == path.name
        for tree in Path(root, "trees").glob("*/*"):
            assert os.listdir(tree) == ["file"]
        blobs.put([str(sources / "0")])
        assert not leftovers(blobs)
    assert stale, "no trial was killed while it wrote"


def test_what_a_living_writer_has_staged_is_left_alone(blobs: LocalBlobs, tmp_path: Path) -> None:
    source = write(tmp_path / "x", b"data")
    with blobs._staging() as staging:
        Path(staging, "half").write_bytes(b"half")
        LocalBlobs(blobs.root).put([source])
        script = (
            "import sys; from perdure.store.blobs.directory import LocalBlobs; "
            "LocalBlobs(sys.argv[1]).put([sys.argv[2]])"
        )
        subprocess.run([sys.executable, "-c", script, blobs.root, source], check=True)
        assert Path(staging, "half").exists()
    assert not leftovers(blobs)


# -- out -------------------------------------------------------------------------------------------------------------


def test_a_missing_blob_is_named_with_its_store(blobs: LocalBlobs, tmp_path: Path) -> None:
    hash = sha(b"never stored")
    uses: list[Callable[[], object]] = [
        lambda: blobs.open(hash, 12),
        lambda: blobs.read(hash),
        lambda: blobs.path(hash, 12, "x"),
        lambda: blobs.copy(hash, 12, str(tmp_path / "x")),
        lambda: blobs.link(hash, 12, str(tmp_path / "x")),
        lambda: blobs.link(hash, 12, str(tmp_path / "x"), executable=True),
    ]
    for use in uses:
        with pytest.raises(StoreError, match=f"blob {hash} is not in the blob store {re.escape(blobs.root)}: restore"):
            use()
    assert not (tmp_path / "x").exists()


def test_a_damaged_blob_is_told_and_healed_by_storing_it_again(blobs: LocalBlobs, tmp_path: Path) -> None:
    data = b"data" * 1000
    source = write(tmp_path / "x", data)
    [(hash, size)] = blobs.put([source])
    [kept] = blob_files(blobs)
    kept.chmod(0o644)
    kept.write_bytes(data[:-1])
    for use in (lambda: blobs.open(hash, size), lambda: blobs.path(hash, size, "x"), lambda: blobs.read(hash)):
        with pytest.raises(StoreError, match="is damaged"):
            use()
    blobs.put([source])
    assert blobs.read(hash) == data
    kept.chmod(0o644)
    kept.write_bytes(b"atad" * 1000)
    with pytest.raises(StoreError, match="does not have that hash"):
        blobs.read(hash)


def test_a_copy_is_checked_and_whole_or_not_there(
    blobs: LocalBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "clone", lambda source, out: False)
    [(hash, size)] = blobs.put([write(tmp_path / "x", b"data" * 1000)])
    [kept] = blob_files(blobs)
    kept.chmod(0o644)
    kept.write_bytes(b"atad" * 1000)
    target = tmp_path / "out" / "copy"
    target.parent.mkdir()
    target.write_bytes(b"as it was")
    with pytest.raises(StoreError, match="is damaged"):
        blobs.copy(hash, size, str(target))
    assert target.read_bytes() == b"as it was"
    assert os.listdir(target.parent) == ["copy"]


def test_a_copy_is_the_users_own(blobs: LocalBlobs, tmp_path: Path) -> None:
    [(hash, size)] = blobs.put([write(tmp_path / "x", b"data")])
    old = os.umask(0o027)
    try:
        blobs.copy(hash, size, str(tmp_path / "plain"))
        blobs.copy(hash, size, str(tmp_path / "run"), executable=True)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "plain").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o750
    (tmp_path / "plain").write_bytes(b"changed")
    assert blobs.read(hash) == b"data"


def test_a_copy_replaces_a_link_and_not_what_it_means(blobs: LocalBlobs, tmp_path: Path) -> None:
    [(hash, size)] = blobs.put([write(tmp_path / "x", b"data")])
    write(tmp_path / "precious", b"precious")
    (tmp_path / "link").symlink_to("precious")
    blobs.copy(hash, size, str(tmp_path / "link"))
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert not (tmp_path / "link").is_symlink()


def test_paths_carry_the_name_and_copy_nothing(blobs: LocalBlobs, tmp_path: Path) -> None:
    [(hash, size)] = blobs.put([write(tmp_path / "x", b"data")])
    path = blobs.path(hash, size, "report.csv")
    assert path == blobs.path(hash, size, "report.csv")
    assert os.path.basename(path) == "report.csv"
    assert os.path.samefile(path, blob_files(blobs)[0])
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o444
    # Each mode has a file of its own.
    blobs.link(hash, size, str(tmp_path / "run"), executable=True)
    blobs.link(hash, size, str(tmp_path / "also"), executable=True)
    assert stat.S_IMODE(os.stat(tmp_path / "run").st_mode) == 0o555
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o444
    assert os.path.samefile(tmp_path / "run", tmp_path / "also")


def test_a_tree_is_whole_or_not_there(blobs: LocalBlobs, tmp_path: Path) -> None:
    [(hash, size)] = blobs.put([write(tmp_path / "x", b"data")])
    seen: list[str] = []

    def fill(top: str) -> None:
        blobs.link(hash, size, os.path.join(top, "file"))
        seen.append(top)
        assert not list(Path(blobs.root, "trees").glob("*/*")), "it can be seen before it is whole"
        if len(seen) == 1:
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        blobs.tree(hash, "tree", fill)
    path = blobs.tree(hash, "tree", fill)
    assert os.listdir(path) == ["file"]
    assert blobs.tree(hash, "tree", fill) == path
    assert len(seen) == 2
    assert not leftovers(blobs)


@pytest.mark.parametrize("code", [errno.EMLINK, errno.EPERM, errno.EXDEV])
def test_without_links_paths_are_copies(
    blobs: LocalBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    [(hash, size)] = blobs.put([write(tmp_path / "x", b"data")])
    monkeypatch.setattr(os, "link", refuse)
    path = blobs.path(hash, size, "x")
    assert Path(path).read_bytes() == b"data"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o444


# -- nothing leads outside (P11) -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "hash", ["", "../" * 22, "a" * 63, "A" * 64, "g" * 64, "a" * 64 + "\n", "/" + "a" * 63, "é" * 64]
)
def test_what_is_no_hash_is_refused(blobs: LocalBlobs, tmp_path: Path, hash: str) -> None:
    uses: list[Callable[[], object]] = [
        lambda: blobs.open(hash, 1),
        lambda: blobs.read(hash),
        lambda: blobs.path(hash, 1, "x"),
        lambda: blobs.copy(hash, 1, str(tmp_path / "x")),
        lambda: blobs.link(hash, 1, str(tmp_path / "x"), executable=True),
        lambda: blobs.tree(hash, "x", lambda top: None),
    ]
    for use in uses:
        with pytest.raises(UsageError, match="is not the hash of a blob"):
            use()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd", "../x", "a\0b", "x" * 256, "\ud800"])
def test_what_is_no_name_is_refused(blobs: LocalBlobs, tmp_path: Path, name: str) -> None:
    [(hash, size)] = blobs.put([write(tmp_path / "x", b"data")])
    for use in (lambda: blobs.path(hash, size, name), lambda: blobs.tree(hash, name, lambda top: None)):
        with pytest.raises(UsageError, match="is not the name of a file"):
            use()


def test_a_link_planted_in_place_of_a_blob_is_not_followed(blobs: LocalBlobs, tmp_path: Path) -> None:
    secret = write(tmp_path / "secret", b"data")
    [(hash, size)] = blobs.put([secret])
    [kept] = blob_files(blobs)
    kept.unlink()
    kept.symlink_to(secret)
    for use in (lambda: blobs.open(hash, size), lambda: blobs.path(hash, size, "x")):
        with pytest.raises(StoreError):
            use()


def test_a_clock_that_goes_on_while_a_file_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread may be held up between any two readings of it."""
    path = tmp_path / "file"
    path.write_bytes(b"x")
    begin = path.stat().st_mtime_ns // 1000
    readings = itertools.count(begin + 1, 5_000)
    monkeypatch.setattr(user_files, "wall", lambda: next(readings))
    monkeypatch.setattr(user_files, "_tick", lambda: 4_000_000)
    with path.open("rb") as file:
        assert settled(file.fileno()) is not None


@pytest.mark.parametrize(("depth", "name"), [(1500, "d"), (300, "d" * 200)])
def test_a_deep_leftover_of_a_dead_writer_stops_no_later_put(
    blobs: LocalBlobs, tmp_path: Path, depth: int, name: str
) -> None:
    """Deeper than Python recurses, and than a path may be long: swept, and removed with a blob's own trees."""
    [(hash, size)] = blobs.put([write(tmp_path / "x", b"data")])
    staging, trees = Path(blobs.root, "staging"), Path(blobs.root, "trees", hash)
    trees.mkdir(parents=True)
    for top in (staging / "dead", trees):
        top.mkdir(exist_ok=True)
        fd = os.open(top, os.O_RDONLY)
        for _ in range(depth):
            os.mkdir(name, dir_fd=fd)
            below = os.open(name, os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = below
        os.close(fd)
    (staging / "dead.lock").touch()
    again = LocalBlobs(blobs.root)
    assert again.put([str(tmp_path / "x")]) == [(hash, size)]
    assert not leftovers(again)
    assert again.remove([hash], time.time_ns()) == [True]
    assert not leftovers(again)


def test_a_deep_directory_is_built_and_removed(blobs: LocalBlobs, tmp_path: Path) -> None:
    def fill(top: str) -> None:
        for _ in range(1200):
            top += "/d"
            os.mkdir(top)

    place = blobs.tree("0" * 64, "x", fill)
    assert os.path.isdir(place + "/d" * 1200)
    remove_tree(place)  # pytest could not: its own removal recurses
    assert not os.path.exists(place)
