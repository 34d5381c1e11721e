"""Pausing runs, and tasks on all runs: what is paused stands still until it is resumed (`run.resumed`)."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from .. import runtime
from ..core.ground import model
from ..core.ground.clock import moment
from ..core.ground.model import FINISHED
from ..core.ground.spec import former_names
from ..core.process.worker import Worker
from ..errors import UsageError, task_paused_text
from ._dual import Dual, dual
from .ending import refuse_in_body
from .looking import find, store_exists
from .status import derived_status, refuse_moved
from .task import Task


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
        if row.status not in FINISHED and row.task in worker.store.paused_tasks():
            raise UsageError(task_paused_text(name, row.task))
        raise UsageError(
            f"run {name!r} is not paused, it is {derived_status(find(name))}; to drive it here: perdure resume {name}"
        )
    tell_driver(worker, row, paused=False)


def tell_driver(worker: Worker, row: model.RunRow, *, paused: bool) -> None:
    """Tell the driver of the run, if this process drives the run. Other processes see the row within a second."""
    driver = worker.drivers.get(row.id)
    if driver is not None:
        driver.pausing.follow(paused=paused)


# -- tasks on all runs -----------------------------------------------------------------------------------------


def _pause_task(task: Task[..., Any] | str) -> bool:
    """Let all runs of a task stand still, present and future, until `resume_task`; `.aio` as a coroutine. From the
    return on no process begins a run of the task or takes one up, over the death of any process. In runs that are
    driven nothing new starts, what executes is recorded, then the runs are PAUSED. `submit` still stores runs, which
    stay QUEUED; `perdure.run` stores the run and raises `RunPausedError`. `False`: the task was paused before.

    Calls of the task within runs of other tasks go on. Runs under former names of the task (`formerly=`) stand still as
    well where the task itself is given.

    Args:
        task: the task, or its full name, such as `"etl.main"`.

    Raises:
        UsageError: `task` is no task, or the store has no run of a task of that name.
        NestedRunError: the calling code is the body of a task.
        StoreError: the store cannot be used.
    """
    name, *former = _names_of(task, "pause_task")
    worker = runtime.worker()
    if isinstance(task, str) and not worker.store.runs(limit=1, task=name):
        raise UsageError(
            f"{runtime.store_name()} has no run of a task {name!r}. Give the full name, as perdure ls shows it; to "
            "pause a task before its first run, give the task itself to perdure.pause_task"
        )
    now = worker.clock.wall()
    for one in former:
        worker.store.pause_task(one, now)
    fresh = worker.store.pause_task(name, now)
    _tell_drivers(worker, (name, *former), paused=True)
    return fresh


def _resume_task(task: Task[..., Any] | str) -> bool:
    """End the pause of a task, and leave its runs to the workers that serve the task; `.aio` as a coroutine. Runs that
    are paused themselves stay paused. `False`: the task is not paused.

    Args:
        task: the task, or its full name, such as `"etl.main"`.

    Raises:
        UsageError: `task` is no task.
        NestedRunError: the calling code is the body of a task.
        StoreError: the store cannot be used.
    """
    names = _names_of(task, "resume_task")
    worker = runtime.worker()
    resumed = [worker.store.resume_task(one) for one in names]
    _tell_drivers(worker, names, paused=False)
    return any(resumed)


def _paused_tasks() -> dict[str, datetime]:
    """The full names of the paused tasks, and since when (UTC); `.aio` as a coroutine.

    Raises:
        StoreError: the store cannot be used.
    """
    if not store_exists():
        return {}
    return {task: moment(since) for task, since in runtime.worker().store.paused_tasks().items()}


def _names_of(task: Any, what: str) -> tuple[str, ...]:
    """The full name of the task, and former names."""
    refuse_in_body(f"perdure.{what}")
    if isinstance(task, Task):
        return (task.spec.name, *former_names(task.spec.formerly))
    if not isinstance(task, str):
        raise UsageError(f"perdure.{what} takes a task or its full name, not {task!r}")
    return (task,)


def _tell_drivers(worker: Worker, tasks: Collection[str], *, paused: bool) -> None:
    """Tell the drivers of this process. Other processes look within a second."""
    for driver in list(worker.drivers.values()):
        if driver.run.task in tasks:
            driver.pausing.follow_task(paused=paused)


for _function in (_pause_task, _resume_task, _paused_tasks):
    _function.__name__ = _function.__qualname__ = _function.__name__.removeprefix("_")
pause_task: Dual[..., bool] = dual(_pause_task)
resume_task: Dual[..., bool] = dual(_resume_task)
paused_tasks: Dual[..., dict[str, datetime]] = dual(_paused_tasks)
