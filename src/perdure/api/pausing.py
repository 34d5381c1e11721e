"""Pausing runs: a paused run stands still until it is resumed (`run.resumed`)."""

from __future__ import annotations

from .. import runtime
from ..core.ground import model
from ..core.ground.model import FINISHED
from ..core.process.worker import Worker
from ..errors import UsageError
from .ending import refuse_in_body
from .looking import find
from .status import derived_status, refuse_moved


def pause(name: str) -> bool:
    """Let a run stand still until it is resumed, wherever the run is driven. `False` if the run was paused already.

    Raises:
        RunNotFoundError: no such run.
        UsageError: the run has ended, or is being cancelled.
    """
    row = find(name)
    refuse_in_body("Run.pause")
    worker = runtime.worker()
    if not worker.store.pause(row.id, worker.clock.wall()):
        _refuse(name)
    tell_driver(worker, row, paused=True)
    return row.paused is None


def _refuse(name: str) -> None:
    row = find(name)
    refuse_moved(row)
    if row.status in FINISHED:
        raise UsageError(f"run {name!r} has ended already, it is {row.status}; there is nothing to pause")
    raise UsageError(
        f"run {name!r} is being cancelled, and its cleanup cannot be paused; to end it as it is: perdure abort {name}"
    )


def unpause(name: str) -> None:
    """End the pause of a run, and leave the run to the workers that serve its task.

    Raises:
        RunNotFoundError: no such run.
        UsageError: the run is not paused.
    """
    row = find(name)
    refuse_in_body("Run.resume")
    worker = runtime.worker()
    if not worker.store.unpause(row.id):
        refuse_moved(row)
        raise UsageError(
            f"run {name!r} is not paused, it is {derived_status(find(name))}; to drive it here: perdure resume {name}"
        )
    tell_driver(worker, row, paused=False)


def tell_driver(worker: Worker, row: model.RunRow, *, paused: bool) -> None:
    """Tell the driver of the run, if this process drives the run. Other processes see the row within a second."""
    driver = worker.drivers.get(row.id)
    if driver is not None:
        driver.pausing.follow(paused=paused)
