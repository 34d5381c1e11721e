"""perdure: one durable call after the other in one task, sync or async, each on disk before it returns."""

from __future__ import annotations

from time import perf_counter

import perdure
from _common import VALUE, emit, parser
from _store import add_options, store

WARM_UP = 100

env = perdure.TaskEnvironment(name="bench")


@perdure.trace
def step(number: int) -> bytes:
    return VALUE


@perdure.trace
async def astep(number: int) -> bytes:
    return VALUE


@env.task
def sync_main(count: int) -> float:
    for number in range(-WARM_UP, 0):
        step(number)
    started = perf_counter()
    for number in range(count):
        step(number)
    return perf_counter() - started


@env.task
async def async_main(count: int) -> float:
    for number in range(-WARM_UP, 0):
        await astep(number)
    started = perf_counter()
    for number in range(count):
        await astep(number)
    return perf_counter() - started


def main() -> None:
    arguments = parser(__doc__, count=3000)
    add_options(arguments)
    arguments.add_argument("--mode", choices=("sync", "async"), default="sync")
    options = arguments.parse_args()
    with store(options) as url:
        perdure.init(store=url)
        run = perdure.run(sync_main if options.mode == "sync" else async_main, count=options.count)
        elapsed = run.outputs()[0]
        perdure.init()
    emit(options.count / elapsed, "calls/s", count=options.count, mode=options.mode)


if __name__ == "__main__":
    main()
