"""The status of a run for people, and the refusals that follow from the status."""

from __future__ import annotations

from .. import runtime
from ..core.ground import model
from ..core.ground.model import FINISHED, PARKED, UNFINISHED, Status
from ..core.process.worker import Worker
from ..errors import RunMovedError, paused_text, task_paused_text


def derived_status(row: model.RunRow) -> Status:
    """The status for people: without a driver PAUSED or INTERRUPTED, SLEEPING where only time is left to wait for,
    WAITING where the run waits for a message."""
    worker = runtime.worker()
    if row.status != Status.RUNNING:
        if row.paused is not None and row.status in UNFINISHED:
            return Status.PAUSED
        # A QUEUED run of a paused task has nothing that could be paused yet.
        return Status.PAUSED if row.status in PARKED and row.task in worker.store.paused_tasks() else row.status
    if worker.sure_holder(row) is None:
        if not unchanged(worker, row):
            again = worker.store.run_by_id(row.id)
            return derived_status(again) if again is not None else Status.INTERRUPTED
        stands = row.paused is not None or row.task in worker.store.paused_tasks()
        return Status.PAUSED if stands else Status.INTERRUPTED
    if worker.waits(row):
        return Status.WAITING
    return Status.SLEEPING if worker.sleeps(row) else Status.RUNNING


def pause_of(worker: Worker, row: model.RunRow) -> str | None:
    """Why no worker may take up an unfinished run, and the remedy; `None`: neither the run nor its task is paused."""
    if row.status in FINISHED:
        return None
    if row.task in worker.store.paused_tasks():
        return task_paused_text(row.name, row.task)
    return None if row.paused is None else paused_text(row.name)


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
