"""SQLite's and the system's failures in one sentence each: which file, what happened, what to do."""

from __future__ import annotations

import errno
import os
import sqlite3
from typing import Final

from perdure.errors import ForeignStoreError, RowDamagedError, StoreError, StoreUnavailableError, UsageError

from .._posix_locks import UNSEEN, holder

# Bytes that SQLite locks to write: in the -shm file the WAL write lock; in the database file, while it is opened for
# the first time or by a tool in rollback mode, PENDING and RESERVED (not SHARED, which everybody has who opened it).
# https://www.sqlite.org/walformat.html#wal_locks and, in os_unix.c, unixShmLock and unixLock
_SHM_WRITE: Final = (120, 1)
REPAIR: Final = "restore the store from a backup, or put the value right with sqlite3"
_FILE_WRITE: Final = (0x40000000, 2)


def is_busy(error: BaseException) -> bool:
    """Another process or connection holds a lock: a retry may help."""
    return isinstance(error, sqlite3.OperationalError) and getattr(error, "sqlite_errorcode", 0) & 0xFF in (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
    )


def is_undecodable(error: BaseException) -> bool:
    """A cell of type TEXT holds bytes that are not UTF-8."""
    return isinstance(error, sqlite3.OperationalError) and "Could not decode to UTF-8" in str(error)


def translate(error: Exception, path: str, *, waited: float) -> Exception:
    """The error to raise in place of `error`, or `error` itself where it is no failure of the database."""
    if isinstance(error, UnicodeEncodeError):
        return UsageError(f"text that is not valid Unicode cannot be stored: {error.object!r}")
    if isinstance(error, OSError):
        return _from_system(error, path)
    if not isinstance(error, sqlite3.Error):
        return error
    if is_undecodable(error):
        return RowDamagedError(f"{path}: a row is damaged: {error}; {REPAIR}")
    if is_busy(error):
        return StoreUnavailableError(_locked(path, waited))
    code = getattr(error, "sqlite_errorcode", None)
    text = f"{path}: {error}"
    if code is None:
        return StoreError(text)
    extended: str = getattr(error, "sqlite_errorname", "")
    match code & 0xFF:
        case sqlite3.SQLITE_NOTADB:
            return ForeignStoreError(f"{path} is not a perdure store (not even a SQLite database): name another file")
        case sqlite3.SQLITE_FULL:
            return StoreUnavailableError(f"the disk of {path} is full: free some space, then carry on")
        case sqlite3.SQLITE_READONLY if not os.path.exists(path) or extended == "SQLITE_READONLY_DBMOVED":
            return StoreUnavailableError(moved(path))
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
            return StoreUnavailableError(read_only(path))
        case sqlite3.SQLITE_CANTOPEN:
            return StoreUnavailableError(_cannot_open(path))
        case sqlite3.SQLITE_CORRUPT:
            return StoreUnavailableError(
                f"{path} is damaged ({error}): restore it from a backup, or save what can be read with "
                f"`sqlite3 {path} .recover`"
            )
        case sqlite3.SQLITE_IOERR:
            return StoreUnavailableError(
                f"{path} cannot be read or written ({extended or error}): check the disk, its quota and the "
                f"file-size limit (`ulimit -f`), then carry on"
            )
        case sqlite3.SQLITE_TOOBIG:
            return StoreError(f"{path}: a value is larger than SQLite can hold: put large data in a File or Dir")
        case sqlite3.SQLITE_NOMEM:
            return StoreUnavailableError(f"{path}: SQLite ran out of memory: free some, then carry on")
    return StoreError(text)


def _from_system(error: OSError, path: str) -> Exception:
    parent = os.path.dirname(path)
    match error.errno:
        case errno.ENOENT:
            text = f"the directory {parent} of the store does not exist: create it, or name another file"
        case errno.ENOTDIR:
            text = f"{path} lies under something that is not a directory: name another file"
        case errno.EISDIR:
            text = f"{path} is a directory: name a file in it"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            text = read_only(path)
        case errno.ENOSPC | errno.EDQUOT:
            text = f"the disk of {path} is full: free some space, then carry on"
        case errno.EMFILE | errno.ENFILE:
            text = f"{path} cannot be opened, too many files are open: raise the limit (`ulimit -n`)"
        case _:
            text = f"{path} cannot be used: {error.strerror}"
    return StoreUnavailableError(text)


def read_only(path: str) -> str:
    """Why the file cannot be written, in a sentence."""
    parent = os.path.dirname(path)
    if os.path.exists(path) and not os.access(path, os.R_OK | os.W_OK):
        return f"{path} is not readable and writable for this user: change its permissions, or name another file"
    if not os.access(parent, os.W_OK | os.X_OK):
        return (
            f"the directory {parent} is not writable for this user, and SQLite keeps files beside {path}: change its "
            f"permissions, or name a file elsewhere"
        )
    return f"{path} is read-only: make it and the files beside it writable, or name another file"


def moved(path: str, *, replaced: bool = False) -> str:
    """That the file is no longer where it was, in a sentence."""
    if replaced:
        return f"{path} was replaced by another file while in use: put the old one back, or start this process again"
    return f"{path} was moved or deleted while in use: put it back, then carry on"


def _cannot_open(path: str) -> str:
    parent = os.path.dirname(path)
    if os.path.isdir(path):
        return f"{path} is a directory: name a file in it"
    if not os.path.isdir(parent):
        return f"the directory {parent} of the store does not exist: create it, or name another file"
    if not os.path.exists(path):
        return moved(path)
    if not os.access(path, os.R_OK | os.W_OK) or not os.access(parent, os.W_OK | os.X_OK):
        return read_only(path)
    return f"{path} cannot be opened: check the files beside it and the limit of open files (`ulimit -n`)"


def _locked(path: str, waited: float) -> str:
    what = f"{path} has been locked by another writer for more than {waited:g} s"
    pid = _writer(path)
    if pid is None:
        return f"{what}: end the other programs that have it open, or try again later"
    if pid == UNSEEN:
        return f"{what}, a process in another container or pid namespace: end or continue it there"
    if _is_stopped(pid):
        return f"{what}, process {pid}, which is stopped inside a commit: continue it (`kill -CONT {pid}`) or end it"
    return f"{what}, process {pid}: wait for it or end it"


def _writer(path: str) -> int | None:
    """The pid of the process that holds the write lock, where it can be told."""
    for file, place in ((path + "-shm", _SHM_WRITE), (path, _FILE_WRITE)):
        # Only through a descriptor that SQLite has open already: one of our own would, when closed, drop SQLite's
        # locks on that file (https://www.sqlite.org/howtocorrupt.html, 2.2).
        fd = _descriptor(file)
        if fd is not None and (pid := holder(fd, *place)) is not None:
            return pid
    return None


def _descriptor(file: str) -> int | None:
    try:
        wanted = os.stat(file)
        numbers = os.listdir("/dev/fd")
    except OSError:
        return None
    for number in numbers:
        try:
            if os.path.samestat(os.fstat(int(number)), wanted):
                return int(number)
        except OSError:
            continue
    return None


def _is_stopped(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b") ")[2][:1] in (b"T", b"t")
    except OSError:
        return False
