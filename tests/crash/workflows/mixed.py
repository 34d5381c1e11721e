"""Everything at once: traces and child tasks of both colours, retries with backoff, gathers, sleeps, readings, map,
messages to itself."""

from __future__ import annotations

import asyncio
from typing import Any

import lab
from lab import LabError, env, flaky, items, see, step, sync_flaky, sync_step

import perdure
from perdure import durable
from perdure.extras import durable_sleep, durable_time


async def nap(name: str, seconds: float) -> None:
    """A durable sleep; the log says when it was called and when it had ended. The label finds its row again."""
    with perdure.group(name):
        lab.log("naps", name)
        await durable_sleep.aio(seconds)
        lab.log("woke", name, seconds)


@env.task
async def fetch(name: str) -> dict[str, Any]:
    moment = await durable_time.aio()
    see(name, moment)
    first = await step(f"{name}.1", -0.004)
    await nap(f"{name}.nap", 0.012)
    second = await step(f"{name}.2")
    return {"name": name, "at": moment, "steps": [first, second]}


@env.task
def crunch(name: str, number: int) -> str:
    found = [sync_step(f"{name}.{n}", -0.002) for n in range(number)]
    see(name, found)
    with perdure.group(f"{name}.nap"):
        lab.log("naps", f"{name}.nap")
        durable_sleep(0.008)
        lab.log("woke", f"{name}.nap", 0.008)
    return "+".join(found)


@env.task(retries=perdure.RetryStrategy(3, perdure.Backoff(initial=0.006, factor=1.5)))
async def unsteady(name: str) -> str:
    kept = await step(f"{name}.kept")
    token = await durable.uuid4.aio()
    found = await flaky(f"{name}.flaky", 2)
    return f"{kept} {found} {len(str(token))}"


@env.task(retries=1)
def unsteady_sync(name: str) -> str:
    return sync_step(f"{name}.kept") + sync_flaky(f"{name}.flaky", 1)


@env.task
def outer(name: str) -> str:
    return crunch(f"{name}.in", 1) + sync_step(f"{name}.own") + unsteady_sync(f"{name}.un")


@env.task
async def unit(name: str) -> str:
    return await step(name, -0.003)


@env.task
async def everything() -> dict[str, Any]:
    lab.log("lives")
    began = await durable_time.aio()
    token = str(await durable.uuid4.aio())
    chance = await durable.random.aio()
    see("main", [began, token, chance])

    fetched = await asyncio.gather(fetch("f0"), fetch("f1"), fetch("f2"))
    see("main", fetched)

    async def beside() -> str:
        await nap("beside.nap", 0.02)
        return await step("beside")

    async def hears() -> str:
        heard = [await perdure.receive.aio("inbox", str) for _ in range(3)]
        condition = await perdure.new_condition.aio("go", data_type=int)
        heard.append(f"go {await condition.wait.aio()}")
        see("hears", heard)
        return " ".join(heard)

    waiting = asyncio.create_task(beside())
    hearing = asyncio.create_task(hears())
    me = perdure.Run.get("r")
    await me.send.aio("inbox", "one")
    crunched = await crunch.aio("c", 2)
    tried = await asyncio.gather(unsteady("u"), outer.aio("o"))
    see("main", [crunched, *tried])

    await me.send.aio("inbox", "two")
    mapped = [name async for name in perdure.map.aio(unit, ["m0", "m1", "m2"], concurrency=2)]
    numbers = list(items("g", 2))
    try:
        await step("bad", fail=True)
    except LabError as error:
        caught = str(error)
    blocking = sync_step("on the loop", 0.001)
    me.send("inbox", blocking)
    await perdure.publish.aio("numbers", numbers)
    await me.signal.aio("go", 7)
    heard = await hearing
    await nap("last.nap", 0.01)
    beside_found = await waiting
    ended = await durable_time.aio()
    see("main", [mapped, numbers, caught, blocking, heard, beside_found, ended])
    return {
        "began": began,
        "token": token,
        "chance": chance,
        "fetched": [[row["name"], row["at"], row["steps"]] for row in fetched],
        "rest": [crunched, *tried, *mapped, *numbers, caught, blocking, heard, beside_found],
        "ended": ended,
    }


if __name__ == "__main__":
    lab.main({"everything": everything})
