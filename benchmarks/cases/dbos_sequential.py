"""dbos: one step after the other in one workflow, sync or async."""

from __future__ import annotations

import asyncio
from time import perf_counter

from dbos import DBOS

from _common import VALUE, emit, parser
from _dbos import add_options, launched


@DBOS.step()
def step(number: int) -> bytes:
    return VALUE


@DBOS.step()
async def astep(number: int) -> bytes:
    return VALUE


@DBOS.workflow()
def sync_main(count: int) -> float:
    for number in range(-20, 0):
        step(number)
    started = perf_counter()
    for number in range(count):
        step(number)
    return perf_counter() - started


@DBOS.workflow()
async def async_main(count: int) -> float:
    for number in range(-20, 0):
        await astep(number)
    started = perf_counter()
    for number in range(count):
        await astep(number)
    return perf_counter() - started


def main() -> None:
    arguments = parser(__doc__, count=300)
    add_options(arguments)
    arguments.add_argument("--mode", choices=("sync", "async"), default="sync")
    options = arguments.parse_args()
    with launched(options):
        elapsed = sync_main(options.count) if options.mode == "sync" else asyncio.run(async_main(options.count))
    emit(options.count / elapsed, "calls/s", count=options.count, mode=options.mode)


if __name__ == "__main__":
    main()
