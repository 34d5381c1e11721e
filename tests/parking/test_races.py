"""A race that a plain timer has won against a durable call stays won, parked and woken or not (P4)."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from tests.journals import recorded
from tests.parking.serving import (
    NAP,
    Serving,
    Watched,
    assert_replays,
    counts_by_run,
    held_step,
    let_go,
    nap_between,
    step,
    sync_step,
)  # fmt: skip

import perdure
from perdure import runtime
from perdure.core.ground.model import Status
from perdure.extras import durable_sleep
from perdure.testing import VirtualClock

pytestmark = pytest.mark.filterwarnings("ignore::perdure.errors.PerdureWarning")

env = perdure.TaskEnvironment(name="races")

QUICK = 0.02
"""Seconds of a plain timer that wins, as a step lasts until the race is over."""


async def lose_a_race() -> bool:
    """A step against a timer; whether the step is late. When this returns, the step has ended as well."""
    task = asyncio.create_task(held_step("slow"))
    done, _ = await asyncio.wait({task}, timeout=QUICK)
    late = not done
    let_go()
    await task
    return late


@env.task
async def child(n: int) -> int:
    await step(f"c{n}")
    await durable_sleep.aio(NAP)
    await step(f"d{n}")
    return n


@env.task
async def loses_a_race_then_calls() -> Any:
    late = await lose_a_race()
    return late, await child(1 if late else 2)


@env.task
async def loses_a_race_then_sleeps() -> Any:
    late = await lose_a_race()
    await durable_sleep.aio(NAP)
    return late, await step(f"late {late}")


@env.task
async def sleeps_while_it_loses_a_race() -> Any:
    sleep = asyncio.create_task(durable_sleep.aio(NAP))
    late = await lose_a_race()
    await sleep
    return late, await step("last")


@env.task
async def races_a_sleep() -> Any:
    task = asyncio.create_task(durable_sleep.aio(NAP))
    done, _ = await asyncio.wait({task}, timeout=QUICK)
    late = not done
    await task
    return late, await step("last")


@env.task
async def orders_a_sleep() -> Any:
    order: list[str] = []

    async def durable() -> None:
        await durable_sleep.aio(NAP)
        order.append("durable")

    async def plain() -> None:
        # A plain timer, which nothing records, is what this is about.
        await asyncio.sleep(QUICK)
        order.append("plain")

    await asyncio.gather(durable(), plain())
    return order == ["plain", "durable"], None


@env.task
async def cancels_then_sleeps() -> Any:
    late = False
    try:
        async with asyncio.timeout(QUICK):
            await held_step("slow")
    except TimeoutError:
        late = True
    await durable_sleep.aio(NAP)
    return late, await step("after")


RACES = [
    loses_a_race_then_calls, loses_a_race_then_sleeps, sleeps_while_it_loses_a_race, races_a_sleep, orders_a_sleep,
    cancels_then_sleeps,
]  # fmt: skip


def test_a_race_that_a_plain_timer_has_won_stays_won(clock: VirtualClock) -> None:
    """B7."""
    with Serving([*RACES, child], clock) as serving:
        runs = {task: perdure.with_runcontext(name=task.fn.__name__).submit(task) for task in RACES}
        assert [run.name for run in runs.values() if serving.finish(run)[0] is not True] == []
    assert [run.name for run in runs.values() if not serving.parks(run)] == []
    assert set(counts_by_run.values()) == {1}
    for task, run in runs.items():
        if task is not orders_a_sleep:  # no call depends on that order, and no timeout: a replay from the start is free
            assert_replays(run)


@env.task
async def wakes_often() -> Any:
    late = await lose_a_race()
    await asyncio.gather(*(durable_sleep.aio(NAP * n) for n in range(1, 5)))
    return [late, await step("last")]


def test_a_lost_race_is_noted_once_however_often_the_run_wakes(clock: VirtualClock) -> None:
    with Serving([wakes_often], clock) as serving:
        run = perdure.submit(wakes_often)
        assert serving.finish(run) == [True, "last"]
    assert serving.parks() >= 3
    rows = recorded(runtime.worker().store, run.row)
    assert sum(row.notes is not None for row in rows) == 1


@env.task
async def gathers() -> Any:
    return await asyncio.gather(*(nap_between(f"g{n}") for n in range(3)))


@env.task
async def threads() -> Any:
    def nap(n: int) -> str:
        sync_step(f"c{n}")
        durable_sleep(NAP + n)
        return sync_step(f"d{n}")

    return await asyncio.gather(*(asyncio.to_thread(nap, n) for n in range(3)))


@env.task
def sync_child(n: int) -> int:
    durable_sleep(NAP)
    return n


@env.task
def maps() -> Any:
    return list(perdure.map(sync_child, range(3)))


def test_races_and_parking_are_right_where_every_commit_is_slow(clock: VirtualClock, watched: Watched) -> None:
    """Deadlines and cancellations are long on their way; the writer has a thread of its own then."""
    watched.before = lambda writes: time.sleep(0.02)  # real: a slow disk is what this is about
    tasks = [*RACES, gathers, threads, maps]
    with Serving([*tasks, child, sync_child], clock) as serving:
        runs = [perdure.submit(task) for task in tasks]
        for run in runs:
            serving.finish(run)
    assert all(run.status == Status.SUCCEEDED for run in runs)
    assert [run.result[0] for run in runs[: len(RACES)]] == [True] * len(RACES)
    assert serving.parks() >= len(runs) // 2
