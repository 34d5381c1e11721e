"""A run that waits for recorded deadlines alone leaves memory until then, however its body is written (D5)."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from tests.parking.serving import (
    NAP,
    Serving,
    assert_replays,
    attempt,
    counts_by_run,
    nap_between,
    seen,
    step,
    sync_step,
)

import perdure
from perdure.extras import durable_sleep
from perdure.testing import VirtualClock

pytestmark = pytest.mark.filterwarnings("ignore::perdure.errors.PerdureWarning")

env = perdure.TaskEnvironment(name="what_parks")


@env.task
async def gathers() -> Any:
    return await asyncio.gather(*(nap_between(f"g{n}") for n in range(3)))


@env.task
async def groups() -> Any:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(nap_between(f"t{n}")) for n in range(3)]
    return [task.result() for task in tasks]


@env.task
async def queues() -> Any:
    queue: asyncio.Queue[str] = asyncio.Queue()

    async def produce() -> None:
        for n in range(2):
            await queue.put(await nap_between(f"q{n}", NAP / 2))

    async with asyncio.TaskGroup() as group:
        group.create_task(produce())
        return [await queue.get(), await queue.get()]


@env.task
async def events() -> Any:
    event, lock = asyncio.Event(), asyncio.Lock()

    async def setter() -> None:
        async with lock:
            await nap_between("e")
            event.set()

    async def locked() -> str:
        await asyncio.sleep(0)
        async with lock:
            return await step("locked")

    task, other = asyncio.create_task(setter()), asyncio.create_task(locked())
    await event.wait()
    await task
    return await other


@env.task
async def shields() -> Any:
    return await asyncio.shield(asyncio.create_task(nap_between("s")))


@env.task
async def async_child(n: int) -> int:
    await step(f"c{n}")
    await durable_sleep.aio(NAP)
    await step(f"d{n}")
    return 10 * n + attempt()


@env.task
def sync_child(n: int) -> int:
    sync_step(f"c{n}")
    durable_sleep(NAP)
    sync_step(f"d{n}")
    return 10 * n + attempt()


@env.task
async def async_from_async() -> Any:
    return await asyncio.gather(*(async_child(n) for n in range(3)))


@env.task
async def sync_from_async() -> Any:
    return await asyncio.gather(*(sync_child.aio(n) for n in range(3)))


@env.task
def sync_from_sync() -> Any:
    return [sync_child(1)]


@env.task
def async_from_sync() -> Any:
    return [async_child(1)]


@env.task
async def maps_async() -> Any:
    return [value async for value in perdure.map.aio(async_child, range(3))]


@env.task
def maps_sync() -> Any:
    return list(perdure.map(sync_child, range(3)))


@env.task
async def threads() -> Any:
    def nap(n: int) -> str:
        sync_step(f"c{n}")
        durable_sleep(NAP + n)
        return sync_step(f"d{n}")

    return await asyncio.gather(*(asyncio.to_thread(nap, n) for n in range(3)))


BACKOFF = perdure.RetryStrategy(count=2, backoff=perdure.Backoff(initial=NAP, factor=1.0))


def fail_first(name: str) -> int:
    seen.append((name, attempt()))
    if attempt() == 1:
        raise ValueError("first attempt")
    return attempt()


@env.task(retries=BACKOFF)
async def retries_async() -> int:
    await step("r")
    return fail_first("async")


@env.task(retries=BACKOFF)
def retries_sync() -> int:
    sync_step("r")
    return fail_first("sync")


@env.task
async def retries_children() -> Any:
    return await asyncio.gather(retries_async(), retries_sync.aio())


@env.task
def retries_child_inline() -> Any:
    return retries_sync(), attempt()


@env.task
async def bounded_nap() -> Any:
    try:
        async with perdure.durable.timeout(NAP):
            await step("in")
            await durable_sleep.aio(10 * NAP)
    except TimeoutError:
        return await step("late")


@env.task
async def bounded_in_time() -> Any:
    async with perdure.durable.timeout(10 * NAP):
        await durable_sleep.aio(NAP)
        return await step("in time")


@env.task
def sync_bounded() -> Any:
    with perdure.durable.timeout(10 * NAP):
        durable_sleep(NAP)
        return sync_step("in time")


PARKING = {
    gathers: ["g0 after", "g1 after", "g2 after"],
    groups: ["t0 after", "t1 after", "t2 after"],
    queues: ["q0 after", "q1 after"],
    events: "locked",
    shields: "s after",
    async_from_async: [1, 11, 21],
    sync_from_async: [1, 11, 21],
    sync_from_sync: [11],
    async_from_sync: [11],
    maps_async: [1, 11, 21],
    maps_sync: [1, 11, 21],
    threads: ["d0", "d1", "d2"],
    retries_async: 2,
    retries_sync: 2,
    retries_child_inline: (2, 1),
    bounded_nap: "late",
    bounded_in_time: "in time",
    sync_bounded: "in time",
}


def test_a_run_that_waits_for_recorded_deadlines_alone_is_parked(clock: VirtualClock) -> None:
    with Serving([*PARKING, async_child, sync_child], clock) as serving:
        runs = {task: perdure.with_runcontext(name=task.fn.__name__).submit(task) for task in PARKING}
        for task, run in runs.items():
            result = serving.finish(run)
            assert (tuple(result) if task is retries_child_inline else result) == PARKING[task], run.name
    assert [run.name for run in runs.values() if not serving.parks(run)] == []
    assert [of_run for of_run, count in counts_by_run.items() if count > 1] == []
    for run in runs.values():
        if "retries" not in run.name:  # a replay is one more attempt
            assert_replays(run)


def test_retries_of_several_children_wait_for_their_backoff_in_a_parked_run(clock: VirtualClock) -> None:
    with Serving([retries_children], clock) as serving:
        assert serving.finish(perdure.submit(retries_children)) == [2, 2]
    assert serving.parks() >= 1
    assert sorted(seen) == [("async", 1), ("async", 2), ("sync", 1), ("sync", 2)]


def test_parking_is_silent(clock: VirtualClock, caplog: pytest.LogCaptureFixture) -> None:
    """asyncio complains, when garbage is collected, of each task whose exception no code has looked at."""
    with Serving([async_from_async, async_child], clock) as serving:
        run = perdure.submit(async_from_async)
        serving.finish(run)
        assert serving.parks(run)
    gc.collect()
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []
