"""The copy of a database that is in use: one moment of it, on disk, under the new name only when complete."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress

from perdure.core.ground.private import sync_folder
from perdure.errors import UsageError

from .errors import translate
from .file import SQLiteLink, StoreFile


def copy_database(file: StoreFile, to: str, verify: Callable[[str], None]) -> None:
    """Copy the database to a new file while other processes write. The new file is private to its owner.

    The copy is written to `<to>.part`, which a killed process leaves behind and the next copy replaces. The name `to`
    appears last, as a link, so that no existing file is overwritten and no partial copy has that name. From then on the
    copy is complete, even where `<to>.part` cannot be removed.

    Args:
        verify: looks at the copy before the copy is named, and raises an error for a copy with problems.

    Raises:
        UsageError: there is a file already, another process writes the same copy, or the directory cannot be written.
        StoreError: the database cannot be read, or the copy cannot be written.
    """
    part = f"{to}.part"
    try:
        if os.path.lexists(to):
            raise FileExistsError(0, "File exists")
        lock = _own(part)
    except BlockingIOError:
        raise UsageError(f"no backup can be written to {to}: another process writes {part}") from None
    except OSError as error:
        raise UsageError(f"no backup can be written to {to}: {error.strerror}") from error
    beside = [f"{part}-{kind}" for kind in ("journal", "wal", "shm")]
    try:
        _remove(*beside)
        try:
            _copy(file, part)
            verify(part)
            _name(part, to)
        except BaseException:
            _remove(part, *beside)
            raise
        with suppress(OSError):
            _remove(part, *beside)
    except FileExistsError as error:
        raise UsageError(f"no backup can be written to {to}: {error.strerror}") from error
    except (OSError, sqlite3.Error) as error:
        raise translate(error, to, waited=0) from error
    finally:
        os.close(lock)


def _own(part: str) -> int:
    """Make an empty file that only this process writes, and give its descriptor, with a lock on it that is none of
    SQLite's and ends with this process.

    A process that was killed behind the naming has left the preliminary name as a second name of a whole copy, which
    may have been moved elsewhere since: that file keeps its content, and loses the preliminary name.

    Raises:
        BlockingIOError: another process has the file.
    """
    while True:
        lock = os.open(part, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = os.fstat(lock)
            # Another process may have named its copy, and taken the preliminary name away, since the file was opened.
            if _is_named(part, found):
                if found.st_nlink == 1:
                    os.ftruncate(lock, 0)
                    return lock
                os.unlink(part)
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)


def _is_named(path: str, file: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.lstat(path), file)
    except FileNotFoundError:
        return False


def _copy(file: StoreFile, part: str) -> None:
    link = SQLiteLink(file, synchronous="NORMAL", read_only=True)
    copy = sqlite3.connect(part)
    try:
        link.run(lambda cursor: cursor.connection.backup(copy))
        copy.execute("PRAGMA journal_mode = DELETE")
    finally:
        copy.close()
        link.close()


def _name(part: str, to: str) -> None:
    os.link(part, to)
    try:
        sync_folder(os.path.dirname(os.path.abspath(to)))
    except OSError:
        # Not on disk for sure: the caller gets the error, and the same command must be able to try again.
        _remove(to)
        raise


def _remove(*files: str) -> None:
    for file in files:
        with suppress(FileNotFoundError):
            os.unlink(file)
