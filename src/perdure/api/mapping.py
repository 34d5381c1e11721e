"""`perdure.map`: one task over many inputs, lazily and in input order."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextvars import copy_context
from functools import partial
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeVar, overload

from ..core.body.branch import Branch
from ..core.body.interfaces import BodyPort
from ..core.body.scope import THREAD, Slot, TraceScope
from ..errors import InsideTraceError, RunStopped, UsageError
from ._calling import caller, on_loop, run_async, run_sync, warn_blocking
from .task import Task

T = TypeVar("T")


class _Map:
    """`perdure.map(task, *iterables)`, and `perdure.map.aio(...)`.

    The calls stand on a branch of their own, in input order. So their identity depends neither on the order in which
    the calls end nor on the consumer's own calls in between.
    """

    @overload
    def __call__(
        self,
        task: Task[..., Coroutine[Any, Any, T]] | partial[Coroutine[Any, Any, T]],
        *iterables: Iterable[Any],
        group_name: str | None = None,
        concurrency: int = 0,
        return_exceptions: Literal[False] = False,
    ) -> Iterator[T]: ...
    @overload
    def __call__(
        self,
        task: Task[..., T] | partial[T],
        *iterables: Iterable[Any],
        group_name: str | None = None,
        concurrency: int = 0,
        return_exceptions: Literal[False] = False,
    ) -> Iterator[T]: ...
    @overload
    def __call__(
        self,
        task: Task[..., Any] | partial[Any],
        *iterables: Iterable[Any],
        group_name: str | None = None,
        concurrency: int = 0,
        return_exceptions: bool,
    ) -> Iterator[Any]: ...
    def __call__(
        self,
        task: Task[..., Any] | partial[Any],
        *iterables: Iterable[Any],
        group_name: str | None = None,
        concurrency: int = 0,
        return_exceptions: bool = False,
    ) -> Iterator[Any]:
        """Call `task` with the items of the iterables, several at a time, and give the results in input order.

        Args:
            task: a task, or a `functools.partial` of a task, whose own arguments stay in front of each item.
            group_name: a label for `perdure show`; the task's name by default.
            concurrency: how many calls may be under way at once; 0 means all.
            return_exceptions: give the exception of a failed call as its result, instead of raising the exception.

        Raises:
            UsageError: `task` is neither a task nor a partial of one, or `concurrency` is negative.
        """
        called, where = _checked(task, concurrency)
        if where is None:
            return _plain(called, iterables, return_exceptions)
        if on_loop():
            warn_blocking("perdure.map")
        return _threads(called, _fork(where, called, group_name), iterables, concurrency, return_exceptions)

    @overload
    def aio(
        self,
        task: Task[..., Coroutine[Any, Any, T]] | partial[Coroutine[Any, Any, T]],
        *iterables: Iterable[Any],
        group_name: str | None = None,
        concurrency: int = 0,
        return_exceptions: Literal[False] = False,
    ) -> AsyncIterator[T]: ...
    @overload
    def aio(
        self,
        task: Task[..., T] | partial[T],
        *iterables: Iterable[Any],
        group_name: str | None = None,
        concurrency: int = 0,
        return_exceptions: Literal[False] = False,
    ) -> AsyncIterator[T]: ...
    @overload
    def aio(
        self,
        task: Task[..., Any] | partial[Any],
        *iterables: Iterable[Any],
        group_name: str | None = None,
        concurrency: int = 0,
        return_exceptions: bool,
    ) -> AsyncIterator[Any]: ...
    def aio(
        self,
        task: Task[..., Any] | partial[Any],
        *iterables: Iterable[Any],
        group_name: str | None = None,
        concurrency: int = 0,
        return_exceptions: bool = False,
    ) -> AsyncIterator[Any]:
        """The same as an async iterator."""
        called, where = _checked(task, concurrency)
        if where is None:
            return _plain_async(called, iterables, return_exceptions)
        return _tasks(called, _fork(where, called, group_name), iterables, concurrency, return_exceptions)


map = _Map()


class _Called(NamedTuple):
    """A task, and the arguments of a partial of the task."""

    task: Task[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = MappingProxyType({})

    def protocol(self, branch: Branch, items: tuple[Any, ...]) -> Any:
        """The call with these items."""
        return self.task.protocol(branch, (*self.args, *items), dict(self.kwargs))


def _checked(task: Any, concurrency: int) -> tuple[_Called, Branch | None]:
    inner: Any = task.func if isinstance(task, partial) else task
    called = _Called(inner, task.args, task.keywords) if isinstance(task, partial) else _Called(inner)
    if not isinstance(called.task, Task):
        raise UsageError(
            f"perdure.map takes a task as its first argument, or a functools.partial of a task, not {task!r}; declare "
            "it with @env.task"
        )
    if concurrency < 0:
        raise UsageError(f"perdure.map: concurrency must be 0 (no limit) or more, not {concurrency}")
    where = caller(lambda: "perdure.map")
    if isinstance(where, TraceScope):
        raise InsideTraceError(f"perdure.map was called inside trace {where.name}; call it from a task")
    return called, where


def _fork(where: Branch, called: _Called, group_name: str | None) -> Branch:
    branch = where.fork(f"map({called.task.name})")
    branch.label = group_name or called.task.name
    return branch


async def _tasks(
    called: _Called, branch: Branch, iterables: tuple[Iterable[Any], ...], concurrency: int, exceptions: bool
) -> AsyncIterator[Any]:
    inputs = zip(*iterables, strict=False)
    limit = asyncio.Semaphore(concurrency) if concurrency else None
    pending: deque[asyncio.Task[Any]] = deque()

    async def bounded(protocol: Any) -> Any:
        if limit is None:
            return await run_async(protocol)
        async with limit:
            return await run_async(protocol)

    try:
        for args in inputs:
            # Every call takes its identity here, in input order, before any of the calls starts.
            pending.append(asyncio.create_task(bounded(called.protocol(branch, args))))
        while pending:
            try:
                result = await pending[0]
            except asyncio.CancelledError:
                raise
            except Exception as error:
                if not exceptions:
                    raise
                result = error
            pending.popleft()
            yield result
    finally:
        for left in pending:
            left.cancel()
        if pending:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*pending, return_exceptions=True)


def _threads(
    called: _Called, branch: Branch, iterables: tuple[Iterable[Any], ...], concurrency: int, exceptions: bool
) -> Iterator[Any]:
    body = branch.body
    threads = body.driver.worker.threads
    inputs = zip(*iterables, strict=False)
    pending: deque[Future[Any]] = deque()
    exhausted = False

    def fill() -> None:
        nonlocal exhausted
        while not exhausted and (not concurrency or len(pending) < concurrency):
            args = next(inputs, None)
            if args is None:
                exhausted = True
                return
            slot = Slot(branch.fork("call"))
            body.thread_begins(slot)
            future = threads.submit(copy_context().run, work, slot, called.protocol(branch, args))
            future.add_done_callback(partial(body.thread_joined, ended=slot))
            pending.append(future)

    def work(slot: Slot, protocol: Any) -> Any:
        outer, THREAD.slot = THREAD.slot, slot
        try:
            return run_sync(protocol)
        finally:
            THREAD.slot = outer

    # On an event loop's thread the loop counts as blocked during the whole iteration, so that bodies of the calls go to
    # another loop.
    blocked = body.loop if on_loop() else None
    if blocked is not None:
        blocked.blocked += 1
    try:
        fill()
        while pending:
            try:
                result = _join(body, pending[0], blocked is not None)
            except RunStopped:
                raise
            except Exception as error:
                if not exceptions:
                    raise
                result = error
            pending.popleft()
            fill()
            yield result
    finally:
        if blocked is not None:
            blocked.blocked -= 1


def _join(body: BodyPort, future: Future[Any], on_loop_thread: bool) -> Any:
    if not on_loop_thread:
        return body.driver.worker.join(future, THREAD.slot, shown=True)
    body.block_loop()
    try:
        return future.result()
    finally:
        body.unblock_loop()


def _plain(called: _Called, iterables: tuple[Iterable[Any], ...], exceptions: bool) -> Iterator[Any]:
    for args in zip(*iterables, strict=False):
        try:
            given = partial(called.task.fn, *called.args, *args, **called.kwargs)
            result = asyncio.run(given()) if called.task.spec.is_async else given()
        except Exception as error:
            if not exceptions:
                raise
            result = error
        yield result


async def _plain_async(called: _Called, iterables: tuple[Iterable[Any], ...], exceptions: bool) -> AsyncIterator[Any]:
    for args in zip(*iterables, strict=False):
        try:
            result = await called.task.aio(*called.args, *args, **called.kwargs)
        except Exception as error:
            if not exceptions:
                raise
            result = error
        yield result
