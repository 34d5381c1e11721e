"""Interleavings that naive designs get wrong. Each task is one case; `tests/crash/test_named_interleavings.py` says
what it must give."""

from __future__ import annotations

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import lab
import perdure
from lab import LabError, async_items, env, flaky, items, see, step, sync_flaky, sync_step
from perdure import durable
from perdure.extras import durable_sleep, durable_time


def jitter(most: float = 0.012) -> float:
    """Another order on every start."""
    return random.random() * most


# -- gather ----------------------------------------------------------------------------------------------------


@env.task
async def gather_times_and_sleeps() -> list[list[Any]]:
    async def branch(name: str, pause: float) -> list[Any]:
        first = await durable_time.aio()
        see(name, first)
        await durable_sleep.aio(pause)
        second = await durable_time.aio()
        see(name, second)
        see("all", name)
        return [name, first, second]

    return list(await asyncio.gather(branch("a", 0.03), branch("b", 0.01), branch("c", 0.02)))


@env.task
async def gather_random_order() -> list[str]:
    order: list[str] = []

    async def branch(name: str) -> str:
        await step(name, jitter())
        order.append(name)
        see("order", name)
        await step(name + "2", jitter())
        order.append(name + "2")
        see("order", name + "2")
        return name

    await asyncio.gather(*(branch(name) for name in "abcd"))
    await step("after " + ",".join(order))
    return order


@env.task
async def two_append_to_one_list() -> list[str]:
    found: list[str] = []

    async def worker(name: str) -> None:
        for number in range(3):
            found.append(await step(f"{name}{number}", jitter()))
            see("list", found[-1])

    await asyncio.gather(worker("x"), worker("y"))
    await step("+".join(found))
    return found


@env.task
async def same_coroutine_same_arguments() -> list[Any]:
    async def reading() -> str:
        return str(await durable.uuid4.aio())

    async def outer() -> list[str]:
        return list(await asyncio.gather(reading(), reading()))

    found = await asyncio.gather(outer(), outer(), reading(), reading())
    see("main", found)
    await step("end")
    return list(found)


@env.task
async def user_cancels_gather() -> list[str]:
    out: list[str] = []

    async def branch(name: str, seconds: float) -> str:
        try:
            await step(name, seconds)
            out.append(name)
        except asyncio.CancelledError:
            out.append(f"{name} cancelled")
            see("main", out[-1])
            raise
        return name

    both = asyncio.gather(branch("quick", 0.004), branch("slow", 5.0))
    await step("first", 0.015)
    both.cancel()
    try:
        await both
    except asyncio.CancelledError:
        see("main", "gather cancelled")
    out.append(await step("last"))
    return out


# -- races -----------------------------------------------------------------------------------------------------


@env.task
async def race_first_completed() -> list[str]:
    tasks = {asyncio.create_task(step(name, jitter()), name=name) for name in ("red", "blue")}
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    winner = min(task.result() for task in done)
    see("main", winner)
    second = await step(f"{winner} won", 0.003)
    see("main", second)
    return [winner, second]


@env.task
async def race_loser_kept() -> list[str]:
    tasks = [asyncio.create_task(step(name, jitter())) for name in ("red", "blue")]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    winner = min(task.result() for task in done)
    see("main", winner)
    second = await step(f"{winner} won", jitter())
    rest = sorted([await task for task in pending])
    see("main", rest)
    return [winner, second, *rest]


@env.task
async def race_of_sleeps() -> list[str]:
    async def sleeper(name: str, seconds: float) -> str:
        await durable_sleep.aio(seconds)
        return name

    tasks = [asyncio.create_task(sleeper(name, jitter())) for name in ("p", "q", "r")]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    winner = min(task.result() for task in done)
    see("main", winner)
    for task in pending:
        task.cancel()
    return [winner, await step(f"after {winner}")]


@env.task
async def as_completed_times() -> list[Any]:
    async def reading(name: str) -> list[Any]:
        await durable_sleep.aio(jitter())
        return [name, await durable_time.aio()]

    found = []
    for next_one in asyncio.as_completed([reading(name) for name in "abc"]):
        found.append(await next_one)
        see("main", found[-1])
        await step(f"got {found[-1][0]}")
    return found


@env.task
async def wait_with_timeout_keeps_task() -> list[str]:
    task = asyncio.create_task(step("slow", 0.03))
    done, _ = await asyncio.wait({task}, timeout=0.01)
    see("main", len(done))
    out = []
    if not done:
        out.append(await step("meanwhile", 0.04))
    out.append(await task)
    see("main", out)
    out.append(await step("end"))
    return out


