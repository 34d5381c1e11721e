"""Limits of calls, on SQLite, on Postgres and in memory: who holds a slot, who waits, and what is refused.

P14, LM1, LM5, LS1, LS2, LS3.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.postgres_server import programs, server
from tests.waiting import PATIENCE, wait_for

import perdure
from perdure import errors, runtime
from perdure.api.standing import standing
from perdure.core.ground.model import LimitLoad, Status

pytestmark = pytest.mark.filterwarnings("ignore::perdure.errors.PerdureWarning")

env = perdure.TaskEnvironment(name="limited")
two = perdure.Limit("two", concurrency=2)
one = perdure.Limit("one", concurrency=1)
rated = perdure.Limit("rated", rate=perdure.Rate(5, per=0.5))
dear = perdure.Limit("dear", cost=perdure.Rate(100, per=0.5))


class Inside:
    """How many calls are at work."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.now = self.most = self.calls = 0

    def __enter__(self) -> None:
        with self._lock:
            self.calls += 1
            self.now += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.now -= 1


inside = Inside()
moments: list[float] = []
gate = threading.Event()


@pytest.fixture(autouse=True, params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    global inside
    if request.param == "postgres" and programs() is None:
        pytest.skip("no Postgres here")
    perdure.init(store=server().url() if request.param == "postgres" else tmp_path / "perdure.db")
    inside = Inside()
    moments.clear()
    gate.clear()
    yield
    perdure.init()


def load(name: str) -> LimitLoad:
    return runtime.worker().store.limit_load(name)


@perdure.trace(limit=two)
async def work(n: int) -> int:
    with inside:
        await asyncio.sleep(0.01)
    return n


@perdure.trace(limit=two)
def work_in_a_thread(n: int) -> int:
    with inside:
        time.sleep(0.01)
    return n


@perdure.trace
async def holds(n: int) -> int:
    async with two.hold.aio():
        with inside:
            await asyncio.sleep(0.01)
    return n


@perdure.trace
def holds_in_a_thread(n: int) -> int:
    with two.hold(), inside:
        time.sleep(0.01)
    return n


@env.task(limit=two)
async def child(n: int) -> int:
    with inside:
        await asyncio.sleep(0.01)
    return n


@env.task
async def fan_out(what: str) -> list[int]:
    calls: dict[str, Any] = {
        "trace": work, "thread": work_in_a_thread.aio, "hold": holds, "hold in thread": holds_in_a_thread.aio,
        "task": child,
    }  # fmt: skip
    return await asyncio.gather(*(calls[what](n) for n in range(12)))


@pytest.mark.parametrize("what", ["trace", "thread", "hold", "hold in thread", "task"])
def test_no_more_calls_are_at_work_than_the_limit_allows(what: str) -> None:
    """P14: the family is each kind of call that can be limited. Replayed, the calls take no slot."""
    run = perdure.run(fan_out, what=what)
    assert run.result == list(range(12))
    assert (inside.most <= 2, inside.calls) == (True, 12)
    wait_for(lambda: load("two") == LimitLoad(0, 0))


@env.task
def one_by_one() -> list[int]:
    return [work_in_a_thread(n) for n in range(5)]


def test_a_sync_body_makes_limited_calls() -> None:
    assert perdure.run(one_by_one).result == list(range(5))
    wait_for(lambda: load("two") == LimitLoad(0, 0))


@perdure.trace(limit=rated)
async def started(n: int) -> None:
    moments.append(time.monotonic())


@env.task
async def many_starts() -> None:
    await asyncio.gather(*(started(n) for n in range(6)))


def test_a_rate_holds_over_runs() -> None:
    """P14, LS3: two runs at once share the rate, and no call sleeps much longer than necessary."""
    begun = time.monotonic()

    async def both() -> None:
        await asyncio.gather(perdure.run.aio(many_starts), perdure.run.aio(many_starts))

    asyncio.run(both())
    ordered = sorted(moments)
    # Between the grant and the function there is some time, so that a moment may come late.
    assert ordered[10] - begun >= 1.0
    assert len(moments) == 12


@perdure.trace(limit=dear, cost=lambda n, estimate: estimate)
async def costs(n: int, estimate: float) -> float:
    perdure.report_cost(10)
    return time.monotonic()


@env.task
async def reports_costs() -> list[float]:
    return [await costs(n, 90) for n in range(3)]


def test_a_reported_cost_makes_room_for_the_next_call() -> None:
    """P14: estimates of 90 fit into 100 one by one; with 10 reported, the second and third need not wait long."""
    begun = time.monotonic()
    first, second, _ = perdure.run(reports_costs).result
    assert second - first < PATIENCE
    assert time.monotonic() - begun < PATIENCE


@env.task
async def too_dear() -> None:
    await costs(1, 101)


def test_a_call_that_costs_more_than_ever_allowed_fails() -> None:
    with pytest.raises(errors.UsageError, match="limit dear never allows as much"):
        perdure.run(too_dear)
    wait_for(lambda: load("dear") == LimitLoad(0, 0))


@perdure.trace(limit=one)
async def blocks(n: int) -> int:
    await asyncio.to_thread(gate.wait, PATIENCE)
    return n


@env.task
async def cancelling() -> int:
    first = asyncio.create_task(blocks(0))
    await asyncio.sleep(0.05)
    for _ in range(3):
        late = [asyncio.create_task(blocks(n)) for n in range(1, 4)]
        await asyncio.sleep(0.05)
        for task in late:
            task.cancel()
        await asyncio.wait(late)
    gate.set()
    return await first + await blocks(4)


def test_calls_that_are_cancelled_while_they_wait_lose_no_slot() -> None:
    """LS2."""
    assert perdure.run(cancelling).result == 4
    wait_for(lambda: load("one") == LimitLoad(0, 0))


failures: list[int] = []


@env.task(limit=one, retries=perdure.RetryStrategy(3, backoff=None))
async def fails_twice(n: int) -> int:
    with inside:
        failures.append(n)
        if failures.count(n) < 3:
            raise ValueError("again")
    return n


@env.task
async def retrying() -> list[int]:
    return await asyncio.gather(*(fails_twice(n) for n in range(4)))


def test_a_retried_task_takes_its_slot_again() -> None:
    """LS1: the slot of an attempt is given back before the next attempt asks under the same place."""
    failures.clear()
    assert sorted(perdure.run(retrying).result) == [0, 1, 2, 3]
    assert inside.most == 1
    wait_for(lambda: load("one") == LimitLoad(0, 0))


@env.task
async def quick(n: int) -> float:
    await blocks_briefly(n)
    return time.monotonic()


@perdure.trace(limit=one)
async def blocks_briefly(n: int) -> None:
    await asyncio.sleep(0.002)


@env.task
async def in_turn() -> None:
    await asyncio.gather(*(blocks_briefly(n) for n in range(20)))


def test_a_freed_slot_is_taken_at_once() -> None:
    """LS3: twenty calls one after the other need no look now and then (each would take half a second)."""
    begun = time.monotonic()
    perdure.run(in_turn)
    assert time.monotonic() - begun < 8


@perdure.trace(limit=one)
def holds_on(n: int) -> int:
    with inside:
        gate.wait(PATIENCE)
    return n


@env.task
def waits_for_one(n: int) -> int:
    return holds_on(n)


@env.task(limit=one)
async def waits_as_a_whole(n: int) -> int:
    with inside:
        await asyncio.sleep(0.001)
    return n


@pytest.mark.parametrize("task", [waits_for_one, waits_as_a_whole], ids=["trace", "task"])
def test_runs_that_wait_for_a_limit_leave_memory_and_all_come_to_their_turn(task: Any) -> None:
    """P14, LM5: a worker with few places and short patience; the parked runs are rows, and none is forgotten."""
    runs = [perdure.submit(waits_for_one, n=0)]
    with perdure.Worker([waits_for_one, waits_as_a_whole], concurrency=4, park_after=0.2):
        wait_for(lambda: inside.now == 1)
        runs += [perdure.submit(task, n=n) for n in range(1, 9)]
        store = runtime.worker().store
        wait_for(lambda: sum(run.status is Status.WAITING for run in store.runs()) >= 5)
        parked = store.runs(statuses={Status.WAITING})
        assert all("A call waits for limit one since" in standing(run) for run in parked)
        assert any("behind" in standing(run) for run in parked)
        gate.set()
        assert sorted(run.wait(timeout=PATIENCE).result for run in runs) == list(range(9))
    assert inside.most == 1
    wait_for(lambda: load("one") == LimitLoad(0, 0))


def test_what_an_operator_sets_counts_while_calls_wait() -> None:
    run = perdure.submit(fan_out, what="trace")
    with perdure.Worker([fan_out]):
        wait_for(lambda: inside.calls > 0)
        [state] = perdure.limits(name="two")
        state.set(concurrency=1, rate=perdure.Rate(1000, per=1))
        [state] = perdure.limits(name="two")
        assert state.settings == {"concurrency": 1, "rate": {"count": 1000, "per": 1.0}}
        assert run.wait(timeout=PATIENCE).result == list(range(12))
    assert state.reset()
    assert not perdure.limits(name="two")[0].reset()
    assert perdure.limits(name="two")[0].settings == {"concurrency": 2}


@env.task(limit=two)
async def outer() -> int:
    return await work(1)


@perdure.trace(limit=two)
async def nested() -> int:
    return await work(1)


@perdure.trace
async def holds_twice() -> None:
    async with two.hold.aio(), two.hold.aio():
        pass


@env.task
async def calls_nested(what: str) -> None:
    await {"trace": nested, "blocks": holds_twice}[what]()


@pytest.mark.parametrize("what", ["task", "trace", "blocks"])
def test_a_caller_that_holds_a_slot_cannot_wait_for_another(what: str) -> None:
    with pytest.raises(errors.UsageError, match="the caller holds a slot itself"):
        perdure.run(outer) if what == "task" else perdure.run(calls_nested, what=what)


@env.task
async def holds_in_the_body() -> None:
    async with two.hold.aio():
        pass


@env.task
async def reports_nothing() -> None:
    perdure.report_cost(1)


@pytest.mark.parametrize(
    ("task", "says"),
    [(holds_in_the_body, "move the block into a function under @perdure.trace"), (reports_nothing, "under no limit")],
)
def test_what_means_nothing_in_a_body_is_refused(task: Any, says: str) -> None:
    with pytest.raises(errors.UsageError, match=says):
        perdure.run(task)


def test_outside_of_a_run_nothing_is_limited() -> None:
    assert asyncio.run(work(3)) == 3
    perdure.report_cost(5)
    with pytest.raises(errors.UsageError, match="code outside of a run"), two.hold():
        pass


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"name": ""}, "needs a name"),
        ({"name": "x", "concurrency": 0}, "limit x: concurrency must be an int from 1 up"),
        ({"name": "x", "rate": 5}, "limit x: rate must be a perdure.Rate"),
        ({"name": "x", "cost": True}, "limit x: cost must be a perdure.Rate"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(errors.UsageError, match=says):
        perdure.Limit(**settings)


def test_declarations_that_mean_nothing_are_refused() -> None:
    with pytest.raises(errors.UsageError, match="is a generator"):

        @perdure.trace(limit=two)
        def items() -> Iterator[int]:
            yield 1

    with pytest.raises(errors.UsageError, match="cost= needs limit="):
        perdure.trace(cost=lambda: 1)(lambda_like)
    with pytest.raises(errors.UsageError, match="limit must be a perdure"):
        perdure.trace(limit="two")(lambda_like)  # type: ignore[call-overload]
    with pytest.raises(errors.UsageError, match="cost must be a function"):
        perdure.trace(limit=two, cost=5)(lambda_like)  # type: ignore[call-overload]


def lambda_like() -> None:
    pass
