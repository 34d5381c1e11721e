"""Ending runs from outside, and waking runs that wait for a time."""

from __future__ import annotations

from .. import runtime
from ..core.body.scope import SCOPE, TraceScope
from ..core.ground.model import FINISHED, Status
from ..errors import NestedRunError, UsageError
from .looking import find
from .status import refuse_moved


def abort(name: str) -> bool:
    """End a run for good, wherever the run is driven. `False` if the run was aborted already.

    Raises:
        RunNotFoundError: no such run.
        UsageError: the run has ended by itself.
    """
    row = find(name)
    refuse_in_body("abort")
    worker = runtime.worker()
    if worker.store.abort(row.id, worker.clock.wall()):
        runtime.drop_containers(row)
        return True
    row = find(name)
    if row.status == Status.ABORTED:
        return False
    refuse_moved(row)
    raise UsageError(f"run {name!r} has ended already, it is {row.status}; there is nothing to abort")


def wake(name: str) -> bool:
    """Make a run due that waits for a time. `False`: the run waits for no time, as it is driven or left behind.

    Raises:
        RunNotFoundError: no such run.
        UsageError: the run has ended.
    """
    row = find(name)
    refuse_in_body("wake")
    if runtime.worker().store.wake(row.id):
        return True
    row = find(name)
    refuse_moved(row)
    if row.status in FINISHED:
        raise UsageError(f"run {name!r} has ended, it is {row.status}; there is nothing to wake")
    return False


def refuse_in_body(what: str) -> None:
    """Refuse an operation in the body of a task.

    Raises:
        NestedRunError: the calling code is the body of a task.
    """
    scope = SCOPE.get()
    if scope is not None and not isinstance(scope, TraceScope):
        raise NestedRunError(
            f"Run.{what} was called in the body of task {scope.name}, where each replay would call it again. Put that "
            "call into a function under @perdure.trace: then it is recorded."
        )


def aborted(name: str) -> str:
    """That a run was aborted, and the remedy."""
    return f"run {name!r} was aborted; a new run that reuses its work: perdure rerun {name} --recover"
