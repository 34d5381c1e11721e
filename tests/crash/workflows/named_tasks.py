"""Cases of `tests/crash/test_named_interleavings.py`: task groups and tasks."""

from __future__ import annotations

import asyncio

import lab
from lab import LabError, env, see, step

import perdure


def jitter(most: float = 0.012) -> float:
    """Seconds for a step that takes another time, up to that, whenever it is executed (see `lab.step`)."""
    return -most


@env.task
async def task_group_failing_sibling() -> list[str]:
    out: list[str] = []

    async def child(name: str, seconds: float) -> None:
        try:
            out.append(await step(name, seconds))
        except asyncio.CancelledError:
            out.append(f"{name} cancelled")
            raise

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(child("early", 0.002))
            group.create_task(child("late", 5.0))
            group.create_task(step("bad", 0.01, fail=True))
    except* LabError as errors:
        out.append(f"failed: {[str(error) for error in errors.exceptions]}")
    see("main", out)
    out.append(await step("after"))
    return out


@env.task
async def created_here_awaited_there() -> list[str]:
    async def first() -> str:
        return await step("first", 0.006)

    async def other(task: asyncio.Task[str]) -> str:
        await step("other", 0.002)
        return "other saw " + await task

    task = asyncio.create_task(first())
    helper = asyncio.create_task(other(task))
    out = [await step("main", 0.004)]
    see("main", out[-1])
    out.append(await helper)
    out.append(await task)
    see("main", out)
    return out


@env.task
async def task_of_a_task() -> list[str]:
    async def leaf(name: str) -> str:
        found = await step(name, jitter(0.005))
        see("all", found)
        return found

    async def middle(name: str) -> list[str]:
        return [await task for task in [asyncio.create_task(leaf(f"{name}{number}")) for number in range(2)]]

    found = await asyncio.gather(middle("m"), middle("n"))
    return [name for group in found for name in group]


TASKS = {name: value for name, value in globals().items() if isinstance(value, perdure.Task)}

if __name__ == "__main__":
    lab.main(TASKS)
