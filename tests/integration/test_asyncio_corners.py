"""Corners of asyncio in bodies: replay goes the way of the first life.

The family: what asyncio does by itself behind the code's back (it closes a generator in a task of its own, it counts
requests to cancel), what a body does to its own loop, tasks and callbacks that are given a context, and what other
threads bring to the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from pathlib import Path
from typing import Any

import anyio
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
    elif what == "anyio":
        await under_anyio(log)
    elif what in CONTEXTS:
        await in_contexts(what, log)
    elif what in THREADS:
        await beside_threads(what, log)
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


async def under_anyio(log: list[Any]) -> None:
    """anyio's timer looks at the clock again, its canceller repeats itself until the tasks have ended, and a scope
    knows its own cancellation by the text."""

    async def member(name: str) -> None:
        try:
            await step(name, 5.0)
        finally:
            log.append(f"{name} ends")

    with anyio.move_on_after(0.02) as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(member, "a")
            await step("host", 5.0)
    log.append(scope.cancelled_caught)


CONTEXTS = ("shared context", "group in one context", "task in an empty context", "timer in an empty context")


async def in_contexts(what: str, log: list[Any]) -> None:
    """Tasks and callbacks that are given a context."""
    if what == "shared context":
        context = copy_context()
        works = [asyncio.create_task(step(name, 0.01), context=context) for name in ("c", "d")]
        log.extend(await asyncio.gather(*works))
    elif what == "group in one context":
        context = copy_context()
        async with asyncio.TaskGroup() as group:
            works = [group.create_task(step(name, 0.01), context=context) for name in ("c", "d")]
        log.extend(work.result() for work in works)
    elif what == "task in an empty context":
        log.append(await asyncio.create_task(plain_then_step(), context=Context()))
    else:
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.03, future.set_result, 1, context=Context())
        log.append(await future)


async def plain_then_step() -> str:
    await asyncio.sleep(0.02)
    return await step("in an empty context", 0.01)


THREADS = ("future of an old pool", "future of another loop", "callback from a thread", "coroutine from a thread")
pool = ThreadPoolExecutor(1)
pool.submit(int).result()  # its thread is older than each run


async def beside_threads(what: str, log: list[Any]) -> None:
    """What other threads bring to the loop."""
    loop = asyncio.get_running_loop()
    await step("before")
    if what == "future of an old pool":
        await asyncio.wrap_future(pool.submit(time.sleep, 0.1))
    elif what == "future of another loop":
        log.append(await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(asyncio.sleep(0.05, 7), other_loop)))
    elif what == "callback from a thread":
        future = loop.create_future()

        def job() -> str:
            loop.call_soon_threadsafe(future.set_result, 1)
            return sync_step("in the thread")

        work = asyncio.create_task(asyncio.to_thread(job))
        log.append(await future)
        log.append(await step("behind the callback"))
        log.append(await work)
    else:

        def job() -> str:
            return asyncio.run_coroutine_threadsafe(plain_then_step(), loop).result()

        log.append(await asyncio.to_thread(job))


@perdure.trace
def sync_step(name: str) -> str:
    executed.append(name)
    time.sleep(0.01)
    return name


other_loop = asyncio.new_event_loop()
threading.Thread(target=other_loop.run_forever, daemon=True).start()

SHAPES = (
    "anyio",
    *CONTEXTS,
    *THREADS,
    "steps",
    "tasks",
    "exception",
    "anext",
    "map",
    "own thread",
    "stray trace",
    "stray child",
)


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
