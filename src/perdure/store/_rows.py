"""The row of a run after a submission, a claim, a park or a move: rules of the port that every adapter shares."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final, NamedTuple

from perdure.core.ground.model import (
    ENDS,
    FINISHED,
    PARKED,
    UNDRIVEN,
    Claim,
    NewRun,
    Park,
    Result,
    RunRow,
    RunWrites,
    Status,
    Wake,
)

Row = tuple[Any, ...]

SHORT: Final = 100
"""Journals of at most this many entries are read ahead when a run is taken; a longer journal is read by the driver."""


_STATUS: Final = {str(status): status for status in Status}
_STATUS_AT: Final = RunRow._fields.index("status")


def run_of(row: Sequence[Any]) -> RunRow:
    """A run from a database row with the columns in the order of `RunRow`."""
    return RunRow._make((*row[:_STATUS_AT], _STATUS[row[_STATUS_AT]], *row[_STATUS_AT + 1 :]))


def rows_of(write: RunWrites) -> tuple[list[Row], list[Row], list[Row]]:
    """The writes of one driver as rows: of segments, of ended actions, of sources."""
    run = write.run
    return (
        [(run, segment.number, segment.data) for segment in write.segments],
        [(int(ended), run, parent, action) for parent, action, ended in write.ends],
        [(run, source) for source in write.sources],
    )


class EndOfRun(NamedTuple):
    """The facts about a run that its removal depends on, as the statement `end_of_run` gives them."""

    name: str
    status: str
    ended_at: int

    def is_removable(self, reused: Collection[str], statuses: Collection[Status], before: int) -> bool:
        """Whether the run has ended in one of the statuses and before that time, and no other run has the name."""
        return self.name not in reused and self.status in statuses and self.ended_at < before


def submitted(number: int, new: NewRun, claim: Claim | None, due_at: int | None) -> RunRow:
    """A submitted run. With a claim the run is queued and claimed in the same moment."""
    return RunRow(
        number,
        *new[:8],
        status=Status.QUEUED if claim is None else Status.RUNNING,
        token=None if claim is None else claim.token,
        worker=None if claim is None else claim.worker,
        started_at=None if claim is None else new.created_at,
        ended_at=None,
        result=None,
        value=None,
        crashes=0 if claim is None else 1,
        mark=0,
        wake_at=None if claim is not None else due_at,
        tags=new.tags,
        queue=new.queue,
        key=new.key,
        priority=new.priority,
        carried=new.carried,
    )


def claimed(run: RunRow, claim: Claim, entries: int, now: int, *, crashed: bool = True) -> RunRow:
    """A claimed run. The claimer saw `entries` entries in the journal. `crashed`: see `Runs.claim`."""
    return run._replace(
        token=claim.token,
        worker=claim.worker,
        status=Status.RUNNING,
        result=None,
        value=None,
        ended_at=None,
        started_at=now if run.started_at is None else run.started_at,
        crashes=1 if entries > run.mark else run.crashes + crashed,
        mark=entries,
        wake_at=None,
        paused=None,
    )


MOVABLE: Final = frozenset({*UNDRIVEN, *FINISHED})
"""No worker drives a run of these statuses, so the run may move to another store."""


def unmoved(run: RunRow) -> RunRow:
    """A MOVED run before the move. The earlier status follows from the other columns, which a move leaves alone; a run
    that was WAITING comes back as SLEEPING, which means the same to a worker."""
    if run.result is not None:
        status = ENDS[run.result]
    elif run.ended_at is not None:
        status = Status.ABORTED
    else:
        status = Status.QUEUED if run.started_at is None else Status.SLEEPING
    return run._replace(status=status, token=None, worker=None)


def asked_to_cancel(run: RunRow, reason: str, until: int | None, at: int, now: int) -> RunRow:
    """An unfinished run after a request to cancel; see `RunQueue.cancel`. `now`: wall."""
    limits = [limit for limit in (run.cancel_until, until) if limit is not None]
    asked = run._replace(
        cancel=reason if run.cancel is None else run.cancel,
        cancel_until=min(limits) if limits else None,
        paused=None,
    )
    if run.status is Status.QUEUED:
        return asked._replace(status=Status.CANCELLED, result=Result.CANCELLED, ended_at=at, wake_at=None)
    if run.status in PARKED and run.wake_at is not None:
        return asked._replace(wake_at=min(run.wake_at, now))
    return asked


def adopted(run: RunRow, due: Wake | None) -> RunRow:
    """A run of another store; the number is not given yet."""
    return run._replace(token=None, worker=None, wake_at=None if due is None else due.at)


def comes_back(run: RunRow, there: RunRow) -> bool:
    """Whether an adopted run replaces the MOVED row `there`, because the run had left from here."""
    return there.status is Status.MOVED and there.uid == run.uid


def parked(run: RunRow, park: Park) -> RunRow:
    """A run that is parked until its wake time."""
    return run._replace(
        status=Status.WAITING if park.waits else Status.SLEEPING,
        token=None,
        worker=None,
        crashes=0,
        mark=park.mark,
        wake_at=park.wake.at,
    )


def is_due_now(run: RunRow, park: Park) -> bool:
    """Whether a parked run is due now, because its driver has not heard of the request to cancel the run."""
    return run.cancel is not None and not park.aware
