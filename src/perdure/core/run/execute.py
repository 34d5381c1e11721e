"""Executing a body once: as a task of its loop or in a thread, with or without a timeout."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Generator
from contextvars import Context, copy_context
from typing import Any

from ...errors import RunStopped, TaskTimeoutError, UsageError
from ..body.body import Body
from ..body.interfaces import BodyPort
from ..body.loop import COUNTED_ELSEWHERE, DURABLE_CODE, BranchTask
from ..body.scope import SCOPE, THREAD, Slot, unscoped
from ..body.waits import BLOCKING
from ..ground.clock import seconds
from ..ground.model import Result
from ..ground.spec import TaskSpec
from ..ground.values import tame
from . import observing
from .driver import driver_of


class Execute:
    """An effect: execute a body once. Gives `(Result.VALUE, value)` or `(Result.ERROR, exception)`.

    An async body becomes a task of its own on the body's loop; a sync one runs in a thread of its own, or, called
    from a sync body without a timeout, in that body's thread.
    """

    def __init__(
        self,
        body: Body,
        spec: TaskSpec,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        attempt: int,
        timeout: float | None,
    ) -> None:
        self.body = body
        self.driver = driver_of(body)
        self.spec = spec
        self.args = args
        self.kwargs = kwargs
        self.attempt = attempt
        self.timeout = timeout
        self._returned_at = 0.0
        """When the body ended (`seconds()`)."""
        body.attempt = attempt
        body.limit = None if timeout is None else seconds() + timeout
        body.is_sync = not spec.is_async
        if spec.env_vars:
            # Bodies share this process, and so its environment.
            os.environ.update(spec.env_vars)

    # -- from an event loop ------------------------------------------------------------------------------------

    def __await__(self) -> Generator[Any, Any, tuple[int, Any]]:
        return self._run().__await__()

    async def _run(self) -> tuple[int, Any]:
        body, timeout = self.body, self.timeout
        body.addressed = body.parent is None
        began = seconds()
        future: asyncio.Future[tuple[int, Any]]
        if self.spec.is_async and body.loop.here():
            future = self._make_task(copy_context())
        elif self.spec.is_async:
            context = copy_context()
            future = asyncio.wrap_future(self.driver.worker.call_on_loop(body.loop, lambda: self._make_task(context)))
        else:
            future = asyncio.wrap_future(self._submit(copy_context()))
        timer = None
        if timeout is not None:
            # On the loop that waits, which need not be the body's, and in a context without a scope.
            timer = asyncio.get_running_loop().call_later(timeout, self._time_out, future, context=unscoped())
        try:
            outcome = await self._outcome(future)
        except RunStopped:
            if not body.timed_out or self.driver.stopping:
                raise
            outcome = Result.ERROR, None
        finally:
            if timer is not None:
                timer.cancel()
        self._judge(began)
        # For every result after the timeout: the body could no longer make a durable call.
        return (Result.ERROR, self._timeout_error()) if body.timed_out else outcome

    def _judge(self, began: float) -> None:
        """Whether the body ended in time. The timer alone does not tell: a body that blocks the event loop, or holds
        the interpreter's lock, keeps the timer from striking."""
        if self.timeout is not None and self._returned_at - began > self.timeout:
            self.body.timed_out = True

    async def _outcome(self, future: asyncio.Future[tuple[int, Any]]) -> tuple[int, Any]:
        """Wait for the body, and pass a cancellation by the caller on to it."""
        body = self.body
        current = asyncio.current_task()
        # Requests that the calling code has swallowed before are none of this call.
        before = asked = current.cancelling() if current is not None else 0
        while True:
            try:
                # Shielded, because a cancellation takes its turn in the body (B7) and does not strike it at once.
                return await (asyncio.shield(future) if isinstance(future, BranchTask) else future)
            except asyncio.CancelledError as error:
                if self.driver.stopping:
                    future.add_done_callback(_look_at, context=unscoped())
                    raise self.driver.stopped_error() from None
                cancelling = current.cancelling() if current is not None else 0
                if cancelling <= before:
                    return Result.ERROR, error
                if future.done() or body.stopped or not isinstance(future, BranchTask):
                    future.add_done_callback(_look_at, context=unscoped())
                    body.close()
                    raise
                if cancelling > asked:
                    asked = cancelling
                    body.cancel_by_caller(future)

    def _time_out(self, future: asyncio.Future[Any]) -> None:
        body = self.body
        body.timed_out = body.abandoned = self.driver.abandoning = True
        body.close()
        future.cancel()

    def _timeout_error(self) -> TaskTimeoutError:
        return TaskTimeoutError(f"task {self.spec.name} took longer than its timeout of {self.spec.timeout:g} s")

    def _make_task(self, context: Context) -> BranchTask:
        body = self.body
        context.run(SCOPE.set, body)
        task: BranchTask = body.loop.loop.own_task(self._main(), context)
        task.branch = body.root
        body.starting = False
        body.main = task
        if body.addressed and self.driver.cancel is not None:
            body.cancel_main()
        return task

    async def _main(self) -> tuple[int, Any]:
        body = self.body
        try:
            value = await self._code()(*self.args, **self.kwargs)
        except asyncio.CancelledError:
            raise
        except RunStopped as error:
            outcome: tuple[int, Any] = (Result.ERROR, self._stray_stop(error))
        except GeneratorExit as error:
            if getattr(asyncio.current_task(), "branch", None) is not body.root:
                raise  # the garbage collector closes the coroutine
            outcome = (Result.ERROR, tame(error))
        except BaseException as error:
            outcome = (Result.ERROR, tame(error))
        else:
            outcome = (Result.VALUE, value)
        self._returned_at = seconds()
        body.returned = True
        await self._reap(body)
        if body.output is not None:
            body.output.end()
        return outcome

    def _code(self) -> Callable[..., Any]:
        if observing.observer is None:
            return self.spec.fn
        return observing.observer.executed(self.body, self.spec)

    async def _reap(self, body: Body) -> None:
        """The body has ended; leftover tasks end with the body, as with `asyncio.run`."""
        current = asyncio.current_task()
        left = [task for task in body.tasks if task is not current and not task.done()]
        if not left:
            return
        # Their calls are not recorded as cancelled: the body's outcome makes an end of them.
        body.leaving = True
        body.abandon_children()
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=1.0)

    # -- from a thread -----------------------------------------------------------------------------------------

    def block(self) -> tuple[int, Any]:
        body = self.body
        on_loop = asyncio._get_running_loop() is not None
        # What a sync body calls to clean up goes on, once that body has heard of the cancellation of the run.
        body.addressed = body.parent is None or not body.parent.cancel_delivered
        if not self.spec.is_async and self.timeout is None and not on_loop and not _deep():
            return self._inline(copy_context())
        worker = self.driver.worker
        began = seconds()
        if self.spec.is_async:
            context = copy_context()
            future = worker.call_on_loop(body.loop, lambda: self._make_task(context))
        else:
            future = self._submit(copy_context())
        try:
            outcome: tuple[int, Any] = worker.join(
                future, THREAD.slot if not on_loop else None, self.timeout, shown=True
            )
            self._judge(began)
            return (Result.ERROR, self._timeout_error()) if body.timed_out else outcome
        except TimeoutError:
            if future.done():
                # The body ended, and this thread was late to hear of the end.
                self._judge(began)
                if not body.timed_out:
                    ended: tuple[int, Any] = future.result()
                    return ended
            body.timed_out = body.abandoned = self.driver.abandoning = True
            body.close()
            return Result.ERROR, self._timeout_error()
        except asyncio.CancelledError as error:
            if self.driver.stopping:
                raise self.driver.stopped_error() from None
            return Result.ERROR, error

    def _inline(self, context: Context) -> tuple[int, Any]:
        outer = THREAD.slot
        slot = Slot(self.body.root)
        self.body.thread_begins(slot)
        if outer is not None:
            outer.branch.body.thread_waits(outer)
        try:
            return context.run(self._in_thread, slot)
        finally:
            if outer is not None:
                outer.branch.body.thread_runs(outer)

    def _stray_stop(self, error: RunStopped) -> UsageError:
        return stray_stop(self.body, f"task {self.spec.name}", error)

    def _submit(self, context: Context) -> Any:
        slot = Slot(self.body.root)
        self.body.thread_begins(slot)
        return self.driver.worker.threads.submit(context.run, self._in_thread, slot)

    def _in_thread(self, slot: Slot) -> tuple[int, Any]:
        body = self.body
        SCOPE.set(body)
        outer, THREAD.slot = THREAD.slot, slot
        body.starting = False
        depth, BLOCKING.depth = BLOCKING.depth, 0
        try:
            value = self._code()(*self.args, **self.kwargs)
        except RunStopped as error:
            return Result.ERROR, self._stray_stop(error)
        except BaseException as error:
            return Result.ERROR, tame(error)
        else:
            return Result.VALUE, value
        finally:
            self._returned_at = seconds()
            body.returned = True
            BLOCKING.depth = depth
            THREAD.slot = outer
            if body.output is not None:
                body.output.end()
            body.thread_ends(slot)


def _deep() -> bool:
    """Whether much of this thread's stack is used up: the next body then begins a thread, and a stack, of its own."""
    try:
        sys._getframe(sys.getrecursionlimit() // 3)
    except ValueError:
        return False
    return True


def _look_at(future: asyncio.Future[Any]) -> None:
    """No code awaits that body any more, and asyncio need not say so on the terminal."""
    if not future.cancelled():
        future.exception()


DURABLE_CODE.add(Execute._main.__code__)
COUNTED_ELSEWHERE.add(Execute._time_out)


def stray_stop(body: BodyPort, what: str, error: RunStopped) -> UsageError:
    """The failure for a `RunStopped` that does not belong to this run: raised by user code, or carried from another
    run by a thread or a future. Passed on, the exception would leave this run RUNNING with no code at work.

    Raises:
        RunStopped: the exception itself, where this run or body is stopped.
    """
    if body.stopped or body.driver.stopping:
        raise error
    failure = UsageError(
        f"{what} raised {type(error).__name__}, though its run goes on: the exception was raised by hand, or carried "
        f"over from another run ({error})"
    )
    failure.__cause__ = None
    return failure
