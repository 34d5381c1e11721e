"""dbos: workflows that do nothing, one after the other, or all started at once and then awaited.

At once there are two ways, and the better one counts: async workflows in one gather, or sync ones on dbos's threads.
"""

from __future__ import annotations

import asyncio
from time import perf_counter

from dbos import DBOS

from _common import emit, parser
from _dbos import add_options, launched


@DBOS.workflow()
def empty(number: int) -> int:
    return number


@DBOS.workflow()
async def aempty(number: int) -> int:
    return number


def sequential(count: int) -> float:
    for number in range(-10, 0):
        empty(number)
    started = perf_counter()
    for number in range(count):
        empty(number)
    return perf_counter() - started


async def gathered(count: int) -> float:
    await asyncio.gather(*(aempty(number) for number in range(-10, 0)))
    started = perf_counter()
    await asyncio.gather(*(aempty(number) for number in range(count)))
    return perf_counter() - started


def threads(count: int) -> float:
    for handle in [DBOS.start_workflow(empty, number) for number in range(-10, 0)]:
        handle.get_result()
    started = perf_counter()
    for handle in [DBOS.start_workflow(empty, number) for number in range(count)]:
        handle.get_result()
    return perf_counter() - started


def main() -> None:
    arguments = parser(__doc__, count=200)
    add_options(arguments)
    arguments.add_argument("--mode", choices=("sequential", "at-once", "at-once-threads"), default="sequential")
    options = arguments.parse_args()
    with launched(options):
        if options.mode == "sequential":
            elapsed = sequential(options.count)
        elif options.mode == "at-once":
            elapsed = asyncio.run(gathered(options.count))
        else:
            elapsed = threads(options.count)
    emit(options.count / elapsed, "runs/s", count=options.count, mode=options.mode)


if __name__ == "__main__":
    main()
