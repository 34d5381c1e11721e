"""dbos: many async steps of one workflow in one asyncio.gather."""

from __future__ import annotations

import asyncio
from time import perf_counter

from dbos import DBOS

from _common import VALUE, emit, parser
from _dbos import add_options, launched


@DBOS.step()
async def step(number: int) -> bytes:
    return VALUE


@DBOS.workflow()
async def main_workflow(count: int) -> float:
    await asyncio.gather(*(step(number) for number in range(-20, 0)))
    started = perf_counter()
    await asyncio.gather(*(step(number) for number in range(count)))
    return perf_counter() - started


def main() -> None:
    arguments = parser(__doc__, count=1000)
    add_options(arguments)
    options = arguments.parse_args()
    with launched(options):
        elapsed = asyncio.run(main_workflow(options.count))
    emit(options.count / elapsed, "calls/s", count=options.count)


if __name__ == "__main__":
    main()
