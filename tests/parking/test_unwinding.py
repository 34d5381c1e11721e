"""A run that is parked unwinds first; nothing durable happens meanwhile, and what does not unwind stays (D3, D5)."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.journals import recorded
from tests.parking.serving import (
    NAP,
    Serving,
    Watched,
    attempt,
    counts,
    counts_by_run,
    held,
    let_go,
    parked,
    seen,
    step,
    sync_step,
)  # fmt: skip
from tests.waiting import PATIENCE, wait_for

import perdure
from perdure import errors, runtime
from perdure.core.ground.model import Kind, Status
from perdure.core.run import driver as driver_module
from perdure.core.run.driver import Driver
from perdure.extras import durable_sleep
from perdure.testing import VirtualClock

pytestmark = pytest.mark.filterwarnings("ignore::perdure.errors.PerdureWarning")

env = perdure.TaskEnvironment(name="unwinding")


@env.task
async def child() -> None: ...


@env.task
async def quick() -> str:
    return "done"


@contextlib.asynccontextmanager
async def resource() -> AsyncIterator[None]:
    seen.append("open")
    try:
        yield
    finally:
        # A plain timer while the run unwinds is nothing that the run waits for.
        await asyncio.sleep(0.01)
        seen.append("close")


@env.task
async def cleans_up() -> int:
    async with resource():
        try:
            await durable_sleep.aio(NAP)
        except asyncio.CancelledError:
            seen.append("cancelled")
            for call in (step("never"), durable_sleep.aio(0.01), child()):
                try:
                    await call
                except errors.Parked:
                    seen.append("refused")
            raise ValueError("what a body says while it unwinds") from None
    return attempt()


@env.task
def cleans_up_sync() -> int:
    seen.append("open")
    try:
        durable_sleep(NAP)
    except errors.Parked:
        with pytest.raises(errors.Parked):
            sync_step("never")
        seen.append("cancelled")
        return -1
    finally:
        seen.append("close")
    return attempt()


@pytest.mark.parametrize("task", [cleans_up, cleans_up_sync])
def test_durable_calls_are_refused_while_a_run_unwinds(clock: VirtualClock, task: Any) -> None:
    """D3."""
    with Serving([cleans_up, cleans_up_sync, child], clock) as serving:
        run = perdure.submit(task)
        assert serving.finish(run) == 1
    assert serving.parks() == 1
    assert counts["never"] == 0
    refused = ["refused"] * 3 if task is cleans_up else []
    assert seen == ["open", "cancelled", *refused, "close", "open", "close"]
    [entry] = recorded(runtime.worker().store, run.row)
    assert entry.kind == Kind.SLEEP


stop_swallowing = threading.Event()


@env.task
async def swallows() -> str:
    while not stop_swallowing.is_set():
        try:
            await durable_sleep.aio(NAP)
            return await step("slept")
        except BaseException as error:
            seen.append(type(error).__name__)
    return "never"


@env.task
def swallows_sync() -> str:
    while not stop_swallowing.is_set():
        try:
            durable_sleep(NAP)
            return sync_step("slept")
        except BaseException as error:
            seen.append(type(error).__name__)
    return "never"


@env.task
async def lingers() -> str:
    for _ in range(2):
        try:
            await durable_sleep.aio(NAP)
        except asyncio.CancelledError:
            await held()
    return await step("slept")


def test_a_run_that_does_not_unwind_goes_on_at_its_wake_time_and_does_not_spin(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    stop_swallowing.clear()
    try:
        with Serving([swallows, swallows_sync, lingers, quick], clock) as serving:
            runs = [perdure.submit(task) for task in (swallows, swallows_sync, lingers)]
            wait_for(
                lambda: caplog.text.count("does not unwind") == 3,
                story=lambda: (caplog.text[-2000:], [run.row for run in runs], serving.outcomes, seen[-5:]),
            )
            let_go(runs[2].name)
            assert [serving.finish(run) for run in runs] == ["slept"] * 3
            # Were what is left collected, it would be made to end once more, and swallow that for ever.
            gc.collect()
            assert serving.finish(perdure.submit(quick)) == "done"
        assert set(counts_by_run.values()) == {1}
        assert [serving.parks(run) for run in runs] == [1] * 3
        assert caplog.text.count("does not unwind") == 3
        assert len(seen) <= 2 * 1001 + 2
    finally:
        stop_swallowing.set()


@env.task
async def slow_to_unwind() -> int:
    try:
        await durable_sleep.aio(NAP)
    finally:
        seen.append("unwinds")
        await held()
    return attempt()


def test_a_wake_time_that_passes_while_the_run_unwinds_wakes_it(
    clock: VirtualClock, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_module, "UNWIND_SECONDS", 100 * NAP)
    plain = Driver.parked
    tell = threading.Event()

    def slowly(self: Driver) -> None:
        # The row says that the run sleeps, and nothing here has been told: others may act on that by now.
        self.worker.lease.watch()
        tell.wait(PATIENCE)
        plain(self)

    monkeypatch.setattr(Driver, "parked", slowly)
    with Serving([slow_to_unwind], clock) as serving:
        runs = [perdure.submit(slow_to_unwind) for _ in range(3)]
        wait_for(lambda: len(seen) == 3)
        clock.jump(1.3 * NAP)
        serving.look_twice()
        for run in runs:
            let_go(run.name)
        wait_for(lambda: all(parked(run) or run.row.status == Status.RUNNING for run in runs))
        serving.look_twice()
        tell.set()
        assert [serving.finish(run) for run in runs] == [1] * 3
        wait_for(lambda: len(serving.outcomes) >= 6 and not serving.server.driven)
    ends = Counter(outcome.status for outcome in serving.outcomes)
    assert ends.keys() == {Status.SLEEPING, Status.SUCCEEDED}, serving.outcomes
    assert ends[Status.SUCCEEDED] == 3
    assert ends[Status.SLEEPING] == sum(watched.parks.values())


@env.task
async def unwinds_for_a_while() -> None:
    try:
        await durable_sleep.aio(NAP)
    finally:
        seen.append("unwinding")
        await held()


@pytest.mark.parametrize("notice", [True, False])
def test_a_run_that_is_aborted_while_it_is_parked_stays_aborted(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch, notice: bool
) -> None:
    from perdure.api import ending

    monkeypatch.setattr(driver_module, "UNWIND_SECONDS", 100 * NAP)
    with Serving([unwinds_for_a_while, quick], clock) as serving:
        run = perdure.submit(unwinds_for_a_while)
        wait_for(lambda: seen)
        assert ending.abort(run.name)
        if notice:
            runtime.worker().lease.watch()
        let_go(run.name)
        wait_for(lambda: serving.outcomes)
        clock.jump(2 * NAP)
        serving.look_twice()
        assert serving.finish(perdure.submit(quick)) == "done"
    assert run.status == Status.ABORTED
    assert [outcome.status for outcome in serving.outcomes if outcome.run == run.name] == [Status.ABORTED]
