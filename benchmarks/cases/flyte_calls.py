"""flyte, local: traced calls or calls of tasks, one after the other in one task, or traced calls in one gather."""

from __future__ import annotations

import asyncio
from time import perf_counter

from _common import VALUE, emit, parser
from _flyte import env, local, trace


@trace
def step(number: int) -> bytes:
    return VALUE


@trace
async def astep(number: int) -> bytes:
    return VALUE


@env.task
async def task(number: int) -> bytes:
    return VALUE


@env.task
def sync_traces(count: int) -> float:
    for number in range(-20, 0):
        step(number)
    started = perf_counter()
    for number in range(count):
        step(number)
    return perf_counter() - started


@env.task
async def async_traces(count: int) -> float:
    for number in range(-20, 0):
        await astep(number)
    started = perf_counter()
    for number in range(count):
        await astep(number)
    return perf_counter() - started


@env.task
async def tasks(count: int) -> float:
    for number in range(-20, 0):
        await task(number)
    started = perf_counter()
    for number in range(count):
        await task(number)
    return perf_counter() - started


@env.task
async def gathered(count: int) -> float:
    await asyncio.gather(*(astep(number) for number in range(-20, 0)))
    started = perf_counter()
    await asyncio.gather(*(astep(number) for number in range(count)))
    return perf_counter() - started


MODES = {"sync": sync_traces, "async": async_traces, "tasks": tasks, "gathered": gathered}


def main() -> None:
    arguments = parser(__doc__, count=1000)
    arguments.add_argument("--mode", choices=tuple(MODES), default="async")
    options = arguments.parse_args()
    with local(options) as runner:
        elapsed = runner.run(MODES[options.mode], count=options.count).outputs()[0]
    emit(options.count / elapsed, "calls/s", count=options.count, mode=options.mode)


if __name__ == "__main__":
    main()
