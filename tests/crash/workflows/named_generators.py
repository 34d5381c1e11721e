"""Cases of `tests/crash/test_named_interleavings.py`: generators."""

from __future__ import annotations

import asyncio

import lab
from lab import LabError, async_items, env, items, see, step, sync_step

import perdure


def jitter(most: float = 0.012) -> float:
    """Seconds for a step that takes another time, up to that, whenever it is executed (see `lab.step`)."""
    return -most


@env.task
def generators() -> list[str]:
    out = list(items("g", 3))
    half = items("h", 5)
    out.extend([next(half), next(half)])
    half.close()
    out.append(sync_step("between"))
    try:
        for name in items("f", 5, 2):
            out.append(name)  # noqa: PERF402
    except LabError as error:
        out.append(f"failed {error}")
    see("main", out)
    out.append(sync_step("end"))
    return out


@env.task
async def async_generators() -> list[str]:
    out = [name async for name in async_items("g", 3)]
    half = async_items("h", 5)
    out.extend([await anext(half), await anext(half)])
    await half.aclose()
    out.append(await step("between"))
    try:
        async for name in async_items("f", 5, 2):
            out.append(name)
    except LabError as error:
        out.append(f"failed {error}")
    see("main", out)
    out.append(await step("end"))
    return out


@env.task
async def generators_interleaved() -> list[str]:
    out: list[str] = []

    async def consume(name: str) -> None:
        async for found in async_items(name, 3, seconds=jitter(0.004)):
            out.append(found)
            see("all", found)

    await asyncio.gather(consume("i"), consume("j"))
    await step(" ".join(out))
    return out


@env.task
async def generator_kept_open() -> list[str]:
    open_one = async_items("k", 4)
    out = [await anext(open_one), await step("mid")]
    out.append(await anext(open_one))
    see("main", out)
    out.append(await step("end"))
    return out


TASKS = {name: value for name, value in globals().items() if isinstance(value, perdure.Task)}

if __name__ == "__main__":
    lab.main(TASKS)
