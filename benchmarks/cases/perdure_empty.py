"""perdure: runs of a task that does nothing, one after the other, or all at once from the caller's own loop."""

from __future__ import annotations

import asyncio
from time import perf_counter

import perdure
from _common import emit, parser, workdir

env = perdure.TaskEnvironment(name="bench")


@env.task
async def empty(number: int) -> int:
    return number


def sequential(count: int) -> float:
    for number in range(-20, 0):
        perdure.run(empty, number=number)
    started = perf_counter()
    for number in range(count):
        perdure.run(empty, number=number)
    return perf_counter() - started


async def at_once(count: int) -> float:
    await asyncio.gather(*(perdure.run.aio(empty, number=number) for number in range(-20, 0)))
    started = perf_counter()
    runs = await asyncio.gather(*(perdure.run.aio(empty, number=number) for number in range(count)))
    elapsed = perf_counter() - started
    if [run.outputs()[0] for run in runs] != list(range(count)):
        raise SystemExit("a run gave another run's result")
    return elapsed


def main() -> None:
    arguments = parser(__doc__, count=1000)
    arguments.add_argument("--mode", choices=("sequential", "at-once"), default="sequential")
    options = arguments.parse_args()
    with workdir(options.dir) as directory:
        perdure.init(store=f"sqlite:///{directory / 'perdure.db'}")
        if options.mode == "sequential":
            elapsed = sequential(options.count)
        else:
            elapsed = asyncio.run(at_once(options.count))
    emit(options.count / elapsed, "runs/s", count=options.count, mode=options.mode)


if __name__ == "__main__":
    main()
