"""The Restate service that the cases call: one step after the other, many steps at once, three steps, nothing, a wait
for each of some messages, and a little work."""

from __future__ import annotations

import argparse
import asyncio
from time import perf_counter

import restate
from hypercorn.asyncio import serve
from hypercorn.config import Config
from restate import Context, RunOptions
from restate.serde import BytesSerde

from _common import VALUE
from _told import WORK, reporter

BYTES = RunOptions[bytes](serde=BytesSerde())

bench = restate.Service("bench")


async def step(number: int) -> bytes:
    return VALUE


@bench.handler()
async def empty(context: Context, number: int) -> int:
    return number


async def same(number: int) -> int:
    return number


@bench.handler()
async def three(context: Context, number: int) -> int:
    return sum([await context.run_typed("step", same, number=number + part) for part in range(3)])


@bench.handler()
async def sequential(context: Context, count: int) -> float:
    for number in range(-20, 0):
        await context.run_typed("step", step, BYTES, number)
    started = perf_counter()
    for number in range(count):
        await context.run_typed("step", step, BYTES, number)
    return perf_counter() - started


@bench.handler()
async def gathered(context: Context, count: int) -> float:
    await restate.gather(*(context.run_typed("step", step, BYTES, number) for number in range(-20, 0)))
    started = perf_counter()
    await restate.gather(*(context.run_typed("step", step, BYTES, number) for number in range(count)))
    return perf_counter() - started


@bench.handler()
async def listener(context: Context, wanted: tuple[int, str]) -> int:
    count, address = wanted
    with reporter(address) as tell:
        now = perf_counter()
        for _ in range(count):
            name, message = context.awakeable(type_hint=int)
            tell(now, name)
            await message
            now = perf_counter()
        tell(now, "")
    return count


@bench.handler()
async def work(context: Context, number: int) -> list[float]:
    first = perf_counter()
    await asyncio.sleep(WORK)
    return [first, perf_counter()]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--port", type=int, required=True, help="where on the loopback")
    config = Config()
    config.bind = [f"127.0.0.1:{arguments.parse_args().port}"]
    # As the SDK's own harness sets it: a connection of the server is never turned away for its age.
    config.h2_max_concurrent_streams = config.keep_alive_max_requests = 2**31 - 1
    config.keep_alive_timeout = 2**31 - 1
    asyncio.run(serve(restate.app([bench]), config, mode="asgi"))


if __name__ == "__main__":
    main()
