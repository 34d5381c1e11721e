"""Cases of `tests/crash/test_named_interleavings.py`: races."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import lab
from lab import env, see, step

import perdure
from perdure.extras import durable_sleep, durable_time


def jitter(most: float = 0.012) -> float:
    """Seconds for a step that takes another time, up to that, whenever it is executed (see `lab.step`)."""
    return -most


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
    async def sleeper(name: str) -> str:
        await durable_sleep.aio(random.random() * 0.012)
        return name

    tasks = [asyncio.create_task(sleeper(name)) for name in ("p", "q", "r")]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    winner = min(task.result() for task in done)
    see("main", winner)
    for task in pending:
        task.cancel()
    return [winner, await step(f"after {winner}")]


@env.task
async def as_completed_times() -> list[Any]:
    async def reading(name: str) -> list[Any]:
        await durable_sleep.aio(random.random() * 0.012)
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


TASKS = {name: value for name, value in globals().items() if isinstance(value, perdure.Task)}

if __name__ == "__main__":
    lab.main(TASKS)
