"""Containers that sleep for one second: all at once, or one after the other; in a run, or by the client alone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from time import perf_counter

import perdure
from _common import emit, workdir
from _containers import Raw, parser, task, use

arguments = parser(__doc__, count=50)
arguments.add_argument("--mode", choices=("raw", "perdure"), default="perdure")
arguments.add_argument("--one-by-one", action="store_true")
options = arguments.parse_args()

sleeper = task(options, "sleeper", "/bin/sleep", "1")
env = perdure.TaskEnvironment("bench", depends_on=[perdure.TaskEnvironment.from_task("containers", sleeper)])


@env.task
async def main(count: int, one_by_one: bool) -> float:
    await sleeper()  # warm
    started = perf_counter()
    if one_by_one:
        for _ in range(count):
            await sleeper()
    else:
        await asyncio.gather(*(sleeper() for _ in range(count)))
    return perf_counter() - started


async def raw(count: int, one_by_one: bool) -> float:
    engine = Raw(options)
    await engine.run("/bin/sleep", "1")
    started = perf_counter()
    if one_by_one:
        for _ in range(count):
            await engine.run("/bin/sleep", "1")
    else:
        await asyncio.gather(*(engine.run("/bin/sleep", "1") for _ in range(count)))
    elapsed = perf_counter() - started
    await engine.client.close()
    return elapsed


def measured(directory: Path) -> float:
    if options.mode == "raw":
        return asyncio.run(raw(options.count, options.one_by_one))
    use(directory, options)
    return float(perdure.run(main, count=options.count, one_by_one=options.one_by_one).result)


if __name__ == "__main__":
    with workdir(options.dir) as directory:
        elapsed = measured(directory)
    emit(elapsed / options.count if options.one_by_one else elapsed, "s", count=options.count, mode=options.mode)