# -- timeouts --------------------------------------------------------------------------------------------------


@env.task
async def asyncio_timeout_fallback() -> list[str]:
    out = []
    for limit, seconds in ((0.02, 5.0), (5.0, 0.002)):
        try:
            async with asyncio.timeout(limit):
                out.append(await step(f"try{limit}", seconds))
        except TimeoutError:
            see("main", "timeout")
            out.append(await step(f"fallback{limit}"))
    see("main", out)
    return out


@env.task
async def wait_for_fallback() -> list[str]:
    out = []
    for limit, seconds in ((0.02, 5.0), (5.0, 0.002)):
        try:
            out.append(await asyncio.wait_for(step(f"try{limit}", seconds), limit))
        except TimeoutError:
            see("main", "timeout")
            out.append(await step(f"fallback{limit}"))
    see("main", out)
    return out


@env.task
async def timeout_around_two_steps() -> list[str]:
    out = []
    try:
        async with asyncio.timeout(0.03):
            out.append(await step("inside1", 0.002))
            see("main", out[-1])
            out.append(await step("inside2", 5.0))
    except TimeoutError:
        see("main", "timeout")
        out.append(await step("fallback"))
    return out


@env.task
async def durable_timeout_fallback() -> list[str]:
    out = []
    for limit, seconds in ((0.02, 5.0), (5.0, 0.002)):
        try:
            async with durable.timeout(limit):
                out.append(await step(f"try{limit}", seconds))
        except TimeoutError:
            see("main", "timeout")
            out.append(await step(f"fallback{limit}"))
    see("main", out)
    return out


@env.task
async def durable_timeout_in_branches() -> list[str]:
    async def branch(name: str, limit: float, seconds: float) -> str:
        try:
            async with durable.timeout(limit):
                await step(name, seconds)
                await durable_sleep.aio(seconds)
                return name
        except TimeoutError:
            see("all", f"{name} late")
            return await step(f"{name} late")

    return list(await asyncio.gather(branch("a", 0.015, 5.0), branch("b", 0.02, 0.002), branch("c", 5.0, 0.004)))


@env.task
def durable_timeout_sync() -> list[str]:
    out = []
    for limit, seconds in ((0.01, 0.02), (5.0, 0.002)):
        try:
            with durable.timeout(limit):
                out.append(sync_step(f"try{limit}", seconds))
        except TimeoutError:
            see("main", "timeout")
            out.append(sync_step(f"late{limit}"))
    return out


# -- task groups and tasks -------------------------------------------------------------------------------------


@env.task
async def task_group_failing_sibling() -> list[str]:
    out: list[str] = []

    async def child(name: str, seconds: float) -> None:
        try:
            out.append(await step(name, seconds))
        except asyncio.CancelledError:
            out.append(f"{name} cancelled")
            raise

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(child("early", 0.002))
            group.create_task(child("late", 5.0))
            group.create_task(step("bad", 0.01, fail=True))
    except* LabError as errors:
        out.append(f"failed: {[str(error) for error in errors.exceptions]}")
    see("main", out)
    out.append(await step("after"))
    return out


@env.task
async def created_here_awaited_there() -> list[str]:
    async def first() -> str:
        return await step("first", 0.006)

    async def other(task: asyncio.Task[str]) -> str:
        await step("other", 0.002)
        return "other saw " + await task

    task = asyncio.create_task(first())
    helper = asyncio.create_task(other(task))
    out = [await step("main", 0.004)]
    see("main", out[-1])
    out.append(await helper)
    out.append(await task)
    see("main", out)
    return out


@env.task
async def task_of_a_task() -> list[str]:
    async def leaf(name: str) -> str:
        found = await step(name, jitter(0.005))
        see("all", found)
        return found

    async def middle(name: str) -> list[str]:
        return [await task for task in [asyncio.create_task(leaf(f"{name}{number}")) for number in range(2)]]

    found = await asyncio.gather(middle("m"), middle("n"))
    return [name for group in found for name in group]


# -- helpers ---------------------------------------------------------------------------------------------------


@env.task
async def nested_helpers() -> list[Any]:
    async def reading(label: str) -> list[Any]:
        first = await durable_time.aio()
        async def inner() -> str:
            return await step(f"{label}-{len(found)}", 0.001)
        return [label, first, await inner()]

    found: list[Any] = []
    for label in ("one", "two"):
        found.append(await reading(label))
        see("main", found[-1])
    pairs = await asyncio.gather(reading("same"), reading("other"))
    return [*found, *pairs]


