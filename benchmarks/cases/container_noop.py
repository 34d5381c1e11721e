"""Containers that do nothing, one after the other: by the engine's client alone, or in a run.

perdure removes a container after its result is there. So it is measured twice: `call`, from call to result, with the
container before it gone; and `in-a-row`, all of them and their removals, divided by their number. Every process is
warm: the connection is there, and two containers went before.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from statistics import median
from time import perf_counter

import perdure
from _common import emit, workdir
from _containers import Raw, parser, task, use
from perdure import runtime

WARM_UP = 2

arguments = parser(__doc__, count=20)
arguments.add_argument("--mode", choices=("raw", "call", "in-a-row"), default="call")
options = arguments.parse_args()

noop = task(options, "noop", "/bin/true")
env = perdure.TaskEnvironment("bench", depends_on=[perdure.TaskEnvironment.from_task("containers", noop)])


@env.task
async def call(count: int) -> float:
    taken = []
    for _ in range(WARM_UP + count):
        runtime.containers().drain()
        started = perf_counter()
        await noop()
        taken.append(perf_counter() - started)
    return median(taken[WARM_UP:])


@env.task
async def in_a_row(count: int) -> float:
    for _ in range(WARM_UP):
        await noop()
    runtime.containers().drain()
    started = perf_counter()
    for _ in range(count):
        await noop()
    runtime.containers().drain()
    return (perf_counter() - started) / count


async def raw(count: int) -> float:
    engine = Raw(options)
    taken = []
    for _ in range(WARM_UP + count):
        started = perf_counter()
        await engine.run("/bin/true")
        taken.append(perf_counter() - started)
    await engine.client.close()
    return median(taken[WARM_UP:])


def measured(directory: Path) -> float:
    if options.mode == "raw":
        return asyncio.run(raw(options.count))
    use(directory, options)
    return float(perdure.run(call if options.mode == "call" else in_a_row, count=options.count).result)


if __name__ == "__main__":
    with workdir(options.dir) as directory:
        seconds = measured(directory)
    emit(seconds, "s", count=options.count, mode=options.mode)
