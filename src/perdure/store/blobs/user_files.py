"""Files of users: looked at, read while they may change, hashed, many at once.

The common part of every path from a user's file into the store, and the errors of such paths.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Final, TypeVar

from perdure.core.ground.clock import wall
from perdure.core.ground.ports import FilePlace
from perdure.errors import PerdureError, UsageError

T = TypeVar("T")
R = TypeVar("R")

CHUNK: Final = 1 << 20
TRIES: Final = 5
"""How often a file that changes during reading is read again."""
THREADS: Final = 16
"""Files at work at once. A small file mostly waits for its fsync, and a file system commits several in one."""


def check_name(name: str) -> None:
    """Refuse a text that is not the name of one file in a directory.

    Raises:
        UsageError: the name is empty, too long, holds a separator, or means a directory.
    """
    try:
        fits = 0 < len(os.fsencode(name)) <= 255 and name not in (".", "..") and "/" not in name and "\0" not in name
    except (TypeError, UnicodeEncodeError):
        fits = False
    if not fits:
        raise UsageError(f"{name!r} is not the name of a file: name one without a directory, up to 255 bytes")


def signature(found: os.stat_result) -> tuple[int, ...]:
    """The marks by which a change of a file or directory shows."""
    return found.st_dev, found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def settled(fd: int) -> os.stat_result | None:
    """The state of an open file or directory, in which any later change will show; `None` while the file is changing.

    The kernel stamps files with its tick. A file that changes twice within a tick shows the same times after both
    changes, so a file that has just changed is looked at again a tick later.
    """
    found = os.fstat(fd)
    tick, age = _tick(), _age(found)
    # Times in the future (a clock that was set back) cannot be waited for.
    if 0 <= age <= tick:
        time.sleep((tick - age) / 1e9 + 0.0002)
        found = os.fstat(fd)
        if 0 <= _age(found) <= tick:
            return None
    return found


def _age(found: os.stat_result) -> int:
    return wall() * 1000 - max(found.st_mtime_ns, found.st_ctime_ns)


def _tick() -> int:
    clock = getattr(time, "CLOCK_REALTIME_COARSE", None)
    return 10_000_000 if clock is None else round(time.clock_getres(clock) * 1e9)


def opened(source: FilePlace) -> int:
    """A descriptor of a regular file: of a path with links followed, or of a file in an open tree.

    Raises:
        UsageError: there is no regular file. A device is not opened, as that may have effects.
    """
    with reading(str(source)):
        refuse_special(str(source), os.stat(source) if isinstance(source, str) else source.tree.state(source.name))
        if isinstance(source, str):
            # Not blocking, should a FIFO have taken the file's place just now.
            fd = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        else:
            fd = source.tree.open(source.name)
    try:
        refuse_special(str(source), os.fstat(fd))
    except BaseException:
        os.close(fd)
        raise
    return fd


_KINDS: Final[tuple[tuple[Callable[[int], bool], str], ...]] = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def refuse_special(path: str, found: os.stat_result) -> None:
    """Raise `UsageError` unless the path is a regular file."""
    if not stat.S_ISREG(found.st_mode):
        kind = next((text for test, text in _KINDS if test(found.st_mode)), "no regular file")
        remedy = "use Dir.from_local" if kind == "a directory" else "copy what comes out of it to a file first"
        raise UsageError(f"{path} is {kind}, and only the content of files can be stored: {remedy}")


def reading(path: str) -> AbstractContextManager[None]:
    """Failures to read a path of the user, as `UsageError`."""

    def told(error: OSError) -> Exception:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return UsageError(f"{path} does not exist: check the path (it is relative to {_here()})")
        return UsageError(f"{path} cannot be read ({error.strerror}): check its permissions and its disk")

    return Translated(told)


def writing(path: str) -> AbstractContextManager[None]:
    """Failures to write to a path of the user, as `UsageError`."""
    return Translated(lambda error: UsageError(f"{path} cannot be written ({error.strerror}): name another place"))


def _here() -> str:
    try:
        return os.getcwd()
    except OSError:
        return "a directory that was removed"


class Translated:
    """Raises the error that `told` makes of an `OSError`. A class, since each file passes through several."""

    __slots__ = ("told",)

    def __init__(self, told: Callable[[OSError], Exception]) -> None:
        self.told = told

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, OSError) and not isinstance(error, PerdureError):
            raise self.told(error) from error


def digest(fd: int) -> tuple[str, int]:
    """The hash and size of an open file."""
    hasher = hashlib.sha256()
    total = 0
    view = memoryview(bytearray(CHUNK))
    while count := os.preadv(fd, [view], total):
        hasher.update(view[:count])
        total += count
    return hasher.hexdigest(), total


def each(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """`work` on each item, several at once, the answers in order. The first failure is raised; no work begins after a
    failure."""
    if len(items) < 2:
        return [work(item) for item in items]
    from concurrent.futures import ThreadPoolExecutor

    answers: list[R] = []
    with ThreadPoolExecutor(min(THREADS, len(items)), "perdure-blobs") as pool:
        for batch in _batches(items, 1024):  # so that a million files do not become a million futures
            answers.extend(pool.map(work, batch))
    return answers


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))
