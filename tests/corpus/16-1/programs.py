"""Programs whose journals are recorded, for stores of schema 2 with segments of format 1.

The text of this file is part of the recordings: an edit would count as changed source. A later version of the schema or
of the segments gets a directory of its own, with programs of its own.

python programs.py NAME [CUT]: execute the program as run `r` and print its result. With CUT, the process kills itself as
the step of that number begins.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple
from uuid import UUID

import perdure
from perdure import durable
from perdure.extras import durable_sleep, durable_time

env = perdure.TaskEnvironment(name="corpus")
elsewhere = perdure.TaskEnvironment(name="corpus_elsewhere", executor="process")
CUT = int(sys.argv[2]) if len(sys.argv) > 2 else 0


class StepError(Exception):
    """A step's own failure."""


def begin(name: str) -> None:
    """A line of the log that survives every kill; the process may end here."""
    with open(os.environ["CORPUS_LOG"], "a+") as stream:
        stream.write(name + "\n")
        stream.seek(0)
        begun = len(stream.read().splitlines())
    if begun == CUT:
        os.kill(os.getpid(), signal.SIGKILL)


@perdure.trace
async def step(name: str, seconds: float = 0.0, fail: bool = False) -> str:
    begin(name)
    if seconds:
        await asyncio.sleep(seconds)
    if fail:
        raise StepError(name)
    return name.upper()


@perdure.trace
def sync_step(name: str, seconds: float = 0.0) -> str:
    begin(name)
    time.sleep(seconds)
    return name.upper()


# -- one after the other ---------------------------------------------------------------------------------------


@env.task
async def in_turn() -> list[str]:
    found = [await step("a"), sync_step("b")]
    try:
        await step("c", fail=True)
    except StepError as error:
        found.append(f"caught {error}")
    found.append(await sync_step.aio("d"))
    found.append(await step("a"))
    return [*found, await step("e")]


@env.task
def in_turn_sync() -> list[str]:
    return [sync_step("a"), sync_step("b"), sync_step("a"), sync_step("c"), sync_step("d")]


# -- side by side ----------------------------------------------------------------------------------------------


@env.task
async def gathered() -> list[Any]:
    order: list[str] = []

    async def line(name: str, seconds: float) -> str:
        first = await step(f"{name}1", seconds)
        order.append(first)
        second = await step(f"{name}2", 0.03 - seconds)
        order.append(second)
        return first + second

    both = await asyncio.gather(line("x", 0.02), line("y", 0.001), asyncio.to_thread(sync_step, "thread"))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(line("z", 0.01)), group.create_task(line("w", 0.005))]
    done, pending = await asyncio.wait(
        [asyncio.create_task(step("quick")), asyncio.create_task(step("slow", 0.2))],
        return_when=asyncio.FIRST_COMPLETED,
    )
    race = sorted(task.result() for task in done)
    rest = sorted([await task for task in pending])
    return [both, [task.result() for task in tasks], order, race, rest, await step("end")]


@env.task
async def from_threads() -> list[str]:
    order: list[str] = []

    def work(name: str) -> list[str]:
        return [sync_step(f"{name}1", 0.002), sync_step(f"{name}2")]

    async def beside(name: str) -> list[str]:
        found = await asyncio.to_thread(work, name)
        order.append(name)
        return found

    both = await asyncio.gather(beside("t"), beside("u"), step("beside", 0.003))
    blocking = sync_step("on the loop")
    return [repr(both), *order, blocking, await step("end")]


# -- child tasks -----------------------------------------------------------------------------------------------


@env.task
async def leaf(name: str) -> str:
    return await step(name) + await step(f"{name}.more")


@env.task
def branch(name: str) -> str:
    return sync_step(name) + leaf(f"{name}.leaf")


@env.task
async def children() -> list[Any]:
    found: list[Any] = [await leaf("first"), await branch.aio("second")]
    found.append(await asyncio.gather(leaf("g1"), leaf("g2"), branch.aio("g3")))
    found.append([value async for value in perdure.map.aio(leaf, ["m1", "m2", "m3"], concurrency=2)])
    return [*found, await step("end")]


