"""What type checkers see. Each `reveal_type` has its type as a comment; each line with `# error` has to be refused.

`tests/integration/test_typed.py` runs mypy and pyright over this file. It is never executed.
"""
# ruff: noqa: F821 - reveal_type is a name for type checkers

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import partial

import perdure
from perdure import durable

env = perdure.TaskEnvironment("typed")
strict = perdure.TaskEnvironment("strict", strict=True)


@env.task
async def fetch(page: int, size: int = 10) -> str:
    return "x" * page * size


@strict.task(retries=2, timeout=5, cache="auto", formerly="typed.plus")
def add(a: int, b: int) -> float:
    return a + b


@perdure.trace
async def call(url: str) -> bytes:
    return url.encode()


@perdure.trace(ignore=("url",))
def sync_call(url: str) -> bytes:
    return url.encode()


@perdure.trace
async def words(text: str) -> AsyncIterator[str]:
    for word in text.split():
        yield word


@perdure.trace
def sync_words(text: str) -> Iterator[str]:
    yield from text.split()


class Client:
    @perdure.trace(ignore=("self",))
    async def get(self, path: str) -> int:
        return len(path)

    @perdure.trace(ignore=("self",))
    def sync_get(self, path: str) -> int:
        return len(path)


async def calls() -> None:
    reveal_type(await fetch(1))  # str
    reveal_type(await fetch.aio(1, size=2))  # str
    reveal_type(add(1, 2))  # float
    reveal_type(await add.aio(1, b=2))  # float
    reveal_type(await call("u"))  # bytes
    reveal_type(await call.aio("u"))  # bytes
    reveal_type(sync_call("u"))  # bytes
    reveal_type(await sync_call.aio("u"))  # bytes
    reveal_type(await fetch.override(retries=1)(1))  # str
    async for word in words("a b"):
        reveal_type(word)  # str
    for word in sync_words("a b"):
        reveal_type(word)  # str
    await fetch("1")  # error
    await fetch()  # error
    await fetch.aio(1, length=2)  # error
    add(1)  # error
    await add.aio(1, "2")  # error
    await call(7)  # error
    sync_call()  # error


async def methods(client: Client) -> None:
    reveal_type(await client.get("p"))  # int
    reveal_type(await client.get.aio("p"))  # int
    reveal_type(client.sync_get("p"))  # int
    reveal_type(await client.sync_get.aio("p"))  # int
    await client.get()  # error
    client.sync_get(1)  # error


async def maps() -> None:
    reveal_type(list(perdure.map(add, [1], [2])))  # list[float]
    reveal_type([one async for one in perdure.map.aio(fetch, [1])])  # list[str]
    reveal_type(list(perdure.map(partial(add, 1), [2])))  # list[float]
    reveal_type(list(perdure.map(add, [1], [2], return_exceptions=True)))  # list[Any]
    perdure.map(len, [1])  # error
    perdure.map(add, [1], [2], concurrency="all")  # error


async def runs() -> None:
    reveal_type(perdure.run(fetch, 1).result)  # str
    reveal_type(perdure.run(add, 1, b=2).result)  # float
    reveal_type((await perdure.run.aio(fetch, 1)).result)  # str
    reveal_type(perdure.submit(add, 1, 2).wait().result)  # float
    reveal_type((await (await perdure.submit.aio(fetch, 1)).wait.aio()).result)  # str
    reveal_type(perdure.with_runcontext(name="n").run(fetch, 1).result)  # str
    reveal_type(perdure.with_runcontext(name="n").submit(add, 1, 2).result)  # float
    reveal_type(perdure.submit(add, 1, 2, connection=object()).name)  # str
    reveal_type(perdure.Run.get("n").name)  # str
    perdure.run(fetch, "1")  # error
    perdure.run(add, 1)  # error
    perdure.run(len, "x")  # error
    perdure.submit(add, 1, c=2)  # error
    await perdure.run.aio(fetch)  # error


async def readings() -> None:
    reveal_type(perdure.patched("2026-12-fix"))  # bool
    reveal_type(durable.time())  # float
    reveal_type(await durable.random.aio())  # float
    durable.sleep("1")  # error
    perdure.patched()  # error


def declarations() -> None:
    env.task(formerly=1)  # error
    env.task(retries="2")  # error
    perdure.TaskEnvironment("e", executor="cloud")  # error
