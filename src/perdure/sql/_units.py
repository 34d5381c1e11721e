"""Units of work in the user's database: a connection or session with one transaction.

Each method of a unit is a generator in `Steps`, so that both colours share one implementation.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol

from ..core.ground.steps import Steps
from ..errors import UsageError

Row = dict[str, Any]

_PARAMETER: Final = re.compile(r":(\w+)")


class Unit(Protocol):
    """A connection or session for one transaction."""

    given: Any
    """The first argument of the user's function."""
    dialect: str
    """`postgresql`, `mysql` or `sqlite`."""

    def begin(self) -> Steps[None]:
        """Begin the transaction."""

    def execute(self, sql: str, row: Row) -> Steps[list[Any]]:
        """Execute a statement with parameters such as `:name`; its rows, if the statement gives rows."""

    def change(self, sql: str, row: Row) -> Steps[int]:
        """Execute a statement; the number of changed rows."""

    def flush(self) -> Steps[None]:
        """Send to the database what a session holds back."""

    def commit(self) -> Steps[None]:
        """Commit the transaction."""

    def close(self) -> Steps[None]:
        """Roll back what is not committed, and give the connection back."""


class Database(Protocol):
    """A database of the user's, as the argument of `transaction` names the database."""

    def open(self) -> Steps[Unit]:
        """A unit on a connection."""


# -- SQLAlchemy ------------------------------------------------------------------------------------------------


