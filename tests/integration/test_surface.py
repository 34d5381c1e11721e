"""Every public call works from every place it may be made, and says so clearly where it may not.

See docs/development/replay.md.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.journals import recorded
from tests.waiting import Stall

import perdure
import perdure.durable
from perdure import errors
from perdure.extras import durable_sleep, durable_time

pytestmark = pytest.mark.filterwarnings("ignore::perdure.errors.PerdureWarning")

env = perdure.TaskEnvironment(name="surface", env_vars={"PERDURE_TEST_VARIABLE": "set"})


@pytest.fixture(autouse=True)
def store(tmp_path: Path) -> Iterator[None]:
    perdure.init(store=tmp_path / "perdure.db")
    yield
    perdure.init()


@perdure.trace
def sync_trace(x: int) -> int:
    return x + 1


@perdure.trace
async def async_trace(x: int) -> int:
    return x + 1


@perdure.trace
def items(n: int) -> Iterator[int]:
    yield from range(n)


@perdure.trace
async def async_items(n: int) -> AsyncIterator[int]:
    for item in range(n):
        yield item


@env.task
async def async_child(x: int) -> int:
    return await async_trace(x)


@env.task
def sync_child(x: int) -> int:
    return sync_trace(x) + async_child(x) + async_trace(x)


@env.task
async def everything_async() -> dict[str, Any]:
    found: dict[str, Any] = {
        "sync trace": sync_trace(1),
        "sync trace aio": await sync_trace.aio(1),
        "sync child": sync_child(2),
        "async child": await async_child(3),
        "sync child aio": await sync_child.aio(4),
        "time": durable_time() <= await durable_time.aio(),
        "items": list(items(3)),
        "async items": [item async for item in async_items(3)],
        "to_thread": await asyncio.to_thread(lambda: sync_trace(9) + sync_child(1)),
        "map aio": [value async for value in perdure.map.aio(sync_child, [1, 2, 3])],
        "map": list(perdure.map(async_child, [1, 2, 3])),
        "variable": os.environ["PERDURE_TEST_VARIABLE"],
    }
    durable_sleep(0.01)
    await durable_sleep.aio(0.01)
    me = perdure.Run.get("everything")
    me.send("box", 1)
    await me.send.aio("box", 2)
    me.signal("go", "now")
    condition = perdure.new_condition("go", data_type=str)
    perdure.publish("progress", 1)
    await perdure.publish.aio("progress", 2)
    async with perdure.stream("out", int) as out:
        out.write(1)
        await out.write.aio(2)
    return found | {
        "receive": perdure.receive("box", int),
        "receive aio": await perdure.receive.aio("box", int),
        "wait": condition.wait(),
        "wait aio": await condition.wait.aio(),
    }


def told(run: Any) -> list[Any]:
    """What the run has told the world."""
    return [run.published("progress"), [item.value for item in run.stream("out", int)]]


def test_everything_works_in_an_async_task() -> None:
    run = perdure.with_runcontext(name="everything").run(everything_async)
    assert told(run) == [2, [1, 2]]
    assert run.result == {
        "sync trace": 2,
        "sync trace aio": 2,
        "sync child": 9,
        "async child": 4,
        "sync child aio": 15,
        "time": True,
        "items": [0, 1, 2],
        "async items": [0, 1, 2],
        "to_thread": 16,
        "map aio": [6, 9, 12],
        "map": [2, 3, 4],
        "variable": "set",
        "receive": 1,
        "receive aio": 2,
        "wait": "now",
        "wait aio": "now",
    }


@env.task
def everything_sync() -> dict[str, Any]:
    durable_sleep(0.01)
    me = perdure.Run.get("everything")
    me.send("box", 1)
    me.signal("go", "now")
    perdure.publish("progress", 2)
    with perdure.stream("out", int) as out:
        out.write(1)
        out.write(2)
    return {
        "receive": perdure.receive("box", int),
        "wait": perdure.new_condition("go", data_type=str).wait(),
        "sync trace": sync_trace(1),
        "async trace": async_trace(1),
        "sync child": sync_child(2),
        "async child": async_child(3),
        "time": durable_time() <= durable_time(),
        "items": list(items(3)),
        "map": list(perdure.map(sync_child, [1, 2, 3])),
        "map limited": list(perdure.map(async_child, range(5), concurrency=2)),
    }


def test_everything_works_in_a_sync_task() -> None:
    run = perdure.with_runcontext(name="everything").run(everything_sync)
    assert told(run) == [2, [1, 2]]
    assert run.result == {
        "receive": 1,
        "wait": "now",
        "sync trace": 2,
        "async trace": 2,
        "sync child": 9,
        "async child": 4,
        "time": True,
        "items": [0, 1, 2],
        "map": [6, 9, 12],
        "map limited": [1, 2, 3, 4, 5],
    }


def test_outside_a_run_everything_is_plain() -> None:
    assert sync_child.fn(1) == 2 + 2 + 2 if False else sync_trace(1) == 2
    assert list(items(2)) == [0, 1]
    assert asyncio.run(async_child(3)) == 4
    assert abs(durable_time() - time.time()) < 5
    assert isinstance(perdure.durable.uuid4(), uuid.UUID)
    assert perdure.durable.now().tzinfo is UTC
    assert perdure.ctx() is None
    durable_sleep(0)
    with perdure.group("nothing"):
        pass


async def both_from_a_running_loop() -> tuple[Any, Any]:
    return perdure.run(sync_child, 1).result, (await perdure.run.aio(async_child, 1)).result


def test_a_run_starts_from_a_running_event_loop_in_both_colours() -> None:
    assert asyncio.run(both_from_a_running_loop()) == (6, 2)


def test_a_run_starts_from_a_thread() -> None:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(perdure.run(async_child, 1).result))
    thread.start()
    thread.join(10)
    assert found == [2]


def test_many_runs_at_once() -> None:
    async def main() -> list[Any]:
        runs = await asyncio.gather(*(perdure.run.aio(async_child, n) for n in range(100)))
        return [run.result for run in runs]

    assert asyncio.run(main()) == [n + 1 for n in range(100)]


@env.task
def deep_sync(n: int) -> int:
    return 0 if n == 0 else deep_sync(n - 1) + 1


@env.task
def deep_mixed(n: int) -> int:
    return 0 if n == 0 else deep_mixed_async(n - 1) + 1  # type: ignore[return-value, operator]


@env.task
async def deep_mixed_async(n: int) -> int:
    return 0 if n == 0 else (await deep_mixed.aio(n - 1)) + 1


def test_deep_nesting_does_not_deadlock() -> None:
    assert perdure.run(deep_sync, 40).result == 40
    assert perdure.run(deep_mixed, 40).result == 40


def test_more_waiting_sync_children_than_threads() -> None:
    @env.task
    def sleeper(n: int) -> int:
        durable_sleep(0.2)
        return n

    @env.task
    async def main() -> list[int]:
        return await asyncio.gather(*(sleeper.aio(n) for n in range(150)))

    with Stall() as stall:
        assert perdure.run(main).result == list(range(150))
    # One after the other they would take half a minute.
    assert stall.took < stall.bound(10.0, work=0.5)


never = threading.Event()


@env.task(timeout=0.2)
def slow_sync() -> int:
    never.wait(60)
    return 1


@env.task(timeout=timedelta(milliseconds=200))
async def slow_async() -> int:
    await asyncio.Event().wait()
    return 1


@env.task
def slow_parent() -> int:
    return slow_sync()


@pytest.mark.parametrize("task", [slow_sync, slow_async, slow_parent])
def test_a_timeout_ends_an_attempt(task: Any) -> None:
    with Stall() as stall, pytest.raises(errors.TaskTimeoutError, match=r"timeout of 0\.2 s"):
        perdure.run(task)
    assert stall.took < stall.bound(6.0, work=0.1)


@env.task
async def returns_the_wrong_type() -> int:
    return "x"  # type: ignore[return-value]


def test_a_value_that_does_not_fit_is_a_failure_that_names_the_remedy() -> None:
    with pytest.raises(errors.ValueMismatchError, match="`str` would fit") as caught:
        perdure.run(returns_the_wrong_type)
    assert caught.value.run.status == "FAILED"


@env.task
async def exits() -> None:
    sys.exit(3)


def test_system_exit_in_a_body_is_a_failure() -> None:
    with pytest.raises(SystemExit) as caught:
        perdure.run(exits)
    assert caught.value.code == 3
    assert perdure.run(async_child, 1).result == 2


@env.task
async def from_a_stray_thread() -> str:
    found: list[str] = []

    def work() -> None:
        try:
            durable_time()
        except errors.BranchError as error:
            found.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    await asyncio.to_thread(thread.join)
    return found[0]


def test_a_thread_of_the_users_own_is_refused() -> None:
    assert "asyncio.to_thread" in perdure.run(from_a_stray_thread).result


def test_a_thread_with_the_number_of_one_that_has_ended_is_not_taken_for_it() -> None:
    """The one that ends was there before the run, and so had nothing to do with it."""
    go = threading.Event()
    before = threading.Thread(target=go.wait)
    numbers: list[int | None] = []
    found: list[str] = []

    def work() -> None:
        numbers.append(threading.get_ident())
        try:
            durable_time()
        except errors.BranchError as error:
            found.append(str(error))

    @env.task
    async def main() -> None:
        go.set()
        before.join()
        for _ in range(20):
            after = threading.Thread(target=work)
            after.start()
            await asyncio.to_thread(after.join)

    before.start()
    perdure.run(main)
    assert len(found) == len(numbers) == 20
    if before.ident not in numbers:
        pytest.skip("no thread got the number of the one that had ended")


@env.task
async def starts_a_run() -> None:
    perdure.run(async_child, 1)


def test_a_run_inside_a_task_is_refused() -> None:
    with pytest.raises(errors.NestedRunError, match="call the task itself"):
        perdure.run(starts_a_run)


@perdure.trace
async def sleeps() -> None:
    await durable_sleep.aio(1)


@perdure.trace
async def calls_a_task() -> int:
    return await async_child(1)


@perdure.trace
async def reads() -> float:
    return sync_trace(1) + await durable_time.aio() * 0


@env.task
async def inside_traces(which: str) -> float:
    if which == "sleep":
        await sleeps()
    if which == "task":
        await calls_a_task()
    return await reads()


def test_what_may_and_may_not_stand_in_a_trace() -> None:
    with pytest.raises(errors.InsideTraceError, match="sleep in the task"):
        perdure.run(inside_traces, "sleep")
    with pytest.raises(errors.InsideTraceError, match="call the task from a task"):
        perdure.run(inside_traces, "task")
    assert perdure.run(inside_traces, "reading").result == 2.0


@env.task
async def limited() -> str:
    try:
        async with perdure.durable.timeout(0.05) as limit:
            await durable_sleep.aio(10)
    except TimeoutError as error:
        assert limit.expired()
        return str(error)
    return "no"


@env.task
def limited_sync(seconds: float) -> str:
    try:
        with perdure.durable.timeout(0.4):
            durable_sleep(seconds)
    except TimeoutError:
        return "late"
    return "in time"


def test_a_durable_timeout() -> None:
    assert perdure.run(limited).result == "the block took longer than 0.05 s"
    assert perdure.run(limited_sync, 0.5).result == "late"
    assert perdure.run(limited_sync, 0.0).result == "in time"


@env.task
async def bad_sleep(what: str) -> None:
    values: dict[str, Any] = {"list": [1], "nan": float("nan"), "inf": float("inf"), "text": "1", "complex": 1j}
    await durable_sleep.aio(values[what])


@pytest.mark.parametrize(
    ("what", "error"),
    [("list", TypeError), ("nan", ValueError), ("inf", ValueError), ("text", TypeError), ("complex", TypeError)],
)
def test_a_senseless_sleep_is_refused_before_anything_is_recorded(what: str, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        perdure.run(bad_sleep, what)
    run = caught.value.run  # type: ignore[attr-defined]
    from perdure import runtime

    assert [row for row in recorded(runtime.worker().store, run.row) if row.kind] == []


@env.task
async def readings() -> tuple[float, datetime, uuid.UUID, float]:
    return (
        await durable_time.aio(),
        await perdure.durable.now.aio(),
        await perdure.durable.uuid4.aio(),
        await perdure.durable.random.aio(),
    )


def test_outputs_are_named() -> None:
    run = perdure.run(readings)
    outputs: Any = run.outputs()
    assert outputs == run.result
    assert outputs.o1.tzinfo is not None
    assert outputs._fields == ("o0", "o1", "o2", "o3")
    assert perdure.run(async_child, 1).outputs() == (2,)
    for task, expected in ((bad_nothing, (None,)), (perhaps, (None,)), (bare_tuple, ((1, 2),)), (empty_tuple, ())):
        assert perdure.run(task).outputs() == expected, task.name


class Reading(NamedTuple):
    value: int
    unit: str


@env.task
def named_reading() -> Reading:
    return Reading(3, "K")


@env.task
def perhaps() -> int | None:
    return None


@env.task
def bare_tuple() -> tuple:  # type: ignore[type-arg]
    return (1, 2)


@env.task
def empty_tuple() -> tuple[()]:
    return ()


def test_outputs_spread_a_named_tuple_under_its_names() -> None:
    for _ in range(2):
        outputs: Any = perdure.with_runcontext(name="r").run(named_reading).outputs()
        assert outputs == (3, "K")
        assert (outputs.value, outputs.unit) == (3, "K")


@env.task
async def bad_nothing() -> None:
    return None


@env.task
async def where_am_i() -> tuple[str, str, str | None]:
    with perdure.group("outer"):
        context = perdure.ctx()
        assert context is not None
        return context.run_name, context.task, context.group


def test_context_and_group() -> None:
    run = perdure.with_runcontext(name="here").run(where_am_i)
    assert run.result == ("here", "surface.where_am_i", "outer")


def test_the_name_is_the_key() -> None:
    named = perdure.with_runcontext(name="key")
    assert named.run(async_child, 1).result == 2
    assert named.run(async_child, 1).result == 2
    assert named.run(async_child, x=1).result == 2
    with pytest.raises(errors.RunConflictError, match=r"x=1.*\n.*x=2"):
        named.run(async_child, 2)
    with pytest.raises(errors.RunConflictError, match=r"surface.sync_child"):
        named.run(sync_child, 1)
    assert perdure.Run.get("key").result == 2
    with pytest.raises(errors.RunNotFoundError, match="perdure ls"):
        perdure.Run.get("absent")


class Odd(Exception):
    def __init__(self, code: int, *, hint: str) -> None:
        super().__init__(f"odd {code}")
        self.code = code
        self.hint = hint


@perdure.trace
async def fails(kind: str) -> None:
    if kind == "odd":
        raise Odd(7, hint="look")
    if kind == "local":

        class Local(Exception):
            pass

        raise Local("here")
    raise ConnectionError("the bank did not answer")


@env.task
async def failing(kind: str) -> None:
    await fails(kind)


def test_a_failure_keeps_its_type_and_is_the_same_when_asked_for_again() -> None:
    for _ in range(2):
        with pytest.raises(Odd, match="odd 7") as odd:
            perdure.with_runcontext(name="odd").run(failing, "odd")
        assert (odd.value.code, odd.value.hint, odd.value.run.status) == (7, "look", "FAILED")
        with pytest.raises(errors.RemoteError, match="Local: here"):
            perdure.with_runcontext(name="local").run(failing, "local")
        with pytest.raises(ConnectionError, match=r"^the bank did not answer$"):
            perdure.with_runcontext(name="bank").run(failing, "bank")


attempts: list[int] = []


@env.task(retries=3)
async def flaky(good_at: int) -> int:
    attempts.append(1)
    if len(attempts) < good_at:
        raise ValueError("not yet")
    return len(attempts)


@env.task(retries=3)
async def hopeless() -> None:
    attempts.append(1)
    raise errors.NonRecoverableError("never")


def test_retries_and_their_end() -> None:
    attempts.clear()
    assert perdure.run(flaky, 3).result == 3
    attempts.clear()
    with pytest.raises(ValueError, match="not yet"):
        perdure.run(flaky, 9)
    assert len(attempts) == 4
    attempts.clear()
    with pytest.raises(errors.NonRecoverableError):
        perdure.run(hopeless)
    assert len(attempts) == 1


computed: list[int] = []


@env.task(cache="auto")
async def expensive(x: int) -> int:
    computed.append(x)
    return x * 2


@env.task
async def uses_the_cache() -> list[int]:
    return [await expensive(1), await expensive(1), await expensive(2)]


def test_a_cached_task_is_computed_once_for_all_runs() -> None:
    computed.clear()
    assert perdure.run(uses_the_cache).result == [2, 2, 4]
    assert perdure.run(uses_the_cache).result == [2, 2, 4]
    assert computed == [1, 2]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: perdure.run(len, 3), "declare it with @env.task"),
        (lambda: perdure.run(async_child), "missing"),
        (lambda: perdure.run(async_child, 1, y=2), "y"),
        (lambda: perdure.run(async_child, "one"), "int"),
        (lambda: perdure.with_runcontext(name="-x"), "dash"),
        (lambda: perdure.with_runcontext(name=""), "1 to 200"),
        (lambda: env.task(retries=-1)(lambda: None), "retries"),
        (lambda: env.task(timeout=0)(lambda: None), "timeout"),
        (lambda: env.task(cache="sometimes")(lambda: None), "cache"),  # type: ignore[call-overload]
        (lambda: perdure.trace(ignore=("absent",))(lambda x: x), "absent"),
        (lambda: perdure.init(durability="hope"), "durability"),  # type: ignore[arg-type]
        (lambda: perdure.init(store="mysql://x") or perdure.run(async_child, 1), "mysql"),
    ],
)
def test_a_wrong_call_is_told_what_is_wrong(call: Any, message: str) -> None:
    with pytest.raises(errors.UsageError, match=message):
        call()
