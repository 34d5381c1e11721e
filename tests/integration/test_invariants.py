"""Invariants of the core. Each was broken on purpose once, and its test failed then.

See docs/development/invariants.md. Slow commits (`slow_commits`) hold a moment open that otherwise lasts microseconds.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.journals import recorded
from tests.waiting import stays_true, wait_for

import perdure
from perdure import errors, runtime
from perdure.core.body.body import Body
from perdure.core.ground.model import Claim, Kind, Result, Status
from perdure.core.run.ending import Ending
from perdure.extras import durable_sleep

pytestmark = pytest.mark.filterwarnings("ignore::perdure.errors.PerdureWarning")

env = perdure.TaskEnvironment(name="invariants")
log: list[str] = []
switch: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def store(tmp_path: Path) -> Iterator[None]:
    log.clear()
    switch.clear()
    perdure.init(store=tmp_path / "perdure.db")
    yield
    perdure.init()


@perdure.trace
async def step(name: str, seconds: float = 0.0) -> str:
    log.append(name)
    await asyncio.sleep(seconds)
    return name


@perdure.trace
def sync_step(name: str) -> str:
    log.append(name)
    return name


@env.task
async def nothing() -> None: ...


def slow_commits(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let each commit take that long, from now on."""
    drive(nothing, "first")  # what only the first run of a process does is done then
    store = runtime.worker().store
    for name in ("commit", "append"):
        plain = getattr(store, name)

        def slowly(*args: Any, plain: Any = plain) -> Any:
            time.sleep(seconds)
            return plain(*args)

        monkeypatch.setattr(store, name, slowly)


def drive(task: Any, name: str, **inputs: Any) -> Any:
    return perdure.with_runcontext(name=name).run(task, **inputs)


def interrupt(task: Any, name: str, when: Callable[[], bool]) -> None:
    """Drive a run until a moment, and interrupt the driving there."""

    async def main() -> None:
        driving = asyncio.create_task(perdure.with_runcontext(name=name).run.aio(task))
        while not when():
            await asyncio.sleep(0.005)
        driving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await driving

    asyncio.run(main())


def entries(name: str) -> list[Any]:
    run = runtime.worker().store.run(name)
    assert run is not None
    return recorded(runtime.worker().store, run)


# -- W: the commit path ------------------------------------------------------------------------------------------


@env.task
async def double(name: str) -> str:
    return await step(name) + await step(name)


@env.task
async def busy() -> list[Any]:
    threads = [asyncio.to_thread(sync_step, f"t{n}") for n in range(8)]
    tasks = [step(f"a{n}") for n in range(8)]
    return await asyncio.gather(*threads, *tasks, *(double.aio(f"d{n}") for n in range(4)))


def test_entries_are_numbered_without_gaps() -> None:
    """W1."""
    drive(busy, "busy")
    assert sorted(entry.n for entry in entries("busy")) == list(range(1, len(entries("busy")) + 1))
    # A job may end just before a child begins, and then a row of its own carries that event.
    outcomes = [entry for entry in entries("busy") if entry.result != Result.NOTE]
    assert len(outcomes) == 8 + 8 + 4 * 3


@env.task
async def commits_meet() -> list[str]:
    in_thread = asyncio.create_task(asyncio.to_thread(sync_step, "thread"))
    while not switch["committing"].is_set():
        await asyncio.sleep(0.005)
    # The thread leads a commit right now, so the loop leaves its record behind.
    return [await step("loop"), await in_thread]


