"""Making the record of a new run from a task, inputs and a name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ...errors import InputError, UnsupportedTypeError, ValueMismatchError
from ..ground.digest import blake2b
from ..ground.model import NewRun
from ..ground.spec import QueueSpec, TaskSpec


def new_run(
    spec: TaskSpec,
    args: tuple[Any, ...],
    inputs: Mapping[str, Any],
    *,
    name: str,
    created_at: int,
    reuse: str | None = None,
    tags: str | None = None,
    queue: QueueSpec | None = None,
    priority: int = 0,
    carried: bytes | None = None,
) -> NewRun:
    """The record of a run of the task, before submission.

    Args:
        spec: the task.
        args, inputs: the task's arguments.
        name: the run's name, already checked.
        created_at: wall, microseconds.
        reuse: the name of a run with outcomes for reuse.
        tags: as `NewRun.tags`.
        queue: the queue of the run; `None`: the run waits for no slot.
        priority: as `NewRun.priority`.
        carried: as `NewRun.carried`.

    Raises:
        InputError: an argument is missing or unknown, or the queue has no key for the arguments.
        ValueMismatchError: an argument does not fit the declared type.
        UnsupportedTypeError: an argument cannot be stored.
        ValueTooLargeError: the arguments together are over the inline limit.
    """
    try:
        identity, data = spec.signature.identity_and_inputs(args, inputs)
    except TypeError as error:
        if isinstance(error, (ValueMismatchError, UnsupportedTypeError)):
            raise
        raise InputError(f"task {spec.name}: {error}") from None
    return NewRun(
        uid=os.urandom(16),
        name=name,
        task=spec.name,
        target=spec.target(),
        inputs=data,
        inputs_hash=blake2b(identity, digest_size=16).digest(),
        created_at=created_at,
        reuse=reuse,
        tags=tags,
        queue=None if queue is None else queue.name,
        key="" if queue is None else _key_of(queue, spec, args, inputs),
        priority=priority,
        carried=carried,
    )


def _key_of(queue: QueueSpec, spec: TaskSpec, args: tuple[Any, ...], inputs: Mapping[str, Any]) -> str:
    if queue.key is None:
        return ""
    try:
        key = spec.signature.applied(queue.key, args, inputs)
    except Exception as error:
        raise InputError(
            f"queue {queue.name}: key= failed for the arguments of task {spec.name}: {type(error).__name__}: {error}"
        ) from error
    if isinstance(key, bool) or not isinstance(key, (str, int)):
        raise InputError(f"queue {queue.name}: key= must give text or an int for task {spec.name}, not {key!r}")
    return str(key)
