"""Policies of submissions as programs use them: keys, full queues, the time to begin."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import perdure
from perdure import errors, runtime
from perdure.api.standing import standing
from perdure.testing import virtual_time

pytestmark = [
    pytest.mark.usefixtures("perdure_store"),
    pytest.mark.filterwarnings("ignore::perdure.errors.PerdureWarning"),
]

env = perdure.TaskEnvironment(name="policies")
single = perdure.Queue("single", concurrency=1, when_full="skip")
newest = perdure.Queue("newest", concurrency=1, when_full="latest")
fresh = perdure.Queue("fresh", concurrency=1, when_full="replace")
plain = perdure.Queue("plain", concurrency=1)
gate = threading.Event()
inside = threading.Event()
seen: list[str] = []


@pytest.fixture(autouse=True)
def _gate() -> Any:
    gate.clear()
    inside.clear()
    seen.clear()
    yield
    gate.set()


@env.task(queue=single)
async def singleton(n: int) -> int:
    await asyncio.to_thread(gate.wait)
    return n


@env.task(queue=newest)
async def latest(n: int) -> int:
    await asyncio.to_thread(gate.wait)
    return n


@env.task(queue=fresh)
async def replaced(n: int) -> int:
    try:
        seconds = 0 if gate.is_set() else 600
        inside.set()
        await asyncio.sleep(seconds)
    finally:
        await cleanup(n)
    return n


@perdure.trace
async def cleanup(n: int) -> None:
    seen.append(f"cleaned {n}")


@env.task(queue=plain)
async def waits(n: int) -> int:
    await asyncio.to_thread(gate.wait)
    return n


@env.task
def quick(n: int) -> int:
    seen.append(f"quick {n}")
    return n


@env.task
def other(n: int) -> int:
    return n


def begun(run: perdure.Run) -> None:
    end = time.monotonic() + 60
    while run.status != "RUNNING":
        assert time.monotonic() < end
        time.sleep(0.02)


def why(run: perdure.Run) -> str:
    row = runtime.worker().store.run(run.name)
    assert row is not None
    return standing(row)


def test_a_singleton_skips_while_it_runs() -> None:
    """Sync and async submissions; the reason is shown, and the result raises."""
    with perdure.Worker([singleton]):
        first = perdure.submit(singleton, n=1)
        begun(first)
        second = perdure.submit(singleton, n=2)
        third = asyncio.run(perdure.submit.aio(singleton, n=3))
        assert (second.status, third.status) == ("CANCELLED", "CANCELLED")
        assert why(second) == "The run was cancelled: skipped, because queue single was full"
        with pytest.raises(errors.RunCancelledError, match="queue single was full"):
            _ = second.wait(timeout=60).result
        gate.set()
        assert first.wait(timeout=60).result == 1
        assert perdure.submit(singleton, n=4).wait(timeout=60).result == 4


def test_the_latest_waiting_run_is_kept() -> None:
    with perdure.Worker([latest]):
        runs = [perdure.submit(latest, n=0)]
        begun(runs[0])
        runs += [perdure.submit(latest, n=n) for n in range(1, 5)]
        gate.set()
        ended = [run.wait(timeout=60) for run in runs]
        assert [run.status for run in ended] == ["SUCCEEDED", *["CANCELLED"] * 3, "SUCCEEDED"]
        assert f"replaced by run {runs[2].name}" in why(runs[1])


def test_a_replaced_run_cleans_up_before_the_new_run_begins() -> None:
    with perdure.Worker([replaced]):
        first = perdure.submit(replaced, n=1)
        assert inside.wait(60)
        gate.set()
        second = perdure.submit(replaced, n=2)
        assert second.wait(timeout=60).result == 2
        assert first.status == "CANCELLED"
        assert seen == ["cleaned 1", "cleaned 2"]


def test_the_submission_decides_where_it_says_more_than_the_queue() -> None:
    skipping = perdure.with_runcontext(when_full="skip")
    first = skipping.submit(waits, n=1)
    assert [first.status, skipping.submit(waits, n=2).status] == ["QUEUED", "CANCELLED"]
    assert perdure.submit(waits, n=3).status == "QUEUED"
    assert perdure.with_runcontext(when_full="wait").submit(singleton, n=1).status == "QUEUED"


def test_one_run_of_a_key() -> None:
    """The later submission gives the earlier run, also under another name or with other inputs."""
    context = perdure.with_runcontext(dedup="site-a")
    first = context.submit(quick, n=1)
    assert context.submit(quick, n=2).name == first.name
    assert perdure.with_runcontext(name="named", dedup="site-a").submit(quick, n=3).name == first.name
    assert asyncio.run(context.submit.aio(quick, n=4)).name == first.name
    assert context.submit(other, n=1).name != first.name
    with perdure.Worker([quick]):
        first.wait(timeout=60)
        second = context.submit(quick, n=5)
        assert second.name != first.name
        assert second.wait(timeout=60).result == 5


def test_lifetimes_debounce_and_throttle_with_time_that_jumps() -> None:
    with virtual_time() as clock, perdure.Worker([quick]):
        held = perdure.with_runcontext(dedup="held", dedup_for=timedelta(hours=1))
        first = held.submit(quick, n=1).wait()
        assert held.submit(quick, n=2).name == first.name
        clock.advance(seconds=3601)
        assert held.submit(quick, n=3).name != first.name

        began = clock.now
        late = [perdure.with_runcontext(dedup="late", debounce=30).submit(quick, n=n) for n in (4, 5, 6)]
        assert late[-1].wait().result == 6
        assert timedelta(seconds=30) <= clock.now - began < timedelta(seconds=60)
        assert [run.status for run in late] == ["CANCELLED", "CANCELLED", "SUCCEEDED"]

        apart = perdure.with_runcontext(dedup="apart", throttle=600)
        apart.submit(quick, n=7).wait()
        began = clock.now
        assert [apart.submit(quick, n=n) for n in (8, 9)][-1].wait().result == 9
        assert timedelta(seconds=590) <= clock.now - began < timedelta(seconds=660)
    assert "quick 8" not in seen


def test_a_run_begins_in_time_or_never() -> None:
    """Family: seconds, a timedelta, a time with a zone; in time and too late."""
    soon = [
        perdure.with_runcontext(start_by=0.05).submit(quick, n=1),
        perdure.with_runcontext(start_by=timedelta(milliseconds=50)).submit(quick, n=2),
        perdure.with_runcontext(start_by=datetime.now(UTC)).submit(quick, n=3),
    ]
    late = perdure.with_runcontext(start_by=600).submit(quick, n=4)
    time.sleep(0.1)
    with perdure.Worker([quick]):
        assert late.wait(timeout=60).result == 4
        assert [run.wait(timeout=60).status for run in soon] == ["CANCELLED"] * 3
    assert "not begun by" in why(soon[0])
    assert seen == ["quick 4"]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"dedup": ""}, "dedup must be text"),
        ({"dedup": "a\0b"}, "dedup must be text"),
        ({"dedup": 5}, "dedup must be text"),
        ({"debounce": 5}, "needs dedup="),
        ({"throttle": 5}, "needs dedup="),
        ({"dedup_for": 5}, "needs dedup="),
        ({"dedup": "a", "dedup_for": 5, "debounce": 5}, "choose"),
        ({"dedup": "a", "debounce": 0}, "debounce must be seconds"),
        ({"dedup": "a", "throttle": "1"}, "throttle must be seconds"),
        ({"start_by": -1}, "start_by must be seconds"),
        ({"when_full": "drop"}, "when_full must be 'wait'"),
        ({"when_full": "skip"}, "needs a queue that can be full"),
        ({"when_full": "skip", "queue": perdure.Queue("endless")}, "needs a queue that can be full"),
        ({"dedup": "a", "debounce": 5, "delay": 5}, "cannot be given as well"),
        ({"dedup": "a", "connection": object()}, "cannot be used with connection="),
    ],
)
def test_settings_without_a_meaning_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(errors.UsageError, match=says):
        perdure.with_runcontext(**settings).submit(quick, n=1)
    assert len(perdure.runs()) == 0


def test_a_queue_that_is_never_full_has_no_policy_and_a_run_of_its_own_takes_none() -> None:
    with pytest.raises(errors.UsageError, match="needs a queue that can be full"):
        perdure.Queue("endless", when_full="skip")
    with pytest.raises(errors.UsageError, match="when_full must be"):
        perdure.Queue("odd", concurrency=1, when_full="drop")  # type: ignore[arg-type]
    with pytest.raises(errors.UsageError, match=r"are for \.submit"):
        perdure.with_runcontext(dedup="a").run(quick, n=1)


def test_a_drained_queue_runs_nothing_and_stays_paused() -> None:
    """`drain` waits for driven runs, gives up in time, and leaves waiting runs where they are."""
    with perdure.Worker([waits]):
        first, second = perdure.submit(waits, n=1), perdure.submit(waits, n=2)
        begun(first)
        [queue] = perdure.queues(name="plain")
        assert not queue.drain(timeout=0.1)
        threading.Timer(0.3, gate.set).start()
        assert queue.drain(timeout=60)
        assert (first.wait(timeout=60).result, second.status) == (1, "QUEUED")
        assert asyncio.run(queue.drain.aio(timeout=60))
        assert queue.resume()
        assert second.wait(timeout=60).result == 2


def test_a_waiting_run_says_what_it_waits_for() -> None:
    """Family: a full queue, a paused queue, no worker, a later time, a time to begin."""
    late = perdure.with_runcontext(start_by=600).submit(waits, n=0)
    assert "no worker is alive" in why(late)
    assert "It is cancelled if it has not begun by" in why(late)
    assert "begins at" in why(perdure.with_runcontext(delay=60).submit(quick, n=0))
    with perdure.Worker([waits]):
        begun(late)
        second, third = perdure.submit(waits, n=1), perdure.submit(waits, n=2)
        assert "waits for one of the 1 slots of queue plain, which are in use; 2 runs wait." in why(third)
        [queue] = perdure.queues(name="plain")
        queue.pause()
        assert "waits for queue plain, which is paused since" in why(second)
        gate.set()
        queue.resume()
        assert third.wait(timeout=60).result == 2
