"""Time that jumps: bodies of all kinds wait for days, and their tests take moments of real time.

No test measures real time: a test that waited for real would not end before its time limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import wait_for

import perdure
from perdure import durable
from perdure.core.ground.clock import SystemClock, seconds
from perdure.errors import ConditionTimedoutError, TaskTimeoutError, UsageError
from perdure.testing import VirtualClock, virtual_time

DAY = 86_400.0
YEAR = 365 * DAY
env = perdure.TaskEnvironment("virtual_time")
events: list[Any] = []


@pytest.fixture(autouse=True, params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    events.clear()
    perdure.init(store="memory://" if request.param == "memory" else tmp_path / "perdure.db")
    yield
    perdure.init()


def test_each_way_to_wait_takes_its_time_on_the_clock_and_none_for_real() -> None:
    """Async and sync bodies, threads, children, groups, plain timers, time limits, retries, traces."""
    with virtual_time() as clock:
        for task, days in WAYS.items():
            began = clock.now
            assert perdure.run(task).result == "done", task.name
            passed = clock.now - began
            assert timedelta(days=days) <= passed < timedelta(days=days, minutes=10), (task.name, passed)


@env.task
async def sleeps() -> str:
    await durable.sleep.aio(YEAR)
    return "done"


@env.task
def sleeps_in_a_thread() -> str:
    durable.sleep(YEAR)
    return "done"


@env.task
async def calls_children() -> str:
    assert await sleeps() == "done"
    return await sleeps_in_a_thread.aio()


@env.task
def calls_children_in_a_thread() -> str:
    return sleeps_in_a_thread()


@env.task
async def sleeps_in_branches() -> str:
    async with asyncio.TaskGroup() as group:
        for days in (1, 3, 2):
            group.create_task(durable.sleep.aio(days * DAY))
        group.create_task(asyncio.to_thread(durable.sleep, 4 * DAY))
    return "done"


@env.task
async def waits_with_plain_asyncio() -> str:
    await asyncio.sleep(DAY)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DAY):
            await asyncio.sleep(2 * DAY)
    return "done"


@env.task
async def has_a_durable_time_limit() -> str:
    try:
        async with durable.timeout(DAY):
            await durable.sleep.aio(YEAR)
    except TimeoutError:
        return "done"
    return "not timed out"


@env.task(timeout=DAY)
async def is_too_slow() -> None:
    await durable.sleep.aio(YEAR)


@env.task(timeout=DAY)
def is_too_slow_in_a_thread() -> None:
    durable.sleep(YEAR)


@env.task
async def calls_what_is_too_slow() -> str:
    for task in (is_too_slow, is_too_slow_in_a_thread.aio):
        with pytest.raises(TaskTimeoutError):
            await task()
    return "done"


@env.task
def calls_what_is_too_slow_in_a_thread() -> str:
    with pytest.raises(TaskTimeoutError):
        is_too_slow_in_a_thread()
    return "done"


@env.task(retries=perdure.RetryStrategy(3, backoff=perdure.Backoff(DAY, 2, 10 * DAY)))
async def fails_three_times() -> str:
    found = perdure.ctx()
    assert found is not None
    if found.attempt <= 3:
        raise ValueError("again")
    return "done"


@env.task
async def waits_in_a_trace() -> str:
    return await polls()


@perdure.trace
async def polls() -> str:
    await asyncio.sleep(DAY)
    return "done"


@env.task
async def sleeps_often() -> str:
    for _ in range(50):
        await durable.sleep.aio(DAY)
    return "done"


WAYS = {
    sleeps: 365, sleeps_in_a_thread: 365, calls_children: 730, calls_children_in_a_thread: 365, sleeps_in_branches: 4,
    waits_with_plain_asyncio: 2, has_a_durable_time_limit: 1, calls_what_is_too_slow: 2,
    calls_what_is_too_slow_in_a_thread: 1, fails_three_times: 7, waits_in_a_trace: 1, sleeps_often: 50,
}  # fmt: skip


@env.task
async def asks(name: str = "approve") -> str:
    condition = await perdure.new_condition.aio(name, prompt="?", data_type=bool, timeout=timedelta(days=7))
    try:
        return f"answered {await condition.wait.aio()}"
    except ConditionTimedoutError:
        return "no answer"


def test_a_signal_that_is_sent_before_the_caller_waits_comes_before_the_time_limit() -> None:
    """VT1"""
    with virtual_time() as clock, perdure.Worker([asks]):
        began = clock.now
        for n in range(10):
            run = perdure.submit(asks)
            if n % 2:
                wait_for(lambda run=run: run.status == "WAITING")
            run.signal("approve", True)
            assert run.wait().result == "answered True"
        assert clock.now - began < timedelta(hours=1)
        assert perdure.submit(asks).wait().result == "no answer"
        assert clock.now - began >= timedelta(days=7)


def test_without_a_caller_that_waits_the_clock_stands() -> None:
    """VT1"""
    with virtual_time() as clock, perdure.Worker([sleeps]):
        began = clock.now
        run = perdure.submit(sleeps)
        wait_for(lambda: run.status == "SLEEPING")
        assert clock.now - began < timedelta(hours=1)
        clock.advance(days=364)
        assert run.status == "SLEEPING"
        clock.to(began + timedelta(days=366))
        assert run.status == "SUCCEEDED"


def test_a_worker_takes_up_parked_and_delayed_runs_and_retries_failed_ones() -> None:
    with virtual_time() as clock, perdure.Worker([sleeps, fails_three_times, sleeps_in_a_thread], park_after=1):
        began = clock.now
        runs = [perdure.submit(task) for task in (sleeps, fails_three_times, sleeps_in_a_thread)]
        late = perdure.with_runcontext(delay=timedelta(days=30)).submit(sleeps)
        assert [run.wait().result for run in (*runs, late)] == ["done"] * 4
        assert timedelta(days=395) <= clock.now - began < timedelta(days=396)


@env.task(triggers=perdure.Cron("30 2 * * *", timezone="Europe/Berlin", inputs={"at": perdure.TriggerTime}))
def nightly(at: datetime) -> None:
    events.append(at)


def test_a_schedule_fires_at_each_instant_where_clocks_change() -> None:
    with virtual_time(at=datetime(2026, 3, 27, 12, tzinfo=UTC)) as clock, perdure.Worker([nightly]):
        clock.to(datetime(2026, 3, 31, tzinfo=UTC))
    assert sorted(events) == [
        datetime(2026, 3, 28, 1, 30, tzinfo=UTC),
        datetime(2026, 3, 29, 1, 0, tzinfo=UTC),
        datetime(2026, 3, 30, 0, 30, tzinfo=UTC),
    ]


@env.task
async def notes_each_day() -> None:
    for _ in range(5):
        await durable.sleep.aio(DAY)
        await notes(await durable.now.aio())


@perdure.trace
async def notes(at: datetime) -> None:
    events.append(at)


def test_what_is_due_on_the_way_happens_at_its_moment() -> None:
    """VT2: not at the end of the span: the second sleep begins where the first one ended."""
    with virtual_time(at=datetime(2030, 1, 1, tzinfo=UTC)) as clock, perdure.Worker([notes_each_day]):
        perdure.submit(notes_each_day)
        clock.advance(days=3, hours=12)
    assert [(at.day, at.hour) for at in events] == [(2, 0), (3, 0), (4, 0)]


def test_the_clock_stands_while_a_step_is_at_work() -> None:
    """VT2: a step in a thread, a step that waits for a thread, a step that waits for a socket."""
    with virtual_time() as clock, perdure.Worker([beside_a_sleep]):
        for kind in ("thread", "future", "socket"):
            gate = gates[kind] = threading.Event()
            began = clock.now
            done = threading.Thread(target=lambda kind=kind: perdure.run(beside_a_sleep, kind))
            done.start()
            wait_for(lambda kind=kind: kind in events)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("perdure.testing.virtual.PATIENCE", 0.3)
                with pytest.raises(TimeoutError, match="at work"):
                    clock.advance(days=1)
            assert clock.now - began < timedelta(hours=1), kind
            gate.set()
            done.join()
            assert clock.now - began >= timedelta(days=2), kind


gates: dict[str, threading.Event] = {}


@env.task
async def beside_a_sleep(kind: str) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(durable.sleep.aio(2 * DAY))
        group.create_task(works_on(kind))


@perdure.trace
async def works_on(kind: str) -> None:
    if kind == "thread":
        events.append(kind)
        await asyncio.to_thread(gates[kind].wait)
    elif kind == "future":
        loop, future = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()

        def later() -> None:
            events.append(kind)
            gates[kind].wait()
            loop.call_soon_threadsafe(future.set_result, None)

        threading.Thread(target=later).start()
        await future
    else:
        import socket

        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        events.append(kind)
        threading.Thread(target=lambda: (gates[kind].wait(), theirs.send(b"x"))).start()
        await reader.read(1)
        writer.close()
        await writer.wait_closed()
        theirs.close()


def test_the_clock_jumps_for_callers_on_an_event_loop_of_their_own() -> None:
    async def calls() -> None:
        runs = await asyncio.gather(*(perdure.run.aio(sleeps) for _ in range(20)))
        assert [run.result for run in runs] == ["done"] * 20

    with virtual_time() as clock:
        began = clock.now
        asyncio.run(calls())
        assert timedelta(days=365) <= clock.now - began < timedelta(days=366)


def test_a_store_with_a_clock_of_its_own_is_refused_at_once() -> None:
    """Before any run waits on the clock of the server: by URL, by the environment, with either scheme."""
    for url in ("postgresql://nowhere.invalid/x", "postgres://nowhere.invalid/x"):
        perdure.init(store=url)
        with pytest.raises(UsageError, match="clock of its server"), virtual_time():
            pass
    perdure.init()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PERDURE_STORE", "postgresql://nowhere.invalid/x")
        with pytest.raises(UsageError, match="clock of its server"), virtual_time():
            pass


def test_bad_times_are_refused() -> None:
    with pytest.raises(UsageError, match="no time zone"), virtual_time(at=datetime(2030, 1, 1)):
        pass
    with virtual_time() as clock:
        with pytest.raises(UsageError, match="forwards only"):
            clock.advance(days=-1)
        with pytest.raises(UsageError, match="forwards only"):
            clock.to(datetime(2000, 1, 1, tzinfo=UTC))
        with pytest.raises(UsageError, match="no time zone"):
            clock.to(datetime(2100, 1, 1))


def test_behind_the_block_all_clocks_are_the_machines_again() -> None:
    machine, began = SystemClock(), seconds()
    wall = machine.wall()
    with virtual_time(at=datetime(2100, 1, 1, tzinfo=UTC)) as clock:
        clock.advance(days=1)
        assert isinstance(clock, VirtualClock)
        assert seconds() - began > DAY
    assert machine.wall() - wall < DAY * 1e6
    assert seconds() - began < DAY
