"""absurd: many async steps of one task in one asyncio.gather, on Postgres."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any

from absurd_sdk import AsyncAbsurd

from _absurd import prepared
from _common import VALUE, emit, parser
from _postgres import add_options

TEXT = VALUE.decode()  # its outcomes are JSON


async def step() -> str:
    return TEXT


async def gathered(url: str, count: int) -> float:
    app = AsyncAbsurd(url)
    taken = []

    @app.register_task(name="main")
    async def main_task(parameters: Any, context: Any) -> None:
        await asyncio.gather(*(context.step(f"step {number}", step) for number in range(-20, 0)))
        started = perf_counter()
        await asyncio.gather(*(context.step(f"step {number}", step) for number in range(count)))
        taken.append(perf_counter() - started)

    await app.spawn("main", {})
    await app.work_batch()
    await app.close()
    return taken[0]


def main() -> None:
    arguments = parser(__doc__, count=1000)
    add_options(arguments)
    options = arguments.parse_args()
    with prepared(options) as url:
        elapsed = asyncio.run(gathered(url, options.count))
    emit(options.count / elapsed, "calls/s", count=options.count)


if __name__ == "__main__":
    main()
