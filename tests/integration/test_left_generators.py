"""Async generators that code leaves before their end, and stray cancellations: replay goes the way of the first life.

The family: what asyncio does by itself behind the code's back (it closes a generator in a task of its own, it counts
requests to cancel), and what a body does to its own loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.journals import recorded
from tests.waiting import wait_for_async

import perdure
from perdure import runtime
from perdure.core.ground.model import Kind
from perdure.extras import durable_sleep

pytestmark = pytest.mark.filterwarnings("ignore::perdure.errors.PerdureWarning")

env = perdure.TaskEnvironment(name="left")
executed: list[str] = []
lives: list[list[Any]] = []


@pytest.fixture(autouse=True)
def store(tmp_path: Path) -> Iterator[None]:
    perdure.init(store=tmp_path / "perdure.db")
    executed.clear()
    lives.clear()
    yield
    perdure.init()


@perdure.trace
async def step(name: str, seconds: float = 0.0) -> str:
    executed.append(name)
    await asyncio.sleep(seconds)
    return name


@perdure.trace
async def strays() -> str:
    """A step that ends in a cancellation of its own."""
    executed.append("strays")
    inner = asyncio.ensure_future(asyncio.sleep(5))
    inner.cancel()
    await inner
    return "never"


@env.task
async def child(number: int) -> int:
    await step(f"child {number}", 0.01 + 0.02 * number)
    return number


@env.task
async def straying_child() -> str:
    return await strays()


async def with_steps() -> AsyncIterator[str]:
    try:
        for number in range(3):
            yield await step(f"item {number}", 0.005)
    finally:
        await step("closes", 0.005)


async def with_tasks() -> AsyncIterator[str]:
    works = [asyncio.create_task(step(f"work {number}", 0.005 + 0.03 * number)) for number in range(3)]
    try:
        for work in works:
            yield await work
    finally:
        for work in works:
            work.cancel()
        await asyncio.gather(*works, return_exceptions=True)


async def left_by_break(log: list[Any], what: str) -> None:
    async for item in with_steps() if what == "steps" else with_tasks():
        log.append(item)
        break


async def left_by_an_exception(log: list[Any]) -> None:
    with contextlib.suppress(ValueError):
        async for item in with_steps():
            log.append(item)
            raise ValueError


async def shape(what: str, log: list[Any]) -> None:
    """What a body does before it goes on."""
    if what in ("steps", "tasks"):
        await left_by_break(log, what)
    elif what == "exception":
        await left_by_an_exception(log)
    elif what == "anext":
        log.append(await anext(with_steps()))
    elif what == "map":
        async for item in perdure.map.aio(child, range(3)):
            log.append(item)
            break
    elif what == "own thread":
        work = asyncio.create_task(step("loser", 0.2))
        await step("first")
        asyncio.get_running_loop().call_soon_threadsafe(work.cancel)
        log.append((await asyncio.gather(work, step("beside", 0.01), return_exceptions=True))[1])
    else:
        await asyncio.wait([await swallows(log, strays if what == "stray trace" else straying_child)])


async def swallows(log: list[Any], call: Any) -> asyncio.Task[None]:
    """A task that has swallowed a request to cancel and then meets a cancellation that is not its own."""

    async def one() -> None:
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            log.append("swallowed")
        try:
            await call()
        except asyncio.CancelledError:
            log.append("stray")
        log.append(await step("goes on"))

    work = asyncio.create_task(one())
    await asyncio.sleep(0)
    work.cancel()
    return work


SHAPES = ("steps", "tasks", "exception", "anext", "map", "own thread", "stray trace", "stray child")


@env.task
async def main(what: str) -> list[Any]:
    log: list[Any] = []
    await shape(what, log)
    log.append(await step("after", 0.02))
    log.append(await step("last"))
    lives.append(log)
    await durable_sleep.aio(0.3)
    return log


def sleeps(name: str) -> bool:
    run = runtime.worker().store.run(name)
    return run is not None and any(row.kind == Kind.SLEEP for row in runtime.worker().store.open_actions(run.id))


def interrupted(name: str, task: Any, **inputs: Any) -> None:
    """Drive a run until it sleeps, and let go of it."""

    async def one() -> None:
        driving = asyncio.create_task(perdure.with_runcontext(name=name).run.aio(task, **inputs))
        await wait_for_async(lambda: sleeps(name))
        driving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await driving

    asyncio.run(one())


@pytest.mark.parametrize("what", SHAPES)
def test_replay_goes_the_way_of_the_first_life(what: str) -> None:
    """B1, B7, P1, P4, P5, AG1."""
    interrupted("r", main, what=what)
    before = sorted(executed)
    assert perdure.with_runcontext(name="r").run(main, what=what).result == lives[0]
    assert lives == [lives[0]] * 2
    assert sorted(executed) == before


@env.task
async def leaves_a_cycle() -> str:
    generator = with_steps()
    await anext(generator)
    cycle: list[Any] = [generator]
    cycle.append(cycle)
    return "left"


@env.task
async def collects() -> list[str]:
    log = [await step("one")]
    if len(lives) == 0:
        gc.collect()
    log.append(await step("after", 0.02))
    lives.append(log)
    await durable_sleep.aio(0.3)
    return log


@env.task
async def parent_that_collects() -> list[str]:
    return [await leaves_a_cycle(), *await collects()]


@pytest.mark.parametrize("where", ["parent", "other run"])
def test_what_the_collector_closes_is_recorded_nowhere(where: str, caplog: pytest.LogCaptureFixture) -> None:
    """AG2, AG3. The family: the collector runs in the parent of the body that left the generator, in another run."""
    gc.collect()
    gc.disable()
    try:
        if where == "other run":
            assert perdure.run(leaves_a_cycle).result == "left"
        task = parent_that_collects if where == "parent" else collects
        interrupted("r", task)
    finally:
        gc.enable()
    run = perdure.Run.get("r")
    assert "closes" not in executed
    assert all(row.name != "closes" and b"closes" not in (row.value or b"") for row in recorded_of(run))
    assert "the garbage collector has closed it" in caplog.text
    expected = ["one", "after"] if where == "other run" else ["left", "one", "after"]
    assert perdure.with_runcontext(name="r").run(task).result == expected


def recorded_of(run: perdure.Run) -> list[Any]:
    return list(recorded(runtime.worker().store, run.row))