def test_a_record_that_arrives_while_another_thread_commits_is_not_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """W3."""
    committing = switch["committing"] = threading.Event()
    drive(nothing, "first")
    store = runtime.worker().store

    def holding(plain: Any) -> Any:
        def held(*args: Any) -> Any:
            if threading.current_thread().name.startswith("perdure-loop") or "thread" not in log or committing.is_set():
                return plain(*args)
            committing.set()
            wait_for(lambda: "loop" in log)
            time.sleep(0.1)  # until the loop ends its iteration, and has found the lock taken: no event tells
            return plain(*args)

        return held

    for name in ("commit", "append"):
        monkeypatch.setattr(store, name, holding(getattr(store, name)))
    run = perdure.with_runcontext(name="meet").run
    answer: list[Any] = []
    thread = threading.Thread(target=lambda: answer.append(run(commits_meet).result), daemon=True)
    thread.start()
    thread.join(10)
    assert answer == [["loop", "thread"]]


# -- D: the driver -----------------------------------------------------------------------------------------------


@env.task
async def turns() -> str:
    await step("first")
    if switch["second"]:
        await step("second")
        await asyncio.sleep(60)
    await asyncio.sleep(0.3)
    return await step("another")


@env.task
async def innocent() -> str:
    while switch["second"]:
        await asyncio.sleep(1)
    return await step("new")


@env.task
async def siblings() -> list[str]:
    return await asyncio.gather(turns.aio(), innocent.aio())


def test_no_body_starts_a_new_call_while_another_body_still_replays() -> None:
    """D2, B4: the journal of one child no longer fits, and nothing new may start before that is found (P5)."""
    switch["second"] = True
    interrupt(siblings, "pair", lambda: "second" in log and len(entries("pair")) == 2)
    switch["second"] = False
    with pytest.raises(errors.NonDeterminismError):
        drive(siblings, "pair")
    assert "new" not in log
    assert "another" not in log


@perdure.trace
async def looks(name: str) -> list[int]:
    log.append(name)
    return [entry.n for entry in entries("cancels") if entry.result == Result.CANCELLED]


@env.task
async def cancels() -> list[int]:
    slow = asyncio.create_task(step("slow", 60))
    await asyncio.sleep(0.05)
    slow.cancel()
    await asyncio.wait([slow])
    return await looks("after")


def test_no_call_starts_before_a_cancellation_that_the_code_has_seen_is_on_disk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """D2: the call that follows a cancellation finds it in the store."""
    slow_commits(monkeypatch, 0.1)
    assert len(drive(cancels, "cancels").result) == 1


@env.task
async def simple() -> str:
    return await step("simple")


