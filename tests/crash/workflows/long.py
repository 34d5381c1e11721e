"""Runs that take a while, so that something can be done to their process meanwhile."""

from __future__ import annotations

import asyncio
import os
import sys
import threading

import lab
from lab import env, step, sync_step

import perdure
from perdure import durable
from perdure.extras import durable_sleep, durable_time


@env.task
async def ticking() -> list[str]:
    """A step every 50 ms."""
    return [await step(f"t{number}", 0.05) for number in range(int(os.environ.get("TICKS", "12")))]


@env.task
def sync_ticking() -> list[str]:
    """The same, sync."""
    return [sync_step(f"t{number}", 0.05) for number in range(int(os.environ.get("TICKS", "12")))]


@env.task
async def pairs() -> list[str]:
    """Steps of which several end in one tick and share a commit, and child actions."""
    out: list[str] = []
    for number in range(int(os.environ.get("TICKS", "12"))):
        out.extend(await asyncio.gather(step(f"l{number}", 0.05), one(f"r{number}")))
    return out


@env.task
async def one(name: str) -> str:
    """A child with one step."""
    return await step(name, 0.05)


@env.task
async def sleeping() -> list[str]:
    """A durable sleep of SECONDS."""
    out = [await step("before")]
    lab.log("naps")
    await durable_sleep.aio(float(os.environ["SECONDS"]))
    lab.log("woke")
    return [*out, await step("after")]


@env.task
def sync_sleeping() -> list[str]:
    """The same, sync."""
    out = [sync_step("before")]
    lab.log("naps")
    durable_sleep(float(os.environ["SECONDS"]))
    lab.log("woke")
    return [*out, sync_step("after")]


@env.task
def stubborn() -> list[str]:
    """A sync step that nothing can interrupt."""
    return [sync_step("before"), sync_step("hangs", 20.0)]


@env.task
async def blocks_the_loop() -> list[str]:
    """A body that blocks the event loop itself."""
    out = [await step("before")]
    lab.log("blocks")
    threading.Event().wait()
    return out


@env.task
async def reading_child(name: str) -> float:
    return await durable_time.aio()


@env.task
def sync_reading_child(name: str) -> float:
    return durable_time()


@env.task
async def readings() -> dict[str, list[list[float]]]:
    """Time readings of a body, and of its branches and child actions with the body's own just before."""
    out = [[await durable_time.aio()]]
    below = []
    for number in range(3):
        lab.log("reads", number)
        await step(f"pause{number}", 0.15)
        own = out[0]
        own.append(await durable_time.aio())
        own.append((await durable.now.aio()).timestamp())
        below.append([own[-1], await reading_child(f"c{number}")])
        below.append([own[-1], await sync_reading_child.aio(f"s{number}")])
        for found in await asyncio.gather(durable_time.aio(), branch_readings(), reading_child(f"g{number}")):
            below.append([own[-1], *(found if isinstance(found, list) else [found])])
    return {"own": out, "below": below}


async def branch_readings() -> list[float]:
    first = await durable_time.aio()
    await step(f"branch{first}", 0.02)
    return [first, await durable_time.aio(), await reading_child(f"b{first}")]


TASKS = {name: value for name, value in globals().items() if isinstance(value, perdure.Task)}

if __name__ == "__main__":
    if os.environ.get("LAB_AFTER"):
        # Kill ourselves some time after the body has begun to sleep.
        threading.Timer(float(os.environ["LAB_AFTER"]), lambda: os.kill(os.getpid(), 9)).start()
    lab.main(TASKS)
    sys.stdout.flush()
