"""perdure: many durable calls in one asyncio.gather, every one on disk before its caller goes on."""

from __future__ import annotations

import asyncio
from time import perf_counter

import perdure
from _common import VALUE, emit, parser
from _store import add_options, store

env = perdure.TaskEnvironment(name="bench")


@perdure.trace
async def step(number: int) -> bytes:
    return VALUE


@env.task
async def main_task(count: int) -> float:
    await asyncio.gather(*(step(number) for number in range(-100, 0)))
    started = perf_counter()
    await asyncio.gather(*(step(number) for number in range(count)))
    return perf_counter() - started


def main() -> None:
    arguments = parser(__doc__, count=10_000)
    add_options(arguments)
    options = arguments.parse_args()
    with store(options) as url:
        perdure.init(store=url)
        elapsed = perdure.run(main_task, count=options.count).outputs()[0]
        perdure.init()
    emit(options.count / elapsed, "calls/s", count=options.count)


if __name__ == "__main__":
    main()
