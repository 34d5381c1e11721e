"""perdure's event loop: a selector loop that knows, for every body, what it still has to do.

Outcomes are delivered to a body only when the body is quiet (docs/development/replay.md#delivery-in-commit-order).
Futures alone cannot tell: a plain timer, a socket and a durable wait all look like a pending future. So the loop counts
for each body the ready or running callbacks, the pending timers and the watched file descriptors, by the scope in the
context of each handle. Callbacks of traces and of
perdure itself carry another scope and are not counted.

It relies on a few names of asyncio's own base class that have been stable since Python 3.4 (`_ready`, `_scheduled`,
`_add_reader` and the like); `tests/unit/test_loop.py` fails if one of them changes its meaning.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import heapq
import itertools
import logging
import sys
import threading
from asyncio import events
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import Context, copy_context
from functools import partial
from types import MethodType
from typing import Any, NamedTuple

from ...errors import BranchError, UsageError
from ..ground.clock import loop_seconds, perf
from ..journal.replay import EventKey, EventKind
from .activity import Activity, ErrorHandler
from .branch import Branch, fork_for_coroutine, fork_for_function
from .generators import Began, LeftGenerators, in_a_collection
from .interfaces import Flushes
from .scope import SCOPE, THREAD, Slot, TraceScope, is_body, unscoped
from .waits import MessageWait, Sleeper

log = logging.getLogger("perdure")


SPIN_NS = 2_000_000
"""How long an iteration goes on without looking at timers and sockets (nanoseconds)."""


class BodyHandle(events.Handle):
    """A callback of a body: counted from when it is scheduled until it has run or is cancelled."""

    __slots__ = ("body",)
    body: Activity | None

    def _run(self) -> None:
        body = self.body
        self.body = None
        try:
            # As the base class does it, whose frame would cost as much as the rest of this function.
            self._context.run(self._callback, *self._args)  # type: ignore[attr-defined]
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._loop.call_exception_handler(  # type: ignore[attr-defined]
                {"message": f"Exception in callback {self!r}", "exception": error, "handle": self}
            )
        finally:
            if body is not None:
                body.active -= 1
                if not body.active and body.stirred:
                    body.pump()

    def cancel(self) -> None:
        body = self.body
        super().cancel()
        if body is not None:
            self.body = None
            body.active -= 1
            if not body.active and body.stirred:
                body.loop.soon(body.pump)


ON_TIMEOUT = "_on_timeout"
"""asyncio's own callback behind `timeout`, which asyncio calls soon where the timeout has run out as it is armed."""


