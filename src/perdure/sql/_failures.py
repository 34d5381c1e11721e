"""What an error of a database driver means for a step, told by codes and never by the texts of messages.

No driver is imported here: a driver that is not installed has raised nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

_AGAIN_STATES: Final = frozenset({"40001", "40P01"})
"""SQLSTATE of a serialization failure and of a deadlock."""
_AGAIN_NUMBERS: Final = frozenset({1020, 1205, 1213})
"""MariaDB and MySQL: the row has changed since the snapshot, a wait for a lock was too long, a deadlock."""
_LOST_NUMBERS: Final = frozenset({1053, 1927, 2002, 2003, 2006, 2013, 2055, 4031})
"""MariaDB and MySQL: the server is away, shuts down, or has ended the connection."""
_LOST_STATES: Final = frozenset({"25P03", "25P04", "57P01", "57P02", "57P03", "57P05"})
"""SQLSTATE of a session that the server has ended."""
_BUSY: Final = frozenset({5, 6})
"""SQLite: another connection holds the lock of the file, or of a table."""
_DEPTH: Final = 8
_MADE_STATES: Final = frozenset({"42P07", "42710"})
"""SQLSTATE of a table, and of another object, that exists already."""


def is_again(error: BaseException) -> bool:
    """Whether the database has rolled a transaction back, or kept a transaction out, only because of others."""
    return any(
        _state(one) in _AGAIN_STATES or _number(one) in _AGAIN_NUMBERS or _sqlite(one) in _BUSY for one in _chain(error)
    )


def is_lost(error: BaseException) -> bool:
    """Whether the connection is gone, so that the answer to the last statement is unknown."""
    for one in _chain(error):
        state = _state(one)
        if getattr(one, "connection_invalidated", False) or _number(one) in _LOST_NUMBERS:
            return True
        if state is not None and (state in _LOST_STATES or state.startswith("08")):
            return True
        if state is None and _package(one) == "psycopg" and type(one).__name__ == "OperationalError":
            return True
        if _package(one) in ("pymysql", "asyncmy") and type(one).__name__ == "InterfaceError":
            return True
    return False


def is_duplicate(error: BaseException) -> bool:
    """Whether a unique key exists already."""
    return any(_state(one) == "23505" or _number(one) == 1062 or _sqlite(one) == 19 for one in _chain(error))


def is_made(error: BaseException) -> bool:
    """Whether the statement that makes a table met the table, or a part of the table, of another process."""
    return is_duplicate(error) or any(_state(one) in _MADE_STATES or _number(one) == 1050 for one in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and the errors behind it: SQLAlchemy wraps the error of the driver, and so may user code."""
    found: BaseException | None = error
    for _ in range(_DEPTH):
        if found is None:
            return
        yield found
        inner = getattr(found, "orig", None)
        found = inner if isinstance(inner, BaseException) else found.__cause__


def _package(error: BaseException) -> str:
    return type(error).__module__.partition(".")[0]


def _state(error: BaseException) -> str | None:
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return state if isinstance(state, str) else None


def _number(error: BaseException) -> int | None:
    """The number of an error of a MariaDB or MySQL driver."""
    if _package(error) not in ("pymysql", "asyncmy", "MySQLdb", "mariadb"):
        return None
    number = error.args[0] if error.args else None
    return number if isinstance(number, int) else None


def _sqlite(error: BaseException) -> int | None:
    """The primary code of an error of SQLite."""
    code = getattr(error, "sqlite_errorcode", None)
    return code & 0xFF if isinstance(code, int) else None
