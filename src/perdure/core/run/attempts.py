"""Attempts: executing a task's body until it succeeds, fails for good, or the run is no longer driven here.

A crash makes a new attempt by itself: the body is simply executed again against its journal. A failure is charged to
the task's `retries`; what it discards (the entries whose exceptions escaped), the attempt's number and the deadline
of the backoff go to disk in one transaction before anybody acts on them. After a failure, what was recorded stays
reusable but binds nobody: the next attempt may take another path (`Replay`, loose entries).
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Generator
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, NoReturn

from ...errors import (
    AttemptsLostError,
    NonDeterminismError,
    NonRecoverableError,
    PerdureError,
    RunStopped,
    TaskTimeoutError,
    UsageError,
)
from ..body.body import Body
from ..body.loop import DURABLE_CODE, BranchTask
from ..body.scope import SCOPE, THREAD, Slot
from ..body.waits import BLOCKING, Sleeper
from ..commit.writer import Mark
from ..ground.clock import Deadline
from ..ground.model import Action, ActionState, CachePut, Result, Run
from ..ground.spec import AttemptLost, TaskSpec
from ..ground.values import encode_error, held_by, linked, preview, tame, text_of

if TYPE_CHECKING:
    from .driver import Driver
    from .elsewhere import Failure

log = logging.getLogger("perdure")

LOSSES = 5
"""Attempts in a row whose machine or engine is lost before the next loss is charged as a failure."""
LATE_SECONDS = 300.0
"""How long it may take to find out whether an attempt that is joined after its deadline has ended before it."""
ENDED = b""
"""What the row of a detached attempt holds that has its outcome, or whose caller has: nobody joins it any more."""
LOSS_PAUSE = 0.1
"""Seconds before the attempt after the first loss; twice as long after each further one."""

Final = tuple[int, bytes, Any, tuple[Any, ...]]
"""`(Result, encoded value or error, the live value or error, rows to be committed together with the outcome)`."""


def attempts(
    driver: Driver,
    spec: TaskSpec,
    action: Action,
    inputs: bytes,
    *,
    parent: Body | None,
    floor: int,
    recorded: bool,
    stored: bool = True,
) -> Generator[Any, Any, Final]:
    """The protocol of a task: see the module text.

    `recorded`: the store may hold something of this action already. `stored`: the action has a row (the root task
    gets one only when there is something to say).
    """
    # The driver cannot tell from the bodies alone that something is going on between two attempts.
    driver.busy.append(None)
    try:
        return (
            yield from _attempts(
                driver, spec, action, inputs, parent=parent, floor=floor, recorded=recorded, stored=stored
            )
        )
    finally:
        driver.busy.pop()


def _attempts(
    driver: Driver,
    spec: TaskSpec,
    action: Action,
    inputs: bytes,
    *,
    parent: Body | None,
    floor: int,
    recorded: bool,
    stored: bool,
) -> Generator[Any, Any, Final]:
    from .calls import Durable, deadline_of

    outer = driver.outer
    if outer is not None and outer.takes(spec):
        assert parent is not None
        final: Final = yield from outer.attempts(spec, action, inputs, parent=parent, floor=floor, recorded=recorded)
        return final
    attempt, failures = action.attempt, action.failures
    deadline = deadline_of(action)
    begun = deadline is None or deadline.remaining(driver.worker.clock) <= 0
    losses = 0
    detached = spec.dispose is not None
    kind = _stand_in() if spec.process else Body
    joined = bool(action.state)
    continues = driver.continues(action.action) and not detached
    if recorded and begun and not joined and not continues:
        # A crash made this attempt; the row says so as soon as something is committed anyway. A detached one gets a
        # number of its own too: whoever began the last one may not be dead but frozen, or still clear up behind it.
        attempt += 1
        driver.outbox.append(_state(action, attempt, failures, deadline, stored))
        stored = True
    limit = deadline if joined else None
    if joined:
        deadline = None
    while True:
        loop = driver.worker.loop_for(driver)
        body = driver.open_body(
            parent, action.action, spec.name, loop, floor=floor, label=action.label, recorded=recorded, kind=kind
        )
        if continues:
            continues = False
            body.resume()
        try:
            if deadline is not None:
                # Nothing of this body can be asked for before that is over, and nobody else has to wait for it.
                driver.loop_blocked(body, True)
                body.pausing = True
                yield from _idle(driver, Sleeper(body, deadline))
                body.pausing = False
                driver.loop_blocked(body, False)
                deadline = None
            attached: Attached | None = None
            execution: Any
            if spec.process:
                execution = _elsewhere(body, spec, action, inputs, attempt, floor, recorded=recorded)
            else:
                try:
                    args, kwargs = spec.signature.decode_inputs(inputs)
                except UsageError as misfit:
                    raise unreadable(driver, spec.name, inputs, misfit) from None
                timeout = spec.timeout
                if detached:
                    if not joined and timeout is not None:
                        limit = Deadline.after(timeout, driver.worker.clock)
                    if not joined:
                        # From here on, what carries this number outside of this process is ours.
                        yield Durable(body)
                    attached = Attached(body, spec, action, attempt, failures, limit, stored, joined)
                    args = (attached, *args)
                    timeout = attached.seconds_left
                    if joined and timeout == 0:
                        # It may have ended in time; it will not run on.
                        timeout = LATE_SECONDS
                    joined = False
                execution = Execute(body, spec, args, kwargs, attempt, timeout)
            outcome, value = yield from _idle(driver, execution)
            if attached is not None:
                stored = attached.stored
            if driver.stopping:
                raise driver.stopped_error()
            if outcome == Result.VALUE:
                try:
                    data, copy = _returned(spec, value)
                except UsageError as misfit:
                    outcome, value = Result.ERROR, misfit
                else:
                    if driver.ended_unasked(body):
                        raise driver.stopped_error()
                    extra = driver.ended(action.action)
                    if attached is not None and attached.cached_under is not None:
                        extra.append(CachePut(attached.cached_under, data, driver.worker.clock.wall()))
                    return Result.VALUE, data, copy, tuple(extra)
            elif body.idle_replaying and driver.ended_unasked(body):
                raise driver.stopped_error()
        finally:
            driver.close_body(body)
        error = value
        assert isinstance(error, BaseException)
        if isinstance(error, AttemptLost):
            losses += 1
            if losses < LOSSES:
                deadline = Deadline.after(LOSS_PAUSE * 2**losses, driver.worker.clock)
                log.warning("%s: attempt %d was lost (%s); trying again", spec.name, attempt, error)
                attempt += 1
                yield Durable(body, _state(action, attempt, failures, deadline, stored))
                driver.settled(action.action, final=False)
                stored = recorded = True
                continue
            error = AttemptsLostError(f"{spec.name}: {losses} attempts were lost, the last one because {error}")
        losses = 0
        marks = _marks(driver, action.action, error)
        failures += 1
        attempt += 1
        retries = spec.retries
        if failures > retries.count or is_final(error):
            # The next attempt, if a `resume` or the parent's own retry makes one, begins with its retries unused.
            ended = ENDED if detached else None
            marks = (*marks, *driver.ended(action.action), _state(action, attempt - 1, 0, None, stored, ended))
            return Result.ERROR, _encoded(error), error, marks
        pause = retries.backoff.seconds(failures) if retries.backoff is not None else 0.0
        deadline = Deadline.after(pause, driver.worker.clock) if pause > 0 else None
        log.warning(
            "%s failed (attempt %d of %d), %s: %s: %s", spec.name, failures, retries.count + 1,
            f"next in {pause:.3g} s" if pause else "trying again", type(error).__name__, text_of(error),
        )  # fmt: skip
        yield Durable(body, *marks, _state(action, attempt, failures, deadline, stored))
        driver.settled(action.action, final=False)
        stored = True
        recorded = True


def unreadable(driver: Driver, name: str, recorded: bytes, misfit: UsageError) -> RunStopped:
    """Stop the run because today's declarations cannot read what is recorded (P5), and give what user code gets."""
    expected = f"{name}: {preview(recorded)}"
    driver.stop(
        NonDeterminismError(
            "What this run has recorded does not fit the type that is declared for it today.\n"
            f"  expected: {expected}\n"
            f"  received: {misfit}\n"
            "Restore the declaration under which the value was recorded, or give a field that was added a default. The "
            "run is unharmed: it stays interrupted and continues as soon as the declaration fits.",
            expected=expected,
            received=str(misfit),
        )
    )
    return driver.stopped_error()


