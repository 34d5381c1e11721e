"""Attempts: executing a task's body until the body succeeds, fails for good, or the run is no longer driven here.

A crash makes a new attempt by itself: the body is executed again against its journal. A failure is charged to the
task's `retries`. The discarded entries (whose exceptions escaped), the number of the attempt and the deadline of the
backoff go to disk in one transaction before any code acts on them. After a failure, recorded entries stay reusable but
bind no longer: the next attempt may take another path (`Replay`, loose entries).
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from typing import Any

from ...errors import (
    AttemptsLostError,
    NonDeterminismError,
    NonRecoverableError,
    RunStopped,
    UsageError,
)
from ..body.body import Body
from ..body.interfaces import ParentPort
from ..body.waits import Sleeper
from ..commit.records import Mark
from ..ground.clock import Deadline
from ..ground.model import Action, CachePut, Result
from ..ground.spec import AttemptLost, TaskSpec
from ..ground.values import encode_error, held_by, linked, preview, text_of
from .attached import ENDED, Attached, deadline_of, state_row
from .driver import Driver
from .effects import Durable
from .execute import Execute
from .interfaces import Failure

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
        return (
            yield from _attempts(
                driver, spec, action, inputs, parent=parent, floor=floor, recorded=recorded, stored=stored
            )
        )
    finally:
        driver.works(-1)


def _attempts(
    driver: Driver,
    spec: TaskSpec,
    action: Action,
    inputs: bytes,
    *,
    parent: ParentPort | None,
    floor: int,
    recorded: bool,
    stored: bool,
) -> Generator[Any, Any, Final]:
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
        # A crash made this attempt; the row is updated with the next commit. A detached attempt gets a new number too:
        # the process behind the last attempt may be frozen rather than dead, or still be clearing up.
        attempt += 1
        driver.outbox.append(state_row(action, attempt, failures, deadline, stored))
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
                # No call of this body can come before the pause is over, and no other body has to wait for this one.
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
                        # From here on, containers and pods with this number belong to this process.
                        yield Durable(body)
                    attached = Attached(body, spec, action, attempt, failures, limit, stored, joined)
                    args = (attached, *args)
                    timeout = attached.seconds_left
                    if joined and timeout == 0:
                        # The attempt may have ended in time; it will not run on.
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
                    extra = driver.attached.ended(action.action)
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
                yield Durable(body, state_row(action, attempt, failures, deadline, stored))
                driver.attached.settled(action.action, final=False)
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
            marks = (
                *marks,
                *driver.attached.ended(action.action),
                state_row(action, attempt - 1, 0, None, stored, ended),
            )
            return Result.ERROR, _encoded(error), error, marks
        pause = retries.backoff.seconds(failures) if retries.backoff is not None else 0.0
        deadline = Deadline.after(pause, driver.worker.clock) if pause > 0 else None
        log.warning(
            "%s failed (attempt %d of %d), %s: %s: %s", spec.name, failures, retries.count + 1,
            f"next in {pause:.3g} s" if pause else "trying again", type(error).__name__, text_of(error),
        )  # fmt: skip
        yield Durable(body, *marks, state_row(action, attempt, failures, deadline, stored))
        driver.attached.settled(action.action, final=False)
        stored = True
        recorded = True


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


def _failure_of(error: BaseException) -> Failure | None:
    """How an attempt failed in another process; `None` for an exception that was raised here."""
    return getattr(error, "__perdure_failure__", None)


def _returned(spec: TaskSpec, value: Any) -> tuple[bytes, Any]:
    """The returned value of a body, as bytes and as the caller gets it."""
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
