"""What the writer asks of a run."""

from __future__ import annotations

from typing import Any, Protocol

from ...errors import RunStopped, StoreError
from ..journal.segment import Journal


class Sink(Protocol):
    """A run, as the commit path sees it: where records wait, under which claim, and who is told.

    The writer's leader owns `n` and `journal`. `outbox` is appended to by any thread and cut by the leader alone.
    """

    run_id: int
    token: bytes
    source_id: int
    n: int
    """Entries written so far."""
    journal: Journal
    outbox: list[Any]
    abandoning: bool
    """Some body was abandoned: records have to be looked at before they are written."""
    broken: bool
    """A commit of the run has failed. Kept by the leader, which refuses all later records of this driver (W1)."""

    def stopped_error(self) -> RunStopped:
        """The error for callers whose record was not written."""

    def fenced(self) -> None:
        """The store refused a write: the claim is another worker's (P3), or the run was ended from outside."""

    def failed(self, error: StoreError) -> None:
        """The store cannot be written."""

    def finished(self) -> None:
        """The run's outcome is on disk."""

    def parked(self) -> None:
        """That the run sleeps is on disk."""

    def settled(self, action: int) -> None:
        """A cancelled call's outcome is on disk; the call had started that action."""
