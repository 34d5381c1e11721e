"""Each recorded deadline wakes its run, and none is slept over (D5, P7)."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from tests.journals import recorded
from tests.parking.serving import FOR_EVER, NAP, Serving, assert_replays, counts, step, sync_step
from tests.waiting import Stall

import perdure
from perdure import runtime
from perdure.core.ground.clock import seconds
from perdure.core.ground.model import Kind
from perdure.executors.local import DaemonThreads
from perdure.extras import durable_sleep
from perdure.testing import VirtualClock

pytestmark = pytest.mark.filterwarnings("ignore::perdure.errors.PerdureWarning")

env = perdure.TaskEnvironment(name="deadlines")


@env.task
async def naps_of_all_lengths() -> Any:
    order: list[str] = []

    async def nap(n: int) -> None:
        await durable_sleep.aio(NAP * n)
        order.append(await step(f"n{n}"))

    await asyncio.gather(*(nap(n) for n in (3, 1, 2)))
    return order


def test_each_deadline_wakes_the_run_and_the_journal_shows_their_order(clock: VirtualClock) -> None:
    with Serving([naps_of_all_lengths], clock) as serving, Stall() as stall:
        run = perdure.submit(naps_of_all_lengths)
        assert serving.finish(run) == ["n1", "n2", "n3"]
    assert serving.parks() >= 1
    entries = recorded(runtime.worker().store, run.row)
    assert [(entry.kind, entry.result) for entry in entries] == [(Kind.SLEEP, 0), (Kind.TRACE, 0)] * 3
    for entry, length in zip(entries[::2], (NAP, 2 * NAP, 3 * NAP), strict=True):
        assert length <= entry.took / 1e6 < stall.bound(length + 0.5, work=0.1)
    assert_replays(run)


@env.task
async def two_threads_sleep() -> str:
    def short() -> str:
        durable_sleep(NAP)
        return sync_step("short")

    long = asyncio.create_task(durable_sleep.aio(100 * NAP))
    try:
        return await asyncio.to_thread(short)
    finally:
        long.cancel()


def test_a_deadline_that_passes_while_its_thread_wakes_up_is_not_slept_over(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = DaemonThreads.resumed

    def resumed(self: DaemonThreads) -> None:
        # As if the thread were not given the processor for a while, between any two lines of waking up.
        plain(self)
        for driver in list(runtime.worker().drivers.values()):
            driver.loop.soon(driver.consider, NAP)
        time.sleep(0.1)  # real, as a thread that is not given the processor is what this is about

    monkeypatch.setattr(DaemonThreads, "resumed", resumed)
    with Serving([two_threads_sleep], clock, FOR_EVER) as serving:
        began = seconds()
        assert serving.finish(perdure.submit(two_threads_sleep)) == "short"
        assert seconds() - began < 50 * NAP
    assert counts == {"short": 1}
