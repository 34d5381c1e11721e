"""A lock per worker, released by the system at every end of the worker's process: the fastest way to learn of a death.

Each worker holds a POSIX record lock (`fcntl.lockf`) on `<directory>/<worker>.lock`. Unlike `flock` such a lock belongs
to the process and not to the descriptor, so a forked child that outlives the worker does not keep the lock. The lock is
valid for the whole machine, across pid namespaces (containers included, if they share the directory).

Two traps of such locks decide the design of this module: closing *any* descriptor of the file drops the lock, and a
process finds its own locks free. So a module-wide table holds the locks of this process, and no file in the table is
ever opened again.
"""

from __future__ import annotations

import fcntl
import os
import re
import threading
import time
from contextlib import suppress
from typing import Final

from perdure.core.ground.clock import seconds
from perdure.core.ground.ports import Hold
from perdure.core.ground.private import make_private
from perdure.errors import StoreUnavailableError, UsageError

from ._posix_locks import holder, is_stopped

SWEEP_SECONDS: Final = 0.5
"""How long a sweep may hold the lock of another worker while removing the file."""

_SUFFIX: Final = ".lock"
_WORKER: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")

_table_lock = threading.Lock()
# Path of a lock file to the process that holds it here and its descriptor. A forked child inherits the table but not
# the locks; the pid tells them apart.
_table: dict[str, tuple[int, int]] = {}


def _after_fork_in_child() -> None:
    # Some other thread of the parent may have held the lock at the moment of the fork.
    global _table_lock
    _table_lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork_in_child)


class FileLiveness:
    """A `Liveness` through lock files in one directory of this host.

    A worker without a file counts as dead if the directory exists: a worker takes its lock before other processes hear
    of the worker, and only `drop`, or a sweep that found the lock free, removes a file. Without the directory no answer
    is possible. Ask only about workers of this directory (of this host). Trust the answer with a compare-and-set claim
    alone: its token fences a worker that was taken for dead by mistake.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._directory: Final = os.path.realpath(directory)

    def hold(self, worker: str) -> None:
        path = self._path(worker)
        if path is None:
            raise UsageError(f"a worker's id is made of letters, digits and _.-, at most 128: not {worker!r}")
        try:
            make_private(self._directory)
            with _table_lock:
                if self._is_own(path):
                    raise UsageError(f"worker {worker} is already held by this process")
                fd = _create_locked(path)
                if fd is None:
                    raise UsageError(f"worker {worker} is already held by another process")
                _table[path] = os.getpid(), fd
        except OSError as error:
            raise StoreUnavailableError(f"{path} cannot be locked ({error.strerror}): check its directory") from error
        self.sweep()

    def drop(self, worker: str) -> None:
        path = self._path(worker)
        with _table_lock:
            if path is None or not self._is_own(path):
                return
            _, fd = _table.pop(path)
            # First the name, then the lock: only a dead worker's file can be confused with this one.
            with suppress(OSError):
                os.unlink(path)
            os.close(fd)

    def doubts(self, worker: str) -> bool:
        return False  # a free lock means a dead process, at once

    def is_dead(self, worker: str) -> bool:
        return self.hold_of(worker) is Hold.FREE

    def hold_of(self, worker: str) -> Hold:
        path = self._path(worker)
        if path is None:
            return Hold.UNKNOWN
        with _table_lock:
            if self._is_own(path):
                return Hold.AT_WORK
            try:
                fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                return Hold.FREE if os.path.isdir(self._directory) else Hold.UNKNOWN
            except OSError:
                return Hold.UNKNOWN
            try:
                pid = holder(fd)
            except OSError:
                return Hold.UNKNOWN
            finally:
                os.close(fd)
        if pid is None:
            return Hold.FREE
        return Hold.KEPT if is_stopped(pid) else Hold.AT_WORK

    def sweep(self) -> None:
        """Remove the files of dead workers, which count as dead before and after."""
        try:
            names = os.listdir(self._directory)
        except OSError:
            return
        for name in names:
            path = os.path.join(self._directory, name)
            if not name.endswith(_SUFFIX):
                continue
            with _table_lock:
                if not self._is_own(path):
                    with suppress(OSError):
                        _remove_if_free(path)

    def _path(self, worker: str) -> str | None:
        # Ids come from the database, whose writer must not choose the files to open here.
        if not _WORKER.fullmatch(worker):
            return None
        return os.path.join(self._directory, worker + _SUFFIX)

    @staticmethod
    def _is_own(path: str) -> bool:
        own = _table.get(path)
        return own is not None and own[0] == os.getpid()


def _create_locked(path: str) -> int | None:
    """A descriptor of the file with its lock held; `None`: another process keeps the lock."""
    until = seconds() + SWEEP_SECONDS
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(fd, path):
                return fd
            # A sweep removed the file between opening and locking.
            os.close(fd)
        except (BlockingIOError, PermissionError):  # depends on the system
            taken = _is_at(fd, path) and holder(fd) is not None
            os.close(fd)
            if taken:
                # A sweep that saw the file before the lock takes the lock for a moment, and then removes the file.
                if seconds() > until:
                    return None
                time.sleep(0.001)
        except BaseException:
            os.close(fd)
            raise


def _remove_if_free(path: str) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The name may belong to a new file by now, if another sweep was faster.
        if _is_at(fd, path):
            os.unlink(path)
    finally:
        os.close(fd)


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False
