"""Corners where a plausible engine deadlocks, loses a run or records twice; each of these once did (P1, P4)."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.journals import recorded
from tests.waiting import Stall, wait_for_async

import perdure
from perdure import errors, runtime
from perdure.core.body import watch
from perdure.core.ground.model import Kind, Result
from perdure.core.process import lease
from perdure.extras import durable_sleep, durable_time

pytestmark = pytest.mark.filterwarnings("ignore::perdure.errors.PerdureWarning")

env = perdure.TaskEnvironment(name="corner")


@pytest.fixture(autouse=True)
def store(tmp_path: Path) -> Iterator[None]:
    perdure.init(store=tmp_path / "perdure.db")
    yield
    perdure.init()


counts: dict[str, int] = {}


@perdure.trace
async def step(name: str, seconds: float = 0.0) -> str:
    counts[name] = counts.get(name, 0) + 1
    await asyncio.sleep(seconds)
    return name


@perdure.trace
def sync_step(name: str) -> str:
    counts[name] = counts.get(name, 0) + 1
    return name


@env.task
async def quick(n: int) -> int:
    return n


def interrupted_behind(called: str, name: str, task: Any, **inputs: Any) -> None:
    """Drive a run until that step has been called, and the body waits behind it."""

    async def main() -> None:
        driving = asyncio.create_task(perdure.with_runcontext(name=name).run.aio(task, **inputs))
        await wait_for_async(lambda: called in counts and sleeps(name))
        driving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await driving

    asyncio.run(main())


def sleeps(name: str) -> bool:
    """Whether that run waits for a recorded deadline."""
    run = runtime.worker().store.run(name)
    return run is not None and any(row.kind == Kind.SLEEP for row in runtime.worker().store.open_actions(run.id))


def recorded_twice(run: Any) -> list[Any]:
    """Identities of traces that hold more than one outcome in one body."""
    seen: dict[Any, int] = {}
    cancelled = set()
    for row in recorded(runtime.worker().store, run.row):
        key = (row.action, row.branch, row.fp, row.occ)
        if row.kind == Kind.TRACE and row.result in (Result.VALUE, Result.ERROR):
            seen[key] = seen.get(key, 0) + 1
        elif row.result == Result.CANCELLED:
            # Its outcome came, but was never delivered: user code had cancelled the call.
            cancelled.add(key)
    return [key for key, count in seen.items() if count > 1 and key not in cancelled]


def test_a_caller_cancelled_while_it_submits_harms_no_other_run() -> None:
    async def main() -> None:
        perdure.with_runcontext(name="there").run(quick, 1)
        for name in ("there", "new"):
            task = asyncio.create_task(perdure.with_runcontext(name=name).run.aio(quick, 1))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert (await perdure.run.aio(quick, 2)).result == 2
        await wait_for_async(lambda: not runtime.worker().drivers)

    asyncio.run(main())
    assert not runtime.worker().drivers
    assert perdure.with_runcontext(name="new").run(quick, 1).result == 1


@env.task(retries=1)
async def threads_and_tasks_retried() -> int:
    await asyncio.gather(
        asyncio.to_thread(lambda: [sync_step(f"t{n}") for n in range(20)]), *(step(f"a{n}") for n in range(20))
    )
    counts["tries"] = counts.get("tries", 0) + 1
    if counts["tries"] == 1:
        raise ValueError("first attempt")
    return counts["tries"]


def test_reuse_in_threads_and_tasks_at_once_does_not_deadlock() -> None:
    counts.clear()
    assert perdure.run(threads_and_tasks_retried).result == 2
    assert {count for name, count in counts.items() if name != "tries"} == {1}


@env.task
def reads_time() -> float:
    return durable_time()


@env.task
async def blocks_after_a_cancellation() -> float:
    try:
        async with asyncio.timeout(0.02):
            await step("slow", 5)
    except TimeoutError:
        return reads_time()
    return 0.0


def test_a_blocking_call_right_after_a_cancelled_one() -> None:
    assert perdure.run(blocks_after_a_cancellation).result > 0


@env.task
async def fails_or_works(n: int) -> int:
    await step(f"first {n}", 0.01)
    counts[f"try {n}"] = counts.get(f"try {n}", 0) + 1
    if n == 0 and counts["try 0"] < 3:
        raise ValueError(n)
    await step(f"second {n}", 0.05)
    return n


@env.task(retries=3)
async def group_of_children() -> int:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(fails_or_works(n)) for n in range(3)]
    return sum(task.result() for task in tasks)


@env.task(retries=3)
async def map_of_children() -> list[Any]:
    return [value async for value in perdure.map.aio(fails_or_works, range(3), return_exceptions=False)]


@env.task(retries=3)
def sync_map_of_children() -> list[Any]:
    return list(perdure.map(fails_or_works, range(3), return_exceptions=False))


@pytest.mark.parametrize("task", [group_of_children, map_of_children, sync_map_of_children])
def test_siblings_that_a_failure_cancelled_are_called_again(task: Any) -> None:
    counts.clear()
    run = perdure.run(task)
    assert run.result in (3, [0, 1, 2])
    assert recorded_twice(run) == []
    # A sibling that is cancelled before its first outcome is on disk begins again, and so may its third attempt.
    assert all(counts[f"first {n}"] <= 3 for n in range(3))


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int


@perdure.trace
async def raises_frozen() -> None:
    raise Frozen(3)


@env.task
async def catches_frozen() -> int:
    try:
        await raises_frozen()
    except Frozen as error:
        return error.code
    return 0


def test_an_exception_that_refuses_attributes() -> None:
    assert perdure.run(catches_frozen).result == 3


@env.task(timeout=0.1)
async def swallows_its_timeout() -> str:
    try:
        await asyncio.sleep(5)
    except BaseException:
        pass
    return "fine"


@env.task(timeout=0.1)
async def cleans_up_after_its_timeout() -> None:
    async def member() -> None:
        try:
            await asyncio.sleep(5)
        finally:
            await step("cleanup")

    async with asyncio.TaskGroup() as group:
        group.create_task(member())


@pytest.mark.parametrize("task", [swallows_its_timeout, cleans_up_after_its_timeout])
def test_a_timed_out_attempt_fails_although_its_body_swallows_the_timeout(task: Any) -> None:
    with pytest.raises(errors.TaskTimeoutError):
        perdure.run(task)


@env.task
async def from_nowhere(how: str) -> str:
    loop = asyncio.get_running_loop()

    async def helper() -> str:
        return await step("lost")

    try:
        if how == "another loop":
            return await asyncio.to_thread(asyncio.run, step("lost"))  # type: ignore[arg-type]
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(helper(), loop))
    except errors.BranchError as error:
        return type(error).__name__


@pytest.mark.parametrize("how", ["another loop"])
def test_calls_that_have_no_place_in_the_run_are_refused(how: str) -> None:
    assert perdure.run(from_nowhere, how).result == "BranchError"


@env.task
async def waits_without_crash() -> str:
    task = asyncio.create_task(step("slow", 0.1))
    done, _ = await asyncio.wait({task}, timeout=0.02)
    late = not done
    await task
    return await step(f"late {late}")


def test_a_wait_that_timed_out_says_so() -> None:
    assert perdure.run(waits_without_crash).result == "late True"


@env.task
async def timeouts_armed_late() -> list[str]:
    out = []
    for limit, seconds in ((0.3, 5.0), (0.3, 0.0), (30.0, 0.0)):
        late = asyncio.timeout(limit)
        time.sleep(counts.get("pause", 0) / 1000)  # what a busy machine may do here
        try:
            async with late:
                out.append(await step(f"{limit} {seconds}", seconds))
        except TimeoutError:
            out.append("late")
    await durable_sleep.aio(3)
    return out


def test_a_timeout_that_runs_out_before_it_is_armed_says_the_same_on_replay() -> None:
    """B8."""
    counts.clear()
    interrupted_behind("30.0 0.0", "armed", timeouts_armed_late)
    counts["pause"] = 400
    with Stall() as stall:
        assert perdure.with_runcontext(name="armed").run(timeouts_armed_late).result == ["late", "0.3 0.0", "30.0 0.0"]
    assert stall.took < stall.bound(15.0, work=0.2)
    assert counts == {"pause": 400, "0.3 5.0": 1, "0.3 0.0": 1, "30.0 0.0": 1}


@env.task
async def cancelled_at_the_door(turns: int) -> list[str]:
    said = []
    asks = asyncio.Event()

    async def enters() -> None:
        asks.set()
        async with perdure.durable.timeout(30):
            said.append("inside")
            await durable_sleep.aio(30)

    async def cancels() -> None:
        await asks.wait()
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()

    task = asyncio.create_task(enters())
    await asyncio.wait([task, asyncio.create_task(cancels())])
    said.append(await step(f"after {turns}"))
    await durable_sleep.aio(0.5)
    return said


@pytest.mark.parametrize("turns", range(7))
def test_a_task_cancelled_before_it_enters_a_timeout_has_not_entered_on_replay(turns: int) -> None:
    name = f"door-{turns}"
    interrupted_behind(f"after {turns}", name, cancelled_at_the_door, turns=turns)
    assert perdure.with_runcontext(name=name).run(cancelled_at_the_door, turns=turns).result == [f"after {turns}"]


@env.task
async def cancels_what_it_does_not_know() -> list[str]:
    said = []

    async def enters() -> None:
        async with perdure.durable.timeout(30):
            said.append("inside")

    entering = asyncio.create_task(enters())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for task in asyncio.all_tasks() - {entering, asyncio.current_task()}:
        task.cancel()
    await asyncio.wait([entering])
    return [*said, str(entering.cancelled()), await step("goes on")]


def test_a_cancelled_watch_of_a_durable_timeout_blocks_no_run() -> None:
    assert perdure.run(cancels_what_it_does_not_know).result == ["True", "goes on"]


@env.task
async def cancelled_while_entering() -> str:
    try:
        async with asyncio.timeout(0):
            async with perdure.durable.timeout(0.1):
                await asyncio.sleep(1)
    except TimeoutError:
        pass
    await asyncio.sleep(0.3)
    return "undisturbed"


def test_a_durable_timeout_that_was_never_entered_cancels_nothing() -> None:
    assert perdure.run(cancelled_while_entering).result == "undisturbed"


@env.task
async def sleeps_for_long() -> None:
    await durable_sleep.aio(60)


def test_stopping_a_run_is_prompt_and_leaves_it_resumable() -> None:
    async def main() -> None:
        task = asyncio.create_task(perdure.with_runcontext(name="nap").run.aio(sleeps_for_long))
        await wait_for_async(lambda: sleeps("nap"))
        with Stall() as stall:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert stall.took < stall.bound(2.0, work=0.1)

    asyncio.run(main())
    assert perdure.Run.get("nap").status == "INTERRUPTED"


@env.task
async def never_pauses(how: str) -> str:
    called = asyncio.create_task(step("called", 0.1))
    until = time.monotonic() + 2.0
    while time.monotonic() < until and how != "pauses":
        await asyncio.sleep(0)
    if how == "pauses":
        await asyncio.sleep(2.0)
    return await called


@pytest.mark.parametrize("how", ["spins", "pauses"])
def test_a_task_that_is_never_quiet_is_reported(
    how: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watch, "RESTLESS_SECONDS", 0.2)
    monkeypatch.setattr(lease, "WATCH_SECONDS", 0.1)  # so that it is looked at often enough in those two seconds
    assert perdure.run(never_pauses, how=how).result == "called"
    said = [line for line in caplog.messages if "an outcome waits for task corner.never_pauses" in line]
    assert len(said) == (how == "spins")


DEAF = """
import signal, threading, time
import perdure
from perdure.extras import durable_sleep

