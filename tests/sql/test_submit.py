"""`perdure.submit(..., connection=...)`: a run exists if and only if the caller's transaction commits."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiosqlite
import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session
from tests.postgres_server import server
from tests.sql.databases import ROOT
from tests.sql.jobs import job, named
from tests.waiting import PATIENCE

import perdure
from perdure import runtime
from perdure.errors import RunConflictError, RunNotFoundError, UsageError

KINDS = ["sqlite3", "aiosqlite", "sqlite engine", "sqlite async engine", "psycopg", "psycopg async", "postgres engine",
         "postgres session", "postgres async engine", "postgres async session"]  # fmt: skip


class Place:
    """A store, and connections to its database."""

    def __init__(self, directory: Path, kind: str) -> None:
        self.kind = kind
        self.file = str(directory / "app.db")
        self.on_sqlite = "sqlite" in kind
        self.url = self.file if self.on_sqlite else server().url()
        self.schema = self.url.rpartition("=")[2]
        perdure.init(store=self.url)
        runtime.worker()  # makes the file before the application's tables, as `perdure store migrate` does
        self.is_async = "async" in kind or kind == "aiosqlite"
        sqlalchemy = "postgresql+psycopg://" + server().dsn().partition("://")[2] if not self.on_sqlite else ""
        self.engine_url = sqlalchemy or f"sqlite{'+aiosqlite' if self.is_async else ''}:///{self.file}"

    async def connect(self) -> Any:
        if self.kind == "sqlite3":
            return sqlite3.connect(self.file)
        if self.kind == "aiosqlite":
            return await aiosqlite.connect(self.file)
        if self.kind == "psycopg":
            return psycopg.connect(server().dsn())
        if self.kind == "psycopg async":
            return await psycopg.AsyncConnection.connect(server().dsn())
        if "async session" in self.kind:
            return async_sessionmaker(create_async_engine(self.engine_url))()
        if "async" in self.kind:
            return await create_async_engine(self.engine_url).connect()
        engine = create_engine(self.engine_url)
        return Session(engine) if "session" in self.kind else engine.connect()

    async def submit(self, connection: Any, name: str, n: int) -> perdure.Run:
        context = perdure.with_runcontext(name=name)
        if self.is_async:
            return await context.submit.aio(job, n, connection=connection)
        return context.submit(job, n, connection=connection)


@pytest.fixture(params=KINDS)
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    yield Place(tmp_path, request.param)
    perdure.init(store="memory://")


async def settled(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


def exists(name: str) -> bool:
    try:
        perdure.Run.get(name)
    except RunNotFoundError:
        return False
    return True


def test_the_run_exists_if_and_only_if_the_transaction_commits(place: Place) -> None:
    """Family: a run that is there before the commit or after a rollback, or is lost by a commit."""

    async def main() -> None:
        connection = await place.connect()
        await place.submit(connection, "dropped", 1)
        assert not exists("dropped")
        await settled(connection.rollback())
        assert not exists("dropped")
        run = await place.submit(connection, "kept", 2)
        again = await place.submit(connection, "kept", 2)
        assert again.name == run.name
        with pytest.raises(RunConflictError):
            await place.submit(connection, "kept", 3)
        assert not exists("kept")
        await settled(connection.commit())
        assert exists("kept")
        await settled(connection.close())

    asyncio.run(main())
    with perdure.Worker([job]):
        assert perdure.Run.get("kept").wait(timeout=PATIENCE).result == 3


def test_a_connection_that_cannot_decide_is_refused(tmp_path: Path) -> None:
    """Family: autocommit, another database, another kind of database, no connection at all."""
    at = Place(tmp_path, "sqlite3")
    with pytest.raises(UsageError, match="commits each statement by itself"):
        perdure.submit(job, 1, connection=sqlite3.connect(at.file, isolation_level=None))
    with pytest.raises(UsageError, match="the connection is to"):
        perdure.submit(job, 1, connection=sqlite3.connect(tmp_path / "other.db"))
    with pytest.raises(UsageError, match="a transaction cannot span both"):
        perdure.submit(job, 1, connection=psycopg.connect(server().dsn()))
    with pytest.raises(UsageError, match="takes a connection of psycopg"):
        perdure.submit(job, 1, connection="no connection")
    with pytest.raises(UsageError, match=r"are for \.submit"):
        perdure.with_runcontext(connection=sqlite3.connect(at.file)).run(job, 1)
    Place(tmp_path, "psycopg")
    with pytest.raises(UsageError, match="commits each statement by itself"):
        perdure.submit(job, 1, connection=psycopg.connect(server().dsn(), autocommit=True))
    with pytest.raises(UsageError, match="does not lead to the database of the store"):
        perdure.submit(job, 1, connection=psycopg.connect(server().dsn("postgres")))
    assert not list(perdure.runs())
    perdure.init(store="memory://")
    with pytest.raises(UsageError, match="a transaction cannot span both"):
        perdure.submit(job, 1, connection=sqlite3.connect(at.file))


def test_a_task_with_a_parameter_of_that_name_gets_its_input(tmp_path: Path) -> None:
    at = Place(tmp_path, "sqlite3")
    run = perdure.submit(named, connection="mine")
    assert exists(run.name)
    connection = sqlite3.connect(at.file)
    run = perdure.with_runcontext(connection=connection).submit(named, connection="mine")
    assert not exists(run.name)
    connection.commit()
    assert exists(run.name)
    perdure.init(store="memory://")


SCRIPT = """
import os, signal, sys
import sqlalchemy
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine.default import DefaultDialect
import perdure
from tests.sql.jobs import job
store, url, kill_at = sys.argv[1], sys.argv[2], int(sys.argv[3])
perdure.init(store=store)
engine = create_engine(url)
count = 0
def moment(*_):
    global count
    count += 1
    if count == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
