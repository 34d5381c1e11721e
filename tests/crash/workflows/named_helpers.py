"""Cases of `tests/crash/test_named_interleavings.py`: helpers."""

from __future__ import annotations

import asyncio
from typing import Any

import lab
from lab import env, see, step

import perdure
from perdure.extras import durable_time


def jitter(most: float = 0.012) -> float:
    """Seconds for a step that takes another time, up to that, whenever it is executed (see `lab.step`)."""
    return -most


@env.task
async def nested_helpers() -> list[Any]:
    async def reading(label: str) -> list[Any]:
        first = await durable_time.aio()

        async def inner() -> str:
            return await step(f"{label}-{len(found)}", 0.001)

        return [label, first, await inner()]

    found: list[Any] = []
    for label in ("one", "two"):
        found.append(await reading(label))
        see("main", found[-1])
    pairs = await asyncio.gather(reading("same"), reading("other"))
    return [*found, *pairs]


@env.task
async def closures_in_a_loop() -> list[str]:
    async def call(make: Any) -> str:
        return str(await make())

    makers = [lambda n=n: step(f"closure{n}", jitter(0.005)) for n in range(3)]
    out = list(await asyncio.gather(*(call(make) for make in makers)))
    see("main", out)
    return out


TASKS = {name: value for name, value in globals().items() if isinstance(value, perdure.Task)}

if __name__ == "__main__":
    lab.main(TASKS)
