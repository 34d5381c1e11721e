"""Cases of `tests/crash/test_named_interleavings.py`: asyncio's own tools."""

from __future__ import annotations

import asyncio

import lab
from lab import env, see, step

import perdure


def jitter(most: float = 0.012) -> float:
    """Seconds for a step that takes another time, up to that, whenever it is executed (see `lab.step`)."""
    return -most


@env.task
async def queue_between_branches() -> list[str]:
    line: asyncio.Queue[str] = asyncio.Queue(2)
    out: list[str] = []

    async def producer() -> None:
        for number in range(4):
            await line.put(await step(f"p{number}", jitter(0.004)))
        await line.put("")

    async def consumer() -> None:
        while name := await line.get():
            out.append(await step(f"c{name}", jitter(0.004)))
            see("all", out[-1])

    await asyncio.gather(producer(), consumer())
    await step("end")
    return out


@env.task
async def two_consumers_one_queue() -> list[str]:
    line: asyncio.Queue[str | None] = asyncio.Queue()
    out: list[str] = []

    async def consumer(who: str) -> None:
        while (name := await line.get()) is not None:
            out.append(await step(f"{who} takes {name}", jitter(0.004)))
            see("all", out[-1])

    for name in ("a", "b", "c", "d", None, None):
        line.put_nowait(name)
    await asyncio.gather(consumer("u"), consumer("v"))
    await step("end")
    return out


@env.task
async def lock_event_semaphore() -> list[str]:
    lock, ready, places = asyncio.Lock(), asyncio.Event(), asyncio.Semaphore(2)
    out: list[str] = []

    async def locked(name: str) -> None:
        await ready.wait()
        async with lock:
            out.append(await step(f"locked {name}", jitter(0.003)))
            see("all", out[-1])

    async def limited(name: str) -> None:
        async with places:
            out.append(await step(f"limited {name}", jitter(0.003)))
            see("all", out[-1])
            if name == "b":
                ready.set()

    await asyncio.gather(locked("x"), locked("y"), *(limited(name) for name in "abc"))
    await step("end")
    return out


@env.task
async def condition_and_barrier() -> list[str]:
    barrier = asyncio.Barrier(2)
    out: list[str] = []

    async def party(name: str) -> None:
        out.append(await step(f"{name}1", jitter(0.004)))
        see("all", out[-1])
        await barrier.wait()
        out.append(await step(f"{name}2", jitter(0.004)))
        see("all", out[-1])

    await asyncio.gather(party("a"), party("b"))
    await step("end")
    return out


@env.task
async def plain_sleeps_between() -> list[str]:
    out = [await step("one")]
    await asyncio.sleep(0.004)
    out.append(await step("two"))
    see("main", out)

    async def branch(name: str, first: float, second: float) -> None:
        await asyncio.sleep(first)
        out.append(await step(f"{name}", second))
        see("all", out[-1])

    await asyncio.gather(branch("a", 0.004, 0.002), branch("b", 0.0, 0.001))
    await asyncio.sleep(0)
    out.append(await step("end"))
    return out


@env.task
async def plain_sleep_races_a_step() -> list[str]:
    slow = asyncio.create_task(step("slow", 0.03))
    nap = asyncio.create_task(asyncio.sleep(0.01))
    await asyncio.wait({slow, nap}, return_when=asyncio.FIRST_COMPLETED)
    first = "step" if slow.done() else "nap"
    see("main", first)
    out = [first, await step(f"{first} won", 0.04)]
    out.append(await slow)
    see("main", out)
    return out


TASKS = {name: value for name, value in globals().items() if isinstance(value, perdure.Task)}

if __name__ == "__main__":
    lab.main(TASKS)