def _idle(driver: Driver, effect: Any) -> Generator[Any, Any, Any]:
    """An effect during which the body shows what is going on."""
    driver.busy.pop()
    try:
        return (yield effect)
    finally:
        driver.busy.append(None)


def _state(
    action: Action, attempt: int, failures: int, deadline: Deadline | None, stored: bool, state: bytes | None = None
) -> Action | ActionState:
    wall, boot, boot_id = deadline if deadline is not None else (None, None, None)
    if not stored:
        return action._replace(
            attempt=attempt, failures=failures, wake_at=wall, wake_boot=boot, boot=boot_id, state=state
        )
    return ActionState(action.run, action.parent, action.action, attempt, failures, wall, boot, boot_id, state)


def _stand_in() -> type[Body]:
    # Not loaded by who has no such task.
    from .elsewhere import StandIn

    return StandIn


def _elsewhere(body: Any, spec: TaskSpec, *rest: Any, recorded: bool) -> Any:
    make = body.driver.worker.elsewhere
    assert make is not None
    return make(spec.executor).execution(body, spec, *rest, recorded=recorded)


def _failure_of(error: BaseException) -> Failure | None:
    """How an attempt failed in another process; `None` for an exception that was raised here."""
    return getattr(error, "__perdure_failure__", None)