def test_a_stop_that_meets_the_end_of_a_run_leaves_one_outcome(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """D4: driving is told to stop while the run's outcome is on its way to disk."""
    worker = runtime.worker()
    slow_commits(monkeypatch, 0.15)

    def stop() -> None:
        wait_for(lambda: any(driver.ending for driver in list(worker.drivers.values())))
        for driver in list(worker.drivers.values()):
            driver.stop(errors.PerdureError("stopped at the very end"))

    stopper = threading.Thread(target=stop)
    stopper.start()
    with caplog.at_level(logging.ERROR):
        assert drive(simple, "ends").result == "simple"
        stopper.join(10)
        stays_true(lambda: not caplog.records, 0.2)


async def until_stopped() -> None:
    """Call a child until its body is refused, as the driver has been told to end."""
    while True:
        log.append("again")
        await nothing()


@env.task
async def a_group_meets_a_stop() -> None:
    """The group cancels its other members."""
    async with asyncio.TaskGroup() as group:
        group.create_task(step("slow", 60))
        group.create_task(perdure.receive.aio("box", int))
        group.create_task(until_stopped())


@env.task
async def a_body_goes_on_after_a_stop() -> None:
    with suppress(errors.RunStopped):
        await until_stopped()
    for number in range(3):
        with suppress(errors.RunStopped):
            await step(f"behind {number}")


@env.task
async def a_thread_goes_on_after_a_stop() -> None:
    seen = threading.Event()

    def thread() -> None:
        seen.wait(30)
        with suppress(errors.RunStopped):
            sync_step("behind")

    async def first() -> None:
        with suppress(errors.RunStopped):
            await until_stopped()
        seen.set()

    await asyncio.gather(first(), asyncio.to_thread(thread))


@env.task
async def the_caller_meets_a_stop_first() -> None:
    """Its child is not closed yet, and would be cancelled by its caller."""
    async with asyncio.TaskGroup() as group:
        group.create_task(a_group_meets_a_stop())
        group.create_task(until_stopped())


@pytest.mark.parametrize(
    "task",
    [
        a_group_meets_a_stop,
        a_body_goes_on_after_a_stop,
        a_thread_goes_on_after_a_stop,
        the_caller_meets_a_stop_first,
    ],
)
def test_what_follows_from_the_end_of_driving_is_not_recorded(monkeypatch: pytest.MonkeyPatch, task: Any) -> None:
    """W5: a thread tells the driver to end, and has not come to closing the bodies. The journal that this left behind
    did not fit the code: its next driving stopped with a mismatch.

    The family: what code does once a call was refused with `RunStopped`: its siblings are cancelled, it catches the
    error and goes on, and it tells a thread or a child."""
    begin = Ending.begin_to_stop

    def slowly(driver: Any, reason: BaseException) -> bool:
        began = begin(driver, reason)
        if began and threading.current_thread() is stopper:
            time.sleep(0.5)  # long enough for the bodies to notice; no event tells
        return began

    monkeypatch.setattr(Ending, "begin_to_stop", slowly)

    def stop() -> None:
        wait_for(lambda: log.count("again") > 3)
        for driver in list(runtime.worker().drivers.values()):
            driver.stop(errors.StoreError("the store is gone"))

    stopper = threading.Thread(target=stop)
    stopper.start()
    with pytest.raises(errors.StoreError, match="the store is gone"):
        drive(task, "stopped")
    stopper.join(30)
    entries = recorded(runtime.worker().store, perdure.Run.get("stopped").row)
    assert entries
    assert not [entry for entry in entries if entry.result == Result.CANCELLED or "behind" in repr(entry.inputs)]


@env.task
def sleeps_in_a_thread() -> str:
    durable_sleep(0.3)
    return "slept"


@env.task
def receives_in_a_thread() -> str:
    try:
        perdure.receive("box", int, timeout=0.3)
    except errors.MessageTimedoutError:
        return "late"
    return "a message"


@env.task
async def sleeps_on_the_loop() -> str:
    await durable_sleep.aio(0.3)
    return "slept"


@perdure.trace(retries=perdure.RetryStrategy(1, perdure.Backoff(initial=0.3, jitter=0)))
def fails_once() -> str:
    log.append("tried")
    if len(log) == 1:
        raise ValueError("once")
    return "tried again"


@env.task
def pauses_before_a_retry() -> str:
    return fails_once()


@pytest.mark.parametrize(
    "task",
    [sleeps_in_a_thread, receives_in_a_thread, sleeps_on_the_loop, pauses_before_a_retry],
    ids=lambda task: task.name,
)
def test_a_wait_goes_on_where_another_thread_hears_of_the_cancellation_first(
    monkeypatch: pytest.MonkeyPatch, task: Any
) -> None:
    """P7, B12: the wait is woken for the cancellation of the run, and another thread of the body is told of it before
    this one asks: the sleep was recorded as over.

    The family: each call that waits for a deadline and looks for a cancellation."""
    drive(nothing, "first")  # what only the first run of a process does is done then
    looks = []

    def due_for_a_moment(body: Any) -> bool:
        woken = sys._getframe(1).f_code.co_name == "_is_over" and len(looks) < 3
        if woken:
            looks.append(body)
        return woken

    monkeypatch.setattr(Body, "cancel_due", property(due_for_a_moment))
    began = time.monotonic()
    assert drive(task, "woken").result in ("slept", "late", "tried again")
    assert looks
    assert time.monotonic() - began >= 0.3


@env.task
async def asks_for_another_step() -> str:
    await step(switch.setdefault("first", "first"))
    return await step("second", 60)


@pytest.mark.parametrize("taken_over", [False, True])
def test_a_mismatch_of_a_driver_that_lost_its_claim_is_not_told(
    monkeypatch: pytest.MonkeyPatch, taken_over: bool
) -> None:
    """P5, P3. A process was frozen between two reads of a journal that another process continued meanwhile: the rows do
    not belong together, and the code was blamed. A driver that has its claim tells of the mismatch."""
    interrupt(asks_for_another_step, "run", lambda: log == ["first", "second"])
    switch["first"] = "another"
    store = runtime.worker().store
    if taken_over:
        release = store.release

        def late(run: int, token: bytes, refusal: Any = None) -> bool:
            claim = Claim(b"o" * 16, "other")
            assert store.claim(run, claim, expect=token, entries=1, statuses={Status.RUNNING}) is not None
            return release(run, token, refusal)

        monkeypatch.setattr(store, "release", late)
    with pytest.raises(errors.LeaseLostError if taken_over else errors.NonDeterminismError):
        drive(asks_for_another_step, "run")


# -- B: delivery -------------------------------------------------------------------------------------------------


@env.task
async def enters_slowly() -> list[int]:
    async with perdure.durable.timeout(60):
        run = runtime.worker().store.run("enters")
        assert run is not None
        return [action.kind for action in runtime.worker().store.open_actions(run.id)]


def test_a_durable_timeout_is_on_disk_when_its_block_is_entered(monkeypatch: pytest.MonkeyPatch) -> None:
    """B10."""
    slow_commits(monkeypatch, 0.1)
    assert Kind.TIMEOUT in drive(enters_slowly, "enters").result


@env.task
async def enters_late() -> list[str]:
    seen: list[str] = []
    try:
        async with asyncio.timeout(0.02):
            async with perdure.durable.timeout(60):
                seen.append("entered")
                await asyncio.sleep(5)
    except TimeoutError:
        seen.append("late")
    switch.setdefault("seen", []).append(list(seen))
    await step("then")
    while switch["waits"]:
        await asyncio.sleep(0.01)
    return seen


def test_a_plain_timeout_does_not_overtake_the_entry_into_a_durable_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """B10: live the deadline takes long to get to disk, on replay the block is entered at once."""
    switch["waits"] = True
    with monkeypatch.context() as patch:
        slow_commits(patch, 0.1)
        interrupt(enters_late, "late", lambda: "then" in log)
    switch["waits"] = False
    assert drive(enters_late, "late").result == ["entered", "late"]
    assert switch["seen"] == [["entered", "late"]] * 2


@env.task
async def flags() -> str:
    seen = []

    async def sets() -> None:
        await asyncio.sleep(0.1)
        seen.append("set")
        await durable_sleep.aio(1.5)

    setting = asyncio.create_task(sets())
    await durable_sleep.aio(0.6)
    name = await step("was set" if seen else "was not set")
    await setting
    return name


def test_a_sleep_that_has_ended_meanwhile_does_not_overtake_what_the_body_had_seen() -> None:
    """B9: when the run was interrupted, a plain timer had fired and had led to a sleep. Then both sleeps run out."""
    interrupt(flags, "flags", lambda: _sleeping("flags") == 2)
    run = perdure.Run.get("flags").row.id
    worker = runtime.worker()
    deadlines = [row.wake_boot for row in worker.store.open_actions(run) if row.kind == Kind.SLEEP]
    wait_for(lambda: worker.clock.boot() > max(deadlines))
    assert drive(flags, "flags").result == "was set"
    assert log == ["was set"]


def _sleeping(name: str) -> int:
    run = runtime.worker().store.run(name)
    return (
        0 if run is None else sum(action.kind == Kind.SLEEP for action in runtime.worker().store.open_actions(run.id))
    )