env = perdure.TaskEnvironment(name="deaf")

@env.task
def sleeps() -> None:
    print("sleeps", flush=True)
    durable_sleep(60)

threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
perdure.run(sleeps)
"""


def test_ctrl_c_that_another_thread_gets_ends_the_wait(tmp_path: Path) -> None:
    """As happens now and then, where signals come in quick succession or a library has threads of its own."""
    (tmp_path / "deaf.py").write_text(DEAF)
    process = subprocess.Popen(
        [sys.executable, "deaf.py"], cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "sleeps\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=10)[1].rstrip().endswith("KeyboardInterrupt")
    finally:
        process.kill()


def test_a_run_whose_caller_was_cancelled_can_be_asked_for_at_once() -> None:
    async def main() -> None:
        for number in range(30):
            task = asyncio.create_task(perdure.with_runcontext(name="nap").run.aio(sleeps_for_long))
            await asyncio.sleep(0.002 * number)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    assert perdure.Run.get("nap").status == "INTERRUPTED"


@env.task
async def records_without_a_pause(seconds: float) -> int:
    """One call after the other, none of which has anything to wait for."""
    number = 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        await quick_step(number)
        number += 1
    return number


@perdure.trace
async def quick_step(number: int) -> int:
    return number


heard: dict[str, int] = {}


@env.task
async def hears_a_timer(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        await asyncio.sleep(0.01)
        heard["timer"] += 1


@env.task
async def hears_a_socket(seconds: float) -> None:
    near, far = socket.socketpair()
    near.setblocking(False)
    quiet = threading.Event()

    def talk() -> None:
        while not quiet.wait(0.01):
            far.send(b".")

    talker = threading.Thread(target=talk)
    talker.start()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        heard["socket"] += len(await asyncio.get_running_loop().sock_recv(near, 1))
    quiet.set()
    talker.join()
    near.close()
    far.close()


@env.task
async def hears_beside(what: str, seconds: float) -> int:
    hears = {"timer": hears_a_timer, "socket": hears_a_socket}[what]
    _, number = await asyncio.gather(hears(seconds), records_without_a_pause(seconds))
    return number


@pytest.mark.parametrize("what", ["timer", "socket"])
def test_a_body_that_records_without_a_pause_does_not_starve_timers_and_sockets(what: str) -> None:
    heard[what] = 0
    number = perdure.run(hears_beside, what=what, seconds=1.0).outputs()[0]
    assert heard[what] > 10
    assert number > 50


@perdure.trace
async def waits_for_ever() -> None:
    await asyncio.Event().wait()


@env.task
async def cancels_beside_steps(kind: str, rounds: int, stall: float) -> list[str]:
    """A few steps that are ready to go on, each of which takes long, beside an event that is to end a wait."""
    order: list[str] = []

    async def steps() -> None:
        for _ in range(rounds):
            time.sleep(stall)
            await asyncio.sleep(0)
        order.append("steps")

    async def waits() -> None:
        try:
            if kind == "timeout":
                async with asyncio.timeout(0.01):
                    await waits_for_ever()
            elif kind == "timer":
                await asyncio.sleep(0.01)
            else:
                await waits_for_ever()
        except (TimeoutError, asyncio.CancelledError):
            pass
        order.append("event")

    waiting = asyncio.create_task(waits())
    while not asyncio.get_running_loop()._scheduled and kind != "cancel":
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    work = asyncio.create_task(steps())
    if kind == "cancel":
        waiting.cancel()
    await asyncio.gather(waiting, work)
    return order


@pytest.mark.parametrize("kind", ["cancel", "timeout", "timer"])
def test_an_event_overtakes_no_step_that_is_ready_because_the_machine_stalls(kind: str) -> None:
    """B1, B7, B11: on replay the same steps take no time.

    The family: a limit of time in the delivery, which a slow machine reaches at another place of the body."""
    found = perdure.run(cancels_beside_steps, kind=kind, rounds=16, stall=watch.STARVED_SECONDS * 1.4).outputs()[0]
    assert found == ["steps", "event"]


@perdure.trace
async def stays(name: str) -> str:
    counts[name] = counts.get(name, 0) + 1
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(0.01)
    return name


@perdure.trace
async def never_waits(name: str) -> str:
    counts[name] = counts.get(name, 0) + 1
    return name


@env.task
async def stays_child(name: str) -> str:
    return await stays(name)


@perdure.trace
async def stays_items(name: str) -> AsyncIterator[str]:
    counts[name] = counts.get(name, 0) + 1
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(0.01)
    yield name


async def call(what: str) -> Any:
    if what == "child":
        return await stays_child("first")
    if what == "generator":
        return [item async for item in stays_items("first")]
    if what == "sleep":
        return await durable_sleep.aio(0.01)
    if what == "time":
        return await durable_time.aio()
    return await (stays if what == "trace" else never_waits)("first")


@env.task
async def cancelled_before_it_calls(what: str, beside: bool) -> list[str]:
    said = []

    async def calls() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        try:
            await call(what)
        except asyncio.CancelledError:
            said.append("cancelled")
        said.append(await step("second"))

    await asyncio.gather(calls(), *([step("beside", 0.02)] if beside else []), return_exceptions=True)
    said.append(await step("third"))
    await durable_sleep.aio(0.5)
    return said


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("what", ["trace", "child", "generator", "sleep", "time", "no wait"])
def test_a_task_cancelled_before_it_calls_hears_of_that_in_the_same_call_on_replay(what: str, beside: bool) -> None:
    """B11, P4. The family: a request to cancel that waits for the task's next wait. The call may have none (a record on
    its own, a recorded outcome), or its trace may swallow the request: a later call then heard of it on replay."""
    counts.clear()
    name = f"before-{what.replace(' ', '-')}-{beside}"
    interrupted_behind("third", name, cancelled_before_it_calls, what=what, beside=beside)
    again = perdure.with_runcontext(name=name).run(cancelled_before_it_calls, what=what, beside=beside)
    assert again.result == ["cancelled", "second", "third"]
    assert counts == {"second": 1, "third": 1, **({"beside": 1} if beside else {})}
