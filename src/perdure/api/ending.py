"""Ending runs from outside, and waking runs that wait for a time."""

from __future__ import annotations

from datetime import timedelta

from .. import runtime
from ..core.body.scope import SCOPE, TraceScope
from ..core.ground.clock import US
from ..core.ground.model import FINISHED, PARKED, RunRow, Status
from ..errors import NestedRunError, UsageError
from .looking import find
from .standing import standing
from .status import pause_of, refuse_moved

LONGEST = 1e10
"""The limit for lengths of time, in seconds."""


def abort(name: str) -> bool:
    """End a run for good, wherever the run is driven. `False` if the run was aborted already.

    Raises:
        RunNotFoundError: no such run.
        UsageError: the run has ended by itself.
    """
    row = find(name)
    refuse_in_body("Run.abort")
    worker = runtime.worker()
    if worker.store.abort(row.id, worker.clock.wall()):
        runtime.drop_containers(row)
        return True
    row = find(name)
    if row.status == Status.ABORTED:
        return False
    refuse_moved(row)
    raise UsageError(f"run {name!r} has ended already, it is {row.status}; there is nothing to abort")


def cancel(name: str, reason: str = "", grace: float | timedelta | None = None) -> bool:
    """Ask to cancel a run, wherever the run is driven. `False` if the run was asked, or is cancelled, already.

    Args:
        reason: for people.
        grace: how long the run's code may clean up before the run is ended; for ever by default.

    Raises:
        RunNotFoundError: no such run.
        UsageError: the run has ended by itself, or an argument means nothing.
    """
    if not isinstance(reason, str):
        raise UsageError(f"reason must be text, not {reason!r}")
    limit = grace.total_seconds() if isinstance(grace, timedelta) else grace
    if limit is not None and (
        isinstance(limit, bool) or not isinstance(limit, (int, float)) or not 0 <= limit < LONGEST
    ):
        raise UsageError(f"grace must be seconds from 0 up, or a timedelta, not {grace!r}")
    row = find(name)
    refuse_in_body("Run.cancel")
    worker = runtime.worker()
    now = worker.clock.wall()
    fresh = row.cancel is None
    asked = worker.store.cancel(row.id, reason, None if limit is None else now + int(limit * US), now)
    if asked is None:
        return _refused_cancellation(name)
    driver = worker.drivers.get(row.id)
    if driver is not None and driver.token == asked.token:
        driver.cancel_run(reason)
    if limit == 0 and worker.store.end_cancelled(row.id, now):
        runtime.drop_containers(row)
    return fresh


def _refused_cancellation(name: str) -> bool:
    """The store has refused to cancel, because the run has ended. `False` if the run is cancelled."""
    row = find(name)
    if row.status == Status.CANCELLED:
        return False
    refuse_moved(row)
    raise UsageError(f"run {name!r} has ended already, it is {row.status}; there is nothing to cancel")


def wake(name: str) -> bool:
    """Let a run begin now that waits for its time. `False`: the run waits for no time, as it is driven or left behind.

    Raises:
        RunNotFoundError: no such run.
        UsageError: the run has ended, the run or its task is paused, or the run waits for something that waking does
            not bring about; see `useless_wake`.
    """
    row = find(name)
    refuse_in_body("Run.wake")
    worker = runtime.worker()
    paused = pause_of(worker, row)
    if paused is not None:
        raise UsageError(paused)
    useless = useless_wake(row)
    if useless is not None:
        raise UsageError(useless)
    if worker.store.wake(row.id):
        return True
    row = find(name)
    refuse_moved(row)
    if row.status in FINISHED:
        raise UsageError(f"run {name!r} has ended, it is {row.status}; there is nothing to wake")
    return False


def useless_wake(row: RunRow) -> str | None:
    """Why waking an unfinished run would change nothing; `None`: it would change something, or no worker has to be
    told. A recorded time stays as it is: a parked run that is taken up early only waits again at the same place."""
    if row.status != Status.QUEUED and row.status not in PARKED:
        return None
    worker = runtime.worker()
    is_due = row.wake_at is not None and row.wake_at <= worker.clock.wall()
    if row.status == Status.QUEUED:
        return f"run {row.name!r} is due already, so there is nothing to wake. {standing(row)}" if is_due else None
    if is_due and not worker.store.queued(row.id):
        return None  # the clock was set forward, and the worker still counts the time
    return f"waking run {row.name!r} changes nothing, because what it waits for stays as recorded. {standing(row)}"


def refuse_in_body(what: str) -> None:
    """Refuse an operation in the body of a task.

    Raises:
        NestedRunError: the calling code is the body of a task.
    """
    scope = SCOPE.get()
    if scope is not None and not isinstance(scope, TraceScope):
        raise NestedRunError(
            f"{what} was called in the body of task {scope.name}, where each replay would call it again. Put that "
            "call into a function under @perdure.trace: then it is recorded."
        )


def aborted(name: str) -> str:
    """That a run was aborted, and the remedy."""
    return f"run {name!r} was aborted; a new run that reuses its work: perdure rerun {name} --recover"
