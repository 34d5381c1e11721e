"""The state of a run as JSON data, as integrations answer with it."""

from __future__ import annotations

from typing import Any

from ..api.jsonable import jsonable
from ..api.run import Run
from ..core.ground.model import FINISHED, Status
from ..errors import StoreError


def shown(run: Run) -> dict[str, Any]:
    """Name, task, status, tags and times."""
    times = {"created": run.created_at, "started": run.started_at, "ended": run.ended_at}
    return {
        "run": run.name,
        "task": run.task,
        "status": str(run.status),
        "tags": run.tags,
        **{name: None if at is None else at.isoformat() for name, at in times.items()},
    }


def state_of(run: Run) -> dict[str, Any]:
    """As `shown`, with the result or the error of an ended run."""
    found = shown(run)
    if Status(found["status"]) not in FINISHED:
        return found
    try:
        return found | {"result": jsonable(run.result)}
    except Exception as error:
        if isinstance(error, StoreError):
            raise
        return found | {"error": {"type": type(error).__name__, "message": str(error)}}
