"""Cases of `tests/crash/test_order.py`: programs whose next step depends on what came first.

Each case repeats one small race `ROUNDS` times and lets a step's argument depend on the winner, so that a replay that
lets the other side win asks for something that is not recorded. The winner is logged behind that step: the victory of
a timer binds as soon as the next entry is recorded (docs/guarantees.md, P4).
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from typing import Any

import lab
from lab import async_items, env, see, step, sync_step

import perdure
from perdure.extras import durable_sleep

ROUNDS = int(os.environ.get("LAB_ROUNDS", "12"))


async def tagged(name: str, work: Any) -> str:
    """The name, once the work has ended in any way."""
    try:
        await work
    except (asyncio.CancelledError, lab.LabError, TimeoutError):
        pass
    return name


async def first(round_: int, *tasks: asyncio.Task[Any]) -> str:
    """Which of the tasks are done when the first one is; a step depends on the answer."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    found = "".join("x" if task in done else "." for task in tasks)
    await step(f"{round_} {found}")
    see("main", found)
    return found


async def in_order(round_: int, **works: Any) -> str:
    """The order in which pieces of work end; a step depends on the order."""
    order = [await ended for ended in asyncio.as_completed([tagged(name, work) for name, work in works.items()])]
    found = "".join(order)
    await step(f"{round_} {found}")
    see("main", found)
    return found


def spawn(work: Any) -> asyncio.Task[Any]:
    return asyncio.create_task(tagged("", work))


# -- threads beside tasks ------------------------------------------------------------------------------------------


@env.task
async def thread_and_task() -> int:
    for round_ in range(ROUNDS):
        tasks = [spawn(asyncio.to_thread(sync_step, f"t{round_}")), spawn(step(f"a{round_}"))]
        await first(round_, *tasks)
        await asyncio.gather(*tasks)
    return ROUNDS


@env.task
async def thread_and_tasks_as_completed() -> int:
    for round_ in range(ROUNDS):
        thread = asyncio.to_thread(sync_step, f"t{round_}")
        await in_order(round_, t=thread, a=step(f"a{round_}"), b=step(f"b{round_}", -0.002))
    return ROUNDS


@env.task
async def threads_of_several_steps() -> int:
    def work(name: str) -> str:
        return sync_step(f"{name} one", -0.001) + sync_step(f"{name} two")

    for round_ in range(ROUNDS):
        tasks = [spawn(asyncio.to_thread(work, f"{name}{round_}")) for name in "uvw"]
        tasks.append(spawn(step(f"z{round_}", -0.004)))
        await first(round_, *tasks)
        await asyncio.gather(*tasks)
    return ROUNDS


@env.task
async def thread_without_steps() -> int:
    def nap() -> None:
        time.sleep(random.random() * 0.004)

    for round_ in range(ROUNDS):
        await in_order(round_, n=asyncio.to_thread(nap), a=step(f"a{round_}", -0.004), m=asyncio.to_thread(nap))
    return ROUNDS


@env.task
async def thread_that_holds_a_lock() -> int:
    lock = threading.Lock()

    def work(name: str) -> None:
        with lock:
            sync_step(f"{name} inside", -0.002)

    for round_ in range(3):
        thread = asyncio.create_task(asyncio.to_thread(work, f"t{round_}"))
        await step(f"a{round_}", 0.001)
        with lock:  # blocks the loop, as code should not; the thread must get its outcome all the same
            see("main", round_)
        await thread
    return ROUNDS


@env.task
def sync_body_with_map() -> int:
    for round_ in range(3):
        found = list(perdure.map(one_of_many, [f"{round_}.{number}" for number in range(4)]))
        see("main", found)
        sync_step(f"after {found[-1]}")
    return ROUNDS


@env.task
def one_of_many(name: str) -> str:
    return sync_step(name, -0.003)


# -- a thread that computes and fails ------------------------------------------------------------------------------


@env.task
async def thread_fails_beside_siblings() -> int:
    def work(round_: int) -> None:
        sync_step(f"t{round_}")
        time.sleep(0.015)  # computes, which nothing records
        raise ValueError(round_)

    async def sibling(name: str) -> None:
        for number in range(40):
            await step(f"{name}.{number}", 0.001)

    for round_ in range(3):
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.to_thread(work, round_))
                group.create_task(sibling(f"p{round_}"))
                group.create_task(sibling(f"q{round_}"))
        except* ValueError:
            see("main", "failed")
        await step(f"after {round_}")
    return ROUNDS


@env.task
async def thread_computes_for_long() -> int:
    def work() -> str:
        sync_step("t")
        time.sleep(0.3)  # computes for longer than any grace
        return sync_step("u")

    thread = asyncio.create_task(asyncio.to_thread(work))
    count = 0
    while not thread.done():
        await step(f"s{count}", 0.01)
        count += 1
    await step(f"{count} before the thread")
    see("main", count)
    return ROUNDS


