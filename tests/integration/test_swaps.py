"""P11: trees in which a directory is exchanged for a link while perdure reads, copies or removes them.

The kind: a look-up by path that happens after another look-up by the same path. A container, or another user of a
shared directory, exchanges the two in between, and what lies outside is read, stored, changed or removed.

Each walk is tried in two ways. `at_every_moment` exchanges before the first, the second, the third ... call that opens
or lists, and exchanges back some calls later: every moment is tried, always the same ones. `exchanging` does so in
another process, as fast as the kernel lets it.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.containers.test_deep_trees import as_ordinary_user

from perdure import runtime
from perdure.api.container_files import ContainerFiles
from perdure.containers.copilot import Interface
from perdure.containers.kubernetes import tree
from perdure.containers.place import Place
from perdure.core.ground.trees import remove_tree
from perdure.errors import PerdureError
from perdure.io import Dir, File

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="renameat2 is Linux's")

SECRET = b"what lies outside, and is read by the process that perdure runs in"
AT_FDCWD, EXCHANGE = -100, 2


def exchange(one: str, other: str) -> None:
    """At once: at no moment one of the two names is missing."""
    failed = ctypes.CDLL(None, use_errno=True).renameat2(AT_FDCWD, one.encode(), AT_FDCWD, other.encode(), EXCHANGE)
    if failed:
        raise OSError(ctypes.get_errno(), "renameat2", one)


class Scene:
    """A tree with a directory `sub`, and a link to a directory outside that can take its place."""

    def __init__(self, at: Path) -> None:
        self.at = at
        self.outside = at / "outside"
        self.top = at / "top"
        self.build()

    def build(self) -> None:
        for path in (self.outside, self.top, self.at / "link"):
            if path.is_symlink():
                path.unlink()
            remove_tree(str(path))
        self.outside.mkdir()
        self.top.mkdir()
        (self.outside / "file").write_bytes(SECRET)
        (self.outside / "more").mkdir()
        (self.outside / "more" / "file").write_bytes(SECRET + b"!")
        (self.top / "sub" / "more").mkdir(parents=True)
        (self.top / "sub" / "file").write_bytes(b"inside")
        (self.top / "sub" / "more" / "file").write_bytes(b"further inside")
        (self.at / "link").symlink_to(self.outside)

    def swap(self) -> None:
        exchange(str(self.top / "sub"), str(self.at / "link"))


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    runtime.init(str(tmp_path / "perdure.db"))
    yield Scene(tmp_path)
    runtime.init()


def leaked() -> list[str]:
    """The content from outside that is in the blob store."""
    found = []
    for folder, _, names in os.walk(runtime.blobs().root):
        for name in names:
            if SECRET in Path(folder, name).read_bytes():
                found.append(os.path.join(folder, name))
    return found


class _Moments:
    """Calls `act` at chosen calls of the kernel's `open`, `listdir` and `scandir` by this process."""

    def __init__(self) -> None:
        self.act: Callable[[int], None] | None = None
        self.count = 0
        self.event = ""

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        act = self.act
        if act is None or event not in ("open", "os.listdir", "os.scandir", "os.rmdir", "os.remove", "os.chmod"):
            return
        self.act, self.event = None, event
        self.count += 1
        act(self.count)
        self.act = act


MOMENTS = _Moments()
sys.addaudithook(MOMENTS)


@contextlib.contextmanager
def acting(act: Callable[[int], None]) -> Iterator[None]:
    MOMENTS.count, MOMENTS.act = 0, act
    try:
        yield
    finally:
        MOMENTS.act = None


def at_every_moment(scene: Scene, work: Callable[[], object], check: Callable[[], None], lengths: range) -> None:
    """Exchange before call `first`, and back `length` calls later; for every `first`."""
    for length in lengths:
        first = 1
        while True:
            scene.build()
            swaps = (first, first + length)
            with (
                acting(lambda n, swaps=swaps: scene.swap() if n in swaps else None),
                contextlib.suppress(PerdureError, OSError),
            ):  # type: ignore[misc]
                work()
            check()
            if MOMENTS.count < first:
                break
            first += 1
        assert first > 3  # the walk was seen


def swapped_by_another_process(scene: Scene) -> subprocess.Popen[bytes]:
    code = (
        "import ctypes, sys\nswap = ctypes.CDLL(None).renameat2\n"
        "one, other = (each.encode() for each in sys.argv[1:])\n"
        "print(flush=True)\nwhile True: swap(-100, one, -100, other, 2)"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, str(scene.top / "sub"), str(scene.at / "link")], stdout=subprocess.PIPE
    )


@contextlib.contextmanager
def exchanging(scene: Scene) -> Iterator[None]:
    process = swapped_by_another_process(scene)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield
    finally:
        process.kill()
        process.communicate()


class Sent:
    """A bucket of a pod, in memory."""

    url = "memory"

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def put(self, key: str, data: bytes) -> None:
        self.objects[key] = data

    def send(self, path: str, key: str) -> tuple[bytes, int]:
        with open(path, "rb") as stream:
            data = stream.read()
        self.objects[key] = data
        return hashlib.sha256(data).digest(), len(data)


BUCKET = Sent()


def takes_a_directory(scene: Scene) -> object:
    return Dir.from_local(scene.top)


def sends_a_directory(scene: Scene) -> object:
    return Dir.from_local(scene.top, f"file://{scene.at}/sent/")


