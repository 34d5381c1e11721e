"""Requests for runs, checked and named before anything is stored: a task with its inputs, or an old run once more."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from .. import runtime
from ..core.body.scope import SCOPE, TraceScope, know_this_thread
from ..core.ground import carrying, model
from ..core.ground.model import NewRun
from ..core.ground.spec import QueueSpec, TaskSpec, moved_target, parsed
from ..core.process.submission import new_run
from ..core.process.worker import Worker
from ..errors import NestedRunError, RunAlreadyActive, UsageError
from ._names import check_name, random_run_name
from .loading import load_file, load_target, loading_file, task_at
from .looking import find
from .status import describe_holder
from .tags import encode_tags
from .task import Task


class RunRequest(Struct, frozen=True):
    """A run as the caller requests it."""

    spec: TaskSpec
    new: NewRun
    named: bool
    queue: QueueSpec | None = None
    """The queue of the run, as the code declares it."""


def request_for(
    task: Any,
    args: tuple[Any, ...],
    inputs: dict[str, Any],
    name: str | None,
    reuse: str | None,
    *,
    what: str = "run",
    tags: Mapping[str, str] | None = None,
    queue: QueueSpec | None = None,
    priority: int = 0,
) -> RunRequest:
    scope = SCOPE.get()
    if what == "submit" and scope is not None and not isinstance(scope, TraceScope):
        raise NestedRunError(
            f"perdure.submit was called in the body of task {scope.name}, where each replay would call it again. Put "
            "it into a function under @perdure.trace, with a name for the run (with_runcontext(name=...)): then it is "
            "recorded, and a crash in between does not submit twice."
        )
    if scope is not None and what == "run":
        body = getattr(scope, "body", scope)
        raise NestedRunError(
            f"perdure.run was called inside task {body.name}. A run cannot start another: call the task itself, "
            "and it becomes part of this run."
        )
    file = loading_file()
    if file is not None:
        raise NestedRunError(
            f"{file} calls perdure.{what} at its top level, which would start a run each time the file is loaded to "
            'continue one. Put that call under: if __name__ == "__main__":'
        )
    if not isinstance(task, Task):
        raise UsageError(f"perdure.{what} takes a task as its first argument, not {task!r}; declare it with @env.task")
    if name is not None:
        check_name(name)
    task.check_findable()
    know_this_thread()
    spec = task.spec
    called, now = name or random_run_name(), runtime.worker().clock.wall()
    args, inputs = spec.signature.coerced(args, inputs, task.coercion)
    new = new_run(
        spec, args, inputs, name=called, created_at=now, reuse=reuse, tags=encode_tags(tags), queue=queue,
        priority=priority, carried=carrying.read(),
    )  # fmt: skip
    return RunRequest(spec, new, name is not None, queue)


def request_rerun(name: str, *, recover: bool, new_name: str | None = None, file: str | None = None) -> RunRequest:
    """A new run of the same task with the same inputs, as `submit` takes it; nothing is stored yet.

    Args:
        name: the run to repeat.
        recover: reuse the run's successful outcomes.
        new_name: the new run's name; a readable random name by default.
        file: the present place of the code, if the code was moved.

    Raises:
        RunNotFoundError: no such run.
        RunAlreadyActive: `recover`, and the run is still being driven.
        UsageError: the code may not be loaded, or cannot be; or the new name cannot be used.
    """
    if new_name is not None:
        check_name(new_name)
        if new_name == name:
            raise UsageError(f"the new run needs a name of its own; {name!r} is the old one's")
    old = find(name)
    worker = runtime.worker()
    if recover:
        refuse_active(worker, old)
    spec = code_of(old, file)
    new = NewRun(
        uid=secrets.token_bytes(16),
        name=new_name or random_run_name(),
        task=old.task,
        target=moved_target(old.target, spec.target()) if recover else spec.target(),
        inputs=old.inputs,
        inputs_hash=old.inputs_hash,
        created_at=worker.clock.wall(),
        reuse=old.name if recover else None,
        tags=old.tags,
        queue=old.queue,
        key=old.key,
        priority=old.priority,
        carried=old.carried,
    )
    return RunRequest(spec, new, True, spec.queue)


def code_of(row: model.RunRow, file: str | None) -> TaskSpec:
    if file is None:
        return load_target(row.target, row.name, runtime.project_root())
    return task_at(load_file(file), parsed(row.target).name, file)


def refuse_active(worker: Worker, row: model.RunRow) -> None:
    holder = worker.sure_holder(row)
    if holder is not None:
        raise RunAlreadyActive(describe_holder(worker, row, holder))