class BodyTimer(events.TimerHandle):
    """A plain timer of a body, and the source of an event: its callback runs when its turn comes (B7, B8)."""

    __slots__ = ("body", "key", "over", "ripe")
    yields = False
    body: Activity | None
    key: EventKey
    over: bool
    ripe: bool

    def _run(self) -> None:
        body = self.body
        if body is not None and not body.stopped:
            body.source_arrives(self)
        elif not self._cancelled:
            self.happen()

    def happen(self) -> None:
        """Run the callback, whether the time has come or not; on the loop's thread."""
        body, callback, args, context = self._detach()
        if body is not None:
            body.active += 1
        loop: Any = self._loop  # type: ignore[attr-defined]
        # A callback that looks at the clock, as anyio's does, finds that the time has come (B8).
        loop.ahead = self._when  # type: ignore[attr-defined]
        try:
            context.run(callback, *args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            loop.call_exception_handler(
                {"message": f"Exception in callback {callback!r}", "exception": error, "handle": self}
            )
        finally:
            loop.ahead = 0.0
            if body is not None:
                body.active -= 1

    def _detach(self) -> tuple[Activity | None, Any, Any, Context]:
        body, callback, args, context = self.body, self._callback, self._args, self._context  # type: ignore[attr-defined]
        self.body = None
        if body is not None:
            body.timers -= 1
        # The base class then drops the handle where the loop still has it among its timers.
        super().cancel()
        return body, callback, args, context

    def cancel(self) -> None:
        body = self.body
        if body is None:
            super().cancel()
            return
        self._detach()
        body.source_gone(self)
        if not body.active and body.stirred:
            body.loop.soon(body.pump)


class Job:
    """A job of a body in an executor, and the source of an event: what awaits the job hears of its end when its turn
    comes (B7). The executor's own future is `inner`; `outer` belongs to the loop."""

    __slots__ = ("inner", "key", "outer", "over", "ripe")
    yields = False

    def __init__(self, branch: int, inner: concurrent.futures.Future[Any], outer: asyncio.Future[Any]) -> None:
        self.key: EventKey = (EventKind.JOB, branch, 0)
        self.inner = inner
        self.outer = outer
        self.ripe = False
        self.over = False

    def happen(self) -> None:
        """Copy the outcome; on the loop's thread."""
        inner, outer = self.inner, self.outer
        if outer.done():
            return
        if inner.cancelled():
            outer.cancel()
            return
        error = inner.exception()
        if error is None:
            outer.set_result(inner.result())
        elif isinstance(error, concurrent.futures.CancelledError):
            outer.set_exception(asyncio.CancelledError(*error.args))
        elif isinstance(error, StopIteration):
            # A future refuses to hold that exception, and the task would wait for ever.
            failure = RuntimeError(f"a function in an executor raised {error!r}")
            failure.__cause__ = error
            outer.set_exception(failure)
        else:
            outer.set_exception(error)


class BranchTask(asyncio.Task[Any]):
    """An asyncio task with the branch that it carries; `None` for perdure's own tasks and for those of traces.

    Tasks of a body are numbered, and the number is the hash. asyncio keeps tasks in sets (`TaskGroup` cancels its
    members in the order of a set, `wait` returns sets), and sets of the same tasks have the same order in each life."""

    branch: Branch | None = None

    def __init__(self, coro: Any, number: int, **options: Any) -> None:
        self.number = number
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self.number


class LoopStillness(NamedTuple):
    """The timers of a loop on which nothing is under way; see `PerdureLoop.still`."""

    lefts: list[float]
    """Seconds left of each timer of a body or a trace."""
    traces: dict[Any, int]
    """How many timers the traces of each body have armed."""


OWN_TIMER_SECONDS = 1.0
"""A loop with a timer of perdure's own that is due within this is at work."""

COUNTED_ELSEWHERE: set[Any] = {Sleeper.wake, MessageWait.wake}
"""The callbacks of timers for deadlines that bodies count (`Body.still`)."""


class PerdureLoop(asyncio.SelectorEventLoop):
    """See the module text."""

    def __init__(self, threads: Executor) -> None:
        self._threads = threads
        self.empty = unscoped()
        """The context of perdure's own callbacks: no scope. One per loop, as two threads cannot be in one at once."""
        self.spin_until = 0
        """Until when this iteration may go on (`perf()`); 0 while it has just begun."""
        self.ahead = 0.0
        """The time that a timer's callback finds at least, while it runs; a replayed timer may go off earlier."""
        self.flush_due: Flushes | None = None
        """Set where something waits to be committed at the end of this iteration."""
        self._fd_bodies: dict[tuple[int, str], Activity] = {}
        self._left = LeftGenerators()
        self._numbers = itertools.count()
        """Of tasks that belong to no body."""
        # Last, because it already watches the loop's own pipe.
        super().__init__()
        super().set_task_factory(self._make_task)

    # -- one iteration -----------------------------------------------------------------------------------------

    def _run_once(self) -> None:
        """One iteration as the base class does it, and then, without asking the selector again, rounds of what has
        become ready meanwhile: delivering an outcome makes its task ready, and a trip through the selector for each
        would cost more than the outcome. When nothing is ready, what was recorded is committed."""
        self.spin_until = 0
        super()._run_once()  # type: ignore[misc]
        ready = self._ready  # type: ignore[attr-defined]
        writer = self.flush_due
        if not ready and writer is None:
            return
        self.spin_until = until = perf() + SPIN_NS
        while True:
            while ready:
                if self._stopping:  # type: ignore[attr-defined]
                    return
                for _ in range(len(ready)):
                    handle = ready.popleft()
                    if not handle._cancelled:
                        handle._run()
                handle = None
                if perf() > until:
                    break
            writer = self.flush_due
            if writer is None:
                return
            self.flush_due = None
            writer.flush()
            if perf() > until:
                return

    def may_go_on(self) -> bool:
        """Whether the callback that runs now may do more in this iteration: if the last look at timers and sockets is
        too long ago, a look at them now finds that the next iteration would have nothing else to do."""
        now = perf()
        if now < self.spin_until:
            return True
        timers = self._scheduled  # type: ignore[attr-defined]
        if (
            self._stopping  # type: ignore[attr-defined]
            or (timers and timers[0]._when <= self.time() + self._clock_resolution)  # type: ignore[attr-defined]
            or self._selector.select(0)  # type: ignore[attr-defined]
        ):
            return False
        self.spin_until = now + SPIN_NS
        return True

    def time(self) -> float:
        now = loop_seconds()
        return now if now > self.ahead else self.ahead

    def still(self) -> LoopStillness | None:
        """The timers of bodies and traces, if nothing else is under way on this loop; else `None`. On the
        loop's thread, in a callback of its own."""
        if self._ready or self.flush_due is not None or len(self._selector.get_map()) > 1:  # type: ignore[attr-defined]
            return None
        now = self.time()
        lefts: list[float] = []
        traces: dict[Any, int] = {}
        for timer in self._scheduled:  # type: ignore[attr-defined]
            if timer._cancelled or getattr(timer._callback, "__func__", None) in COUNTED_ELSEWHERE:
                continue
            scope = timer._context.get(SCOPE)
            if scope is None:
                # perdure's own, which runs on for real.
                if timer._when - now < OWN_TIMER_SECONDS:
                    return None
                continue
            lefts.append(timer._when - now)
            if scope.__class__ is TraceScope:
                traces[scope.body] = traces.get(scope.body, 0) + 1
        return LoopStillness(lefts, traces)

    def _read_from_self(self) -> None:
        # Once, not until it is empty: of what is left the selector tells again, and a read of an empty pipe costs an
        # exception at every wake-up.
        try:
            data = self._ssock.recv(4096)  # type: ignore[attr-defined]
        except (BlockingIOError, InterruptedError):
            return
        if data:
            self._process_self_data(data)  # type: ignore[attr-defined]

    # -- settings ----------------------------------------------------------------------------------------------

    def set_task_factory(self, factory: Any) -> None:
        """Refused: other tasks than perdure's have no place in the recorded order."""
        raise _shared("set_task_factory", "create the tasks yourself, or run such code in a thread with asyncio.run")

    def set_debug(self, enabled: bool) -> None:
        """Refused to bodies."""
        if SCOPE.get() is not None:
            raise _shared("set_debug", "set PYTHONASYNCIODEBUG=1 for the process")
        super().set_debug(enabled)

    def set_default_executor(self, executor: Any) -> None:
        """Refused: perdure follows the threads of bodies in its own executor."""
        raise _shared("set_default_executor", "pass the executor to run_in_executor")

    async def shutdown_asyncgens(self) -> None:
        """Refused to bodies: the generators of other runs would be closed."""
        if SCOPE.get() is not None:
            raise _shared("shutdown_asyncgens", "close the generators yourself: await generator.aclose()")
        await super().shutdown_asyncgens()

    async def shutdown_default_executor(self, *args: Any, **kwargs: Any) -> None:
        """Refused: the executor serves all runs."""
        raise _shared("shutdown_default_executor", "shut down an executor of your own")

    def set_exception_handler(self, handler: ErrorHandler | None) -> None:
        """From a body: for what goes wrong in that body."""
        body = _body_of(SCOPE.get())
        if body is None:
            super().set_exception_handler(handler)
        elif handler is None or callable(handler):
            body.error_handler = handler
        else:
            raise TypeError(f"an exception handler is called with the loop and a context: {handler!r} cannot be called")

    def get_exception_handler(self) -> ErrorHandler | None:
        """See `set_exception_handler`."""
        body = _body_of(SCOPE.get())
        return super().get_exception_handler() if body is None else body.error_handler

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Pass an error without a waiting caller to the handler of the body where the error happened."""
        body = _body_in(context)
        handler = body.error_handler if body is not None else None
        if handler is None:
            super().call_exception_handler(context)
            return
        try:
            handler(self, context)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:
            log.exception("an exception handler that a body has set failed")
            self.default_exception_handler(context)

    # -- callbacks ---------------------------------------------------------------------------------------------

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> events.Handle:  # type: ignore[override]
        if context is None:
            context = copy_context()
        scope = context.get(SCOPE)
        if scope is None and SCOPE not in context:
            context, scope = _adopted(context)
        handle: events.Handle
        # As `is_body`, whose frame would be felt here.
        if scope is not None and scope.__class__ is not TraceScope:
            if callback.__class__ is MethodType and callback.__name__ == ON_TIMEOUT:
                return self._arm(scope, None, callback, args, context)
            handle = BodyHandle(callback, args, self, context)
            handle.body = scope
            scope.active += 1
        else:
            handle = events.Handle(callback, args, self, context)
        self._ready.append(handle)  # type: ignore[attr-defined]
        return handle

    def call_soon_unscoped(self, callback: Callable[..., Any], *args: Any) -> events.Handle:
        """`call_soon` on behalf of perdure itself."""
        handle = events.Handle(callback, args, self, self.empty)
        self._ready.append(handle)  # type: ignore[attr-defined]
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> events.TimerHandle:
        if context is None:
            context = copy_context()
        scope: Any = context.get(SCOPE)
        if scope is None and SCOPE not in context:
            context, scope = _adopted(context)
        if is_body(scope):
            return self._arm(scope, when, callback, args, context)  # type: ignore[return-value]
        return self._schedule(events.TimerHandle(when, callback, args, self, context))

    def _arm(
        self, body: Activity, when: float | None, callback: Callable[..., Any], args: Any, context: Context
    ) -> events.Handle:
        """A plain timer of a body; `when` is `None` for a timeout of asyncio's that has run out as it is armed.

        asyncio treats such a timeout as a ready callback, live. Whether a timeout has run out by then depends on the
        clock, so that is noted, and replay does as was noted."""
        key = body.timer_key()
        if getattr(callback, "__name__", "") == ON_TIMEOUT:
            if body.is_late(key, when is None):
                handle = BodyHandle(callback, args, self, context)
                handle.body = body
                body.active += 1
                self._ready.append(handle)  # type: ignore[attr-defined]
                return handle
            if when is None:
                when = self.time()
        assert when is not None
        timer = BodyTimer(when, callback, args, self, context)
        timer.key = key
        return self._begin_timer(body, timer)

    def _begin_timer(self, body: Activity, timer: BodyTimer) -> events.TimerHandle:
        timer.body = body
        timer.over = False
        timer.ripe = True
        body.timers += 1
        body.source_begins(timer)
        return self._schedule(timer)

    def _schedule(self, timer: events.TimerHandle) -> events.TimerHandle:
        heapq.heappush(self._scheduled, timer)  # type: ignore[attr-defined]
        timer._scheduled = True  # type: ignore[attr-defined]
        return timer

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> events.Handle:
        """From the loop's own thread this is `call_soon`: a body is not quiet while such a callback of it is ready.

        From a thread of a body it is an event, as a timer that the thread arms and that has run out: its place among
        the outcomes is noted (B7)."""
        if threading.get_ident() == self._thread_id:  # type: ignore[attr-defined]
            self._check_closed()  # type: ignore[attr-defined]
            return self.call_soon(callback, *args, context=context)
        if context is None:
            context = copy_context()
        body: Any = context.get(SCOPE)
        slot = THREAD.slot
        if slot is None or slot.branch.body is not body or body.stopped:
            return super().call_soon_threadsafe(callback, *args, context=context)
        branch = slot.branch
        timer = BodyTimer(self.time(), callback, args, self, context)
        timer.body = None
        timer.key = (EventKind.TIMER, branch.id, branch.timers)
        branch.timers += 1
        # Until the loop knows the timer, it counts as a thread at work.
        presence = Slot(branch)
        body.thread_begins(presence)
        super().call_soon_threadsafe(self._arm_for_thread, body, timer, presence, context=self.empty)
        return timer

    def _arm_for_thread(self, body: Any, timer: BodyTimer, presence: Slot) -> None:
        if not timer._cancelled and not body.stopped:
            self._begin_timer(body, timer)
        elif not timer._cancelled:
            timer.happen()
        body.thread_ends(presence)

    # -- async generators --------------------------------------------------------------------------------------

    def _asyncgen_firstiter_hook(self, agen: Any) -> None:
        super()._asyncgen_firstiter_hook(agen)  # type: ignore[misc]
        self._left.begins(agen, self)

    def _asyncgen_finalizer_hook(self, agen: Any) -> None:
        began = self._left.take(agen)
        if began is None:
            super()._asyncgen_finalizer_hook(agen)  # type: ignore[misc]
            return
        self._asyncgens.discard(agen)  # type: ignore[attr-defined]
        if self.is_closed():
            return
        if threading.get_ident() == self._thread_id and not in_a_collection():  # type: ignore[attr-defined]
            self.call_soon(self._close_left, agen, began, began.branch_of_close(), context=began.context)
        else:
            self.call_soon_threadsafe(self._close_left, agen, began, None, context=self.empty)

    def _close_left(self, agen: Any, began: Began, branch: Branch | None) -> None:
        """Close a generator in the body that began it; without a branch, its code can make no durable calls."""
        body: Any = began.branch.body
        # The numbers of a body's tasks are those of every life, so a moment that no replay repeats takes none.
        number = next(self._numbers) if branch is None else body.next_task()
        closing = agen.aclose() if branch is not None else _close_without_calls(agen, body.name)
        task = BranchTask(closing, number, loop=self, context=began.context)
        body.add_task(task)
        task.branch = branch

    # -- tasks and threads -------------------------------------------------------------------------------------

    def _make_task(self, loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> BranchTask:
        scope, context = SCOPE.get(), options.get("context")
        if context is not None:
            if scope is None or (SCOPE in context and context.get(SCOPE) is None):
                scope = context.get(SCOPE)  # from perdure itself
            else:
                # From user code: in a copy, as two tasks in one context would each find the other one's trace there.
                options["context"] = _in_scope(context, scope)
        return self._new_task(coro, scope, **options)

    def own_task(self, coro: Any, context: Context) -> BranchTask:
        """A task on behalf of perdure, in the scope of that context and not in that of the calling code."""
        return self._new_task(coro, context.get(SCOPE), context=context)

    def _new_task(self, coro: Any, scope: Any, **options: Any) -> BranchTask:
        if not is_body(scope):
            task = BranchTask(coro, next(self._numbers), loop=self, **options)
            if scope is None:
                # perdure's own, which code that cancels every task that it finds is not to find.
                asyncio._unregister_task(task)
            return task
        if type(coro).__name__ != "async_generator_athrow":
            # But for asyncio's own closing of a generator that a stopped body has left behind.
            scope.check_open()
        task = BranchTask(coro, scope.next_task(), loop=self, **options)
        scope.add_task(task)
        # A durable call's own coroutine took its identity when it was called, and makes no calls on this branch.
        if getattr(coro, "cr_code", None) not in DURABLE_CODE:
            task.branch = fork_for_coroutine(scope.branch_of(asyncio.current_task(self)), coro)
        return task

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        if executor is None:
            executor = self._threads
        scope = SCOPE.get()
        if not is_body(scope):
            return super().run_in_executor(executor, func, *args)
        scope.check_open()
        branch = fork_for_function(scope.branch_of(asyncio.current_task(self)), partial(func, *args))
        slot = None
        if _is_process_pool(executor):
            scope.jobs += 1
            inner = executor.submit(func, *args)
        else:
            slot = Slot(branch)
            scope.thread_begins(slot)
            inner = executor.submit(copy_context().run, _in_slot, slot, func, args)
        job = Job(branch.id, inner, asyncio.Future(loop=self))
        scope.source_begins(job)
        inner.add_done_callback(lambda _: scope.loop.soon(self._job_ended, scope, job, slot))

        def ended(outer: asyncio.Future[Any]) -> None:
            # A job that has begun goes on in its thread although the awaiting task was cancelled.
            if outer.cancelled() and not scope.has_begun(branch):
                inner.cancel()

        job.outer.add_done_callback(ended, context=self.empty)
        return job.outer

    def _job_ended(self, body: Activity, job: Job, slot: Slot | None) -> None:
        job.ripe = True
        if slot is None:
            body.jobs -= 1
        if body.stopped or job.outer.done():
            body.source_gone(job)
            job.happen()
        else:
            body.source_arrives(job)
        # Only now has the thread left: the body is never taken for one that nothing can move.
        if slot is not None:
            body.thread_ends(slot)
        elif body.stirred:
            body.pump()

    # -- file descriptors and subprocesses ---------------------------------------------------------------------

    def _watch(self, fd: Any, what: str) -> None:
        scope = SCOPE.get()
        key = (fd if isinstance(fd, int) else fd.fileno(), what)
        if is_body(scope) and key not in self._fd_bodies:
            self._fd_bodies[key] = scope
            scope.descriptors += 1

    def _unwatch(self, fd: Any, what: str) -> None:
        body = self._fd_bodies.pop((fd if isinstance(fd, int) else fd.fileno(), what), None)
        if body is not None:
            body.descriptors -= 1
            if not body.active and body.stirred:
                self.call_soon_unscoped(body.pump)

    def _add_reader(self, fd: Any, callback: Callable[..., Any], *args: Any) -> Any:
        self._watch(fd, "r")
        return super()._add_reader(fd, callback, *args)  # type: ignore[misc]

    def _remove_reader(self, fd: Any) -> bool:
        self._unwatch(fd, "r")
        return bool(super()._remove_reader(fd))  # type: ignore[misc]

    def _add_writer(self, fd: Any, callback: Callable[..., Any], *args: Any) -> Any:
        self._watch(fd, "w")
        return super()._add_writer(fd, callback, *args)  # type: ignore[misc]

    def _remove_writer(self, fd: Any) -> bool:
        self._unwatch(fd, "w")
        return bool(super()._remove_writer(fd))  # type: ignore[misc]

    async def _make_subprocess_transport(self, *args: Any, **kwargs: Any) -> Any:
        _provide_child_watcher()
        transport = await super()._make_subprocess_transport(*args, **kwargs)  # type: ignore[misc]
        scope = SCOPE.get()
        if is_body(scope):
            scope.subprocesses.append(transport)
        return transport


async def _close_without_calls(agen: Any, body: str) -> None:
    try:
        await agen.aclose()
    except BranchError:
        log.warning(
            "%s: the async generator %s was left open, and the garbage collector has closed it. No replay can repeat "
            "that moment, so a durable call of the generator's `finally` was not made. Close the generator yourself: "
            "async with contextlib.aclosing(generator)",
            body, agen.__qualname__,
        )  # fmt: skip


def _shared(method: str, remedy: str) -> UsageError:
    return UsageError(f"loop.{method}() is refused: all runs of this process share perdure's event loop; {remedy}")


def _adopted(context: Context) -> tuple[Context, Any]:
    """A context in which a callback runs that was given a context without a word of a scope: by user code."""
    scope = SCOPE.get()
    return (context if scope is None else _in_scope(context, scope)), scope


def _in_scope(context: Context, scope: Any) -> Context:
    """A copy of the context, with that scope."""
    context = context.copy()
    context.run(SCOPE.set, scope)
    return context


def _body_of(scope: Any) -> Activity | None:
    body: Any = scope.body if isinstance(scope, TraceScope) else scope
    found: Activity | None = body
    return found


def _body_in(context: dict[str, Any]) -> Activity | None:
    """The body where the error of an exception context happened, as far as the context tells."""
    handle = context.get("handle")
    if handle is not None:
        return _body_of(handle._context.get(SCOPE))
    branch = getattr(context.get("task", context.get("future")), "branch", None)
    return branch.body if branch is not None else _body_of(SCOPE.get())


def _provide_child_watcher() -> None:
    """Let subprocesses start where the policy of the event loop (uvloop's, for instance) gives no child watcher.
    Python 3.14 asks the policy no longer."""
    if sys.version_info < (3, 14):
        policy = asyncio.get_event_loop_policy()
        kind = type(policy)
        if getattr(kind, "get_child_watcher", None) is asyncio.AbstractEventLoopPolicy.get_child_watcher:
            watcher = asyncio.ThreadedChildWatcher()
            policy.get_child_watcher = lambda: watcher  # type: ignore[method-assign]


DURABLE_CODE: set[Any] = set()
"""Code objects of the coroutines that durable calls return."""


def _in_slot(slot: Slot, func: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    outer, THREAD.slot = THREAD.slot, slot
    try:
        return func(*args)
    finally:
        THREAD.slot = outer


def _is_process_pool(executor: Any) -> bool:
    # By name, because importing the class would import multiprocessing.
    return any(cls.__name__ == "ProcessPoolExecutor" for cls in type(executor).__mro__)


class LoopThread:
    """A `PerdureLoop` on a daemon thread of its own. Bodies never run on a caller's loop."""

    def __init__(self, name: str, threads: Executor) -> None:
        # In a context of its own: made from inside a body, its pipe would count as one of that body's descriptors.
        self.loop = Context().run(PerdureLoop, threads)
        self.blocked = 0
        """How many synchronous durable calls block this loop's thread right now; new bodies then go elsewhere."""
        self._ending = False
        self._left_behind: set[asyncio.Task[Any]] = set()
        started = threading.Event()
        self._thread = threading.Thread(target=self._main, args=(started,), name=name, daemon=True)
        self._thread.start()
        started.wait()
        self.ident = self._thread.ident

    def _main(self, started: threading.Event) -> None:
        SCOPE.set(None)
        asyncio.set_event_loop(self.loop)
        self.loop.call_soon(started.set)
        while True:
            try:
                self.loop.run_forever()
            except (SystemExit, KeyboardInterrupt) as error:
                # A task of a body raised it. The body gets it as a failure; other runs on this loop must go on.
                log.debug("an asyncio task raised %r; the loop goes on", error)
            except BaseException:
                log.exception("the event loop was interrupted by an error and goes on")
            if self._ending:
                return

    def here(self) -> bool:
        """Whether the calling thread is this loop's."""
        return threading.get_ident() == self.ident

    def soon(self, callback: Callable[..., Any], *args: Any) -> None:
        """Run `callback` on the loop, outside any scope; from any thread."""
        if threading.get_ident() == self.ident:
            self.loop.call_soon_unscoped(callback, *args)
        else:
            self.loop.call_soon_threadsafe(callback, *args, context=self.loop.empty)

    def flush_soon(self, writer: Flushes) -> None:
        """Have `writer` commit at the end of this iteration. On the loop's thread only."""
        self.loop.flush_due = writer

    def later(self, seconds: float, callback: Callable[..., Any], *args: Any) -> None:
        """Run `callback` on the loop after `seconds`, outside any scope; from any thread."""
        self.soon(self._later, seconds, callback, args)

    def _later(self, seconds: float, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.loop.call_later(seconds, callback, *args, context=self.loop.empty)

    def keep(self, tasks: list[asyncio.Task[Any]]) -> None:
        """Tasks that were cancelled and have not ended stay as they are: were they collected, they would be made to
        end once more, and code that swallows that, too, would go on for ever in the thread that collects garbage."""
        self._left_behind.update(task for task in tasks if not task.done())

    def stop(self) -> None:
        """End the thread; for tests and interpreter shutdown."""
        self._left_behind = {task for task in self._left_behind if not task.done()}
        if self._left_behind:
            # The thread lives as long as the process, and what it holds with it.
            return
        self._ending = True
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)
