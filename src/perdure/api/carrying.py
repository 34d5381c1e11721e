"""`carry`: context variables that go with each run."""

from __future__ import annotations

import sys
from contextvars import ContextVar
from typing import Any, TypeVar

from ..core.ground import carrying
from ..errors import UsageError

T = TypeVar("T")


def carry(variable: ContextVar[T], /, data_type: Any = None) -> ContextVar[T]:
    """Let a context variable go with each run from the code that submits it to the bodies of the run.

    The value that the variable has in the code that calls `run` or `submit` is stored with the run. Each body and each
    trace of the run sees it: on a worker, in threads and other processes, after a crash, on replay, and in a `rerun` or
    `fork`. A variable without a value is not stored, and runs of schedules begin without one. What a body sets itself
    is seen by the code that it calls, as ever, and is not stored.

    Call this at the top level of the file that defines the tasks, where the submitting process and the workers come by.
    The values are stored as they are: carry no secret.

    Args:
        variable: the context variable. Its name tells it from all others.
        data_type: the type of its values, for what is not built in (a dataclass, say); by default a value of any
            built-in type.

    Returns:
        The variable.

    Raises:
        UsageError: no context variable, or another one has the name.
        UnsupportedTypeError: values of the type cannot be stored.
    """
    if not isinstance(variable, ContextVar):
        raise UsageError(f"perdure.carry takes a context variable (contextvars.ContextVar), not {variable!r}")
    file = sys._getframe(1).f_code.co_filename
    carrier = carrying.CarriedVariable(variable, data_type, file)
    there = carrying.declare(carrier)
    if there is carrier:
        return variable
    if not isinstance(there, carrying.CarriedVariable) or there.file != file:
        raise UsageError(
            f"two context variables are named {variable.name!r}, and both are to go with each run: give one of them "
            "another name"
        )
    there.loaded_again(carrier)
    return variable