@env.task
async def closures_in_a_loop() -> list[str]:
    async def call(make: Any) -> str:
        return str(await make())

    makers = [lambda n=n: step(f"closure{n}", jitter(0.005)) for n in range(3)]
    out = list(await asyncio.gather(*(call(make) for make in makers)))
    see("main", out)
    return out


# -- threads ---------------------------------------------------------------------------------------------------


@env.task
async def to_thread_with_durable_calls() -> list[Any]:
    def work(name: str) -> list[Any]:
        moment = durable_time()
        see(name, moment)
        found = [sync_step(f"{name}1", 0.003), sync_step(f"{name}2")]
        see(name, found)
        durable_sleep(0.005)
        return [name, moment, *found]

    one = await asyncio.to_thread(work, "alone")
    both = await asyncio.gather(asyncio.to_thread(work, "left"), asyncio.to_thread(work, "right"), step("beside", 0.004))
    out = [one, *both]
    see("main", out)
    return out


@env.task
async def own_executor_with_durable_calls() -> list[str]:
    def work(name: str) -> str:
        return sync_step(name, 0.003)

    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(2) as pool:
        out = list(await asyncio.gather(*(loop.run_in_executor(pool, work, name) for name in ("e1", "e2", "e3"))))
    out.append(await loop.run_in_executor(None, work, "e4"))
    see("main", out)
    return out


# -- children --------------------------------------------------------------------------------------------------


@env.task
async def double(name: str, pause: float = 0.0) -> str:
    first = await step(f"{name}.a", pause)
    see(name, first)
    second = await step(f"{name}.b")
    return f"{name}!"


@env.task
def sync_double(name: str, pause: float = 0.0) -> str:
    first = sync_step(f"{name}.a", pause)
    see(name, first)
    sync_step(f"{name}.b")
    return f"{name}!"


@env.task
async def children() -> list[str]:
    out = [await double("one")]
    out.extend(await asyncio.gather(double("two", 0.005), double("three"), sync_double.aio("four", 0.002)))
    see("main", out)
    return out


@env.task
def nested_sync_children() -> list[str]:
    out = [sync_double("one"), middle_child("two"), sync_step("own")]
    see("main", out)
    return out


@env.task
def middle_child(name: str) -> str:
    return sync_double(f"{name}.inner") + sync_step(f"{name}.mine")


@env.task
def async_child_from_sync_body() -> list[str]:
    out = [double("one", 0.002), sync_step("own"), double("two")]
    see("main", out)
    return [str(name) for name in out]


@env.task
async def calls_async_children(name: str) -> str:
    return "".join(await asyncio.gather(double(f"{name}.x"), double(f"{name}.y", 0.002)))


@env.task
def sync_calls_async(name: str) -> str:
    return str(calls_async_children(name)) + sync_step(f"{name}.end")


@env.task
async def sync_task_called_on_the_loop() -> list[str]:
    out = [sync_calls_async("q"), await step("own")]
    see("main", out)
    return out


@env.task
async def sync_trace_called_on_the_loop() -> list[str]:
    out: list[str] = []

    async def branch(name: str, seconds: float) -> None:
        out.append(await step(f"{name}1", seconds))
        see("all", out[-1])
        out.append(sync_step(f"{name}2", 0.003))
        see("all", out[-1])
        out.append(await step(f"{name}3", seconds))
        see("all", out[-1])

    await asyncio.gather(branch("a", 0.002), branch("b", 0.004))
    see("main", out)
    await step("end")
    return out


# -- map -------------------------------------------------------------------------------------------------------


@env.task
async def unit(name: str) -> str:
    return await step(name, jitter(0.005))


@env.task
def sync_unit(name: str) -> str:
    return sync_step(name, jitter(0.005))


@env.task
async def failing_unit(name: str) -> str:
    return await step(name, 0.001, fail=name == "m2")


@env.task
async def map_async() -> list[str]:
    out = []
    async for found in perdure.map.aio(unit, [f"m{n}" for n in range(4)]):
        out.append(found)
        see("main", found)
    async for found in perdure.map.aio(failing_unit, [f"m{n}" for n in range(1, 4)], concurrency=2):
        out.append(found if isinstance(found, str) else f"{type(found).__name__} {found}")
    await step("end")
    return out


@env.task
async def map_async_limited() -> list[str]:
    out = []
    async for found in perdure.map.aio(unit, [f"m{n}" for n in range(5)], concurrency=2):
        out.append(found)
        see("main", found)
    await step("end")
    return out


@env.task
def map_sync() -> list[str]:
    out = []
    for found in perdure.map(sync_unit, [f"m{n}" for n in range(5)], concurrency=2):
        out.append(found)
        see("main", found)
    for found in perdure.map(unit, ["u0", "u1"]):
        out.append(found)
    sync_step("end")
    return out


