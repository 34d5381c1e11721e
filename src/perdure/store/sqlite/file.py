"""A store's file and the connections to it: creation, identity, migrations, waiting for locks, errors, forks."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, Literal, TypeVar
from urllib.parse import quote

from perdure.core.ground.clock import perf
from perdure.core.ground.private import make_private, sync_folder
from perdure.errors import ForeignStoreError, RowDamagedError, StoreError, StoreUnavailableError, StoreVersionError

from .._sql import migrations, queries
from .errors import REPAIR, is_busy, moved, read_only, translate

T = TypeVar("T")

APPLICATION_ID: Final = 0x70657264  # "perd"; see https://www.sqlite.org/fileformat.html#application_id
MIGRATIONS: Final = (
    "0001_initial.sql",
    "0002_messages.sql",
    "0003_cancelling_and_tags.sql",
    "0004_published.sql",
    "0005_paused_schedules.sql",
    "0006_streamed.sql",
    "0007_paused.sql",
    "0008_runs_of_a_task.sql",
    "0009_queues.sql",
    "0010_submissions.sql",
    "0011_paused_tasks.sql",
    "0012_limits.sql",
    "0013_carried.sql",
    "0014_notices.sql",
    "0015_refusals.sql",
    "0016_serving.sql",
)
VERSION: Final = len(MIGRATIONS)

_FIRST_PAUSE: Final = 0.0002
_LONGEST_PAUSE: Final = 0.005

_creating = threading.Lock()
_links: weakref.WeakSet[SQLiteLink] = weakref.WeakSet()


# Paths that were open in the parent when the process was forked, see below.
_inherited: set[str] = set()


def _after_fork_in_child() -> None:
    # A connection that a fork copied must not even be closed: SQLite would roll back in memory shared with the parent,
    # or take the child for the last user and remove the WAL. An extra reference to the cursor (which refers to the
    # connection) is never given back and prevents the close by garbage collection and interpreter exit. Nor may a
    # forked child open the file again: SQLite keeps lock state per process, and the copied state claims the parent's
    # locks. https://www.sqlite.org/howtocorrupt.html, 2.6
    global _creating
    _creating = threading.Lock()
    for link in list(_links):
        link.forked = True
        if link.cursor is not None:
            _inherited.add(link.path)
            with suppress(ImportError):
                import ctypes

                ctypes.pythonapi.Py_IncRef(ctypes.py_object(link.cursor))


os.register_at_fork(after_in_child=_after_fork_in_child)


class StoreFile:
    """The path of a store's file, the creation of the file, and checks that the file is still in place."""

    def __init__(self, path: str | os.PathLike[str], busy_timeout: float) -> None:
        # SQLite follows links too, and names -wal and -shm after the real file.
        self.path: Final = os.path.realpath(path)
        self.busy_timeout: Final = busy_timeout
        self.gone: str | None = None
        """Why the file must not be used for now; `None` if the file may be used."""
        self._inode: tuple[int, int] | None = None

    def create(self) -> None:
        """Create an empty file if there is none, closed to other users; SQLite gives -wal and -shm the same mode."""
        if self.path in _inherited:
            raise StoreUnavailableError(
                f"{self.path} was open when this process was forked, and SQLite cannot open it again in a copy: "
                f"start processes by spawn, or open the store after the fork only"
            )
        parent = os.path.dirname(self.path)
        try:
            # The lock: closing a descriptor drops all locks of SQLite on the file in the whole process, so no other
            # thread may open the database between the check and the close.
            with _creating:
                if os.path.exists(self.path):
                    return
                if os.path.basename(parent) == ".perdure" and not os.path.isdir(parent):
                    make_private(parent)
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            pass
        except OSError as error:
            raise translate(error, self.path, waited=0) from error

    def connect(self) -> sqlite3.Connection:
        # mode=rw: a file that went away is not silently replaced by an empty file. Several threads use the connection,
        # one at a time. SQLite's busy handler backs off to 100 ms and is unfair; `SQLiteLink` waits instead.
        mode = "rw"
        if not self._is_writable():
            # Without a WAL nothing changes the file, and SQLite needs no files beside it to read it.
            mode = "ro" if _size(f"{self.path}-wal") else "ro&immutable=1"
        return sqlite3.connect(
            f"file:{quote(os.fsencode(self.path))}?mode={mode}",
            uri=True,
            timeout=0,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=64,
        )

    def _is_writable(self) -> bool:
        return os.access(self.path, os.W_OK) and os.access(os.path.dirname(self.path), os.W_OK)

    def prepare(self, cursor: sqlite3.Cursor) -> str:
        """Check that the file is a store (or empty), bring its schema up to date, and return the store's id.

        A store that this user may only read is left as it is: looking works, and the first write is refused.
        """
        version = self._version(cursor)
        if not self._is_writable():
            if version < VERSION:
                raise StoreUnavailableError(read_only(self.path))
            return self._store_id(cursor)
        (mode,) = cursor.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StoreUnavailableError(
                f"{self.path} lies on a file system without the shared memory that WAL needs: use a local disk"
            )
        while version < VERSION:
            cursor.execute("BEGIN IMMEDIATE")
            # Another process may have been faster.
            version = self._version(cursor)
            for step in migrations("sqlite", MIGRATIONS)[version : version + 1]:
                for statement in step.statements:
                    cursor.execute(statement)
                if version == 0:
                    cursor.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                    cursor.execute(queries("sqlite")["insert_meta"], ("store_id", os.urandom(16).hex()))
                    self._sync_names()
                version = step.version
                cursor.execute(f"PRAGMA user_version = {version}")
            cursor.execute("COMMIT")
        return self._store_id(cursor)

    def _sync_names(self) -> None:
        """Sync the names of the file and of its directory, before any process can find a schema and rely on the file:
        SQLite syncs the names of the files that SQLite makes, and the process that has made these may have died."""
        parent = os.path.dirname(self.path)
        try:
            sync_folder(parent)
            if os.path.basename(parent) == ".perdure":
                sync_folder(os.path.dirname(parent))
        except OSError as error:
            raise translate(error, self.path, waited=0) from error

    def _store_id(self, cursor: sqlite3.Cursor) -> str:
        row = cursor.execute(queries("sqlite")["meta"], ("store_id",)).fetchone()
        if row is None:
            raise StoreError(f"{self.path} has lost its store id: restore it from a backup")
        self._inode = _inode(self.path)
        return str(row[0])

    def look(self) -> None:
        """Check that the path still names the opened file. SQLite does not check: writes to a moved or removed file
        would be lost (https://www.sqlite.org/howtocorrupt.html, 4.2).

        Raises:
            StoreUnavailableError: the file is gone, and no connection may be used until the file is back.
        """
        inode = _inode(self.path)
        gone = None if inode == self._inode else moved(self.path, replaced=inode is not None)
        self.gone = gone
        if gone is not None:
            raise StoreUnavailableError(gone)

    def _version(self, cursor: sqlite3.Cursor) -> int:
        # One statement reads one snapshot: between two statements another process may make the file a store.
        application, version, tables = cursor.execute(
            "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master) "
            "FROM pragma_application_id, pragma_user_version"
        ).fetchone()
        if application != APPLICATION_ID and (application or version or tables):
            raise ForeignStoreError(f"{self.path} is a SQLite database of another program: name another file")
        if version > VERSION:
            raise StoreVersionError(
                f"{self.path} was written by a newer perdure (schema {version}, this one knows up to {VERSION}): "
                f"upgrade perdure, or name another file"
            )
        return int(version)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _inode(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _changes(sql: str, row: Sequence[Any], cursor: sqlite3.Cursor) -> bool:
    return cursor.execute(sql, row).rowcount == 1


class _Damaged(bytes):
    """Text of a cell that is not UTF-8."""


def _text(data: bytes) -> str | _Damaged:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return _Damaged(data)


def _whose(columns: list[str], cells: Sequence[Any]) -> str:
    if columns[0] == "run" or "uid" in columns:
        return f"run number {cells[0]}"
    return f"the row with {columns[0]} {cells[0]!r}"


class SQLiteLink:
    """One connection, opened at first use, for one thread at a time.

    A failure is rolled back before the error is raised, so the connection stays usable. While another process or
    connection holds SQLite's lock, the call is retried until the busy timeout.
    """

    def __init__(self, file: StoreFile, *, synchronous: Literal["FULL", "NORMAL"], read_only: bool = False) -> None:
        self.path: Final = file.path
        self._file = file
        self._synchronous = synchronous
        self._read_only = read_only
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self.forked = False
        """This process is a forked child, and the connection is its parent's."""
        self._closed = False
        _links.add(self)
        self.connection: sqlite3.Connection | None = None
        self.cursor: sqlite3.Cursor | None = None

    def change(self, sql: str, row: Sequence[Any]) -> bool:
        """Run one statement as a transaction; whether a row was changed."""
        return self.run(partial(_changes, sql, row))

    def rows(self, sql: str, row: Sequence[Any]) -> list[tuple[Any, ...]]:
        """All rows of a query.

        Raises:
            RowDamagedError: text in a row is not UTF-8; the error names run and column and has the other rows.
        """
        try:
            return self.run(lambda cursor: cursor.execute(sql, row).fetchall())
        except RowDamagedError:
            return self.run(lambda cursor: self._rows_but_damaged(cursor, sql, row))

    def _rows_but_damaged(self, cursor: sqlite3.Cursor, sql: str, row: Sequence[Any]) -> list[tuple[Any, ...]]:
        cursor.connection.text_factory = _text
        try:
            found = cursor.execute(sql, row).fetchall()
        finally:
            cursor.connection.text_factory = str
        columns = [column[0] for column in cursor.description]
        faults = [
            f"{_whose(columns, cells)}, column {column}: {bytes(cell)!r} is not UTF-8"
            for cells in found
            for column, cell in zip(columns, cells, strict=True)
            if isinstance(cell, _Damaged)
        ]
        if faults:
            good = [cells for cells in found if not any(isinstance(cell, _Damaged) for cell in cells)]
            raise RowDamagedError(f"{self.path} is damaged: {'; '.join(faults)}; {REPAIR}", good)
        return found

    def transaction(self, work: Callable[[sqlite3.Cursor], T]) -> T:
        """Do the work in one transaction with the write lock from the beginning. The work may run more than once."""

        def whole(cursor: sqlite3.Cursor) -> T:
            cursor.execute("BEGIN IMMEDIATE")
            answer = work(cursor)
            cursor.execute("COMMIT")
            return answer

        return self.run(whole)

    def run(self, work: Callable[[sqlite3.Cursor], T]) -> T:
        """Do the work, all or nothing. The work may run more than once."""
        if self.forked:
            # Before the lock: a fork may have copied the lock while a thread of the parent held the lock.
            raise StoreUnavailableError(
                f"the store {self._file.path} was opened by process {self._pid} and cannot be used in its forked child "
                f"{os.getpid()}: start processes by spawn, or open the store after the fork only"
            )
        if self._file.gone is not None:
            raise StoreUnavailableError(self._file.gone)
        # No `with`, which takes twice as long as the lock itself.
        self._lock.acquire()
        try:
            return work(self.cursor or self._open())
        except BaseException as error:
            self._roll_back()
            if not is_busy(error):
                self._raise(error)
            return self._run_when_free(work)
        finally:
            self._lock.release()

    def _run_when_free(self, work: Callable[[sqlite3.Cursor], T]) -> T:
        since = perf()
        pause = _FIRST_PAUSE
        while True:
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE)
            try:
                return work(self.cursor or self._open())
            except BaseException as error:
                self._roll_back()
                if not is_busy(error) or perf() - since > self._file.busy_timeout * 1e9:
                    self._raise(error)

    def _raise(self, error: BaseException) -> None:
        if isinstance(error, Exception):
            other = translate(error, self._file.path, waited=self._file.busy_timeout)
            if other is not error:
                raise other from error
        raise error

    def _open(self) -> sqlite3.Cursor:
        if self._closed:
            raise StoreUnavailableError(f"the store {self._file.path} is closed")
        connection = self._file.connect()
        try:
            cursor = connection.cursor()
            cursor.execute(f"PRAGMA synchronous = {self._synchronous}")
            cursor.execute("PRAGMA fullfsync = 1")  # macOS; elsewhere without effect
            cursor.execute("PRAGMA checkpoint_fullfsync = 1")
            cursor.execute("PRAGMA trusted_schema = 0")
            cursor.execute("PRAGMA temp_store = MEMORY")
            cursor.execute("PRAGMA cache_size = -16000")
            # Checkpoints stay at SQLite's default of 1,000 pages. Measured: with a longer WAL a new store loses more
            # (a commit that grows the file syncs metadata too) than rarer checkpoints give back.
            cursor.execute(f"PRAGMA query_only = {int(self._read_only)}")
        except BaseException:
            connection.close()
            raise
        self.connection = connection
        self.cursor = cursor
        return cursor

    def _roll_back(self) -> None:
        if self.connection is None or not self.connection.in_transaction:
            return
        try:
            self.connection.execute("ROLLBACK")
        except sqlite3.Error:
            # Closing rolls back as well; the next call opens a new connection.
            connection, self.connection, self.cursor = self.connection, None, None
            connection.close()

    def checkpoint(self) -> None:
        """Copy what the WAL holds into the database, as far as other processes allow: a file that is copied later than
        that, without its -wal, then lacks as little as possible."""
        if not self.forked and self.connection is not None:
            with self._lock, suppress(sqlite3.Error):
                if self.connection is not None:
                    self.connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def close(self) -> None:
        """Close the connection after the current call. Idempotent; other processes cannot make the close fail."""
        if self.forked:
            self._closed = True
            return
        with self._lock:
            self._closed = True
            connection, self.connection, self.cursor = self.connection, None, None
            if connection is not None:
                # The last connection copies the WAL into the database. Where the copy fails, the WAL stays and the next
                # process reads the WAL.
                try:
                    connection.close()
                except sqlite3.Error:
                    pass
