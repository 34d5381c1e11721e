"""Attempts: executing a task's body until the body succeeds, fails for good, or the run is no longer driven here.

A crash makes a new attempt by itself: the body is executed again against its journal. A failure is charged to the
task's `retries`. The discarded entries (whose exceptions escaped), the number of the attempt and the deadline of the
backoff go to disk in one transaction before any code acts on them. After a failure, recorded entries stay reusable but
bind no longer: the next attempt may take another path (`Replay`, loose entries).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator
from typing import Any

from ...errors import (
    AttemptsLostError,
    BodyDiedError,
    NonDeterminismError,
    RunCancelledError,
    RunStopped,
    UsageError,
)
from ..body.body import Body
from ..body.branch import path_below
from ..body.interfaces import ParentPort
from ..body.waits import HeldSlot, Sleeper
from ..commit.records import Mark
from ..ground.clock import Deadline
from ..ground.model import Action, ActionState, CachePut, Result
from ..ground.spec import AttemptLost, LimitUse, TaskSpec
from ..ground.values import encode_error, held_by, linked, preview
from . import observing
from .attached import ENDED, Attached, deadline_of, state_row
from .driver import Driver
from .effects import Durable
from .execute import Execute
from .interfaces import Origin
from .limits import cost_of, place_of_task, slot_wait
from .retrying import failure_of, log_retry, next_pause

log = logging.getLogger("perdure")

LOSSES = 5
"""Attempts in a row whose machine or engine is lost before the next loss is charged as a failure."""
LATE_SECONDS = 300.0
"""Time to find out whether an attempt joined after its deadline had ended before the deadline."""
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
    parent: ParentPort | None,
    floor: int,
    recorded: bool,
    stored: bool = True,
) -> Generator[Any, Any, Final]:
    """The protocol of a task: see the module text.

    `recorded`: the store may hold rows of this action already. `stored`: the action has a row (the root task gets a row
    only when there is something to note).
    """
    # The driver cannot tell from the bodies alone that something is going on between two attempts.
    driver.works(1)
    try:
        outer = driver.outer
        if outer is not None and outer.takes(spec):
            assert parent is not None
            there: Final = yield from outer.attempts(
                spec, action, inputs, parent=parent, floor=floor, recorded=recorded
            )
            return there
        series = _Attempts(driver, spec, action, inputs, parent=parent, floor=floor, recorded=recorded, stored=stored)
        if observing.observer is not None:
            above = None if parent is None else parent.action
            return (yield from _observed(series, observing.observer.begins(driver, spec, action.action, above)))
        while (final := (yield from series.next())) is None:
            pass
        return final
    finally:
        driver.works(-1)


def _observed(series: _Attempts, action: observing.ActionObserver) -> Generator[Any, Any, Final]:
    """All attempts of an action, with an observer."""
    final: Final | None = None
    try:
        while final is None:
            action.attempt(series.number)
            final = yield from series.next()
        action.ended(final[0], final[2])
        return final
    except BaseException as error:
        action.left(error)
        raise


class _Attempts:
    """The attempts of one action in this process: the number of the present attempt, and what the attempts before have
    left behind."""

    def __init__(
        self,
        driver: Driver,
        spec: TaskSpec,
        action: Action,
        inputs: bytes,
        *,
        parent: ParentPort | None,
        floor: int,
        recorded: bool,
        stored: bool,
    ) -> None:
        self._driver = driver
        self._spec = spec
        self._action = action
        self._inputs = inputs
        self._parent = parent
        self._floor = floor
        self._recorded = recorded
        self._stored = stored
        self._elsewhere = spec.process and not driver.rehearses
        self._number = action.attempt
        self._failures = action.failures
        self._losses = 0
        """Attempts in a row whose machine or engine was lost."""
        self._deadline = deadline_of(action)
        """The end of the pause before the present attempt."""
        self._limit: Deadline | None = None
        """The end of the time that the present attempt may take, if the attempt is detached."""
        self._attached: Attached | None = None
        """The present attempt, if it is detached."""
        self._joined = bool(action.state)
        """The present attempt is detached and runs already."""
        self._continues = driver.continues(action.action) and spec.dispose is None
        begun = self._deadline is None or self._deadline.remaining(driver.worker.clock) <= 0
        if recorded and begun and not self._joined and not self._continues:
            # A crash made this attempt; the row is updated soon, so that a further crash counts as well. A detached
            # attempt gets a new number too: the process behind the last attempt may be frozen rather than dead, or
            # still be clearing up.
            self._number += 1
            driver.outbox.append(self._row())
            driver.worker.flush_lazily(driver)
            self._stored = True
        if self._joined:
            self._limit, self._deadline = self._deadline, None

    def _row(self) -> Action | ActionState:
        return state_row(self._action, self._number, self._failures, self._deadline, self._stored)

    @property
    def number(self) -> int:
        """Of the present attempt, from 1."""
        return self._number

    def next(self) -> Generator[Any, Any, Final | None]:
        """Execute the present attempt. Gives the final outcome; `None`: a further attempt follows."""
        ended = yield from self.execute()
        return (yield from self.failed(ended)) if isinstance(ended, BaseException) else ended

    def execute(self) -> Generator[Any, Any, Final | BaseException]:
        """Execute the body once, after the pause. Gives the final outcome, or the exception that ended the attempt."""
        driver, spec, action = self._driver, self._spec, self._action
        body = self._body = driver.open_body(
            self._parent, action.action, spec.name, driver.worker.loop_for(driver),
            floor=self._floor, label=action.label, recorded=self._recorded,
            kind=_stand_in() if self._elsewhere else Body,
        )  # fmt: skip
        if self._parent is not None:
            body.path = path_below(self._parent.path, action.branch, action.fp, action.occ)
        if self._continues:
            self._continues = False
            body.resume()
        slot: HeldSlot | None = None
        try:
            if self._deadline is not None:
                yield from self._pause(body, self._deadline)
                self._deadline = None
                if driver.cancel is not None and self._parent is None:
                    # The code of the last attempt has had its end; a further one would only be cancelled.
                    body.cancel_delivered = body.addressed = True
                    return driver.cancelled_error()
            if spec.limit is not None and not driver.rehearses:
                slot = yield from self._slot(body, spec.limit)
                if slot is None:
                    body.cancel_delivered = body.addressed = True
                    return driver.cancelled_error()
            execution: Any
            if self._elsewhere:
                execution = _elsewhere(
                    body, spec, action, self._inputs, self._number, self._floor, recorded=self._recorded
                )
            else:
                execution = yield from self._here(body)
            outcome, value = yield from _idle(driver, execution)
            if self._attached is not None:
                self._stored = self._attached.stored
            if driver.stopping:
                raise driver.stopped_error()
            return self._judge(body, outcome, value)
        finally:
            if slot is not None:
                driver.worker.slots.give_back(slot)
            driver.close_body(body)

    def _pause(self, body: Body, deadline: Deadline) -> Generator[Any, Any, None]:
        yield from self._before(body, Sleeper(body, deadline))

    def _before(self, body: Body, effect: Any) -> Generator[Any, Any, Any]:
        """An effect before the code begins."""
        # No call of this body can come before the effect is over, and no other body has to wait for this one.
        driver = self._driver
        driver.loop_blocked(body, True)
        body.pausing = True
        answer = yield from _idle(driver, effect)
        body.pausing = False
        driver.loop_blocked(body, False)
        return answer

    def _slot(self, body: Body, use: LimitUse) -> Generator[Any, Any, HeldSlot | None]:
        """A slot of the limit of the task; `None`: the run is being cancelled."""
        cost: Any = 1
        if use.cost is not None:
            cost = cost_of(self._spec, *self._spec.signature.decode_inputs(self._inputs))
        wait = slot_wait(body, use, place_of_task(self._action.action), cost)
        slot: HeldSlot | None = yield from self._before(body, wait)
        body.slot = slot
        return slot

    def _here(self, body: Body) -> Generator[Any, Any, Execute]:
        """The execution of the body in this process."""
        spec, inputs = self._spec, self._inputs
        self._attached = None
        try:
            args, kwargs = spec.signature.decode_inputs(inputs)
        except UsageError as misfit:
            raise unreadable(self._driver, spec.name, inputs, misfit) from None
        timeout = spec.timeout
        if spec.dispose is not None:
            if not self._joined and timeout is not None:
                self._limit = Deadline.after(timeout, self._driver.worker.clock)
            if not self._joined:
                # From here on, containers and pods with this number belong to this process.
                yield Durable(body)
            attached = self._attached = Attached(
                body, spec, self._action, self._number, self._failures, self._limit, self._stored, self._joined
            )
            args = (attached, *args)
            timeout = attached.seconds_left
            if self._joined and timeout == 0:
                # The attempt may have ended in time; it will not run on.
                timeout = LATE_SECONDS
            self._joined = False
        return Execute(body, spec, args, kwargs, self._number, timeout)

    def _judge(self, body: Body, outcome: int, value: Any) -> Final | BaseException:
        """The final outcome of an attempt whose body has ended, or the exception that the attempt fails with."""
        driver, action = self._driver, self._action
        if outcome != Result.VALUE:
            if body.idle_replaying and driver.ended_unasked(body):
                raise driver.stopped_error()
            assert isinstance(value, BaseException)
            return value
        try:
            data, copy = _returned(self._spec, value, elsewhere=self._elsewhere)
        except UsageError as misfit:
            return misfit
        if driver.ended_unasked(body):
            raise driver.stopped_error()
        extra = driver.attached.ended(action.action)
        if self._attached is not None and self._attached.cached_under is not None:
            extra.append(CachePut(self._attached.cached_under, data, driver.worker.clock.wall()))
        return Result.VALUE, data, copy, tuple(extra)

    def failed(self, error: BaseException) -> Generator[Any, Any, Final | None]:
        """An attempt has ended by `error`. Gives the final outcome; `None`: the next attempt may begin."""
        clock, spec = self._driver.worker.clock, self._spec
        if self._body.cancel_delivered and self._body.addressed:
            return self._cancelled(error)
        if isinstance(error, AttemptLost):
            self._losses += 1
            if self._losses < LOSSES:
                self._deadline = None
                if self._driver.cancel is None:
                    self._deadline = Deadline.after(LOSS_PAUSE * 2**self._losses, clock)
                log.warning("%s: attempt %d was lost (%s); trying again", spec.name, self._number, error)
                self._number += 1
                yield from self._announce()
                return None
            error = AttemptsLostError(f"{spec.name}: {self._losses} attempts were lost, the last one because {error}")
        self._losses = 0
        marks = _marks(self._driver, self._action.action, error)
        self._failures += 1
        pause = next_pause(spec.retries, self._failures, error, clock.wall())
        if pause is None:
            return self._given_up(error, marks)
        if isinstance(error, BodyDiedError) and self._driver.cancel is not None:
            # The code may not have had its end: its cleanup goes on, without a pause that the cancellation would end.
            pause = 0.0
        self._number += 1
        self._deadline = Deadline.after(pause, clock) if pause > 0 else None
        log_retry(spec.name, spec.retries, self._failures, pause, error)
        # In the commit that begins the pause, so the error is on disk for as long as a person may ask for it (RT1).
        marks[-1].error, marks[-1].at = _encoded(error), clock.wall()
        yield from self._announce(*marks)
        return None

    def _cancelled(self, error: BaseException) -> Final:
        """The end of an attempt whose code has heard of the cancellation of the run: nothing is retried."""
        marks: tuple[Mark, ...] = ()
        if isinstance(error, asyncio.CancelledError):
            error = self._driver.cancelled_error().with_traceback(error.__traceback__)
        elif not isinstance(error, RunCancelledError):
            # A `resume` may try the cleanup again.
            marks = _marks(self._driver, self._action.action, error)
        return self._given_up(error, marks)

    def _announce(self, *marks: Mark) -> Generator[Any, Any, None]:
        """Get the number and the pause of the next attempt onto disk, with the marks of the last attempt."""
        yield Durable(self._body, *marks, self._row())
        self._driver.attached.settled(self._action.action, final=False)
        self._stored = self._recorded = True

    def _given_up(self, error: BaseException, marks: tuple[Mark, ...]) -> Final:
        # The next attempt, if a `resume` or the parent's own retry makes one, begins with its retries unused.
        ended = ENDED if self._spec.dispose is not None else None
        row = state_row(self._action, self._number, 0, None, self._stored, ended)
        attached = self._driver.attached.ended(self._action.action)
        return Result.ERROR, _encoded(error), error, (*marks, *attached, row)


def unreadable(driver: Driver, name: str, recorded: bytes, misfit: UsageError) -> RunStopped:
    """Stop the run because today's declarations cannot read a recorded value (P5), and give the error for user code."""
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
    driver.works(-1)
    try:
        return (yield effect)
    finally:
        driver.works(1)