@env.task
async def thread_decides_by_an_exception() -> int:
    def work(round_: int) -> None:
        time.sleep(random.random() * 0.003)
        sync_step(f"t{round_}")
        time.sleep(random.random() * 0.003)
        raise lab.LabError(str(round_))

    for round_ in range(ROUNDS):
        tasks = [spawn(asyncio.to_thread(work, round_)), spawn(step(f"a{round_}", -0.005))]
        await first(round_, *tasks)
        await asyncio.gather(*tasks)
    return ROUNDS


# -- cancellation of what is being executed ------------------------------------------------------------------------


@perdure.trace
async def slow_to_leave(name: str) -> None:
    """A step whose cleanup takes another time whenever it is cancelled."""
    lab.log("executed", name)
    try:
        await asyncio.sleep(5)
    finally:
        await asyncio.sleep(random.random() * 0.004)


@env.task
async def cancelled_step_beside_another() -> int:
    for round_ in range(ROUNDS):
        slow = spawn(step(f"slow{round_}", 5))
        other = spawn(step(f"b{round_}", 0.001))
        await step(f"a{round_}", 0.001)
        slow.cancel()
        await first(round_, slow, other)
        await asyncio.gather(slow, other, return_exceptions=True)
    return ROUNDS


@env.task
async def cancelled_steps_with_cleanup() -> int:
    for round_ in range(ROUNDS):
        slow = [asyncio.create_task(slow_to_leave(f"{name}{round_}")) for name in "uvw"]
        await step(f"go{round_}", 0.001)
        for task in slow:
            task.cancel()
        await in_order(round_, **dict(zip("uvw", slow, strict=True)), a=step(f"a{round_}", -0.004))
    return ROUNDS


@env.task
async def cancelled_child_beside_a_step() -> int:
    for round_ in range(ROUNDS):
        child = asyncio.create_task(sleepy_child(round_))
        other = asyncio.create_task(step(f"b{round_}", 0.004))
        await step(f"a{round_}", 0.002)
        child.cancel()
        await first(round_, child, other)
        await asyncio.gather(child, other, return_exceptions=True)
    return ROUNDS


@env.task
async def sleepy_child(round_: int) -> None:
    await step(f"c{round_}")
    await asyncio.gather(step(f"d{round_}", 5), durable_sleep.aio(5))


@env.task
async def cancelled_in_depth() -> int:
    async def deep(name: str, depth: int) -> None:
        if depth:
            await asyncio.create_task(deep(name, depth - 1))
        else:
            await slow_to_leave(name)

    for round_ in range(ROUNDS):
        tasks = [asyncio.create_task(deep(f"{depth}.{round_}", depth)) for depth in range(3)]
        await step(f"a{round_}", 0.002)
        tasks[round_ % 3].cancel()
        other = asyncio.create_task(step(f"b{round_}", -0.004))
        await first(round_, *tasks, other)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, other, return_exceptions=True)
    return ROUNDS


@env.task
async def cancelled_generator() -> int:
    async def consume(round_: int) -> None:
        async for item in async_items(f"g{round_}.", 50, seconds=0.001):
            see(f"consumer {round_}", item)

    for round_ in range(4):
        consumer = asyncio.create_task(consume(round_))
        await step(f"a{round_}", 0.006)
        consumer.cancel()
        await first(round_, consumer, asyncio.create_task(step(f"b{round_}", 0.001)))
    return ROUNDS


@env.task
async def cancellation_that_is_swallowed() -> int:
    @perdure.trace
    async def stubborn(name: str) -> str:
        lab.log("executed", name)
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            await asyncio.sleep(random.random() * 0.003)
        return name

    for round_ in range(ROUNDS):
        task = asyncio.create_task(stubborn(f"s{round_}"))
        await step(f"a{round_}", 0.001)
        task.cancel()
        await first(round_, task, asyncio.create_task(step(f"b{round_}", -0.004)))
        see("main", await asyncio.gather(task, return_exceptions=True) == [f"s{round_}"])
    return ROUNDS


# -- plain timers --------------------------------------------------------------------------------------------------


@env.task
async def timeout_between_outcome_and_call() -> int:
    for round_ in range(2 * ROUNDS):
        found = "in time"
        try:
            async with asyncio.timeout(0.004):
                await step(f"a{round_}", 0.002 + 0.0001 * round_)
                await asyncio.create_task(asyncio.sleep(0))
        except TimeoutError:
            found = "late"
        await step(f"{round_} {found}")
        see("main", found)
    return ROUNDS


