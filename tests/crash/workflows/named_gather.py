"""Cases of `tests/crash/test_named_interleavings.py`: gather."""

from __future__ import annotations

import asyncio
from typing import Any

import lab
from lab import env, see, step

import perdure
from perdure import durable
from perdure.extras import durable_sleep, durable_time


def jitter(most: float = 0.012) -> float:
    """Seconds for a step that takes another time, up to that, whenever it is executed (see `lab.step`)."""
    return -most


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


TASKS = {name: value for name, value in globals().items() if isinstance(value, perdure.Task)}

if __name__ == "__main__":
    lab.main(TASKS)