def _stand_in() -> type[Body]:
    # Not loaded by who has no such task.
    from .remote_body import StandIn

    return StandIn


def _elsewhere(body: Any, spec: TaskSpec, *rest: Any, recorded: bool) -> Any:
    make = body.driver.worker.elsewhere
    assert make is not None
    return make(spec.executor).execution(body, spec, *rest, recorded=recorded)


def _returned(spec: TaskSpec, value: Any, *, elsewhere: bool) -> tuple[bytes, Any]:
    """The returned value of a body, as bytes and as the caller gets it."""
    returns = spec.signature.returns
    return (value, returns.decode(value)) if elsewhere else returns.roundtrip(value)


def _encoded(error: BaseException) -> bytes:
    failure = failure_of(error)
    return encode_error(error) if failure is None else failure.data


def _marks(driver: Driver, action: int, error: BaseException) -> tuple[Mark, ...]:
    """Tombstones for the entries whose exception escaped, and the point from which the journal no longer binds."""
    failure = failure_of(error)
    discards = failure.discards if failure is not None else escaped(error, driver.run.uid, action)
    low = discards[0] if discards else 0
    return (*(Mark(action, Result.DISCARD, n) for n in discards), Mark(action, Result.FAILED, low))


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
        if isinstance(tagged, Origin) and tagged.run == run and tagged.action == action:
            found.update(tagged.entries)
        stack += linked(current)
    return sorted(found)
