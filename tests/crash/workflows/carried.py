"""Tasks that say which context variables they see; `CALLER` sets them in the submitting process."""

from __future__ import annotations

import asyncio
import os
from contextvars import ContextVar
from dataclasses import dataclass

import perdure
from perdure.extras import durable_sleep

env = perdure.TaskEnvironment(name="carried")
apart = perdure.TaskEnvironment(name="carried_apart", executor="process")


@dataclass
class User:
    """Who asks."""

    name: str
    groups: tuple[str, ...]


tenant = perdure.carry(ContextVar("tenant", default="none"))
user: ContextVar[User] = perdure.carry(ContextVar("user"), User)
plain: ContextVar[str] = ContextVar("plain", default="not carried")


def seen() -> str:
    """What the calling code sees."""
    found = user.get(None)
    return f"{tenant.get()} {'-' if found is None else ' '.join((found.name, *found.groups))}"


@perdure.trace
async def in_trace() -> str:
    return seen()


@perdure.trace
def in_sync_trace() -> str:
    return seen()


@apart.task
async def in_process() -> list[str]:
    return [seen(), await in_trace()]


@env.task
async def child() -> list[str]:
    return [seen(), await asyncio.to_thread(in_sync_trace)]


@env.task
async def main() -> list[str]:
    """What each place of a run sees, before and behind a crash of the worker."""
    found = [seen(), await in_trace(), await in_sync_trace.aio(), *await child(), *await in_process()]
    await durable_sleep.aio(0.2)
    if not os.path.exists("crashed"):
        with open("crashed", "w"):
            pass
        os.kill(os.getpid(), 9)
    return [*found, seen()]


@env.task
async def sets() -> list[str]:
    """A body that sets a variable: the code that it calls sees that."""
    tenant.set("of the body")
    return [seen(), *await child()]
