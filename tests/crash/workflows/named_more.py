"""Cases of `tests/crash/test_named_interleavings.py`: cancellation, clean-up and other corners."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import lab
from lab import LabError, async_items, env, flaky, see, step, sync_step

import perdure
from perdure import durable
from perdure.extras import durable_sleep, durable_time

JITTER = -0.01


@env.task
async def shielded_step() -> list[str]:
    out = []
    inner = asyncio.create_task(step("inner", 0.03))
    try:
        out.append(await asyncio.wait_for(asyncio.shield(inner), 0.008))
    except TimeoutError:
        out.append("late")
    see("main", out[-1])
    out.append(await step("between", 0.04))
    out.append(await inner)
    return out


@env.task
async def gather_with_exceptions() -> list[str]:
    found = await asyncio.gather(
        step("one", JITTER), step("two", JITTER, fail=True), step("three", JITTER), return_exceptions=True
    )
    out = [str(value) for value in found]
    see("main", out)
    out.append(await step("end"))
    return out


@env.task
async def first_exception() -> list[str]:
    tasks = [asyncio.create_task(step(name, pause, fail=name == "bad")) for name, pause in
             (("quick", 0.002), ("bad", 0.008), ("slow", 0.02))]  # fmt: skip
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    out = [f"{len(done)} done, {len(pending)} pending"]
    see("main", out[-1])
    out.append(await step("then"))
    out.extend(str(value) for value in await asyncio.gather(*tasks, return_exceptions=True))
    return out


@env.task
async def cleanup_when_cancelled() -> list[str]:
    out: list[str] = []

    async def branch(name: str) -> None:
        try:
            await step(name, 5.0)
        finally:
            out.append(await step(f"{name} cleaned"))
            see("main", out[-1])

    tasks = [asyncio.create_task(branch(name)) for name in ("a", "b")]
    out.append(await step("first", 0.005))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    out.append(await step("end"))
    return out


@env.task
async def cancellation_swallowed() -> list[str]:
    out: list[str] = []

    async def branch() -> str:
        try:
            return await step("long", 5.0)
        except asyncio.CancelledError:
            return await step("instead")

    task = asyncio.create_task(branch())
    out.append(await step("first", 0.005))
    task.cancel()
    out.append(await task)
    see("main", out)
    out.append(await step("end"))
    return out


@env.task
async def cancelled_twice_called_again() -> list[str]:
    out = []
    for number in range(3):
        try:
            async with asyncio.timeout(0.008 if number < 2 else 5):
                out.append(await step("again", 0.03))
        except TimeoutError:
            out.append(f"late {number}")
        see("main", out[-1])
    out.append(await step("end"))
    return out


@env.task
async def slow_child(name: str, pause: float) -> str:
    first = await step(f"{name}.1")
    await step(f"{name}.2", pause)
    return first


@env.task
async def child_cancelled() -> list[str]:
    out = []
    try:
        out.append(await asyncio.wait_for(slow_child("s", 5.0), 0.012))
    except TimeoutError:
        out.append("late")
    see("main", out[-1])
    out.append(await slow_child("t", 0.001))
    try:
        async with durable.timeout(0.012):
            out.append(await slow_child("u", 5.0))
    except TimeoutError:
        out.append("late too")
    see("main", out[-1])
    out.append(await step("end"))
    return out


@env.task
async def reluctant_child(name: str) -> str:
    try:
        return await step(name, 5.0)
    finally:
        await asyncio.sleep(0.03)


@env.task
async def child_cancelled_from_outside() -> list[str]:
    """The child's own step is cancelled and recorded so, before anything of the parent tells of it."""
    out = []
    task = asyncio.create_task(reluctant_child("c"))
    for number in range(4):
        out.append(await step(f"main{number}", 0.004))
    await asyncio.sleep(0.02)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        out.append("cancelled")
    see("main", out)
    return [*out, await step("end")]


@env.task
async def cancelled_before_it_began() -> list[str]:
    task = asyncio.create_task(step("never"))
    task.cancel()
    unused = step("not awaited")
    unused.close()
    early = step("early call, late await")
    out = [await step("one")]
    out.append(await early)
    try:
        await task
    except asyncio.CancelledError:
        out.append("cancelled")
    see("main", out)
    out.append(await step("two"))
    return out


@env.task
async def nested_timeouts() -> list[str]:
    out = []
    try:
        async with durable.timeout(0.03):
            try:
                async with durable.timeout(0.01):
                    await step("inner", 5.0)
            except TimeoutError:
                out.append("inner late")
                see("main", out[-1])
                out.append(await step("after inner"))
            await step("outer", 5.0)
    except TimeoutError:
        out.append("outer late")
        see("main", out[-1])
    out.append(await step("end"))
    return out


@env.task
async def timeouts_late_at_the_door() -> list[str]:
    """Deadlines that pass while an inner block waits to be entered."""
    out = []
    for which, late in (("durable", durable.timeout(0)), ("plain", asyncio.timeout(0))):
        try:
            async with late, durable.timeout(5.0):
                await step(f"in {which}", 5.0)
        except TimeoutError:
            out.append("late")
            see("main", which)
        out.append(await step(f"after {which}"))
    return out


@env.task
async def sleep_cut_short() -> list[str]:
    out = []
    try:
        await asyncio.wait_for(durable_sleep.aio(5.0), 0.01)
    except TimeoutError:
        out.append("late")
    see("main", out[-1])
    out.append(await step("one"))
    try:
        async with durable.timeout(0.01):
            await durable_sleep.aio(5.0)
    except TimeoutError:
        out.append("late too")
    out.append(await step("two"))
    return out


