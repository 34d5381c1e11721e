"""Cases of `tests/crash/test_named_interleavings.py`: threads."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import lab
from lab import env, see, step, sync_step

import perdure
from perdure.extras import durable_sleep, durable_time


@env.task
async def to_thread_with_durable_calls() -> list[Any]:
    def work(name: str) -> list[Any]:
        moment = durable_time()
        see(name, moment)
        found = [sync_step(f"{name}1", 0.003), sync_step(f"{name}2")]
        see(name, found)
        durable_sleep(0.005)
        return [name, moment, *found]

    one = await asyncio.to_thread(work, "alone")
    left, right = asyncio.to_thread(work, "left"), asyncio.to_thread(work, "right")
    out = [one, *await asyncio.gather(left, right, step("beside", 0.004))]
    see("main", out)
    return out


@env.task
async def own_executor_with_durable_calls() -> list[str]:
    def work(name: str) -> str:
        return sync_step(name, 0.003)

    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(2) as pool:
        out = list(await asyncio.gather(*(loop.run_in_executor(pool, work, name) for name in ("e1", "e2", "e3"))))
    out.append(await loop.run_in_executor(None, work, "e4"))
    see("main", out)
    return out


TASKS = {name: value for name, value in globals().items() if isinstance(value, perdure.Task)}

if __name__ == "__main__":
    lab.main(TASKS)
