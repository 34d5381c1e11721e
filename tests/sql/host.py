"""A warm process that forks a child for each request, so that a trial does not pay for the imports.

Reads requests as lines of JSON: `directory`, `env`, `store`, `task`, `run`, `kill_at`. Answers `code`, `events` (the
moments at which the child could have been killed), `answer` and `error`.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiosqlite  # noqa: F401
import asyncmy  # noqa: F401 - loaded once for all children
import psycopg
import pymysql  # noqa: F401
import sqlalchemy.ext.asyncio  # noqa: F401
from sqlalchemy.engine.default import DefaultDialect

import perdure
import perdure.api.submitting
import perdure.sql
from perdure.store.postgres import PostgresStore
from perdure.store.sqlite.store import SQLiteStore


class Moments:
    """Counts the moments before and after each statement and commit, and kills this process at one of them."""

    def __init__(self, kill_at: int | None) -> None:
        self.kill_at = kill_at
        self.count = 0

    def moment(self) -> None:
        self.count += 1
        if self.count == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, holder: type, name: str) -> None:
        known: Callable[..., Any] = getattr(holder, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.moment()
            try:
                return known(*args, **kwargs)
            finally:
                self.moment()

        async def counted_async(*args: Any, **kwargs: Any) -> Any:
            self.moment()
            try:
                return await known(*args, **kwargs)
            finally:
                self.moment()

        setattr(holder, name, counted_async if holder in ASYNC else counted)


ASYNC = {psycopg.AsyncCursor, psycopg.AsyncTransaction}


def watch(moments: Moments) -> None:
    """The user's side: statements and commits; perdure's side: commits of its store."""
    for holder in (DefaultDialect, *_dialects()):
        for name in ("do_execute", "do_execute_no_params", "do_commit"):
            if name in vars(holder):
                moments.around(holder, name)
    if os.environ["PERDURE_TEST_PLACE"] not in ("engine", "sessions"):
        for kind, names in (
            (psycopg.Cursor, ["execute"]), (psycopg.AsyncCursor, ["execute"]),
            (psycopg.Transaction, ["__exit__"]), (psycopg.AsyncTransaction, ["__aexit__"]),
        ):  # fmt: skip
            for name in names:
                moments.around(kind, name)
    for store in (SQLiteStore, PostgresStore):
        for name in ("commit", "append"):
            moments.around(store, name)


def _dialects() -> list[type]:
    from sqlalchemy.dialects.mysql.asyncmy import MySQLDialect_asyncmy
    from sqlalchemy.dialects.mysql.base import MySQLDialect
    from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg, PGDialectAsync_psycopg
    from sqlalchemy.dialects.sqlite.aiosqlite import SQLiteDialect_aiosqlite

    return [MySQLDialect, MySQLDialect_asyncmy, PGDialect_psycopg, PGDialectAsync_psycopg, SQLiteDialect_aiosqlite]


def child(request: dict[str, Any], answer: Path) -> None:
    os.chdir(request["directory"])
    os.environ.update(request["env"])
    moments = Moments(request["kill_at"])
    watch(moments)
    perdure.init(store=request["store"])
    found: dict[str, Any] = {}
    try:
        found["answer"] = importlib.import_module("tests.sql.flows").run(request["task"], request["run"])
    except Exception:
        found["error"] = traceback.format_exc()
    found["events"] = moments.count
    answer.write_text(json.dumps(found))


def main() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        with tempfile.TemporaryDirectory(prefix="perdure-sql-") as place:
            answer = Path(place, "answer")
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    child(request, answer)
                    code = 0
                finally:
                    sys.stderr.flush()
                    os._exit(code)
            _, status = os.waitpid(pid, 0)
            found = {"code": os.waitstatus_to_exitcode(status), "answer": None, "error": "", "events": 0}
            if answer.exists():
                found.update(json.loads(answer.read_text()))
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
