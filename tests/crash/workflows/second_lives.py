"""Cases of `tests/crash/test_generators.py`: traced generators that give other items in a later process.

`LIFE` says which items a process gives: `first`, `other` (from item 1 on), `short` (item 0 alone), `raises` (an
exception in place of item 1).
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lab
from lab import LabError, env, log, see, sync_step

import perdure
from perdure.io import File

COUNT = 4


@dataclass
class Point:
    number: int
    names: set[str] = field(default_factory=set)


def given(kind: str) -> Iterator[Any]:
    """The items of this process."""
    life = os.environ.get("LIFE", "first")
    for number in range(COUNT):
        if number == 1 and life == "raises":
            raise LabError("broken")
        if number == 1 and life == "short":
            return
        yield item(kind, number, "other" if number and life == "other" else "first")


def item(kind: str, number: int, life: str) -> Any:
    """An item; two processes make equal ones differ in the order of a set, or in the name of a file."""
    name = f"{life}{number}"
    if kind == "point":
        return Point(number, {name, *"abcdefgh"})
    if kind == "mapping":
        return {"number": number, "names": [{name, *"abcdefgh"}], "none": None, "float": float("nan")}
    if kind == "file":
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as stream:
            stream.write(name)
            stream.flush()
            return File.from_local(stream.name)
    return name


def plain(value: Any) -> str:
    """The life and the number of an item."""
    if isinstance(value, File):
        return Path(value.path).read_text()
    names = value.names if isinstance(value, Point) else value["names"][0] if isinstance(value, dict) else {value}
    return next(name for name in names if len(name) > 1)


@perdure.trace
def texts() -> Iterator[str]:
    log("opened")
    yield from given("text")


@perdure.trace
def points() -> Iterator[Point]:
    log("opened")
    yield from given("point")


@perdure.trace
def mappings() -> Iterator[dict[str, Any]]:
    log("opened")
    yield from given("mapping")


@perdure.trace
def files() -> Iterator[File]:
    log("opened")
    yield from given("file")


@perdure.trace
async def async_texts() -> AsyncIterator[str]:
    log("opened")
    for one in given("text"):
        await asyncio.sleep(0)
        yield one


@perdure.trace
async def async_points() -> AsyncIterator[Point]:
    log("opened")
    for one in given("point"):
        yield one


def _consume(items: Any) -> list[str]:
    out = []
    for one in items:
        out.append(plain(one))
        see("main", out[-1])
    return out


@env.task
def texts_consumed() -> list[str]:
    return _consume(texts())


@env.task
def points_consumed() -> list[str]:
    return _consume(points())


@env.task
def mappings_consumed() -> list[str]:
    return _consume(mappings())


@env.task
def files_consumed() -> list[str]:
    return _consume(files())


async def _async_consume(items: Any) -> list[str]:
    out = []
    async for one in items:
        out.append(plain(one))
        see("main", out[-1])
    return out


@env.task
async def async_texts_consumed() -> list[str]:
    return await _async_consume(async_texts())


@env.task
async def async_points_consumed() -> list[str]:
    return await _async_consume(async_points())


@env.task
def caught() -> list[str]:
    """A body that takes every exception for a failure of the stream."""
    out = []
    try:
        for one in texts():
            out.append(one)  # noqa: PERF402
    except Exception as error:
        out.append(sync_step(f"refund after {error}"))
    return out


@env.task
def half_consumed() -> list[str]:
    items = texts()
    out = [next(items), next(items)]
    items.close()  # type: ignore[attr-defined]
    return [*out, sync_step("a"), sync_step("b")]


@env.task
def finished() -> list[str]:
    return [*texts(), sync_step("a"), sync_step("b")]


@env.task(retries=1)
def fails_once() -> list[str]:
    """The first attempt fails in the generator, and in another process the second attempt gets other items."""
    return list(breaking())


@perdure.trace
def breaking() -> Iterator[str]:
    number = lab.tries("breaking")
    log("executed", "breaking")
    for place in range(3):
        if place == 2 and number == 0:
            raise LabError("breaking")
        yield f"{number}-{place}"


@perdure.trace
def numbered(name: str) -> Iterator[str]:
    """Each execution gives other items."""
    number = lab.tries(name)
    log("executed", name)
    for place in range(3):
        yield f"{number}-{place}"


@perdure.trace
async def async_numbered(name: str, *, waits: bool = False) -> AsyncIterator[str]:
    number = lab.tries(name)
    log("executed", name)
    for place in range(3):
        if place == 2 and waits and number == 0:
            await asyncio.sleep(60)
        yield f"{number}-{place}"


def checked(one: str) -> str:
    """The first execution's second item is refused."""
    if one == "0-1":
        raise LabError(f"{one} is refused")
    return one


@env.task(retries=1)
def consumer_fails() -> list[str]:
    return [checked(one) for one in numbered("numbered")]


@env.task(retries=1)
def consumer_fails_between_steps() -> list[str]:
    sync_step("a")
    out = [sync_step(checked(one)) for one in numbered("numbered")]
    return [*out, sync_step("b")]


@env.task(retries=1)
async def async_consumer_fails() -> list[str]:
    return [checked(one) async for one in async_numbered("numbered")]


@env.task(retries=1)
async def sibling_fails() -> list[str]:
    """The generator is executing when the attempt fails."""
    reached = asyncio.Event()
    out = []

    async def consumes() -> None:
        async for one in async_numbered("numbered", waits=True):
            out.append(one)
            if one == "0-1":
                reached.set()
        reached.set()

    async def fails() -> None:
        await reached.wait()
        for one in out:
            checked(one)

    async with asyncio.TaskGroup() as group:
        group.create_task(consumes())
        group.create_task(fails())
    return out


@env.task(retries=1)
async def threaded_consumer_fails() -> list[str]:
    return await asyncio.to_thread(lambda: [checked(one) for one in numbered("numbered")])


@perdure.trace(resume="before")
def resuming(before: Sequence[str] = ()) -> Iterator[str]:
    log("opened", list(before))
    for number in range(len(before), COUNT):
        yield f"{os.getpid()}-{number}"


@perdure.trace(resume="before")
async def async_resuming(*, before: Sequence[str] = ()) -> AsyncIterator[str]:
    log("opened", list(before))
    for number in range(len(before), COUNT):
        await asyncio.sleep(0)
        yield f"{os.getpid()}-{number}"


@env.task
def resumed() -> list[str]:
    return _consume_texts(resuming())


def _consume_texts(items: Iterator[str]) -> list[str]:
    out = []
    for one in items:
        out.append(one)
        see("main", one)
    return out


@env.task
async def async_resumed() -> list[str]:
    out = []
    async for one in async_resuming():
        out.append(one)
        see("main", one)
    return out


TASKS = {name: value for name, value in globals().items() if isinstance(value, perdure.Task)}

if __name__ == "__main__":
    lab.main(TASKS)
