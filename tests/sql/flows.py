"""Workflows with steps in a database of the user's. The environment says which: a child of `host.py` imports this.

- `PERDURE_TEST_PLACE`: `engine`, `sessions`, `pool`, `factory` or `connection`
- `PERDURE_TEST_URL`: the database, as SQLAlchemy understands it, and as psycopg does in `PERDURE_TEST_DSN`
- `PERDURE_TEST_COLOUR`: `sync` or `async`
"""

from __future__ import annotations

import asyncio
import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker

import perdure

PLACE = os.environ["PERDURE_TEST_PLACE"]
COLOUR = os.environ["PERDURE_TEST_COLOUR"]
URL = os.environ["PERDURE_TEST_URL"]
DSN = os.environ.get("PERDURE_TEST_DSN", "")
SOCKET = os.environ.get("PERDURE_TEST_SOCKET", "")
ARGUMENTS: dict[str, Any] = {"unix_socket": SOCKET} if SOCKET else {}


def place() -> Any:
    """The argument of `transaction`."""
    if PLACE in ("engine", "sessions"):
        if COLOUR == "sync":
            engine = create_engine(URL, connect_args=ARGUMENTS)
            return engine if PLACE == "engine" else sessionmaker(engine)
        # Bodies of different loops use it, and a connection belongs to one loop.
        async_engine = create_async_engine(URL, connect_args=ARGUMENTS, poolclass=NullPool)
        return async_engine if PLACE == "engine" else async_sessionmaker(async_engine)
    import psycopg

    if PLACE == "pool":
        from psycopg_pool import ConnectionPool

        return ConnectionPool(DSN, min_size=1, max_size=4, open=True)
    if PLACE == "connection":
        return psycopg.connect(DSN)
    if COLOUR == "sync":
        return lambda: psycopg.connect(DSN)
    return lambda: psycopg.AsyncConnection.connect(DSN)


DATABASE = place()
env = perdure.TaskEnvironment("money")
pooled = perdure.TaskEnvironment("pooled", executor="process")
LOG = Path("log")


def say(word: str) -> None:
    with LOG.open("a") as file:
        file.write(f"{word}\n")


def said(word: str) -> bool:
    return LOG.exists() and word in LOG.read_text().split()


def plain(sql: str) -> Any:
    """The statement for the library in use."""
    if PLACE in ("engine", "sessions"):
        return text(sql)
    for name in ("name", "amount"):
        sql = sql.replace(f":{name}", f"%({name})s")
    return sql


EFFECT = plain("INSERT INTO effects (name) VALUES (:name)")
ADD = plain("UPDATE accounts SET n = n + :amount WHERE name = :name")
READ = plain("SELECT n FROM accounts WHERE name = :name")


def once(connection: Any, name: str, amount: int) -> int:
    connection.execute(EFFECT, {"name": name})
    connection.execute(ADD, {"name": name, "amount": amount})
    return connection.execute(READ, {"name": name}).fetchone()[0]


async def once_async(connection: Any, name: str, amount: int) -> int:
    await connection.execute(EFFECT, {"name": name})
    await connection.execute(ADD, {"name": name, "amount": amount})
    row = (await connection.execute(READ, {"name": name})).fetchone()
    if asyncio.iscoroutine(row):
        row = await row
    return row[0]


if COLOUR == "sync":

    @perdure.transaction(DATABASE)
    def add(connection: Any, name: str, amount: int) -> int:
        return once(connection, name, amount)

    @perdure.transaction(DATABASE)
    def fails(connection: Any, name: str) -> int:
        once(connection, name, 1)
        raise ValueError(f"no {name}")

    @perdure.transaction(DATABASE)
    def large(connection: Any, name: str) -> bytes:
        once(connection, name, 1)
        return b"x" * 20_000_000

    @perdure.transaction(DATABASE)
    def commits(connection: Any, name: str) -> int:
        found = once(connection, name, 1)
        connection.execute(plain("COMMIT"))
        return found

    @perdure.transaction(DATABASE)
    def flaky(connection: Any, name: str) -> int:
        found = once(connection, name, 1)
        if not said("flaky"):
            say("flaky")
            raise ValueError("the first time")
        return found

    @perdure.transaction(DATABASE)
    def cross(connection: Any, first: str, second: str) -> int:
        """Locks two rows, one after the other."""
        found = once(connection, first, 1)
        say(f"has-{first}")
        for _ in range(300):
            if said(f"has-{second}"):
                break
            time.sleep(0.01)
        once(connection, second, 1)
        return 0 * found

    @perdure.transaction(DATABASE)
    def slow(connection: Any, name: str) -> int:
        """Tells before its first change that it is about to, and waits for leave."""
        say(f"begins-{os.getpid()}")
        for _ in range(10_000):
            if said("go"):
                break
            time.sleep(0.01)
        found = once(connection, name, 1)
        say(f"done-{os.getpid()}")
        return found

    @env.task
    def child(name: str) -> int:
        return add(name, 10)

    @pooled.task
    def in_pool(name: str) -> list[int]:
        return [add(name, 5), child(name)]

    @env.task
    def main() -> list[int]:
        return [add("a", 1), child("b"), add("c", 100)]

    @env.task
    def pool() -> list[int]:
        return in_pool("a")

    @env.task
    def failing() -> str:
        words = []
        for step, name in ((fails, "a"), (large, "b"), (commits, "c")):
            try:
                step(name)
            except Exception as error:
                words.append(f"{type(error).__name__}: {error}"[:200])
        return "\n".join(words)

    @env.task
    def broken() -> int:
        add("a", 1)
        return fails("b")

    @env.task(retries=2)
    def retried() -> list[int]:
        return [add("a", 1), flaky("b")]

    @env.task
    def slowly() -> int:
        return slow("a")

    @env.task
    async def crossing() -> list[int]:
        return list(await asyncio.gather(cross.aio("a", "b"), cross.aio("b", "a")))

    @env.task
    def within() -> str:
        try:
            outer("a")
        except perdure.errors.InsideTraceError as error:
            return str(error)
        return "allowed"

    @perdure.trace
    def outer(name: str) -> int:
        return add(name, 1)

else:

    @perdure.transaction(DATABASE)
    async def add(connection: Any, name: str, amount: int) -> int:
        return await once_async(connection, name, amount)

    @perdure.transaction(DATABASE)
    async def fails(connection: Any, name: str) -> int:
        await once_async(connection, name, 1)
        raise ValueError(f"no {name}")

    @perdure.transaction(DATABASE)
    async def flaky(connection: Any, name: str) -> int:
        found = await once_async(connection, name, 1)
        if not said("flaky"):
            say("flaky")
            raise ValueError("the first time")
        return found

    @env.task
    async def child(name: str) -> int:
        return await add(name, 10)

    @env.task
    async def main() -> list[int]:
        return list(await asyncio.gather(add("a", 1), child("b"), add("c", 100)))

    @env.task
    async def failing() -> str:
        try:
            await fails("a")
        except ValueError as error:
            return f"ValueError: {error}"
        return "allowed"

    @env.task
    async def broken() -> int:
        await add("a", 1)
        return await fails("b")

    @env.task(retries=2)
    async def retried() -> list[int]:
        return [await add("a", 1), await flaky("b")]


def run(task: str, name: str) -> Any:
    """Begin the run, or continue it. `prune` removes what is left over."""
    if task == "prune":
        if COLOUR == "sync":
            return perdure.sql.prune(DATABASE, older_than=timedelta(0))
        return asyncio.run(perdure.sql.prune.aio(DATABASE, older_than=timedelta(0)))
    return perdure.with_runcontext(name=name).run(globals()[task]).result
