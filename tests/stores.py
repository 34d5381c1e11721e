"""On which kind of store the suites run that kill processes: `PERDURE_TEST_STORE` is `sqlite` (default) or `postgres`.

Every project directory has a store of its own; on Postgres that is a schema in this test process's private server.
"""

from __future__ import annotations

import re
from contextlib import closing
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
    text = re.sub(r"\b(FROM|UPDATE|INTO) (runs|entries|actions|workers)\b", rf"\1 {schema}.\2", sql)
    return server().execute(text.replace("?", "%s"), args)


def wait_until_lease_is_over(url: str, pid: int) -> None:
    """Wait until the lease of that process, which is frozen, has run out."""
    store, _ = open_store(url)
    with closing(store):
        wait_for(lambda: any(row.pid == pid and row.lease <= 0 for row in store.workers()))


def drop_postgres(url: str) -> None:
    """Nothing is left of that store."""
    server().execute(f"DROP SCHEMA IF EXISTS {_schema(url)} CASCADE")
