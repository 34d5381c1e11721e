"""Cases of `tests/crash/test_forked_runs.py`: the run `r`, then a fork of it that is driven to its end."""

from __future__ import annotations

import asyncio
from typing import Any

import lab
from lab import env, step, sync_step

import perdure
from perdure.extras import durable_sleep


def mine(name: str) -> str:
    """A step that the fork executes under another name than the original."""
    context = perdure.ctx()
    assert context is not None
    return f"{context.run_name} {name}"


@env.task
async def child(name: str) -> str:
    await step(mine(f"{name} first"))
    await durable_sleep.aio(0.002)
    return await step(mine(f"{name} second"))


@env.task
def ended_child() -> str:
    return sync_step("ended")


@env.task
async def in_turn() -> list[Any]:
    found: list[Any] = [await step("a"), await ended_child.aio()]
    found.append(len(await step(mine("b"))))
    await durable_sleep.aio(0.002)
    found.append(len(await child("in")))
    return found


@env.task
async def beside() -> list[Any]:
    """The child is under way when the outcome of the step is recorded: the child waits for a message behind it."""

    async def steps() -> int:
        await step("a")
        found = len(await step(mine("b")))
        context = perdure.ctx()
        assert context is not None
        await perdure.Run.get(context.run_name).send.aio("go", 1)
        return found

    return [*await asyncio.gather(steps(), late()), await step("last")]


@env.task
async def late() -> int:
    await step(mine("late first"))
    await perdure.receive.aio("go", int)
    return len(await step(mine("late second")))


def entry_of(run: perdure.Run, name: str) -> int:
    """The number of the entry of a step of the root task."""
    from perdure.api.looking import tree

    for node in tree(run.name).nodes.values():
        if node.entry is not None and node.inputs is not None and name.encode() in node.inputs and node.depth == 1:
            return node.entry
    raise AssertionError(f"no entry {name}")


def forked(value: Any) -> Any:
    """Fork the finished run, unless done before, and drive the fork to its end."""
    try:
        fork = perdure.Run.get("f")
    except perdure.errors.RunNotFoundError:
        original = perdure.Run.get("r")
        fork = original.fork(before=entry_of(original, "r b"), name="f")
    return [value, fork.resume().result]


TASKS: dict[str, Any] = {"in_turn": in_turn, "beside": beside}

if __name__ == "__main__":
    lab.main(TASKS, forked)