@env.task
async def map_half_consumed() -> list[str]:
    out = []
    found = perdure.map.aio(unit, [f"m{n}" for n in range(6)], concurrency=2)
    async for name in found:
        out.append(name)
        see("main", name)
        if len(out) == 2:
            break
    await found.aclose()
    out.append(await step("after"))
    return out


@env.task
def map_sync_half_consumed() -> list[str]:
    out = []
    for name in perdure.map(sync_unit, [f"m{n}" for n in range(6)], concurrency=2):
        out.append(name)
        see("main", name)
        if len(out) == 2:
            break
    out.append(sync_step("after"))
    return out


# -- generators ------------------------------------------------------------------------------------------------


@env.task
def generators() -> list[str]:
    out = list(items("g", 3))
    half = items("h", 5)
    out.extend([next(half), next(half)])
    half.close()
    out.append(sync_step("between"))
    try:
        for name in items("f", 5, 2):
            out.append(name)
    except LabError as error:
        out.append(f"failed {error}")
    see("main", out)
    out.append(sync_step("end"))
    return out


@env.task
async def async_generators() -> list[str]:
    out = [name async for name in async_items("g", 3)]
    half = async_items("h", 5)
    out.extend([await anext(half), await anext(half)])
    await half.aclose()
    out.append(await step("between"))
    try:
        async for name in async_items("f", 5, 2):
            out.append(name)
    except LabError as error:
        out.append(f"failed {error}")
    see("main", out)
    out.append(await step("end"))
    return out


@env.task
async def generators_interleaved() -> list[str]:
    out: list[str] = []

    async def consume(name: str) -> None:
        async for found in async_items(name, 3, seconds=jitter(0.004)):
            out.append(found)
            see("all", found)

    await asyncio.gather(consume("i"), consume("j"))
    await step(" ".join(out))
    return out


@env.task
async def generator_kept_open() -> list[str]:
    open_one = async_items("k", 4)
    out = [await anext(open_one), await step("mid")]
    out.append(await anext(open_one))
    see("main", out)
    out.append(await step("end"))
    return out


# -- asyncio's own tools ---------------------------------------------------------------------------------------


@env.task
async def queue_between_branches() -> list[str]:
    line: asyncio.Queue[str] = asyncio.Queue(2)
    out: list[str] = []

    async def producer() -> None:
        for number in range(4):
            await line.put(await step(f"p{number}", jitter(0.004)))
        await line.put("")

    async def consumer() -> None:
        while name := await line.get():
            out.append(await step(f"c{name}", jitter(0.004)))
            see("all", out[-1])

    await asyncio.gather(producer(), consumer())
    await step("end")
    return out


@env.task
async def two_consumers_one_queue() -> list[str]:
    line: asyncio.Queue[str | None] = asyncio.Queue()
    out: list[str] = []

    async def consumer(who: str) -> None:
        while (name := await line.get()) is not None:
            out.append(await step(f"{who} takes {name}", jitter(0.004)))
            see("all", out[-1])

    for name in ("a", "b", "c", "d", None, None):
        line.put_nowait(name)
    await asyncio.gather(consumer("u"), consumer("v"))
    await step("end")
    return out


@env.task
async def lock_event_semaphore() -> list[str]:
    lock, ready, places = asyncio.Lock(), asyncio.Event(), asyncio.Semaphore(2)
    out: list[str] = []

    async def locked(name: str) -> None:
        await ready.wait()
        async with lock:
            out.append(await step(f"locked {name}", jitter(0.003)))
            see("all", out[-1])

    async def limited(name: str) -> None:
        async with places:
            out.append(await step(f"limited {name}", jitter(0.003)))
            see("all", out[-1])
            if name == "b":
                ready.set()

    await asyncio.gather(locked("x"), locked("y"), *(limited(name) for name in "abc"))
    await step("end")
    return out


@env.task
async def condition_and_barrier() -> list[str]:
    barrier = asyncio.Barrier(2)
    out: list[str] = []

    async def party(name: str) -> None:
        out.append(await step(f"{name}1", jitter(0.004)))
        see("all", out[-1])
        await barrier.wait()
        out.append(await step(f"{name}2", jitter(0.004)))
        see("all", out[-1])

    await asyncio.gather(party("a"), party("b"))
    await step("end")
    return out


