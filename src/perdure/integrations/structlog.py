"""structlog in tasks: a processor that adds the run, and is silent on replay.

structlog.configure(processors=[perdure.integrations.structlog.of_task, structlog.dev.ConsoleRenderer()])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core.body.scope import SCOPE, TraceScope

if TYPE_CHECKING:
    from collections.abc import MutableMapping


def of_task(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor: adds `run`, `action` and `attempt` to the events of tasks, and drops the events of a replay. Keys
    that an event has already stay as they are.

    Raises:
        structlog.DropEvent: the body goes through recorded outcomes again.
    """
    scope = SCOPE.get()
    if scope is None:
        return event
    in_trace = scope.__class__ is TraceScope
    body = scope.body if in_trace else scope
    if not in_trace and body.idle_replaying:
        from structlog import DropEvent

        raise DropEvent
    event.setdefault("run", body.driver.run.name)
    event.setdefault("action", body.action)
    event.setdefault("attempt", body.attempt)
    return event
