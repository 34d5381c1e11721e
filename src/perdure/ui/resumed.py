"""Runs that this process was asked to drive by a form: what became of them, for the next page and for the log."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import wait
from typing import Any, Final

from ..api import operate
from ..core.ground.model import Status
from ..errors import LeaseLostError, PerdureError, RunAbortedError, RunCancelledError, RunPausedError, RunStopped

log = logging.getLogger("perdure")

PATIENCE: Final = 1.0
"""Seconds for which a form waits for runs that end early, so that the next page can tell why."""


def followed(handles: Sequence[operate.Handle], patience: float = PATIENCE) -> dict[str, str]:
    """Log why any of the runs is driven no further, now or later; and tell which of them that befell within
    `patience` seconds, by the name of the run."""
    futures = {handle.done: handle for handle in handles if handle.done is not None}
    for future, handle in futures.items():
        future.add_done_callback(lambda _, handle=handle: _log(handle))  # type: ignore[misc]
    done, _ = wait(futures, timeout=patience)
    told = {futures[future].name: _fault(futures[future]) for future in done}
    return {name: fault for name, fault in told.items() if fault is not None}


def _fault(handle: operate.Handle) -> str | None:
    """Why driving has ended without the success of the run; `None`: the run succeeded, sleeps, or was told to end."""
    try:
        ended = operate.outcome(handle)
    except (RunStopped, RunPausedError, RunCancelledError, RunAbortedError):
        return None
    except LeaseLostError as error:
        return str(error)
    except PerdureError as error:
        return f"cannot be driven: {type(error).__name__}: {error}"
    except Exception as error:
        return f"cannot be driven: {type(error).__name__}: {error}"
    if ended.status is not Status.FAILED or ended.error is None:
        return None
    return f"failed: {ended.error.type.rpartition('.')[2]}: {ended.error.message}"


def _log(handle: operate.Handle) -> Any:
    fault = _fault(handle)
    if fault is not None:
        log.warning("run %s, resumed on the page, %s", handle.name, fault)
