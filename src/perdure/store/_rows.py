"""How a run's row looks after it was submitted or claimed: rules of the port that every adapter shares."""

from __future__ import annotations

from typing import Final

from perdure.core.model import Claim, NewRun, Park, Run, Status

SHORT: Final = 100
"""Entries of a journal that comes along when its run is taken; longer ones are read when they are needed."""


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


def parked(run: Run, park: Park) -> Run:
    """A run that leaves memory until its wake time."""
    return run._replace(
        status=Status.SLEEPING, token=None, worker=None, crashes=0, mark=park.mark, wake_at=park.wake.at
    )