def _returned(spec: TaskSpec, value: Any) -> tuple[bytes, Any]:
    """What a body returned, as bytes and as its caller gets it."""
    returns = spec.signature.returns
    return (value, returns.decode(value)) if spec.process else returns.roundtrip(value)


def _encoded(error: BaseException) -> bytes:
    failure = _failure_of(error)
    return encode_error(error) if failure is None else failure.data


def is_final(error: BaseException) -> bool:
    """Whether retrying is pointless: the user said so, or the call or declaration itself is wrong."""
    failure = _failure_of(error)
    if failure is not None:
        return failure.final
    return isinstance(error, (NonRecoverableError, UsageError)) or getattr(error, "recoverable", True) is False


def _marks(driver: Driver, action: int, error: BaseException) -> tuple[Any, ...]:
    """Tombstones for the entries whose exception escaped, and the point from which the journal no longer binds."""
    failure = _failure_of(error)
    discards = failure.discards if failure is not None else escaped(error, driver.run.uid, action)
    low = discards[0] if discards else 0
    return (*(Mark(action, Result.DISCARD, n) for n in discards), Mark(action, Result.LOOSEN, low))


def escaped(error: BaseException, run: bytes, action: int) -> list[int]:
    """The entries of this body in an exception's cause, context and group tree."""
    found: set[int] = set()
    seen: set[int] = set()
    stack = [error]
    while stack:
        current = stack.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        tagged = held_by(current).get("__perdure_entry__")
        if tagged is not None and tagged[0] == run and tagged[1] == action:
            found.add(tagged[2])
        stack += linked(current)
    return sorted(found)


# -- attempts outside of this process --------------------------------------------------------------------------


