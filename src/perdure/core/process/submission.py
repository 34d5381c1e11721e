"""How a run is asked for: the one way from a task, its inputs and a name to the record that the store takes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ...errors import InputError, UnsupportedTypeError, ValueMismatchError
from ..ground.digest import blake2b
from ..ground.model import NewRun
from ..ground.spec import TaskSpec


def new_run(
    spec: TaskSpec,
    args: tuple[Any, ...],
    inputs: Mapping[str, Any],
    *,
    name: str,
    created_at: int,
    reuse: str | None = None,
) -> NewRun:
    """A run of that task, not submitted yet.

    Args:
        spec: the task.
        args, inputs: its arguments.
        name: the run's name, checked before.
        created_at: wall, microseconds.
        reuse: the run whose outcomes may be reused.

    Raises:
        InputError: an argument is missing or unknown.
        ValueMismatchError: one does not fit its declared type.
        UnsupportedTypeError: one cannot be stored.
        ValueTooLargeError: all together are over the inline limit.
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
    )
