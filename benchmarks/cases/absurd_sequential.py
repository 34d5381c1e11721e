"""absurd: one step after the other in one task, sync or async, on Postgres."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any

from absurd_sdk import Absurd, AsyncAbsurd

from _absurd import prepared
from _common import VALUE, emit, parser
from _postgres import add_options

TEXT = VALUE.decode()  # its outcomes are JSON


def step() -> str:
    return TEXT


async def astep() -> str:
    return TEXT


def sync(url: str, count: int) -> float:
    app = Absurd(url)
    taken = []

    @app.register_task(name="main")
    def main_task(parameters: Any, context: Any) -> None:
        for number in range(-20, 0):
            context.step(f"step {number}", step)
        started = perf_counter()
        for number in range(count):
            context.step(f"step {number}", step)
        taken.append(perf_counter() - started)

    app.spawn("main", {})
    app.work_batch()
    app.close()
    return taken[0]


async def asynchronous(url: str, count: int) -> float:
    app = AsyncAbsurd(url)
    taken = []

    @app.register_task(name="main")
    async def main_task(parameters: Any, context: Any) -> None:
        for number in range(-20, 0):
            await context.step(f"step {number}", astep)
        started = perf_counter()
        for number in range(count):
            await context.step(f"step {number}", astep)
        taken.append(perf_counter() - started)

    await app.spawn("main", {})
    await app.work_batch()
    await app.close()
    return taken[0]


def main() -> None:
    arguments = parser(__doc__, count=300)
    add_options(arguments)
    arguments.add_argument("--mode", choices=("sync", "async"), default="sync")
    options = arguments.parse_args()
    with prepared(options) as url:
        elapsed = sync(url, options.count) if options.mode == "sync" else asyncio.run(asynchronous(url, options.count))
    emit(options.count / elapsed, "calls/s", count=options.count, mode=options.mode)


if __name__ == "__main__":
    main()
