"""How a run's row looks after it was submitted or claimed: rules of the port that every adapter shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from perdure.core.ground.model import FINISHED, WAITING, Claim, NewRun, Park, Result, Run, RunWrites, Status, Wake

Row = tuple[Any, ...]

SHORT: Final = 100
"""Entries of a journal that comes along when its run is taken; longer ones are read when they are needed."""


_STATUS: Final = {str(status): status for status in Status}


def run_of(row: Sequence[Any]) -> Run:
    """A run as a database gives it: its columns in the order of `Run`."""
    return Run._make((*row[:9], _STATUS[row[9]], *row[10:]))


def rows_of(write: RunWrites) -> tuple[list[Row], list[Row], list[Row]]:
    """Rows for the segments, the ends of actions and the sources of what one driver writes."""
    run = write.run
    return (
        [(run, number, data) for number, data in write.segments],
        [(int(ended), run, parent, action) for parent, action, ended in write.ends],
        [(run, source) for source in write.sources],
    )


def submitted(number: int, new: NewRun, claim: Claim | None, due_at: int | None) -> Run:
    """A run just submitted; with a claim, as if it had been queued and claimed in the same moment."""
    return Run(
        number,
        *new,
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
    )


def claimed(run: Run, claim: Claim, entries: int, now: int) -> Run:
    """A run just claimed by somebody who saw `entries` entries in its journal."""
    return run._replace(
        token=claim.token,
        worker=claim.worker,
        status=Status.RUNNING,
        result=None,
        value=None,
        ended_at=None,
        started_at=now if run.started_at is None else run.started_at,
        crashes=1 if entries > run.mark else run.crashes + 1,
        mark=entries,
        wake_at=None,
    )


MOVABLE: Final = frozenset({*WAITING, *FINISHED})
"""Nobody drives such a run, so it may go to another store."""


def unmoved(run: Run) -> Run:
    """A MOVED run as it was before. What its status was follows from the rest, which has been left as it was."""
    if run.result is not None:
        status = Status.SUCCEEDED if run.result == Result.VALUE else Status.FAILED
    elif run.ended_at is not None:
        status = Status.ABORTED
    else:
        status = Status.QUEUED if run.started_at is None else Status.SLEEPING
    return run._replace(status=status, token=None, worker=None)


def adopted(run: Run, due: Wake | None) -> Run:
    """A run that comes from another store; its number is yet to be given."""
    return run._replace(token=None, worker=None, wake_at=None if due is None else due.at)


def comes_back(run: Run, there: Run) -> bool:
    """Whether a run that is to be adopted takes the place of what it left behind here when it was moved away."""
    return there.status is Status.MOVED and there.uid == run.uid


def parked(run: Run, park: Park) -> Run:
    """A run that leaves memory until its wake time."""
    return run._replace(
        status=Status.SLEEPING, token=None, worker=None, crashes=0, mark=park.mark, wake_at=park.wake.at
    )
