"""The states of a run in Flyte's words."""

from __future__ import annotations

from enum import StrEnum

from ..core.ground.model import Status


class ActionPhase(StrEnum):
    """The phase of a run."""

    QUEUED = "queued"
    WAITING_FOR_RESOURCES = "waiting_for_resources"
    INITIALIZING = "initializing"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ABORTED = "aborted"
    TIMED_OUT = "timed_out"
    RECOVERED = "recovered"

    @property
    def is_terminal(self) -> bool:
        """Whether the phase is an end."""
        return self in (self.SUCCEEDED, self.FAILED, self.ABORTED, self.TIMED_OUT, self.RECOVERED)


_PHASES = {
    Status.QUEUED: ActionPhase.QUEUED,
    Status.PAUSED: ActionPhase.PAUSED,
    Status.SUCCEEDED: ActionPhase.SUCCEEDED,
    Status.FAILED: ActionPhase.FAILED,
    Status.ABORTED: ActionPhase.ABORTED,
    Status.CANCELLED: ActionPhase.ABORTED,
}


def phase_of(status: Status) -> ActionPhase:
    """The phase of a run of that status; a run between two drivers counts as running."""
    return _PHASES.get(status, ActionPhase.RUNNING)