def takes_outputs(form: Any, name: str) -> Callable[[Scene], object]:
    def take(scene: Scene) -> object:
        where = scene.at if name == "top" else scene.top
        return Interface({}, {name: form}, files=ContainerFiles()).collect(str(where))

    return take


def uploads_outputs(scene: Scene) -> object:
    return tree.upload(str(scene.top), BUCKET)  # type: ignore[arg-type]


WALKS: dict[str, Callable[[Scene], object]] = {
    "a directory of the user's": takes_a_directory,
    "a directory for a URL": sends_a_directory,
    "an output directory": takes_outputs(Dir, "sub"),
    "a directory in an output directory": takes_outputs(Dir, "top"),
    "a dict of outputs": takes_outputs(dict[str, File | Dir], "sub"),
    "a pod's outputs": uploads_outputs,
}


def refuse_leaks(scene: Scene) -> Callable[[], None]:
    sent = scene.at / "sent"

    def check() -> None:
        assert not leaked()
        assert not [path for path in sent.rglob("*") if path.is_file() and SECRET in path.read_bytes()]
        assert not [key for key, data in BUCKET.objects.items() if SECRET in data]

    return check


@pytest.mark.parametrize("walk", WALKS)
def test_nothing_from_outside_is_stored_whenever_the_exchange_happens(scene: Scene, walk: str) -> None:
    BUCKET.objects.clear()
    at_every_moment(scene, lambda: WALKS[walk](scene), refuse_leaks(scene), range(1, 4))


@pytest.mark.parametrize("walk", WALKS)
def test_nothing_from_outside_is_stored_while_another_process_exchanges(scene: Scene, walk: str) -> None:
    BUCKET.objects.clear()
    until = time.monotonic() + 2
    with exchanging(scene):
        while time.monotonic() < until:
            with contextlib.suppress(PerdureError, OSError):
                WALKS[walk](scene)
    refuse_leaks(scene)()


def test_a_file_that_was_another_one_at_the_look_is_not_stored(scene: Scene) -> None:
    """The file's own directory is exchanged and put back: its state before and after is the same."""
    path = scene.top / "sub" / "file"
    at_every_moment(scene, lambda: File.from_local(path), lambda: None, range(1, 2))
    scene.build()
    with acting(lambda n: scene.swap() if n in (1, 2) else None):
        taken = File.from_local(path)
    assert taken.open().read() in (b"inside", SECRET)  # a path that the user names is followed, and taken once
    assert len(taken.open().read()) == taken.size


def test_removal_removes_and_changes_nothing_outside(scene: Scene) -> None:
    """Also where a closed directory is opened for its owner first."""
    kept = scene.outside / "more" / "file"

    def check() -> None:
        assert (scene.outside / "file").read_bytes() == SECRET
        assert kept.read_bytes() == SECRET + b"!"
        assert stat.S_IMODE(os.stat(scene.outside).st_mode) == mode

    mode = stat.S_IMODE(os.stat(scene.outside).st_mode)
    at_every_moment(scene, lambda: remove_tree(str(scene.top)), check, range(1, 4))
    until = time.monotonic() + 2
    while time.monotonic() < until:
        scene.build()
        with exchanging(scene), contextlib.suppress(OSError):
            remove_tree(str(scene.top))
        check()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can play another user")
@pytest.mark.parametrize("closed", ["sub", "top"])
def test_removal_opens_up_no_directory_outside(closed: str) -> None:
    """A closed directory is opened for its owner first; a link in its place leads to another closed directory."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        link, outside, top = (os.path.join(folder, name) for name in ("link", "outside", "top"))

        def stays_closed() -> bool:
            os.makedirs(os.path.join(top, "sub"))
            os.mkdir(outside, 0o500)
            os.symlink(outside, link)
            target = top if closed == "top" else os.path.join(top, "sub")
            os.chmod(target, 0o300)  # may be moved, and not be read
            events: list[str] = []

            def act(event: int) -> None:
                if MOMENTS.event == "os.chmod" and not events:
                    events.append("swapped")
                    exchange(target, link)

            with acting(act), contextlib.suppress(OSError):
                remove_tree(top)
            return bool(events) and stat.S_IMODE(os.stat(outside).st_mode) == 0o500

        assert as_ordinary_user(stays_closed)


def test_a_download_writes_nothing_outside(scene: Scene) -> None:
    folder = Dir.from_local(scene.top)

    def check() -> None:
        assert (scene.outside / "file").read_bytes() == SECRET
        assert sorted(os.listdir(scene.outside)) == ["file", "more"]
        assert os.listdir(scene.outside / "more") == ["file"]

    at_every_moment(scene, lambda: folder.download(scene.top), check, range(1, 4))
    until = time.monotonic() + 2
    scene.build()
    with exchanging(scene):
        while time.monotonic() < until:
            with contextlib.suppress(PerdureError, OSError):
                folder.download(scene.top)
    check()


def test_the_look_whether_outputs_are_readable_stays_inside(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place("k", str(scene.at))
    assert place.outputs == str(scene.at / "outputs")
    os.rename(scene.top, place.outputs)
    scene.top = Path(place.outputs)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    seen: list[object] = []
    plain = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path=".": seen.extend(plain(path)) or plain(path))
    with acting(lambda n: scene.swap() if n == 2 else None):
        place.is_readable()
    assert seen.count("file") <= 2
