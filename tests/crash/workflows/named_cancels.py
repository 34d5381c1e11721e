"""Cases of `tests/crash/test_cancelled_runs.py`: each asks to cancel its own run, and cleans up with durable calls."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import lab
from lab import LabError, env, flaky, log, see, step, sync_flaky, sync_step

import perdure
from perdure import errors
from perdure.extras import durable_sleep, durable_time


def request(reason: str) -> None:
    if env.executor == "local":
        perdure.Run.get("r").cancel(reason)
    else:
        # A body in another process asks from outside, as it has no store.
        subprocess.run([sys.executable, "-m", "perdure", "cancel", "r", "--reason", reason], check=True)


@perdure.trace
async def ask(reason: str = "enough") -> None:
    request(reason)


@perdure.trace
def sync_ask(reason: str = "enough") -> None:
    request(reason)


@env.task
async def refund(name: str) -> str:
    await durable_sleep.aio(0.005)
    return await step(f"refund {name}")


@env.task
def sync_refund(name: str) -> str:
    durable_sleep(0.005)
    return sync_step(f"refund {name}")


@env.task(retries=2)
async def stubborn_refund(name: str) -> str:
    return await flaky(f"refund {name}", 1)


@env.task(retries=2)
def sync_stubborn_refund(name: str) -> str:
    return sync_flaky(f"refund {name}", 1)


@env.task
async def saga() -> str:
    see("main", await step("book"))
    try:
        await ask()
        await durable_sleep.aio(60)
    except asyncio.CancelledError:
        see("main", "cancelled")
        see("main", await refund("book"))
        see("main", await stubborn_refund("again"))
        await durable_time.aio()
        raise
    return "not cancelled"


@env.task
def sync_saga() -> str:
    see("main", sync_step("book"))
    try:
        sync_ask()
        durable_sleep(60)
    except errors.RunCancelledError as error:
        see("main", f"cancelled {str(error)[-6:]}")
        see("main", sync_refund("book"))
        see("main", sync_stubborn_refund("again"))
        see("main", refund("async"))
        durable_time()
        raise
    return "not cancelled"


@env.task
async def finally_only() -> str:
    try:
        await step("one")
        await ask()
        await step("two", 0.01)
        await durable_sleep.aio(60)
    finally:
        see("main", await step("cleanup"))
    return "not cancelled"


@env.task
def sync_next_call() -> str:
    """The request comes between two calls: the next one is refused, of any kind."""
    try:
        sync_ask()
        durable_time()
    except errors.RunCancelledError:
        see("main", sync_step("cleanup"))
        raise
    return "not cancelled"


async def _branch(name: str) -> None:
    try:
        await step(name)
        await durable_sleep.aio(60)
    finally:
        see(name, await step(f"{name} cleanup"))


@env.task
async def in_gather() -> str:
    try:
        await asyncio.gather(_branch("a"), _branch("b"), ask(), durable_sleep.aio(60))
    finally:
        see("main", await step("main cleanup"))
    return "not cancelled"


@env.task
async def in_group() -> str:
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_branch("a"))
            group.create_task(_branch("b"))
            await ask()
    finally:
        see("main", await step("main cleanup"))
    return "not cancelled"


@env.task
async def waiting_child() -> str:
    try:
        await step("in child")
        await ask()
        await durable_sleep.aio(60)
    except asyncio.CancelledError:
        see("child", await step("child cleanup"))
        raise
    return "not cancelled"


@env.task
def sync_waiting_child() -> str:
    try:
        sync_step("in child")
        sync_ask()
        durable_sleep(60)
    except errors.RunCancelledError:
        see("child", sync_step("child cleanup"))
        raise
    return "not cancelled"


@env.task
async def async_child_of_async() -> str:
    try:
        return await waiting_child()
    finally:
        see("main", await refund("main"))


@env.task
def async_child_of_sync() -> str:
    try:
        return waiting_child()
    except errors.RunCancelledError:
        see("main", sync_refund("main"))
        raise


@env.task
def sync_child_of_sync() -> str:
    try:
        return sync_waiting_child()
    except errors.RunCancelledError:
        see("main", sync_refund("main"))
        raise


@env.task
async def swallowed() -> list[str]:
    try:
        await ask()
        await durable_sleep.aio(60)
    except asyncio.CancelledError:
        await step("swallowed")
    return ["went on", await step("after")]


@env.task
def sync_swallowed() -> list[str]:
    try:
        sync_ask()
        durable_sleep(60)
    except errors.RunCancelledError:
        sync_step("swallowed")
    return ["went on", sync_step("after")]


@env.task
def swallowed_by_the_child() -> str:
    """The child goes on, and the parent hears of the cancellation at its own next call."""
    try:
        child = sync_swallowed()
        return sync_step("never") + str(child)
    except errors.RunCancelledError:
        see("main", sync_step("parent cleanup"))
        raise


@env.task(retries=3)
async def root_with_retries() -> str:
    try:
        await ask()
        await durable_sleep.aio(60)
    finally:
        log("attempt", perdure.ctx().attempt)  # type: ignore[union-attr]
        await step("cleanup")
    return "not cancelled"


@env.task
async def failing_cleanup() -> str:
    try:
        await ask()
        await durable_sleep.aio(60)
    except asyncio.CancelledError:
        try:
            await step("bad", fail=True)
        except LabError:
            see("main", await step("instead"))
        raise
    return "not cancelled"


@env.task
async def asked_twice() -> str:
    await ask("first")
    try:
        await durable_sleep.aio(60)
    finally:
        await ask("second")
        see("main", await step("cleanup"))
    return "not cancelled"


TASKS: dict[str, Any] = {name: task for name, task in globals().items() if isinstance(task, perdure.Task)}

if __name__ == "__main__":
    lab.main(TASKS)
