"""A parked run is taken by another driver, aborted, or found again after its store failed; it is lost by nothing."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.parking.serving import NAP, PARK_AFTER, Serving, Watched, attempt, counts, parked, step, sync_step
from tests.waiting import PATIENCE, wait_for

import perdure
from perdure import errors, runtime
from perdure.core.ground.model import Claim, RunWrites, Status
from perdure.core.process import serving as serving_module
from perdure.extras import durable_sleep
from perdure.testing import VirtualClock

pytestmark = pytest.mark.filterwarnings("ignore::perdure.errors.PerdureWarning")

env = perdure.TaskEnvironment(name="taking_over")


@env.task
async def sleeps_long() -> int:
    await step("before")
    await durable_sleep.aio(NAP)
    await step("after")
    return attempt()


def test_a_parked_run_that_is_asked_for_by_name_goes_on_here_in_the_same_attempt(clock: VirtualClock) -> None:
    with Serving([sleeps_long], clock):
        run = perdure.with_runcontext(name="mine").submit(sleeps_long)
        wait_for(lambda: parked(run))
    clock.jump(NAP)
    assert perdure.with_runcontext(name="mine").run(sleeps_long).result == 1
    assert counts == {"before": 1, "after": 1}


def test_a_parked_run_is_taken_over_while_a_worker_serves(clock: VirtualClock) -> None:
    with ThreadPoolExecutor(1) as pool, Serving([sleeps_long], clock) as serving:
        run = perdure.with_runcontext(name="mine").submit(sleeps_long)
        wait_for(lambda: parked(run))
        taken = pool.submit(lambda: perdure.with_runcontext(name="mine").run(sleeps_long).result)
        wait_for(lambda: run.row.status == Status.RUNNING)
        clock.jump(NAP)
        assert taken.result(PATIENCE) == 1
        serving.look_twice()
    assert serving.parks() == 1
    assert counts == {"before": 1, "after": 1}


def test_a_parked_run_that_is_aborted_does_not_wake(clock: VirtualClock) -> None:
    from perdure.api import ending

    with Serving([sleeps_long], clock) as serving:
        run = perdure.submit(sleeps_long)
        wait_for(lambda: parked(run))
        assert ending.abort(run.name)
        clock.jump(2 * NAP)
        serving.look_twice()
    assert run.status == Status.ABORTED
    assert counts == {"before": 1}
    assert serving.parks() == 1


def test_a_store_that_fails_while_a_run_is_parked_loses_no_run(
    clock: VirtualClock, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_module, "FIRST_RETRY", 0.05)
    failed: list[bool] = []

    def fail(writes: object) -> None:
        parks = [write for write in writes if isinstance(write, RunWrites) and write.park]  # type: ignore[attr-defined]
        if parks and not failed:
            failed.append(True)
            raise errors.StoreUnavailableError("the disk is full")

    watched.before = fail
    with Serving([sleeps_long], clock) as serving:
        run = perdure.submit(sleeps_long)
        serving.finish(run)
    assert run.status == Status.SUCCEEDED
    assert failed
    assert serving.outcomes[0].status == Status.INTERRUPTED
    assert counts == {"before": 1, "after": 1}


@env.task
async def is_quick() -> str:
    return "done"


def test_a_claim_that_stands_for_no_driver_is_given_back(clock: VirtualClock) -> None:
    run = perdure.submit(is_quick)
    worker = runtime.worker()
    worker.lease.attend()
    [taken] = worker.store.take_due([is_quick.name], [Claim(b"t" * 16, worker.id)])
    assert taken.run.name == run.name
    with Serving([is_quick], clock):
        clock.jump(2 * serving_module.DOUBT_SECONDS)
        assert run.wait(PATIENCE).result == "done"


@env.task
def sync_child(n: int) -> int:
    sync_step(f"c{n}")
    durable_sleep(NAP)
    sync_step(f"d{n}")
    return n


def test_a_thread_that_sleeps_gives_its_place_back(clock: VirtualClock) -> None:
    peak = 0
    before = set(threading.enumerate())
    with Serving([sync_child], clock, concurrency=5) as serving:
        runs = [perdure.submit(sync_child, n) for n in range(40)]

        def all_done() -> bool:
            nonlocal peak
            here = set(threading.enumerate()) - before
            peak = max(peak, sum(thread.name.startswith("perdure-body") for thread in here))
            return all(run.row.status == Status.SUCCEEDED for run in runs)

        serving.skip_until(all_done)
    assert serving.parks() >= 20
    # Not one for each of the forty.
    assert peak <= 25
    assert set(counts.values()) == {1}


def test_a_worker_whose_runs_sleep_does_nothing(monkeypatch: pytest.MonkeyPatch, clock: VirtualClock) -> None:
    monkeypatch.setattr(serving_module, "LAST_POLL", 0.25)  # as it is outside of tests
    with Serving([sleeps_long], clock, PARK_AFTER) as serving:
        runs = [perdure.submit(sleeps_long) for _ in range(20)]
        wait_for(lambda: serving.parks() == len(runs) and not serving.server.driven)
        busy = time.process_time()
        time.sleep(1.0)  # real: how much of the processor is used in a second is what is measured
        assert time.process_time() - busy < 0.2