known = DefaultDialect.do_commit
def do_commit(self, connection):
    moment()
    known(self, connection)
    moment()
DefaultDialect.do_commit = do_commit
event.listen(engine, "before_cursor_execute", moment)
event.listen(engine, "after_cursor_execute", moment)
with engine.begin() as connection:
    connection.execute(text("INSERT INTO effects VALUES ('r')"))
    perdure.with_runcontext(name="r").submit(job, 1, connection=connection)
    connection.execute(text("INSERT INTO effects VALUES ('s')"))
"""


@pytest.mark.parametrize("kind", ["sqlite engine", "postgres engine"])
def test_a_process_killed_at_any_statement_leaves_both_or_neither(tmp_path: Path, kind: str) -> None:
    """Family: a moment between the statements and around the commit at which the run and the caller's rows differ."""
    codes = []
    for kill_at in range(1, 100, 1 if os.environ.get("PERDURE_TEST_WHOLE") == "1" else 3):
        directory = tmp_path / str(kill_at)
        directory.mkdir()
        at = Place(directory, kind)
        engine = create_engine(at.engine_url)
        with engine.begin() as connection:
            connection.execute(text("DROP TABLE IF EXISTS effects"))
            connection.execute(text("CREATE TABLE effects (name text)"))
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, at.url, at.engine_url, str(kill_at)], cwd=directory, check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        )  # fmt: skip
        codes.append(done.returncode)
        with engine.connect() as connection:
            count = connection.execute(text("SELECT count(*) FROM effects")).scalar_one()
        assert count in (0, 2)
        assert exists("r") == (count == 2), kill_at
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
    perdure.init(store="memory://")
    assert codes.count(-signal.SIGKILL) > 2


WITHIN = """
import sys
from sqlalchemy import create_engine, text
import perdure
store, url = sys.argv[1], sys.argv[2]
perdure.init(store=store)
perdure.runtime.worker()
engine = create_engine(url)
env = perdure.TaskEnvironment("within")

@env.task
def later(n: int) -> int:
    return n

@perdure.transaction(engine)
def step(connection, n: int) -> str:
    run = perdure.with_runcontext(name=f"later-{n}").submit(later, n, connection=connection)
    if n == 2:
        raise ValueError("no")
    return run.name

@env.task
def main() -> str:
    try:
        step(2)
    except ValueError:
        pass
    return step(1)

print(perdure.with_runcontext(name="main").run(main).result, sorted(run.name for run in perdure.runs()))
"""


@pytest.mark.parametrize("kind", ["sqlite engine", "postgres engine"])
def test_a_run_submitted_inside_a_step_belongs_to_the_commit_of_the_step(tmp_path: Path, kind: str) -> None:
    """P13. Family: a run that outlives the rollback of its step. The store is in the user's database."""
    at = Place(tmp_path, kind)
    file = tmp_path / "within.py"
    file.write_text(WITHIN)
    done = subprocess.run(
        [sys.executable, str(file), at.url, at.engine_url], cwd=tmp_path, check=False, capture_output=True, text=True,
        timeout=PATIENCE,
    )  # fmt: skip
    perdure.init(store="memory://")
    assert done.stdout == "later-1 ['later-1', 'main']\n", done.stderr
