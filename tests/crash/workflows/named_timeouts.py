"""Cases of `tests/crash/test_named_interleavings.py`: timeouts."""

from __future__ import annotations

import asyncio

import lab
from lab import env, see, step, sync_step

import perdure
from perdure import durable
from perdure.extras import durable_sleep


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
        async with asyncio.timeout(0.12):
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


@env.task
async def closure_holds_a_clock() -> list[str]:
    import time

    began = time.time()
    out: list[str] = []

    async def branch(name: str) -> None:
        found = await step(name)
        lab.log("took", found, time.time() - began)
        out.append(found)

    await asyncio.gather(branch("a"), branch("b"))
    out.append(await step("end"))
    return out


TASKS = {name: value for name, value in globals().items() if isinstance(value, perdure.Task)}

if __name__ == "__main__":
    lab.main(TASKS)
