"""A store's file and the connections to it: creation, identity, migrations, waiting for locks, errors, forks."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, Literal, TypeVar
from urllib.parse import quote

from perdure.core.ground.clock import perf
from perdure.errors import ForeignStoreError, RowDamagedError, StoreError, StoreUnavailableError, StoreVersionError

from .._sql import migrations, queries
from .errors import REPAIR, is_busy, moved, read_only, translate

T = TypeVar("T")

APPLICATION_ID: Final = 0x70657264  # "perd"; see https://www.sqlite.org/fileformat.html#application_id
MIGRATIONS: Final = ("0001_initial.sql",)
VERSION: Final = len(MIGRATIONS)

_FIRST_PAUSE: Final = 0.0002
_LONGEST_PAUSE: Final = 0.005

_creating = threading.Lock()
_links: weakref.WeakSet[Link] = weakref.WeakSet()


# Files that were open here when this process was forked, see below.
_inherited: set[str] = set()


def _after_fork_in_child() -> None:
    # A connection that a fork copied must not even be closed: SQLite would roll back in the memory that it shares with
    # the parent, or take itself for the last user and remove the WAL. One reference more to the cursor (which refers to
    # its connection), never given back, keeps the garbage collector and the interpreter's end from doing so. Nor may
    # the file be opened again here: SQLite keeps the state of a file's locks per process, and the copy of it says that
    # the parent's are ours.
    # https://www.sqlite.org/howtocorrupt.html, 2.6
    global _creating
    _creating = threading.Lock()
    for link in list(_links):
        if link.cursor is not None:
            _inherited.add(link.path)
            with suppress(ImportError):
                import ctypes

                ctypes.pythonapi.Py_IncRef(ctypes.py_object(link.cursor))


os.register_at_fork(after_in_child=_after_fork_in_child)


class StoreFile:
    """Where a store's file is, and how it becomes one."""

    def __init__(self, path: str | os.PathLike[str], busy_timeout: float) -> None:
        # SQLite follows links too, and names the files beside the database after the real one.
        self.path: Final = os.path.realpath(path)
        self.busy_timeout: Final = busy_timeout
        self.gone: str | None = None
        """Why the file may not be used for now, if it may not."""
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
            # The lock: a descriptor that is closed drops SQLite's locks on that file in this process, so nobody here
            # may open the database between these two lines.
            with _creating:
                if os.path.exists(self.path):
                    return
                if os.path.basename(parent) == ".perdure" and not os.path.isdir(parent):
                    try:
                        os.mkdir(parent, 0o700)
                    except FileExistsError:
                        pass
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            pass
        except OSError as error:
            raise translate(error, self.path, waited=0) from error

    def connect(self) -> sqlite3.Connection:
        # mode=rw: a file that went away is not silently replaced by an empty one. Other threads use the connection,
        # one at a time. SQLite's own busy handler backs off to 100 ms and is unfair; `Link` waits in its place.
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
                version = step.version
                cursor.execute(f"PRAGMA user_version = {version}")
            cursor.execute("COMMIT")
        return self._store_id(cursor)

    def _store_id(self, cursor: sqlite3.Cursor) -> str:
        row = cursor.execute(queries("sqlite")["meta"], ("store_id",)).fetchone()
        if row is None:
            raise StoreError(f"{self.path} has lost its store id: restore it from a backup")
        self._inode = _inode(self.path)
        return str(row[0])

    def look(self) -> None:
        """See whether the file is still the one that was opened. SQLite does not: it would go on writing to a file that
        was moved or removed, where nobody finds what it wrote (https://www.sqlite.org/howtocorrupt.html, 4.2).

        Raises:
            StoreUnavailableError: it is not, and no connection may be used until it is back.
        """
        inode = _inode(self.path)
        gone = None if inode == self._inode else moved(self.path, replaced=inode is not None)
        self.gone = gone
        if gone is not None:
            raise StoreUnavailableError(gone)

    def _version(self, cursor: sqlite3.Cursor) -> int:
        # In one statement, and so of one moment: between two of them another process may make the file a store.
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


class Link:
    """One connection, opened at first use, for one thread at a time.

    Whatever fails is rolled back before the error leaves, so the next call finds the connection usable. While another
    process or connection holds SQLite's lock, the call is tried again until the busy timeout has passed.
    """

    def __init__(self, file: StoreFile, *, synchronous: Literal["FULL", "NORMAL"], read_only: bool = False) -> None:
        self.path: Final = file.path
        self._file = file
        self._synchronous = synchronous
        self._read_only = read_only
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._closed = False
        _links.add(self)
        self.connection: sqlite3.Connection | None = None
        self.cursor: sqlite3.Cursor | None = None

    def change(self, sql: str, row: Sequence[Any]) -> bool:
        """Run one statement that is a transaction by itself; whether it changed a row."""
        return self.run(lambda cursor: cursor.execute(sql, row).rowcount == 1)

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
        """Do the work in one transaction that holds the write lock from its start. It may run more than once."""

        def whole(cursor: sqlite3.Cursor) -> T:
            cursor.execute("BEGIN IMMEDIATE")
            answer = work(cursor)
            cursor.execute("COMMIT")
            return answer

        return self.run(whole)

    def run(self, work: Callable[[sqlite3.Cursor], T]) -> T:
        """Do the work, all or nothing; it may run more than once."""
        if self._pid != os.getpid():
            # Before the lock, which a thread of the parent may hold for ever in this copy of it.
            raise StoreUnavailableError(
                f"the store {self._file.path} was opened by process {self._pid} and cannot be used in its forked child "
                f"{os.getpid()}: start processes by spawn, or open the store after the fork only"
            )
        if self._file.gone is not None:
            raise StoreUnavailableError(self._file.gone)
        with self._lock:
            try:
                return work(self.cursor or self._open())
            except BaseException as error:
                self._roll_back()
                if not is_busy(error):
                    self._raise(error)
            return self._run_when_free(work)

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
            # Checkpoints stay at SQLite's default of 1,000 pages: measured, a longer WAL costs a new store more (every
            # commit that makes the file grow syncs its metadata too) than rarer checkpoints give back.
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

    def close(self) -> None:
        """Close the connection, after the call that uses it. Idempotent; other processes cannot make it fail."""
        if self._pid != os.getpid():
            self._closed = True
            return
        with self._lock:
            self._closed = True
            connection, self.connection, self.cursor = self.connection, None, None
            if connection is not None:
                # The last connection to go copies the WAL into the database; where that fails, the WAL stays and
                # whoever opens the store next reads it.
                try:
                    connection.close()
                except sqlite3.Error:
                    pass
