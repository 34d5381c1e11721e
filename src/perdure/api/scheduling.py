"""The schedules in the store: listing, pausing and resuming a schedule, and a run of a schedule by hand.

The store knows a schedule from the moment when a worker first looks at its trigger. The times follow from the stored
definition, so no code is loaded to list schedules.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from .. import runtime
from ..core.ground.clock import moment
from ..core.ground.model import ScheduleRow, schedule_name
from ..core.process.schedule import LATE, Rule, calendar_of
from ..errors import UsageError
from ._dual import Dual, dual, dual_method
from .declaring import tasks_of
from .ending import refuse_in_body
from .looking import store_exists
from .requests import RunRequest
from .run import Run
from .submitting import enqueue
from .task import Task


@dataclass(frozen=True, slots=True)
class TaskSchedule:
    """A schedule of a task, as the store had it when it was listed. Times are in UTC.

    Operations take the name: triggers of one task without names of their own share a name, and are paused together.
    """

    name: str
    """The task's full name, or `task:trigger` for a trigger with a name. The names of the runs begin so."""
    task: str
    """The full name of the task."""
    rule: str
    """The definition of the times, such as `cron 0 2 * * * Europe/Berlin` or `every 30000000 from 0` (microseconds)."""
    next: tuple[datetime, ...]
    """The next firings. Empty while the schedule is paused, and where the definition means nothing to this process."""
    paused: datetime | None
    """Since when the schedule is paused."""
    fired: datetime | None
    """The newest firing that got a run."""
    overdue: datetime | None
    """The first firing that no worker has considered although its time is over: no worker serves the task, or the
    definition is no longer in the code."""

    @dual_method
    def pause(self) -> bool:
        """Give no firing a run from now on, until `resume`; `.pause.aio()` as a coroutine. `False`: it is paused
        already. Runs that exist are not touched.

        Raises:
            NestedRunError: the calling code is the body of a task.
            StoreError: the store cannot be used.
        """
        refuse_in_body("TaskSchedule.pause")
        worker = runtime.worker()
        return worker.store.pause_schedules(self.name, worker.clock.wall()) > 0

    @dual_method
    def resume(self) -> bool:
        """End the pause; `.resume.aio()` as a coroutine. `False`: the schedule is not paused. No run makes up for the
        firings in the pause, under any `catch_up`.

        Raises:
            NestedRunError: the calling code is the body of a task.
            StoreError: the store cannot be used.
        """
        refuse_in_body("TaskSchedule.resume")
        worker = runtime.worker()
        return worker.store.resume_schedules(self.name, worker.clock.wall()) > 0

    @dual_method
    def trigger(self) -> Run:
        """Submit a run now, with the inputs of the trigger, and give the run; `.trigger.aio()` as a coroutine. The
        present is the scheduled time. Works on a paused schedule, too, and changes no firing.

        Raises:
            UsageError: the module of the task is not imported, or the inputs no longer fit the task.
            NestedRunError: the calling code is the body of a task.
            StoreError: the store cannot be used.
        """
        refuse_in_body("TaskSchedule.trigger")
        rule = _loaded_rule(self.name)
        if rule is None:
            raise UsageError(
                f"schedule {self.name}: no trigger of that name is imported here, so its inputs are not known. Import "
                f"the module of task {self.task}, or: perdure schedule trigger {self.name} --file FILE"
            )
        now = runtime.worker().clock.wall()
        return enqueue(RunRequest(rule.spec, rule.new_run(now, now), True, rule.spec.queue), None)


def _schedules(*, task: str | Task[..., Any] | None = None, ahead: int = 3) -> list[TaskSchedule]:
    """The schedules in the store, sorted by name; `.aio` as a coroutine.

    Args:
        task: only schedules of this task: a task, or its full name.
        ahead: how many of the next firings to give.

    Raises:
        UsageError: an argument means nothing.
        StoreError: the store cannot be used.
    """
    if task is not None and not isinstance(task, (str, Task)):
        raise UsageError(f"task must be a task or its full name, not {task!r}")
    if isinstance(ahead, bool) or not isinstance(ahead, int) or ahead < 0:
        raise UsageError(f"ahead must be a number of firings from 0 up, not {ahead!r}")
    if not store_exists():
        return []
    wanted = task.name if isinstance(task, Task) else task
    worker = runtime.worker()
    now = worker.clock.wall()
    found = [_schedule(row, now, ahead) for row in worker.store.schedules()]
    return [one for one in found if wanted is None or one.task == wanted]


_schedules.__name__ = _schedules.__qualname__ = "schedules"
schedules: Dual[..., list[TaskSchedule]] = dual(_schedules)


def schedule_named(name: str) -> TaskSchedule:
    """The first schedule of a name.

    Raises:
        UsageError: the store knows no such schedule.
    """
    found = _schedules(ahead=0)
    for one in found:
        if one.name == name:
            return one
    known = ", ".join(dict.fromkeys(one.name for one in found)) or "none"
    raise UsageError(
        f"{runtime.store_name()} knows no schedule {name!r}; a worker makes it known by serving its task. Known are: "
        f"{known}"
    )


def _schedule(row: ScheduleRow, now: int, ahead: int) -> TaskSchedule:
    name = schedule_name(row.key)
    definition = row.key[len(name) + 1 :]
    calendar = None if row.paused is not None else calendar_of(definition)
    coming: list[int] = []
    first = None
    if calendar is not None:
        coming = list(islice(calendar.after(max(row.at, now)), ahead))
        first = next(calendar.after(row.at), None)
    late = first is not None and first < now - LATE
    return TaskSchedule(
        name=name,
        task=name.partition(":")[0],
        rule=definition,
        next=tuple(map(moment, coming)),
        paused=None if row.paused is None else moment(row.paused),
        fired=None if row.fired is None else moment(row.fired),
        overdue=moment(first) if first is not None and late else None,
    )


def _loaded_rule(name: str) -> Rule | None:
    """The rule of a task that this process has imported."""
    for module in list(sys.modules):
        for task in tasks_of(module):
            for rule in task.triggers:
                if rule.prefix == name:
                    return rule  # type: ignore[no-any-return]
    return None
