"""Submitting a run inside a transaction of the user's, on the user's own connection to the database of the store."""

from __future__ import annotations

from typing import Any, Final

from perdure.core.ground.model import Created, CreateRun
from perdure.core.ground.ports import SqlStatement, Store
from perdure.core.ground.steps import Steps
from perdure.errors import UsageError

_KNOWN: Final = (
    "connection= takes a connection of psycopg, sqlite3 or aiosqlite, or a Connection or Session of SQLAlchemy on top "
    "of these"
)


def joined(store: Store, connection: Any, write: CreateRun) -> Steps[Created]:
    """Submit a run in the transaction of `connection`, which the caller commits.

    Raises:
        UsageError: no such kind of connection, a connection without a transaction, or to another database.
    """
    driver = yield from _driver_of(connection)
    dialect = _dialect_of(driver)
    if not store.url.startswith(dialect):
        raise UsageError(
            f"the connection is of {dialect}, and the store is {store.url}: a transaction cannot span both"
        )
    creation = store.creation(write)
    try:
        statement = next(creation)
        while True:
            rows = yield from _execute(driver, statement)
            statement = creation.send(rows)
    except StopIteration as stop:
        created: Created = stop.value
        return created


def _driver_of(connection: Any) -> Steps[Any]:
    """The connection of the driver. SQLAlchemy is told that its transaction has begun."""
    if type(connection).__module__.partition(".")[0] != "sqlalchemy":
        return connection
    run = getattr(connection, "run_sync", None)
    driver = yield _begun(connection) if run is None else run(_begun)
    return driver


def _begun(owner: Any) -> Any:
    connection = owner.connection() if hasattr(owner, "flush") else owner
    if not hasattr(connection, "exec_driver_sql"):
        raise UsageError(f"{_KNOWN}, not {owner!r}")
    connection.exec_driver_sql("SELECT 1")
    return connection.connection.driver_connection


def _dialect_of(driver: Any) -> str:
    package = type(driver).__module__.partition(".")[0]
    if package == "psycopg" and hasattr(driver, "pgconn"):
        from psycopg.pq import TransactionStatus

        outside = driver.autocommit and driver.info.transaction_status is TransactionStatus.IDLE
        dialect = "postgresql"
    elif package in ("sqlite3", "aiosqlite") and hasattr(driver, "in_transaction"):
        outside = driver.isolation_level is None and not driver.in_transaction
        dialect = "sqlite"
    else:
        raise UsageError(f"{_KNOWN}, not {driver!r}")
    if outside:
        raise UsageError(
            "the connection commits each statement by itself: begin a transaction first, so that the run exists if and "
            "only if that transaction commits"
        )
    return dialect


def _execute(driver: Any, statement: SqlStatement) -> Steps[list[Any]]:
    """The rows of a statement, plain tuples for every row factory of the user's."""
    if hasattr(driver, "pgconn"):
        import psycopg
        from psycopg.rows import tuple_row

        make: Any = psycopg.AsyncCursor if isinstance(driver, psycopg.AsyncConnection) else psycopg.Cursor
        cursor = make(driver, row_factory=tuple_row)
    else:
        cursor = yield driver.cursor()
        cursor.row_factory = None
    yield cursor.execute(*statement)
    if cursor.description is None:
        return []
    rows = yield cursor.fetchall()
    return list(rows)
