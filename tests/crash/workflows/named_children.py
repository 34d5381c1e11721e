"""Cases of `tests/crash/test_named_interleavings.py`: children."""

from __future__ import annotations

import asyncio

import lab
from lab import env, see, step, sync_step

import perdure


@env.task
async def double(name: str, pause: float = 0.0) -> str:
    first = await step(f"{name}.a", pause)
    see(name, first)
    await step(f"{name}.b")
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
async def crawl(name: str, first: float, second: float) -> str:
    out = await step(f"{name}.1", first) + await step(f"{name}.2", second)
    see(name, out)
    return out + await step(f"{name}.3")


@env.task
async def late_sibling() -> list[str]:
    """On replay, the sibling's body is opened (with nothing recorded) when the other already waits to go on."""

    async def late() -> str:
        await asyncio.sleep(0.01)
        return await crawl("late", 0.06, 0.0)

    out = list(await asyncio.gather(crawl("early", 0.0, 0.03), late()))
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


TASKS = {name: value for name, value in globals().items() if isinstance(value, perdure.Task)}

if __name__ == "__main__":
    lab.main(TASKS)
