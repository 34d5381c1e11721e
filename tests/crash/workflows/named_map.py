"""Cases of `tests/crash/test_named_interleavings.py`: map."""

from __future__ import annotations

import lab
from lab import env, see, step, sync_step

import perdure


def jitter(most: float = 0.012) -> float:
    """Seconds for a step that takes another time, up to that, whenever it is executed (see `lab.step`)."""
    return -most


@env.task
async def unit(name: str) -> str:
    return await step(name, jitter(0.005))


@env.task
def sync_unit(name: str) -> str:
    return sync_step(name, jitter(0.005))


@env.task
async def failing_unit(name: str) -> str:
    return await step(name, 0.001, fail=name == "f2")


@env.task
async def map_async() -> list[str]:
    out = []
    async for found in perdure.map.aio(unit, [f"m{n}" for n in range(4)]):
        out.append(found)
        see("main", found)
    async for found in perdure.map.aio(failing_unit, ["f1", "f2", "f3"], concurrency=2, return_exceptions=True):
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
    out.extend(perdure.map(unit, ["u0", "u1"]))
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


TASKS = {name: value for name, value in globals().items() if isinstance(value, perdure.Task)}

if __name__ == "__main__":
    lab.main(TASKS)
