"""On which kind of store the suites run that kill processes: `PERDURE_TEST_STORE` is `sqlite` (default) or `postgres`.

Every project directory has a store of its own; on Postgres that is a schema in this test process's private server.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.postgres_server import ON_POSTGRES, server
from tests.waiting import wait_for

from perdure.store import open_store

sqlite_only = pytest.mark.skipif(ON_POSTGRES, reason="about files of SQLite")


def store_url() -> str | None:
    """A new store for one project; `None` for the default, a file in its directory."""
    return server().url() if ON_POSTGRES else None


def _schema(url: str) -> str:
    return url.rpartition("=")[2]


def has_tables(url: str) -> bool:
    """Whether the store has been made."""
    [[there]] = server().execute("SELECT to_regclass(%s) IS NOT NULL", (f"{_schema(url)}.schedules",))
    return bool(there)


def query_postgres(url: str, sql: str, args: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """A statement that SQLite understands, too, on that store."""
    schema = _schema(url)
    text = re.sub(
        r"\b(FROM|JOIN|UPDATE|INTO) (runs|segments|actions|workers|paused_tasks|submissions)\b", rf"\1 {schema}.\2", sql
    )
    return server().execute(text.replace("%", "%%").replace("?", "%s"), args)


def deadlines(database: Path) -> list[int]:
    """The recorded deadlines in a SQLite store, microseconds since boot; none where there is no store yet."""
    if not database.exists():
        return []
    with closing(sqlite3.connect(database)) as connection:
        try:
            return [at for (at,) in connection.execute("SELECT wake_boot FROM actions WHERE wake_boot IS NOT NULL")]
        except sqlite3.OperationalError:  # its tables are being made
            return []


def wait_until_lease_is_over(url: str, pid: int) -> None:
    """Wait until the lease of that process, which is frozen, has run out."""
    store, _ = open_store(url)
    with closing(store):
        wait_for(lambda: any(row.pid == pid and row.lease <= 0 for row in store.workers()))


def drop_postgres(url: str) -> None:
    """Nothing is left of that store."""
    server().execute(f"DROP SCHEMA IF EXISTS {_schema(url)} CASCADE")
