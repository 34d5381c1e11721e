"""Effects and the two shells that drive a protocol.

The protocol of each durable call is a generator (`calls`, `attempts`): the generator yields *effects* (wait for an
outcome, invoke a function, sleep until a deadline, get a record onto disk) and is sent their results. Two small shells
drive it: `run_async` awaits each effect, `run_sync` blocks on it. An effect therefore has `__await__` and `block()`,
and nothing else differs between the two colours.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextvars import copy_context
from functools import partial
from typing import Any

from msgspec import Struct

from ..body.branch import Call
from ..body.interfaces import BodyPort
from ..body.loop import DURABLE_CODE
from ..body.scope import SCOPE, THREAD, TraceScope, is_body, set_scope
from ..body.waits import BLOCKING, HeldSlot, LoopWaiter
from ..commit.records import Record, Synced
from ..ground.spec import Function
from . import observing

Protocol = Generator[Any, Any, Any]


# -- the shells ------------------------------------------------------------------------------------------------


async def run_async(protocol: Protocol) -> Any:
    """Drive a protocol in the current asyncio task.

    A task that was asked to cancel itself before the call hears of that now, and the call is not made (B11). Left to
    asyncio, the task would hear of it at its next real wait: whether the call has one differs between live and replay.
    """
    if getattr(asyncio.current_task(), "_must_cancel", False):
        await asyncio.sleep(0)
    try:
        effect = protocol.send(None)
        while True:
            try:
                answer = await effect
            except BaseException as error:
                effect = protocol.throw(error)
            else:
                effect = protocol.send(answer)
    except StopIteration as stop:
        return stop.value


DURABLE_CODE.add(run_async.__code__)


def run_sync(protocol: Protocol) -> Any:
    """Drive a protocol in the current thread, which blocks. On an event loop's thread, that loop blocks with it."""
    if asyncio._get_running_loop() is None:
        return run_blocking(protocol)
    BLOCKING.depth += 1
    scope = SCOPE.get()
    body = scope if is_body(scope) else None
    loop = body.loop if body is not None else None
    if loop is not None:
        loop.blocked += 1
    try:
        if body is not None:
            body.block_loop()
        return run_blocking(protocol)
    finally:
        BLOCKING.depth -= 1
        if body is not None:
            body.unblock_loop()
        if loop is not None:
            loop.blocked -= 1


def run_blocking(protocol: Protocol) -> Any:
    """Drive a protocol in the current thread, which has no event loop, or whose loop is known to be blocked."""
    try:
        effect = protocol.send(None)
        while True:
            try:
                answer = effect.block()
            except BaseException as error:
                effect = protocol.throw(error)
            else:
                effect = protocol.send(answer)
    except StopIteration as stop:
        return stop.value


# -- effects ---------------------------------------------------------------------------------------------------


class Invoke(Struct, eq=False):
    """Run a traced function; inside, the trace is the unit. The protocol restores the scope afterwards."""

    call: Call
    function: Function
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    slot: HeldSlot | None = None
    """The slot of a limit that the call holds."""

    def __await__(self) -> Any:
        # The function's own iterator, not a generator around it: this runs once per traced call.
        function = self.function
        code = function.fn if observing.observer is None else observing.observer.traced(self.call, function)
        set_scope(TraceScope(self.call.body, function.name, self.slot))
        if function.is_async:
            return code(*self.args, **self.kwargs).__await__()
        context = copy_context()
        work = partial(context.run, code, *self.args, **self.kwargs)
        return asyncio.get_running_loop().run_in_executor(None, work).__await__()

    def block(self) -> Any:
        body, function = self.call.body, self.function
        code = function.fn if observing.observer is None else observing.observer.traced(self.call, function)
        scope = TraceScope(body, function.name, self.slot)
        if not function.is_async:
            set_scope(scope)
            return code(*self.args, **self.kwargs)
        context = copy_context()
        context.run(SCOPE.set, scope)
        worker = body.driver.worker
        loop = worker.loop_for(body.driver)
        future = worker.call_on_loop(
            loop, lambda: loop.loop.create_task(code(*self.args, **self.kwargs), context=context)
        )
        return worker.join(future, THREAD.slot)


def record(
    call: Call,
    result: int,
    value: bytes | None,
    at: int,
    took: int,
    *,
    item: int = 0,
    child: int | None = None,
    extra: tuple[Any, ...] = (),
) -> LoopWaiter | Record:
    """Hand an outcome to the writer. The effect gives the `Outcome` once it is on disk and its turn has come."""
    body = call.body
    driver = body.driver
    if body.over:
        raise driver.stopped_error()
    driver.executed += 1
    loop = asyncio._get_running_loop()
    if loop is None or BLOCKING.depth:
        row = Record(call, result, value, at, took, item, child)
        if loop is None:
            row.slot = THREAD.slot
        elif body.delivery.in_flight or body.idle_replaying:
            row.after = body.delivery.place[0]
        driver.outbox.append((*extra, row) if extra else row)
        return row
    writer = driver.worker.writer
    if not extra and body.alone(loop):
        row = Record(call, result, value, at, took, item, child)
        row.alone = True
        if writer.commit_now(driver, row):
            return row
    waiter = LoopWaiter(call, item, loop)
    waiter.child = child
    body.delivery.in_flight += 1
    row = Record(call, result, value, at, took, item, child, None, waiter)
    driver.outbox.append((*extra, row) if extra else row)
    writer.mark_ready(driver)
    body.loop.flush_soon(writer)
    return waiter


class Durable:
    """An effect: rows on disk before any code acts on them (deadlines, failures of attempts)."""

    def __init__(self, body: BodyPort, *rows: Any) -> None:
        self._body = body
        self._rows = rows

    def block(self) -> None:
        synced = Synced(None)
        driver = self._body.driver
        driver.outbox.append((*self._rows, synced))
        driver.worker.writer.through(driver, synced)

    def __await__(self) -> Any:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        driver = self._body.driver
        driver.outbox.append((*self._rows, Synced(future)))
        driver.worker.writer.mark_ready(driver)
        self._body.loop.flush_soon(driver.worker.writer)
        return future.__await__()