class Attached:
    """`detached.Detached`, attached to the body that stands for it here."""

    def __init__(
        self,
        body: Body,
        spec: TaskSpec,
        action: Action,
        attempt: int,
        failures: int,
        limit: Deadline | None,
        stored: bool,
        joined: bool,
    ) -> None:
        self.body = body
        self.spec = spec
        self.attempt = attempt
        self.stored = stored
        self.state = action.state if joined else None
        self.cached_under: bytes | None = None
        self._row = action
        self._failures = failures
        self._limit = limit
        self.within = {action.action}
        """The action and all that it is part of: when one of them has its outcome, this has no purpose any more."""
        parent = body.parent
        while parent is not None:
            self.within.add(parent.action)
            parent = parent.parent
        body.driver.attach(self)

    @property
    def run(self) -> Run:
        """See `Detached`."""
        return self.body.driver.run

    @property
    def action(self) -> int:
        """See `Detached`."""
        return self._row.action

    @property
    def token(self) -> bytes:
        """See `Detached`."""
        return self.body.driver.token

    @property
    def seconds_left(self) -> float | None:
        """See `Detached`."""
        if self._limit is None:
            return None
        return max(0.0, self._limit.remaining(self.body.driver.worker.clock) / 1_000_000)

    async def keep(self, state: bytes) -> None:
        """See `Detached`."""
        from .calls import Durable

        if self.body.stopped:
            # The attempt has timed out, say, and its row is another's by now.
            raise self.body.driver.stopped_error()
        row = _state(self._row, self.attempt, self._failures, self._limit, self.stored, state)
        self.stored = True
        await Durable(self.body, row)

    def ended(self) -> Action | ActionState | None:
        """The row that says that nobody joins this attempt any more; `None`: nobody could."""
        return _state(self._row, self.attempt, self._failures, None, True, ENDED) if self.stored else None

    def cached(self, key: bytes) -> bytes | None:
        """See `Detached`."""
        return self.body.driver.worker.store.cache_get(key)

    def suspend(self, reason: PerdureError) -> NoReturn:
        """See `Detached`."""
        self.body.driver.stop(reason)
        raise self.body.driver.stopped_error()


