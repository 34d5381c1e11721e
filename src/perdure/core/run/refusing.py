"""What is stored with a run that a process could not drive.

- RF1 a refusal is stored in the transaction that gives the claim back, under the token of the claim: a worker that has
  lost its claim stores none. The refusal counts until the run is claimed, has ended or has recorded something more.
"""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterable
from types import FrameType
from typing import Any, Final

from ...errors import (
    LeaseLostError,
    PerdureError,
    RunAbortedError,
    RunCancelledError,
    RunPausedError,
    RunStopped,
    StoreUnavailableError,
)
from ..ground.clock import US
from ..ground.model import NewRefusal

LONGEST: Final = 20_000
"""Characters of a stored message; the rest is cut off."""

NOT_THE_USERS: Final = tuple(
    {
        f"{os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))}{os.sep}",
        "<frozen ",
        *(os.path.join(path, "") for name, path in sysconfig.get_paths().items() if name.endswith(("lib", "stdlib"))),
    }
)
"""The beginnings of file names of perdure, Python and installed packages."""


def is_refusal(reason: BaseException) -> bool:
    """Whether the reason is a fault that the next process may meet as well. A stop by a person, a lost claim, an end of
    the run or an unusable store is none."""
    if type(reason) is PerdureError:
        return False  # the process stops, or was told to let go
    others = (
        LeaseLostError, RunAbortedError, RunCancelledError, RunPausedError, RunStopped, StoreUnavailableError,
    )  # fmt: skip
    return not isinstance(reason, others)


def refusal_of(reason: BaseException, worker: str, now: int, retry_after: float | None, place: str) -> NewRefusal:
    """A refusal as the store keeps it.

    Args:
        now: wall clock, microseconds.
        retry_after: seconds until the worker tries again, if the worker does.
        place: the line of the user's code, where the traceback of the error has none.
    """
    kind = type(reason)
    name = kind.__qualname__ if kind.__module__.startswith("perdure.") else f"{kind.__module__}.{kind.__qualname__}"
    again = None if retry_after is None else now + int(retry_after * US)
    return NewRefusal(
        worker, name.removeprefix("builtins."), str(reason)[:LONGEST], _place_of(reason) or place, now, again
    )


def _place_of(error: BaseException) -> str:
    found = ""
    trace = error.__traceback__
    while trace is not None:
        found = _text(trace.tb_frame, trace.tb_lineno) or found
        trace = trace.tb_next
    return found


def place_on_stack(frame: FrameType | None) -> str:
    """The innermost line of the user's code among the callers of a frame; empty: there is none."""
    while frame is not None:
        found = _text(frame, frame.f_lineno)
        if found:
            return found
        frame = frame.f_back
    return ""


def place_of_tasks(tasks: Iterable[Any]) -> str:
    """The innermost line of the user's code at which the first unfinished task waits; empty: none is known."""
    for task in tasks:
        found, waiting = "", task.get_coro() if not task.done() else None
        while waiting is not None:
            frame = getattr(waiting, "cr_frame", None)
            if frame is not None:
                found = _text(frame, frame.f_lineno) or found
            waiting = getattr(waiting, "cr_await", None)
        if found:
            return found
    return ""


def _text(frame: FrameType, line: int) -> str:
    code = frame.f_code
    if code.co_filename.startswith(NOT_THE_USERS):
        return ""
    return f"{code.co_filename}:{line} ({code.co_name})"