@env.task
async def group_in_a_group() -> list[str]:
    out: list[str] = []

    async def inner(name: str, fails: bool) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(step(f"{name}1", 0.004, fail=fails))
            # So long that the failure reaches both groups before, however slow the disk is.
            other = group.create_task(step(f"{name}2", 5))
        out.append(other.result())
        see("main", out[-1])

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(inner("a", True))
            group.create_task(inner("b", False))
    except* LabError as errors:
        out.append(f"{len(errors.exceptions)} failed")
    see("main", out[-1])
    out.append(await step("end"))
    return out


@env.task(retries=2)
async def group_retried(name: str) -> str:
    async with asyncio.TaskGroup() as group:
        kept = group.create_task(step(f"{name} kept"))
        group.create_task(flaky(f"{name} flaky", 1))
    return kept.result()


@env.task
async def exception_group_retried() -> list[str]:
    out = list(await asyncio.gather(group_retried("g"), group_retried("h")))
    out.append(await step("end"))
    return out


async def plain_generator(name: str) -> AsyncIterator[str]:
    for number in range(3):
        yield await step(f"{name}{number}", JITTER)


@env.task
async def plain_generators_of_steps() -> list[str]:
    out: list[str] = []

    async def consume(name: str) -> None:
        async for found in plain_generator(name):
            out.append(found)
            see("main", found)

    await asyncio.gather(consume("x"), consume("y"))
    await step("end")
    return out


@env.task
async def same_child_same_input() -> list[str]:
    async def branch(number: int) -> str:
        return await slow_reading("same") + str(number)

    return list(await asyncio.gather(branch(0), branch(1), slow_reading("same"), slow_reading("same")))


@env.task
async def slow_reading(name: str) -> str:
    await durable_sleep.aio(random.random() * 0.01)
    return str(await durable.uuid4.aio())


@env.task(timeout=0.2, retries=1)
async def too_slow(name: str) -> str:
    await step(f"{name} begins")
    await flaky_nap(name)
    return name


@perdure.trace
async def flaky_nap(name: str) -> str:
    """Longer than the task's timeout, the first two times."""
    before = lab.tries(f"{name} nap")
    lab.log("executed", f"{name} nap")
    if before < 1:
        await asyncio.sleep(5.0)
    return name


@env.task
async def task_timeout_retried() -> list[str]:
    out = list(await asyncio.gather(too_slow("t"), step("beside", 0.005)))
    see("main", out)
    out.append(await step("end"))
    return out


@env.task
async def queue_workers_cancelled() -> list[str]:
    line: asyncio.Queue[str] = asyncio.Queue()
    out: list[str] = []

    async def work(who: int) -> None:
        while True:
            name = await line.get()
            out.append(await step(name, JITTER))
            see("main", out[-1])
            line.task_done()

    workers = [asyncio.create_task(work(number)) for number in range(3)]
    for number in range(5):
        line.put_nowait(f"job{number}")
    await line.join()
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
    await step("end")
    return sorted(out)


@env.task
async def generator_under_timeout() -> list[str]:
    out: list[str] = []
    try:
        async with asyncio.timeout(0.15):
            async for found in async_items("g", 1000, seconds=0.04):
                out.append(found)
                see("main", found)
    except TimeoutError:
        see("main", "late")
    return [out[0], await step(f"after {len(out)}")]


@env.task
async def many_at_once() -> list[str]:
    order: list[str] = []

    async def branch(number: int) -> str:
        moment = await durable_time.aio()
        found = await step(f"n{number}", -0.02)
        order.append(found)
        see("main", found)
        return await step(f"{found} at {moment}")

    found = await asyncio.gather(*(branch(number) for number in range(40)))
    await step(" ".join(order))
    return [name.partition(" ")[0] for name in found]


@env.task
async def callbacks_spawn() -> list[str]:
    out: list[str] = []
    tasks: list[asyncio.Task[Any]] = []
    loop = asyncio.get_running_loop()

    async def branch(name: str) -> None:
        out.append(await step(name, JITTER))
        see("main", out[-1])

    for name in ("c1", "c2"):
        loop.call_soon(lambda name=name: tasks.append(asyncio.create_task(branch(name))))
    first = asyncio.create_task(branch("c0"))
    first.add_done_callback(lambda _: tasks.append(asyncio.create_task(branch("c3"))))
    await first
    await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    await step("end")
    return sorted(out)


@env.task
async def body_ends_while_a_step_runs() -> list[str]:
    asyncio.create_task(step("left alone", 0.2))  # noqa: RUF006
    return [await step("one", 0.003), await step("two")]


@env.task
def sync_body_with_map_of_async() -> list[str]:
    out = [sync_step("one")]
    out.extend(perdure.map(slow_child, ["x", "y", "z"], [0.004, 0.001, 0.002]))
    see("main", out)
    durable_sleep(0.004)
    return [*out, sync_step("two")]


@env.task
async def thread_cancelled() -> list[str]:
    def work() -> str:
        return sync_step("in thread", 0.02) + sync_step("second")

    out = []
    try:
        out.append(await asyncio.wait_for(asyncio.to_thread(work), 0.008))
    except TimeoutError:
        out.append("late")
    see("main", out[-1])
    out.append(await step("end", 0.05))
    return out


TASKS = {name: value for name, value in globals().items() if isinstance(value, perdure.Task)}

if __name__ == "__main__":
    lab.main(TASKS)
