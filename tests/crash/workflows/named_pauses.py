"""Cases of `tests/crash/test_paused_runs.py`: each pauses its own run in a trace."""

from __future__ import annotations

import asyncio
from typing import Any

import lab
from lab import env, flaky, see, step, sync_step

import perdure
from perdure.extras import durable_sleep, durable_time


@perdure.trace
async def stand_still(number: int = 0) -> int:
    perdure.Run.get("r").pause()
    return number


@perdure.trace
def sync_stand_still(number: int = 0) -> int:
    perdure.Run.get("r").pause()
    return number


@perdure.trace
async def pause_and_go_on() -> None:
    run = perdure.Run.get("r")
    run.pause()
    run.resume(drive=False)


@perdure.trace
async def pause_the_task(number: int = 0) -> int:
    perdure.pause_task(perdure.Run.get("r").task)
    return number


@perdure.trace
def sync_pause_the_task(number: int = 0) -> int:
    perdure.pause_task(perdure.Run.get("r").task)
    return number


@perdure.trace
async def pause_the_task_and_go_on() -> None:
    task = perdure.Run.get("r").task
    perdure.pause_task(task)
    perdure.resume_task(task)


@env.task
async def between_steps() -> list[Any]:
    found: list[Any] = [await step("a")]
    see("main", found[-1])
    for number in range(2):
        found.append(await stand_still(number))
        see("main", found[-1])
    found.append(await step("b"))
    see("main", found[-1])
    return found


@env.task
def sync_between_steps() -> list[Any]:
    found: list[Any] = [sync_step("a")]
    found.append(sync_stand_still())
    durable_sleep(0.005)
    found.append(sync_step("b"))
    see("main", found)
    return found


@env.task
async def beside_a_sleep() -> list[Any]:
    async def sleeps() -> str:
        await durable_sleep.aio(0.05)
        see("sleeps", "over")
        return await step("slept")

    async def pauses() -> str:
        await stand_still()
        return await step("paused")

    return list(await asyncio.gather(sleeps(), pauses()))


@env.task
async def child() -> str:
    see("child", await step("child a"))
    await stand_still()
    see("child", await step("child b"))
    return "child"


@env.task
def sync_child() -> str:
    sync_stand_still()
    return sync_step("sync child")


@env.task
async def in_children() -> list[Any]:
    found = list(await asyncio.gather(child(), sync_child.aio(), step("beside")))
    await durable_time.aio()
    see("main", found)
    return found


@env.task(retries=2)
async def in_attempts() -> list[Any]:
    await stand_still()
    return [await flaky("tried", 1), await step("after")]


@env.task
async def resumed_at_once() -> list[Any]:
    await pause_and_go_on()
    return [await step("a"), await step("b")]


@env.task
async def of_the_task() -> list[Any]:
    found: list[Any] = [await step("a")]
    see("main", found[-1])
    for number in range(2):
        found.append(await pause_the_task(number))
        see("main", found[-1])
    found.append(await step("b"))
    see("main", found[-1])
    return found


@env.task
def sync_of_the_task() -> list[Any]:
    found: list[Any] = [sync_step("a")]
    found.append(sync_pause_the_task())
    durable_sleep(0.005)
    found.append(sync_step("b"))
    see("main", found)
    return found


@env.task
async def of_the_task_beside_a_sleep() -> list[Any]:
    async def sleeps() -> str:
        await durable_sleep.aio(0.05)
        return await step("slept")

    async def pauses() -> str:
        await pause_the_task()
        return await step("paused")

    return list(await asyncio.gather(sleeps(), pauses(), child()))


@env.task(retries=2)
async def of_the_task_in_attempts() -> list[Any]:
    await pause_the_task()
    return [await flaky("tried", 1), await step("after")]


@env.task
async def of_the_task_and_back() -> list[Any]:
    await pause_the_task_and_go_on()
    return [await step("a"), await step("b")]


TASKS: dict[str, Any] = {name: task for name, task in globals().items() if isinstance(task, perdure.Task)}

if __name__ == "__main__":
    lab.main(TASKS)