@elsewhere.task
async def outside(name: str) -> str:
    return await step(name) + await step(f"{name}.more")


@env.task
async def in_process() -> list[str]:
    return [await outside("p"), await step("between"), await outside("q"), await step("end")]


# -- failures --------------------------------------------------------------------------------------------------


@perdure.trace
async def second_time(name: str) -> str:
    begin(name)
    with open(os.environ["CORPUS_LOG"]) as stream:
        if stream.read().splitlines().count(name) < 2:
            raise StepError(f"{name} fails the first time")
    return name.upper()


@env.task(retries=perdure.RetryStrategy(2, perdure.Backoff(initial=0.01, factor=1.5)))
async def unsteady() -> str:
    kept = await step("kept")
    both = await asyncio.gather(step("left", 0.002), step("right"))
    try:
        flaky = await second_time("flaky")
    finally:
        after = await step("after")
    return kept + "".join(both) + flaky + after


@env.task(retries=1)
async def retried() -> list[str]:
    found = [await step("before"), await unsteady()]
    found.append(await second_time("own"))
    return [*found, await step("end")]


class DetailedError(Exception):
    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


@perdure.trace
def chained() -> None:
    begin("chained")
    try:
        raise KeyError("inner")
    except KeyError as error:
        raise DetailedError("outer", 7) from error


@perdure.trace
def grouped() -> None:
    begin("grouped")
    raise ExceptionGroup("several", [ValueError("v"), DetailedError("d", 8)])


@env.task
async def failing_child() -> None:
    await step("inside")
    raise DetailedError("child", 9)


@env.task
async def failures() -> list[Any]:
    found: list[Any] = []
    try:
        chained()
    except DetailedError as error:
        found.append([str(error), error.code, repr(error.__cause__)])
    try:
        grouped()
    except ExceptionGroup as error:
        found.append([error.message, [repr(one) for one in error.exceptions]])
    try:
        await failing_child()
    except DetailedError as error:
        found.append(error.code)
    return [*found, await step("end")]


@env.task
async def failed() -> str:
    await step("a")
    raise DetailedError(await step("b"), 3)


# -- time ------------------------------------------------------------------------------------------------------


@env.task
async def readings() -> list[Any]:
    return [
        await durable_time.aio(), await durable.uuid4.aio(), await durable.random.aio(), durable_time(),
        await durable.now.aio(), perdure.patched("2026-12-fix"), await step("end"),
    ]  # fmt: skip


@env.task
async def sleeps() -> list[str]:
    async def nap(name: str, seconds: float) -> str:
        await durable_sleep.aio(seconds)
        return await step(name)

    naps = await asyncio.gather(nap("long", 0.05), nap("short", 0.01))
    durable_sleep(0.01)
    await durable_sleep.aio(0.02)
    return [*naps, await step("end")]


@env.task
async def timeouts() -> list[str]:
    found: list[str] = []
    for limit, seconds in ((0.02, 30.0), (30.0, 0.001)):
        try:
            async with durable.timeout(limit):
                found.append(await step(f"durable{limit}", seconds))
        except TimeoutError:
            found.append(await step(f"durable instead{limit}"))
        try:
            async with asyncio.timeout(limit):
                found.append(await step(f"plain{limit}", seconds))
        except TimeoutError:
            found.append(await step(f"plain instead{limit}"))
        try:
            found.append(await asyncio.wait_for(step(f"waited{limit}", seconds), limit))
        except TimeoutError:
            found.append(await step(f"waited instead{limit}"))
    return [*found, await step("end")]


@env.task
async def long_child() -> str:
    await step("child.1")
    return await step("child.2", 30.0)