@env.task
async def wait_for_near_the_end() -> int:
    async def work(round_: int) -> None:
        await step(f"a{round_}", 0.002 + 0.0001 * round_)
        for _ in range(3):
            await asyncio.sleep(0)
        await asyncio.sleep(0.0003)

    found = []
    for round_ in range(2 * ROUNDS):
        try:
            await asyncio.wait_for(work(round_), 0.004)
            found.append("in")
        except TimeoutError:
            found.append("late")
        await step(f"{round_} {found[-1]}")
        see("main", found[-1])
    return ROUNDS


@env.task
async def plain_sleeps_race_steps() -> int:
    async def nap() -> None:
        await asyncio.sleep(random.random() * 0.004)

    for round_ in range(ROUNDS):
        await in_order(round_, m=nap(), n=nap(), a=step(f"a{round_}", -0.004), b=step(f"b{round_}", -0.004))
    return ROUNDS


@env.task
async def callbacks_race_steps() -> int:
    loop = asyncio.get_running_loop()
    for round_ in range(ROUNDS):
        event = asyncio.Event()
        loop.call_later(random.random() * 0.004, event.set)
        await in_order(round_, e=event.wait(), a=step(f"a{round_}", -0.004))
    return ROUNDS


@env.task
async def durable_timeout_near_the_end() -> int:
    for round_ in range(2 * ROUNDS):
        found = "in time"
        try:
            async with perdure.durable.timeout(0.004):
                await step(f"a{round_}", 0.002 + 0.0001 * round_)
                await asyncio.create_task(asyncio.sleep(0))
        except TimeoutError:
            found = "late"
        await step(f"{round_} {found}")
        see("main", found)
    return ROUNDS


@env.task
async def polling_without_a_pause() -> int:
    """The body is never quiet, and the timer that ends its polling goes off all the same."""
    thread = asyncio.create_task(asyncio.to_thread(time.sleep, 0.05))
    try:
        async with asyncio.timeout(0.1):
            while True:
                await asyncio.sleep(0)
    except TimeoutError:
        await step("after")
        see("main", "ended")
    await thread
    return ROUNDS


# -- what a body leaves behind -------------------------------------------------------------------------------------


def later_life() -> bool:
    """Whether a process has driven this run before."""
    with open(os.environ["LAB_LOG"]) as stream:
        return sum('"alive"' in line for line in stream) > 1


@env.task
async def thread_left_behind() -> int:
    """The thread records more after the end of the body than the thread of a later life asks for in time."""

    def work() -> None:
        for number in range(5):
            sync_step(f"t{number}")
            time.sleep(0.2 if later_life() else 0)

    thread = asyncio.create_task(asyncio.to_thread(work))
    await step("a", 0.01)
    if not later_life():
        time.sleep(0.2)  # the loop's last step; meanwhile the thread records
    see("main", thread.done())
    return ROUNDS


@env.task
async def tasks_left_behind() -> int:
    """Tasks that record while they leave."""

    async def work(name: str) -> None:
        try:
            await step(f"{name} x", 5)
        finally:
            for number in range(3):
                await step(f"{name} leaves {number}")

    tasks = [asyncio.create_task(work(name)) for name in "uv"]
    await step("a", 0.01)
    see("main", len(tasks))
    return ROUNDS


@env.task
async def tasks_and_sleeps_left_behind() -> int:
    """Tasks that record between plain sleeps while they leave."""

    async def work(name: str) -> None:
        try:
            await asyncio.sleep(5)
        finally:
            for number in range(3):
                await asyncio.sleep(random.random() * 0.01)
                await step(f"{name} leaves {number}", -0.002)

    tasks = [asyncio.create_task(work(name)) for name in "uv"]
    await step("a", 0.01)
    see("main", len(tasks))
    return ROUNDS


@env.task
def threads_left_by_a_thread() -> int:
    """A sync body that leaves the threads of `perdure.map` behind."""
    for found in perdure.map(one_of_many, [str(number) for number in range(6)]):
        see("main", found)
        break
    sync_step("after", 0.01)
    return ROUNDS


@env.task
async def cancellation_repeated_until_the_task_has_ended() -> int:
    """As scopes of anyio cancel: the callback comes again with each turn of the loop, so the body is never quiet."""
    loop = asyncio.get_running_loop()

    def cancel(task: asyncio.Task[Any]) -> None:
        if not task.done():
            task.cancel()
            loop.call_soon(cancel, task)

    for round_ in range(3):
        task = asyncio.create_task(step(f"slow{round_}", 5))
        await step(f"a{round_}", 0.002)
        cancel(task)
        await asyncio.wait([task])
        see("main", task.cancelled())
        await step(f"b{round_}")
    return ROUNDS


TASKS = {name: value for name, value in globals().items() if isinstance(value, perdure.Task)}

if __name__ == "__main__":
    lab.main(TASKS)
