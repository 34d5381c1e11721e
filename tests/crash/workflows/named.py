from __future__ import annotations

import asyncio
from typing import Any

import lab
import perdure
from lab import async_items, env, flaky, items, see, step, sync_step
from perdure import durable
from perdure.extras import durable_sleep, durable_time


@env.task
async def simple() -> list[str]:
    out = []
    for n in range(3):
        out.append(await step(f"s{n}"))
        see("main", out[-1])
    return out


TASKS = {name: value for name, value in globals().items() if isinstance(value, perdure.Task)}

if __name__ == "__main__":
    lab.main(TASKS)