@env.task
async def cancelled() -> list[str]:
    found: list[str] = []
    tasks = [asyncio.create_task(step("trace", 30.0)), asyncio.create_task(long_child())]
    tasks.append(asyncio.create_task(durable_sleep.aio(30.0)))
    found.append(await step("meanwhile", 0.1))
    for task in tasks:
        task.cancel()
    found += [type(one).__name__ for one in await asyncio.gather(*tasks, return_exceptions=True)]
    return [*found, await step("end")]


# -- generators ------------------------------------------------------------------------------------------------


@perdure.trace
def items(name: str, count: int) -> Iterator[str]:
    for number in range(count):
        begin(f"{name}{number}")
        yield f"{name}{number}"


@perdure.trace
async def async_items(name: str, count: int) -> AsyncIterator[str]:
    for number in range(count):
        begin(f"{name}{number}")
        yield f"{name}{number}"


@perdure.trace(resume="given")
async def continued(count: int, given: Sequence[int] = ()) -> AsyncIterator[int]:
    for number in range(len(given), count):
        begin(f"c{number}")
        yield number * number


@env.task
async def generators() -> list[Any]:
    found: list[Any] = [list(items("s", 3))]
    found.append([item async for item in async_items("a", 3)])
    source = items("closed", 9)
    found.append([next(source), next(source)])
    source.close()
    found.append([number async for number in continued(4)])
    return [*found, await step("end")]


# -- values ----------------------------------------------------------------------------------------------------


class Colour(Enum):
    RED = "red"


class Point(NamedTuple):
    x: int
    y: float


@dataclass
class Thing:
    name: str
    size: Decimal
    points: list[Point]
    parent: Thing | None = None


@perdure.trace
def thing() -> Thing:
    begin("thing")
    return Thing("a", Decimal("1.50"), [Point(1, 2.5)], Thing("b", Decimal("0"), []))


@perdure.trace
def untyped():  # type: ignore[no-untyped-def]  # noqa: ANN201
    begin("untyped")
    return {
        "big": 10**40, "bytes": b"\x00\xff", "nan": math.nan, "infinity": -math.inf, "tuple": (1, "two", None),
        "when": datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), "span": timedelta(seconds=1.5), "set": {3},
        "uuid": UUID(int=5), "decimal": Decimal("1E+3"), 7: "int key",
    }  # fmt: skip


@perdure.trace
def typed() -> dict[str, tuple[int, ...] | Colour]:
    begin("typed")
    return {"numbers": (1, 2, 3), "colour": Colour.RED}


@env.task
async def taking(what: Thing, when: datetime) -> str:
    return f"{what} {when:%Y} {await step('taken')}"


@env.task
async def values() -> list[Any]:
    found: list[Any] = [thing(), untyped(), typed()]
    found.append(await taking(found[0], datetime(2026, 1, 1, tzinfo=UTC)))
    return [*map(repr, found), await step("end")]


@env.task(cache=perdure.Cache(behavior="override", version_override="1"))
async def costly(number: int) -> int:
    await step(f"costly{number}")
    return number * 2


@env.task
async def cached() -> list[Any]:
    return [await costly(1), await costly(2), await costly(1), await step("end")]


@env.task
async def parked() -> list[str]:
    found = [await step("before")]
    await durable_sleep.aio(2.0)
    return [*found, await step("after")]


@env.task
async def messages() -> list[Any]:
    own = perdure.Run.get("r")
    condition = await perdure.new_condition.aio("approve", prompt="Go on?", data_type=bool)
    await own.send.aio("box", 1)
    await own.send.aio("box", 2)
    found: list[Any] = [await perdure.receive.aio("box", int), await step("between")]
    await own.signal.aio("approve", True)
    found.append(await condition.wait.aio())
    found.append(await perdure.receive.aio("box", int))
    try:
        await perdure.receive.aio("box", int, timeout=0.01)
    except TimeoutError:
        found.append("late")
    return [*found, await step("end")]


def main(name: str) -> None:
    try:
        print(repr(perdure.with_runcontext(name="r").run(globals()[name]).result))
    except DetailedError as error:
        print(f"failed: {error} {error.code}")


if __name__ == "__main__":
    main(sys.argv[1])
