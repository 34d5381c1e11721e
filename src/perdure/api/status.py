"""The status of a run for people, and the refusals that follow from the status."""

from __future__ import annotations

from .. import runtime
from ..core.ground import model
from ..core.ground.model import UNFINISHED, Status
from ..core.process.worker import Worker
from ..errors import RunMovedError


def derived_status(row: model.RunRow) -> Status:
    """The status for people: without a driver PAUSED or INTERRUPTED, SLEEPING where only time is left to wait for,
    WAITING where the run waits for a message."""
    if row.status != Status.RUNNING:
        return Status.PAUSED if row.paused is not None and row.status in UNFINISHED else row.status
    worker = runtime.worker()
    if worker.sure_holder(row) is None:
        if not unchanged(worker, row):
            again = worker.store.run_by_id(row.id)
            return derived_status(again) if again is not None else Status.INTERRUPTED
        return Status.PAUSED if row.paused is not None else Status.INTERRUPTED
    if worker.waits(row):
        return Status.WAITING
    return Status.SLEEPING if worker.sleeps(row) else Status.RUNNING


def refuse_moved(row: model.RunRow) -> None:
    """Raise `RunMovedError` if another store has the run now."""
    if row.status == Status.MOVED:
        raise RunMovedError(
            f"run {row.name!r} was moved to {row.worker}: name that store with --store, PERDURE_STORE or perdure.init"
        )


def unchanged(worker: Worker, row: model.RunRow) -> bool:
    """Whether a run without a holder is still in the same state, rather than ended in the meantime."""
    again = worker.store.run_by_id(row.id)
    return again is not None and (again.status, again.token, again.paused) == (row.status, row.token, row.paused)


def describe_holder(worker: Worker, row: model.RunRow, holder: model.WorkerRow) -> str:
    where = "in this process" if holder.id == worker.id else f"by process {holder.pid} on {holder.host}"
    return f"run {row.name!r} is being driven {where}; wait for it, or end that process first"
