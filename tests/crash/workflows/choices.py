"""Bodies that depend on the environment variable CHOICE: the fault that P5 is about. "x" goes with the journal."""

from __future__ import annotations

import asyncio
import os

import lab
from lab import env, step, sync_step

import perdure
from perdure import durable
from perdure.extras import durable_sleep

CHOSEN = os.environ["CHOICE"] == "x"


@env.task
async def another_call() -> list[str]:
    out = [await step("a"), await step("b" if CHOSEN else "c"), await step("d")]
    return [*out, await step("e")]


@env.task
async def a_sleep_behind() -> list[str]:
    out = [await step("a"), await step("b" if CHOSEN else "c")]
    await durable_sleep.aio(2.0)
    return [*out, await step("d")]


@env.task
async def other_arguments() -> list[str]:
    out = [await step("a"), await step("b", 0.001 if CHOSEN else 0.002), await step("d")]
    return [*out, await step("e")]


@env.task
async def a_step_left_out() -> list[str]:
    out = [await step("a")]
    if CHOSEN:
        out.append(await step("b"))
    out.append(await step("d"))
    return [*out, await step("e")]


@env.task
async def a_step_put_in() -> list[str]:
    out = [await step("a")]
    if not CHOSEN:
        out.append(await step("new"))
    out.append(await step("b"))
    out.append(await step("d"))
    return [*out, await step("e")]


@env.task
async def other_order() -> list[str]:
    names = ("a", "b", "d") if CHOSEN else ("a", "d", "b")
    return [*[await step(name) for name in names], await step("e")]


@env.task
def in_a_sync_body() -> list[str]:
    out = [sync_step("a"), sync_step("b" if CHOSEN else "c"), sync_step("d")]
    return [*out, sync_step("e")]


@env.task
async def the_body_ends_early() -> list[str]:
    out = [await step("a")]
    if not CHOSEN:
        return out
    out.extend([await step("b"), await step("d")])
    return [*out, await step("e")]


@env.task
async def the_body_fails_early() -> list[str]:
    out = [await step("a")]
    if not CHOSEN:
        raise ValueError("on the wrong path")
    out.extend([await step("b"), await step("d")])
    return [*out, await step("e")]


@env.task
def a_sync_body_ends_early() -> list[str]:
    out = [sync_step("a")]
    if not CHOSEN:
        return out
    out.extend([sync_step("b"), sync_step("d")])
    return [*out, sync_step("e")]


@env.task
async def waits_for_something_else() -> list[str]:
    out = [await step("a")]
    if not CHOSEN:
        await asyncio.Event().wait()
    out.extend([await step("b"), await step("d")])
    return [*out, await step("e")]


@env.task
async def in_a_branch() -> list[str]:
    async def branch(name: str) -> str:
        return await step(name) + await step(f"{name}2" if CHOSEN else f"{name}3")

    out = list(await asyncio.gather(branch("a"), branch("b")))
    return [*out, await step("e")]


@env.task
async def another_branch() -> list[str]:
    async def branch(name: str) -> str:
        return await step(name) + await step(f"{name}2")

    out = list(await asyncio.gather(branch("a"), branch("b" if CHOSEN else "c")))
    return [*out, await step("e")]


@env.task
async def another_kind() -> list[str]:
    await step("a")
    if CHOSEN:
        await durable.uuid4.aio()
    else:
        await durable.random.aio()
    await step("d")
    return [await step("e")]


@env.task
async def no_sleep() -> list[str]:
    out = [await step("a")]
    if CHOSEN:
        await durable_sleep.aio(0.001)
    out.append(await step("d"))
    return [*out, await step("e")]


@env.task
async def child(name: str) -> str:
    return await step(f"{name}1") + await step(f"{name}2" if CHOSEN else f"{name}3") + await step(f"{name}4")


@env.task
async def in_a_child() -> list[str]:
    return [await step("a"), await child("k"), await step("e")]


@env.task
async def child_not_called() -> list[str]:
    out = [await step("a")]
    if CHOSEN:
        out.append(await child("k"))
    return [*out, await step("e")]


@env.task
async def child_beside_not_called() -> list[str]:
    async def long() -> str:
        return await step("a") + await step("b") + await step("d")

    if CHOSEN:
        out = list(await asyncio.gather(long(), child("k")))
    else:
        out = list(await asyncio.gather(long()))
    return [*out, await step("e")]


@env.task
async def another_child_input() -> list[str]:
    return [await step("a"), await child("k" if CHOSEN else "l"), await step("e")]


@env.task
async def caught_as_any_exception() -> list[str]:
    out = [await step("a")]
    try:
        out.append(await step("b" if CHOSEN else "c"))
    except Exception:
        out.append(await step("swallowed"))
    out.append(await step("d"))
    return [*out, await step("e")]


TASKS = {name: value for name, value in globals().items() if isinstance(value, perdure.Task)}

if __name__ == "__main__":
    lab.main(TASKS)
