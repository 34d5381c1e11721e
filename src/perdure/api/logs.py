"""Logging that knows replays: `perdure.log`, `ReplayFilter`."""

from __future__ import annotations

import logging

from ..core.body.scope import SCOPE, is_body


class ReplayFilter(logging.Filter):
    """Drops what a body logs while it goes through recorded outcomes again: `handler.addFilter(ReplayFilter())`, or
    `logger.addFilter(...)`. What a trace logs, and what code outside of a run logs, passes."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record passes."""
        scope = SCOPE.get()
        return not is_body(scope) or not scope.idle_replaying


log = logging.getLogger("perdure.task")
"""A logger for the code of tasks: silent on replay, and on from `INFO` up."""
log.addFilter(ReplayFilter())
log.setLevel(logging.INFO)