# -- executing a body ------------------------------------------------------------------------------------------


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
        self.spec = spec
        self.args = args
        self.kwargs = kwargs
        self.attempt = attempt
        self.timeout = timeout
        body.attempt = attempt
        body.limited = timeout is not None
        if spec.env_vars:
            # Bodies share this process, and so its environment.
            os.environ.update(spec.env_vars)

    # -- from an event loop ------------------------------------------------------------------------------------

    def __await__(self) -> Generator[Any, Any, tuple[int, Any]]:
        return self._run().__await__()

    async def _run(self) -> tuple[int, Any]:
        body, timeout = self.body, self.timeout
        future: asyncio.Future[tuple[int, Any]]
        if self.spec.is_async and body.loop.here():
            future = self._make_task(copy_context())
        elif self.spec.is_async:
            context = copy_context()
            future = asyncio.wrap_future(body.driver.worker.call_on_loop(body.loop, lambda: self._make_task(context)))
        else:
            future = asyncio.wrap_future(self._submit(copy_context()))
        timer = None
        if timeout is not None:
            # On the loop that waits, which need not be the body's, and in a context without a scope.
            timer = asyncio.get_running_loop().call_later(timeout, self._time_out, future, context=Context())
        try:
            outcome = await self._outcome(future)
        except RunStopped:
            if not body.timed_out or body.driver.stopping:
                raise
            outcome = Result.ERROR, None
        finally:
            if timer is not None:
                timer.cancel()
        # Whatever came back after the timeout: the body could no longer make a durable call.
        return (Result.ERROR, self._timeout_error()) if body.timed_out else outcome

    async def _outcome(self, future: asyncio.Future[tuple[int, Any]]) -> tuple[int, Any]:
        """Wait for the body, and pass a cancellation by the caller on to it."""
        body = self.body
        asked = 0
        while True:
            try:
                # Shielded, because a cancellation takes its turn in the body (B7) and does not strike it at once.
                return await (asyncio.shield(future) if isinstance(future, BranchTask) else future)
            except asyncio.CancelledError as error:
                if body.driver.stopping:
                    raise body.driver.stopped_error() from None
                current = asyncio.current_task()
                cancelling = current.cancelling() if current is not None else 0
                if not cancelling:
                    return Result.ERROR, error
                if future.done() or body.stopped or not isinstance(future, BranchTask):
                    body.close()
                    raise
                if cancelling > asked:
                    asked = cancelling
                    body.cancel_by_caller(future)

    def _time_out(self, future: asyncio.Future[Any]) -> None:
        body = self.body
        body.timed_out = body.abandoned = body.driver.abandoning = True
        body.close()
        future.cancel()

    def _timeout_error(self) -> TaskTimeoutError:
        return TaskTimeoutError(f"task {self.spec.name} took longer than its timeout of {self.spec.timeout:g} s")

    def _make_task(self, context: Context) -> BranchTask:
        body = self.body
        context.run(SCOPE.set, body)
        task = body.loop.loop.create_task(self._main(), context=context)
        assert isinstance(task, BranchTask)
        task.branch = body.root
        body.starting = False
        return task

    async def _main(self) -> tuple[int, Any]:
        body = self.body
        try:
            value = await self.spec.fn(*self.args, **self.kwargs)
        except (asyncio.CancelledError, RunStopped):
            raise
        except GeneratorExit as error:
            if getattr(asyncio.current_task(), "branch", None) is not body.root:
                raise  # the garbage collector closes the coroutine
            outcome: tuple[int, Any] = (Result.ERROR, tame(error))
        except BaseException as error:
            outcome = (Result.ERROR, tame(error))
        else:
            outcome = (Result.VALUE, value)
        body.returned = True
        await self._reap(body)
        return outcome

    async def _reap(self, body: Body) -> None:
        """The body has ended; tasks that it left behind end with it, as with `asyncio.run`."""
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
        if not self.spec.is_async and self.timeout is None and not on_loop and not _deep():
            return self._inline(copy_context())
        worker = body.driver.worker
        if self.spec.is_async:
            context = copy_context()
            future = worker.call_on_loop(body.loop, lambda: self._make_task(context))
        else:
            future = self._submit(copy_context())
        try:
            outcome: tuple[int, Any] = worker.join(
                future, THREAD.slot if not on_loop else None, self.timeout, shown=True
            )
            return outcome
        except TimeoutError:
            if future.done():
                ended: tuple[int, Any] = future.result()
                return ended
            body.timed_out = body.abandoned = body.driver.abandoning = True
            body.close()
            return Result.ERROR, self._timeout_error()
        except asyncio.CancelledError as error:
            if body.driver.stopping:
                raise body.driver.stopped_error() from None
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

    def _submit(self, context: Context) -> Any:
        slot = Slot(self.body.root)
        self.body.thread_begins(slot)
        return self.body.driver.worker.threads.submit(context.run, self._in_thread, slot)

    def _in_thread(self, slot: Slot) -> tuple[int, Any]:
        body = self.body
        SCOPE.set(body)
        outer, THREAD.slot = THREAD.slot, slot
        body.starting = False
        depth, BLOCKING.depth = BLOCKING.depth, 0
        try:
            value = self.spec.fn(*self.args, **self.kwargs)
        except RunStopped:
            raise
        except BaseException as error:
            return Result.ERROR, tame(error)
        else:
            return Result.VALUE, value
        finally:
            body.returned = True
            BLOCKING.depth = depth
            THREAD.slot = outer
            body.thread_ends(slot)


def _deep() -> bool:
    """Whether much of this thread's stack is used up: the next body then begins a thread, and a stack, of its own."""
    try:
        sys._getframe(sys.getrecursionlimit() // 3)
    except ValueError:
        return False
    return True


DURABLE_CODE.add(Execute._main.__code__)
