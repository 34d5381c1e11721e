"""The tasks of the soak: short runs, sleeping runs, fan-outs, child tasks, files, cached tasks, threads, failures."""

from __future__ import annotations

import asyncio
import os
import tempfile

import perdure
from perdure.extras import durable_sleep
from perdure.io import File

env = perdure.TaskEnvironment("soak")


@perdure.trace
def step(n: int) -> int:
    return n + 1


@perdure.trace
async def astep(n: int) -> int:
    await asyncio.sleep(0.001)
    return n + 1


@env.task
def quick(n: int) -> int:
    for _ in range(3):
        n = step(n)
    return n


@env.task
async def sleeping(n: int) -> int:
    n = await astep(n)
    await durable_sleep.aio(2 + n % 7)
    return await astep(n)


@env.task(cache=perdure.Cache("auto", version_override="1"))
async def child(n: int) -> int:
    return await astep(n)


@env.task
async def fan(n: int) -> int:
    found = await asyncio.gather(*(astep(n + k) for k in range(8)), *(child(k) for k in range(2)))
    return sum(found) + await asyncio.to_thread(step, n)


@env.task
async def files(n: int) -> int:
    """A file of one of fifty contents, so that the number of blobs is bounded."""
    folder = tempfile.mkdtemp()
    path = os.path.join(folder, f"file-{n % 50}")
    with open(path, "w") as stream:
        stream.write(f"{n % 50}" * 500)
    kept = await File.from_local.aio(path)
    os.unlink(path)
    os.rmdir(folder)
    return await astep(len(kept.open("r").read()))


@env.task(retries=1)
async def failing(n: int) -> int:
    """The first attempt fails; every tenth run fails for good."""
    await astep(n)
    if n % 10 == 0 or perdure.ctx().attempt == 1:
        raise ValueError(f"{n} fails")
    return n


KINDS = ("quick", "sleeping", "fan", "files", "failing")
