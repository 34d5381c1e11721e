"""One operation on all runs that fit a filter, counted before anything is done: `perdure.bulk`.

A plan reads the runs and says which of them the operation can change. Carrying the plan out looks at each run once more
right before its operation, so that a run that no longer fits is left alone. The same plan serves Python, the command
line and the web page. Each operation is one of a single run, atomic in the store; a death in between leaves the rest
undone, and the same call again does the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import wait
from datetime import timedelta
from functools import partial
from typing import Any, Final, NamedTuple

from .. import runtime
from ..core.ground.model import FINISHED, UNFINISHED, RunRow, Status
from ..errors import PerdureError, UsageError
from . import operate, pausing
from ._dual import Dual, dual
from .ending import abort, cancel, refuse_in_body
from .listing import CreatedRequest, StatusRequest, statuses_of, task_name, times
from .looking import RunFilter, pages_of, store_exists
from .status import derived_status
from .tags import check_tags
from .task import Task

OPERATIONS: Final = ("abort", "cancel", "pause", "resume")
_PAST: Final = {"abort": "aborted", "cancel": "asked to cancel", "pause": "asked to pause", "resume": "resumed"}
PAGE: Final = 500
"""Runs that a plan reads in one go."""


class Bulk(NamedTuple):
    """An operation on many runs: what would be done, or what was done."""

    operation: str
    dry_run: bool
    """Whether nothing was done."""
    matching: int
    """The runs that fit the filter."""
    names: list[str]
    """The runs that the operation would change, or has changed, newest first."""
    left: dict[str, int]
    """How many runs the operation leaves alone, by reason."""
    refused: dict[str, str]
    """Runs on which the operation failed, with the errors."""

    def __str__(self) -> str:
        """In one sentence: `12 runs match: 10 would be aborted; left alone: 2 ended`."""
        return told(self)


class BulkPlan(NamedTuple):
    """What an operation would do."""

    bulk: Bulk
    below: int
    """Runs from this number up were stored after the plan, and are left alone."""
    reached: int | None
    """When the last run was created that was looked at, where older runs were not looked at; else `None`."""
    full: bool
    """Whether the plan holds only the newest runs that the operation would change."""


def told(bulk: Bulk) -> str:
    """A bulk operation in one sentence."""
    would = "would be " if bulk.dry_run else "were " if len(bulk.names) != 1 else "was "
    text = f"{bulk.matching:,} run{' matches' if bulk.matching == 1 else 's match'}: "
    text += f"{len(bulk.names):,} {would}{_PAST[bulk.operation]}"
    if bulk.left:
        text += "; left alone: " + ", ".join(f"{count:,} {reason}" for reason, count in bulk.left.items())
    return text + (f"; failed: {len(bulk.refused):,}" if bulk.refused else "")


def refuse_unknown(operation: str) -> None:
    """Refuse what is no operation.

    Raises:
        UsageError: there is no such operation.
    """
    if operation not in OPERATIONS:
        raise UsageError(f"the operation must be one of {', '.join(OPERATIONS)}, not {operation!r}")


def planned(
    operation: str, wanted: RunFilter, *, below: int | None = None, looks: int | None = None, most: int | None = None
) -> BulkPlan:
    """Count the runs that an operation would change.

    Args:
        below: only runs of a smaller number: `BulkPlan.below` of an earlier plan.
        looks: look at about so many runs; at all by default.
        most: at most so many runs to change; all by default.

    Raises:
        UsageError: there is no such operation, or the filter takes every run.
    """
    refuse_unknown(operation)
    if wanted == RunFilter():
        raise UsageError(f"to {operation} many runs, give a filter; for all runs of the store: the name '*'")
    names: list[str] = []
    left: Counter[str] = Counter()
    looked = matching = 0
    last = newest = 0
    full = False
    for part in pages_of(wanted, below, PAGE):
        newest = newest or part.first
        looked, last = looked + part.looked, part.last
        for row in part.wanted:
            if full := most is not None and len(names) == most:
                break
            matching += 1
            reason = _left_alone(operation, row)
            if reason is None:
                names.append(row.name)
            else:
                left[reason] += 1
        if full or (looks is not None and looked >= looks):
            break
    else:
        last = 0
    bulk = Bulk(operation, True, matching, names, dict(left), {})
    return BulkPlan(bulk, newest + 1 if below is None else below, None if full else _created(last), full)


def _created(number: int) -> int | None:
    row = runtime.worker().store.run_by_id(number) if number else None
    return None if row is None else row.created_at


def _left_alone(operation: str, row: RunRow) -> str | None:
    """Why the operation leaves the run alone; `None`: the operation changes the run."""
    if row.status == Status.MOVED:
        return "moved to another store"
    if operation == "resume":
        return _not_resumed(row)
    if row.status in FINISHED:
        return "ended"
    if operation != "abort" and row.cancel is not None:
        return "asked to cancel before"
    return "paused before" if operation == "pause" and row.paused is not None else None


def _not_resumed(row: RunRow) -> str | None:
    if row.status in UNFINISHED:
        if row.task in runtime.worker().store.paused_tasks():
            return "of a paused task"
        if row.paused is not None or derived_status(row) == Status.INTERRUPTED:
            return None
        return "not standing still"
    return None if row.status == Status.FAILED else "ended"


def carried_out(
    plan: BulkPlan, wanted: RunFilter, *, reason: str = "", grace: float | timedelta | None = None
) -> tuple[Bulk, list[operate.Handle]]:
    """Do what a plan says. A run that no longer fits the filter or the operation is left alone.

    Args:
        reason, grace: as for `Run.cancel`.

    Returns:
        What was done, and the runs that this process drives from now on.
    """
    operation, handles = plan.bulk.operation, list[operate.Handle]()
    each: dict[str, Callable[[str], bool | None]] = {
        "abort": abort, "cancel": lambda name: cancel(name, reason, grace), "pause": pausing.pause,
        "resume": partial(_resume, handles),
    }  # fmt: skip
    on_one = each[operation]
    done: list[str] = []
    left = Counter(plan.bulk.left)
    refused: dict[str, str] = {}
    for name in plan.bulk.names:
        try:
            why = _changed_since(operation, wanted, name)
            if why is None and on_one(name) is not False:
                done.append(name)
            else:
                left[why or "changed meanwhile"] += 1
        except PerdureError as error:
            refused[name] = str(error)
    return plan.bulk._replace(dry_run=False, names=done, left=dict(left), refused=refused), handles


def _changed_since(operation: str, wanted: RunFilter, name: str) -> str | None:
    row = runtime.worker().store.run(name)
    if row is None:
        return "removed meanwhile"
    fits = wanted.takes(row) and (wanted.statuses is None or derived_status(row) in wanted.statuses)
    return _left_alone(operation, row) if fits else "changed meanwhile"


def _resume(handles: list[operate.Handle], name: str) -> None:
    row = runtime.worker().store.run(name)
    if row is not None and row.paused is not None and row.status in UNFINISHED:
        pausing.unpause(name)
        return
    handles.append(operate.resume(name))


def _bulk(
    operation: str,
    *,
    status: StatusRequest | None = None,
    task: str | Task[..., Any] | None = None,
    name: str | None = None,
    created: CreatedRequest | None = None,
    tags: Mapping[str, str] | None = None,
    error: str | None = None,
    reason: str = "",
    grace: float | timedelta | None = None,
    dry_run: bool = False,
) -> Bulk:
    """Abort, cancel, pause or resume all runs that fit a filter; `.aio` as a coroutine. With `dry_run` the runs are
    only counted.

    Each run is looked at once more right before the operation, and runs that were stored after the call began are left
    alone. `resume` ends the pause of paused runs and leaves them to the workers; failed and interrupted runs are driven
    by this process, and the call returns once these have ended.

    Args:
        operation: `"abort"`, `"cancel"`, `"pause"` or `"resume"`, as the methods of `Run`.
        status, task, name, created, tags: which runs, as for `perdure.runs`. At least one of the filters is needed.
        error: only runs that failed with an exception of this class, named with or without its module.
        reason, grace: as for `Run.cancel`.
        dry_run: do nothing, and tell what would be done.

    Raises:
        UsageError: an argument means nothing, or no filter is given.
        NestedRunError: the calling code is the body of a task.
        StoreError: the store cannot be used.
    """
    refuse_in_body("perdure.bulk")
    if not isinstance(reason, str):
        raise UsageError(f"reason must be text, not {reason!r}")
    for what, text in (("name", name), ("error", error)):
        if not isinstance(text, (str, type(None))):
            raise UsageError(f"{what} must be text, not {text!r}")
    if tags is not None:
        check_tags(tags)
    since, until = times(created)
    wanted = RunFilter(
        statuses_of(status), task_name(task), name, since=since, until=until, tags=tags or None, error=error
    )
    plan = planned(operation, wanted)
    if dry_run or not store_exists():
        return plan.bulk
    done, handles = carried_out(plan, wanted, reason=reason, grace=grace)
    wait([handle.done for handle in handles if handle.done is not None])
    return done


_bulk.__name__ = _bulk.__qualname__ = "bulk"
bulk: Dual[..., Bulk] = dual(_bulk)
