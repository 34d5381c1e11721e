"""From a public call to a protocol: the caller, the branch, and the colour."""

from __future__ import annotations

import asyncio
import sys
import warnings
from collections.abc import Callable
from types import FrameType

from ..core.body.branch import Branch
from ..core.body.loop import PerdureLoop
from ..core.body.scope import TraceScope, current_scope, find_branch, refuse_stray_thread
from ..core.run.effects import run_async, run_blocking, run_sync
from ..errors import BranchError, PerdureWarning

__all__ = ["caller", "on_loop", "outside", "run_async", "run_blocking", "run_sync", "warn_blocking"]

_OURS = __name__.partition(".")[0]

INPUTS_SHOWN = 4096
"""Size in bytes up to which the entry of a trace keeps the encoded arguments, for people to read."""


def caller(what: Callable[[], str]) -> Branch | TraceScope | None:
    """The calling branch; a `TraceScope` inside a trace; `None` outside any run.

    Raises:
        BranchError: there is a run, but the calling place has no branch of its own.
    """
    scope = current_scope()
    if scope is None:
        if asyncio._get_running_loop().__class__ is PerdureLoop:
            raise BranchError(
                f"{what()} was called on perdure's event loop from outside any body, where its outcome cannot be "
                "recorded. Start such work from the task itself with asyncio.create_task(), in its own context."
            )
        refuse_stray_thread(what)
        return None
    if type(scope) is TraceScope:
        return scope
    return find_branch(scope, what)


def on_loop() -> bool:
    """Whether the calling thread runs an event loop right now."""
    return asyncio._get_running_loop() is not None


def outside() -> tuple[FrameType, int]:
    """The nearest calling frame of another package, and its distance from the caller of this function."""
    frame, depth = sys._getframe(1), 1
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == _OURS:
        frame, depth = frame.f_back, depth + 1
    return frame, depth


def warn_blocking(name: str) -> None:
    """Warn of a synchronous durable call on an event loop's thread: the call blocks every task of the loop."""
    _, depth = outside()
    warnings.warn(
        f"{name}() blocks the event loop here until its outcome is on disk; in async code write: await {name}.aio(...)",
        PerdureWarning,
        stacklevel=depth,
    )