@env.task
async def plain_sleeps_between() -> list[str]:
    out = [await step("one")]
    await asyncio.sleep(0.004)
    out.append(await step("two"))
    see("main", out)

    async def branch(name: str, first: float, second: float) -> None:
        await asyncio.sleep(first)
        out.append(await step(f"{name}", second))
        see("all", out[-1])

    await asyncio.gather(branch("a", 0.004, 0.002), branch("b", 0.0, 0.001))
    await asyncio.sleep(0)
    out.append(await step("end"))
    return out


@env.task
async def plain_sleep_races_a_step() -> list[str]:
    slow = asyncio.create_task(step("slow", 0.03))
    nap = asyncio.create_task(asyncio.sleep(0.01))
    await asyncio.wait({slow, nap}, return_when=asyncio.FIRST_COMPLETED)
    first = "step" if slow.done() else "nap"
    see("main", first)
    out = [first, await step(f"{first} won", 0.04)]
    out.append(await slow)
    see("main", out)
    return out


# -- failures and retries --------------------------------------------------------------------------------------


@env.task
async def caught_and_raised_again() -> list[str]:
    out = []
    try:
        await step("bad", fail=True)
    except LabError as error:
        out.append(str(error))
    see("main", out)
    try:
        await retried_reraise()
    except LabError as error:
        out.append(f"{error} {type(error.__cause__).__name__}")
    out.append(await step("end"))
    return out


@env.task(retries=1)
async def retried_reraise() -> str:
    await step("before it")
    try:
        return await flaky("worse", 5)
    except LabError as error:
        raise LabError("again") from error


@env.task(retries=perdure.RetryStrategy(3, perdure.Backoff(initial=0.01, factor=1.5)))
async def flaky_task(name: str) -> str:
    kept = await step(f"{name} kept")
    return kept + await flaky(f"{name} flaky", 2)


@env.task(retries=2)
def sync_flaky_task(name: str) -> str:
    kept = sync_step(f"{name} kept")
    return kept + sync_flaky(f"{name} flaky", 1)


@env.task
async def retries_with_backoff() -> list[str]:
    out = list(await asyncio.gather(flaky_task("a"), sync_flaky_task.aio("b"), step("beside", 0.005)))
    see("main", out)
    out.append(await step("end"))
    return out


@env.task(retries=2)
async def other_path(name: str) -> str:
    attempt = await flaky_counter(name)
    if attempt == 0:
        await step(f"{name} first path")
        await step(f"{name} fails", fail=True)
    await step(f"{name} second path")
    return f"{name} done at {attempt}"


@perdure.trace
async def flaky_counter(name: str) -> int:
    """How often it was executed before; fails the first time, so that the next attempt reads it anew."""
    before = lab.tries(f"{name} counter")
    lab.log("executed", f"{name} counter")
    if before == 0:
        raise LabError(f"{name} counter")
    return before


@env.task
async def second_attempt_other_path() -> list[str]:
    out = [await other_path("o"), await step("end")]
    see("main", out)
    return out


@env.task(retries=1)
async def attempt_decides(name: str) -> str:
    out = [await step(f"{name} common")]
    try:
        out.append(await flaky(f"{name} flaky", 1))
    except LabError:
        await step(f"{name} cleanup")
        raise
    out.append(await step(f"{name} rest"))
    return " ".join(out)


@env.task
async def cleanup_only_when_failing() -> list[str]:
    out = [await attempt_decides("d"), await step("end")]
    see("main", out)
    return out


@env.task
async def failing_child(name: str) -> str:
    await step(f"{name} child")
    return await flaky(f"{name} flaky", 1)


@env.task(retries=2)
async def retrying_parent(name: str) -> str:
    first = await step(f"{name} parent")
    return first + await failing_child(name)


@env.task
async def child_fails_under_retrying_parent() -> list[str]:
    out = list(await asyncio.gather(retrying_parent("k"), retrying_parent("l")))
    see("main", out)
    out.append(await step("end"))
    return out


@env.task(retries=2)
async def gather_then_fail() -> list[str]:
    found = await asyncio.gather(step("one", jitter(0.004)), step("two", jitter(0.004)), double("three"))
    found.append(await flaky("flaky", 2))
    return list(found)


@env.task
async def caught_from_child() -> list[str]:
    out = []
    for name in ("u", "v"):
        try:
            out.append(await always_fails(name))
        except LabError as error:
            out.append(f"caught {error}")
            see("main", out[-1])
        out.append(await step(f"{name} after"))
    return out


@env.task(retries=1)
async def always_fails(name: str) -> str:
    await step(f"{name} in")
    raise LabError(f"{name} out")


TASKS = {name: value for name, value in globals().items() if isinstance(value, perdure.Task)}

if __name__ == "__main__":
    lab.main(TASKS)
