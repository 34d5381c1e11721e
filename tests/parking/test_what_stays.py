"""A run with anything else under way than recorded deadlines stays in memory, however long it sleeps (D5)."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from tests.parking.serving import NAP, Serving, gates, held, let_go, name_of_run, seen
from tests.waiting import PATIENCE, wait_for

import perdure
from perdure import runtime
from perdure.core.ground.model import Kind
from perdure.extras import durable_sleep
from perdure.testing import VirtualClock

pytestmark = pytest.mark.filterwarnings("ignore::perdure.errors.PerdureWarning")

env = perdure.TaskEnvironment(name="what_stays")

LONGER = 2 * NAP
"""How long a plain timer lasts: longer than the durable sleep beside it."""


def blocked() -> None:
    """What `held` does, in a thread."""
    seen.append(name_of_run())
    gates[name_of_run()].result(PATIENCE)


@perdure.trace
async def waits_inside() -> str:
    await held()
    return "traced"


@perdure.trace
def blocks_inside() -> str:
    blocked()
    return "traced"


@perdure.trace
async def async_items() -> AsyncIterator[int]:
    await held()
    yield 1


@perdure.trace
def sync_items() -> Iterator[int]:
    blocked()
    yield 1


async def beside(other: Any) -> Any:
    """Something that lasts as long as a durable sleep, and longer."""
    return (await asyncio.gather(other, durable_sleep.aio(NAP * 1.5)))[0]


async def timer() -> Any:
    # Virtual seconds: the clock jumps over them.
    return await beside(asyncio.sleep(LONGER, "x"))


async def timeout() -> Any:
    async with asyncio.timeout(100 * NAP):
        await durable_sleep.aio(LONGER)
    return "x"


async def timeout_of_wait_for() -> Any:
    await asyncio.wait_for(durable_sleep.aio(LONGER), 100 * NAP)
    return "x"


async def thread() -> Any:
    return await beside(asyncio.to_thread(lambda: (blocked(), "x")[1]))


async def socket_read() -> Any:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    gates[name_of_run()].add_done_callback(lambda _: theirs.send(b"x"))
    try:
        return (await beside(asyncio.get_running_loop().sock_recv(ours, 1))).decode()
    finally:
        ours.close()
        theirs.close()


async def subprocess() -> Any:
    command = "import sys; sys.stdin.readline(); print('x', end='')"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    loop, stdin = asyncio.get_running_loop(), process.stdin
    gates[name_of_run()].add_done_callback(lambda _: loop.call_soon_threadsafe(stdin.write, b"\n"))
    found = await beside(process.stdout.read())
    await process.wait()
    return found.decode()


async def async_trace() -> Any:
    return await beside(waits_inside())


async def sync_trace() -> Any:
    return await beside(blocks_inside.aio())


async def async_trace_called_from_a_thread() -> Any:
    return await beside(asyncio.to_thread(waits_inside))  # type: ignore[arg-type]


async def async_generator() -> Any:
    async def consume() -> Any:
        return [item async for item in async_items()]

    return await beside(consume())


async def sync_generator() -> Any:
    return await beside(asyncio.to_thread(lambda: list(sync_items())))


UNDER_WAY: dict[str, Callable[[], Any]] = {
    found.__name__: found
    for found in (
        timer, timeout, timeout_of_wait_for, thread, socket_read, subprocess, async_trace, sync_trace,
        async_trace_called_from_a_thread, async_generator, sync_generator,
    )
}  # fmt: skip


@env.task
async def stays_for(what: str) -> Any:
    return await UNDER_WAY[what]()


@env.task(timeout=100 * NAP)
async def has_a_timeout() -> str:
    await durable_sleep.aio(LONGER)
    return "x"


@env.task
async def child_has_a_timeout() -> str:
    return await has_a_timeout()


def sleeps(run: Any) -> bool:
    """Whether its durable sleep is on disk."""
    return any(action.kind == Kind.SLEEP for action in runtime.worker().store.open_actions(run.row.id))


def test_a_run_with_anything_else_under_way_stays_in_memory(clock: VirtualClock) -> None:
    """D5."""
    from concurrent.futures import Future

    gates.update({what: Future() for what in UNDER_WAY})
    with Serving([stays_for, has_a_timeout, child_has_a_timeout], clock) as serving:
        runs = [perdure.with_runcontext(name=what).submit(stays_for, what) for what in UNDER_WAY]
        runs += [perdure.submit(has_a_timeout), perdure.submit(child_has_a_timeout)]
        wait_for(lambda: all(map(sleeps, runs)))
        # The sleeps have long to go yet, and the worker looks at each run again.
        clock.jump(NAP / 4)
        serving.look_twice()
        assert serving.parks() == 0
        for what in UNDER_WAY:
            let_go(what)
        clock.jump(LONGER)
        results = [run.wait(PATIENCE).result for run in runs]
    assert all(result in ("x", "traced", [1]) for result in results), results
    assert serving.parks() == 0