class AlchemyDatabase:
    """An engine or a sessionmaker of SQLAlchemy, synchronous or asynchronous."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    def open(self) -> Steps[Unit]:
        """See `Database`."""
        given = self._make()
        if not hasattr(given, "flush"):
            given = yield given  # an AsyncConnection is connected by awaiting
        return AlchemyUnit(given)


class AlchemyUnit:
    """A `Connection` or `Session`, or the asynchronous form of either, for one transaction."""

    def __init__(self, given: Any) -> None:
        self.given = given
        self.dialect = ""
        self._run: Callable[[Callable[[Any], Any]], Any] = getattr(given, "run_sync", lambda work: work(given))

    def begin(self) -> Steps[None]:
        """See `Unit`."""
        self.dialect = yield self._run(_begin_alchemy)

    def execute(self, sql: str, row: Row) -> Steps[list[Any]]:
        """See `Unit`."""
        from sqlalchemy import text

        def work(owner: Any) -> list[Any]:
            result = _connection_of(owner).execute(text(sql), row)
            return list(result.all()) if result.returns_rows else []

        found: list[Any] = yield self._run(work)
        return found

    def change(self, sql: str, row: Row) -> Steps[int]:
        """See `Unit`."""
        from sqlalchemy import text

        count: int = yield self._run(lambda owner: _connection_of(owner).execute(text(sql), row).rowcount)
        return count

    def flush(self) -> Steps[None]:
        """See `Unit`."""
        if hasattr(self.given, "flush"):
            yield self.given.flush()

    def commit(self) -> Steps[None]:
        """See `Unit`."""
        yield self.given.commit()

    def close(self) -> Steps[None]:
        """See `Unit`."""
        yield self.given.close()


def _connection_of(owner: Any) -> Any:
    """The `Connection` of a `Session`, or the `Connection` itself."""
    return owner.connection() if hasattr(owner, "flush") else owner


def _begin_alchemy(owner: Any) -> str:
    """Begin a transaction; the name of the dialect."""
    connection = _connection_of(owner)
    if not connection.in_transaction():
        connection.begin()
    name: str = {"mariadb": "mysql"}.get(connection.dialect.name, connection.dialect.name)
    driver = connection.connection.driver_connection
    if name == "sqlite" and not driver.in_transaction:
        # With the write lock from the beginning: a reader that becomes a writer later could only be refused. Python's
        # module would begin at the first change, and leave what was read before outside of the transaction.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    elif name != "sqlite" and _autocommits(driver):
        raise UsageError(
            "an engine in AUTOCOMMIT has no transactions, and a step needs one: give @perdure.transaction an engine "
            'of another isolation level, such as engine.execution_options(isolation_level="READ COMMITTED")'
        )
    return name


def _autocommits(driver: Any) -> bool:
    """Whether a connection of psycopg or of a MariaDB driver commits each statement by itself."""
    flag = getattr(driver, "autocommit", None)
    if isinstance(flag, bool):
        return flag
    ask = getattr(driver, "get_autocommit", None)
    return ask is not None and bool(ask())


# -- psycopg ---------------------------------------------------------------------------------------------------


class PsycopgDatabase:
    """A connection of psycopg, or something that gives connections: a pool or a function."""

    def __init__(self, source: Any, *, is_async: bool) -> None:
        self._source = source
        self._is_async = is_async
        self._lock: Any = asyncio.Lock() if is_async else threading.Lock()

    def open(self) -> Steps[Unit]:
        """See `Database`."""
        source = self._source
        connection: Any
        end: Callable[[], Any]
        if hasattr(source, "getconn"):
            seat = source.connection()
            enter, leave = (seat.__aenter__, seat.__aexit__) if self._is_async else (seat.__enter__, seat.__exit__)
            connection = yield enter()
            end = partial(leave, None, None, None)
        elif hasattr(source, "cursor"):
            yield self._lock.acquire()
            connection, end = source, self._lock.release
        else:
            connection = yield source()
            end = connection.close
        try:
            self._check(connection)
        except UsageError:
            yield end()
            raise
        return PsycopgUnit(connection, end, is_async=self._is_async)

    def _check(self, connection: Any) -> None:
        import psycopg

        kind: Any = psycopg.AsyncConnection if self._is_async else psycopg.Connection
        if not isinstance(connection, kind):
            colour = "an async" if self._is_async else "a sync"
            raise UsageError(
                f"{colour} step needs a connection of type psycopg.{kind.__name__}, and @perdure.transaction was given "
                f"{type(connection).__name__}"
            )


class PsycopgUnit:
    """A connection of psycopg for one transaction."""

    dialect = "postgresql"

    def __init__(self, connection: Any, end: Callable[[], Any], *, is_async: bool) -> None:
        self.given = connection
        self._end = end
        self._is_async = is_async
        self._block: Any = None

    def begin(self) -> Steps[None]:
        """See `Unit`."""
        from psycopg.pq import TransactionStatus

        if self.given.info.transaction_status is TransactionStatus.INTRANS:
            raise UsageError(
                "the connection given to @perdure.transaction is inside a transaction already, which would commit "
                "without the step: commit first, or give a function that connects"
            )
        block = self.given.transaction()
        yield (block.__aenter__ if self._is_async else block.__enter__)()
        self._block = block

    def execute(self, sql: str, row: Row) -> Steps[list[Any]]:
        """See `Unit`."""
        cursor = yield from self._executed(sql, row)
        if cursor.description is None:
            return []
        found: list[Any] = yield cursor.fetchall()
        return found

    def change(self, sql: str, row: Row) -> Steps[int]:
        """See `Unit`."""
        cursor = yield from self._executed(sql, row)
        count: int = cursor.rowcount
        return count

    def _executed(self, sql: str, row: Row) -> Steps[Any]:
        import psycopg
        from psycopg.rows import tuple_row

        # Of the plain class: the connection may have rows and cursors of its user's.
        kind: Any = psycopg.AsyncCursor if self._is_async else psycopg.Cursor
        cursor = kind(self.given, row_factory=tuple_row)
        yield cursor.execute(_PARAMETER.sub(r"%(\1)s", sql), row)
        return cursor

    def flush(self) -> Steps[None]:
        """See `Unit`."""
        yield from ()

    def commit(self) -> Steps[None]:
        """See `Unit`."""
        block, self._block = self._block, None
        yield (block.__aexit__ if self._is_async else block.__exit__)(None, None, None)

    def close(self) -> Steps[None]:
        """See `Unit`."""
        block, self._block = self._block, None
        try:
            if block is not None:
                error = RuntimeError("rolled back")
                yield (block.__aexit__ if self._is_async else block.__exit__)(RuntimeError, error, None)
        finally:
            yield self._end()


# -- which of them ---------------------------------------------------------------------------------------------


def database_of(database: Any, *, is_async: bool, what: str) -> Database:
    """The place that a user has named.

    Args:
        database: an engine, a sessionmaker, or what gives connections of psycopg.
        is_async: the colour that the place must have.
        what: for messages: the name of the function that needs the place.

    Raises:
        UsageError: nothing known, or of the other colour.
    """
    names = {base.__name__ for base in type(database).__mro__ if base.__module__.partition(".")[0] == "sqlalchemy"}
    if names & {"Engine", "sessionmaker", "AsyncEngine", "async_sessionmaker"}:
        gives_async = bool(names & {"AsyncEngine", "async_sessionmaker"})
        if gives_async != is_async:
            kind, colour = type(database).__name__, "async def" if gives_async else "def"
            raise UsageError(f"{kind} needs a function defined with {colour}, and {what} is of the other kind")
        return AlchemyDatabase(database.connect if names & {"Engine", "AsyncEngine"} else database)
    if names or not (callable(database) or hasattr(database, "getconn") or hasattr(database, "cursor")):
        raise UsageError(
            f"{what} needs an engine or a sessionmaker of SQLAlchemy, or of psycopg a connection, a pool or a function "
            f"that connects, and was given {database!r}"
        )
    return PsycopgDatabase(database, is_async=is_async)
