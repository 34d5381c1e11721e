"""Many runs are parked and woken many times: the outcome is that of runs that stay, and nothing stays in memory."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import weakref
from typing import Any

import pytest
from tests.parking.serving import FOR_EVER, NAP, PARK_AFTER, Serving, assert_replays, counts, step
from tests.waiting import wait_for

import perdure
from perdure import runtime
from perdure.core.run.driver import Driver
from perdure.extras import durable_sleep
from perdure.testing import VirtualClock

pytestmark = pytest.mark.filterwarnings("ignore::perdure.errors.PerdureWarning")

env = perdure.TaskEnvironment(name="many_cycles")


async def mixture(seed: int) -> list[Any]:
    """A workflow of gathers, races, children and threads; what it gives depends on the order of their deadlines."""
    dice = random.Random(seed)
    order: list[Any] = []

    async def leaf(name: str) -> str:
        kind, length = dice.randrange(6), 0.4 * NAP * dice.randrange(1, 4)
        if kind == 0:
            await durable_sleep.aio(length)
        elif kind == 1:
            await durable_sleep.aio(length)
            await naps.aio(length)
        elif kind == 2:
            await naps_sync.aio(length)
        elif kind == 3:
            await asyncio.to_thread(durable_sleep, length)
        elif kind == 4:
            with contextlib.suppress(TimeoutError):
                async with perdure.durable.timeout(length):
                    await durable_sleep.aio(NAP)
        else:
            waiting = {asyncio.create_task(durable_sleep.aio(n)) for n in (length, length + NAP)}
            _, late = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in late:
                task.cancel()
        return await step(f"{seed} {name}")

    async def tree(name: str, depth: int) -> Any:
        if depth == 0:
            return await leaf(name)
        if dice.random() < 0.5:
            return await asyncio.gather(*(tree(f"{name}{n}", depth - 1) for n in range(2)))
        return [await tree(f"{name}{n}", depth - 1) for n in range(2)]

    order.append(await tree("", 2))
    order.append(await perdure.durable.random.aio() >= 0)
    return order


@env.task
async def naps(seconds: float) -> float:
    await durable_sleep.aio(seconds)
    return seconds


@env.task
def naps_sync(seconds: float) -> float:
    durable_sleep(seconds)
    return seconds


@env.task
async def mixes(seed: int) -> list[Any]:
    return await mixture(seed)


def test_parked_or_not_the_outcome_is_the_same(clock: VirtualClock) -> None:
    results: list[list[Any]] = []
    for park_after in (FOR_EVER, PARK_AFTER):
        counts.clear()
        with Serving([mixes, naps, naps_sync], clock, park_after) as serving:
            runs = [perdure.submit(mixes, seed) for seed in range(24)]
            results.append([serving.finish(run) for run in runs])
        assert set(counts.values()) == {1}
    assert results[0] == results[1]
    assert serving.parks() > 15
    for run in runs:
        assert_replays(run)


@env.task
async def naps_often(naps: int) -> int:
    for _ in range(naps):
        await durable_sleep.aio(NAP)
    return naps


@env.task
def naps_often_sync(naps: int) -> int:
    for _ in range(naps):
        durable_sleep(NAP)
    return naps


def test_nothing_of_a_parked_run_stays_in_memory(clock: VirtualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    drivers: list[weakref.ref[Driver]] = []
    plain = Driver.start

    def start(self: Driver) -> None:
        drivers.append(weakref.ref(self))
        plain(self)

    monkeypatch.setattr(Driver, "start", start)
    with Serving([naps_often, naps_often_sync], clock, concurrency=300) as serving:
        runs = [perdure.submit(task, 6) for task in (naps_often, naps_often_sync) for _ in range(90)]
        for run in runs:
            assert serving.finish(run) == 6
        assert serving.parks() >= 500
        assert len(drivers) == serving.parks() + len(runs)
        wait_for(lambda: not serving.server.driven)

        def alive() -> list[Driver]:
            gc.collect()
            return [found for ref in drivers if (found := ref()) is not None]

        wait_for(lambda: not alive(), story=lambda: [type(holder) for holder in gc.get_referrers(alive()[0])])
    assert not runtime.worker().drivers
