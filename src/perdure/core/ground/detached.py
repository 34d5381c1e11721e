"""An attempt that runs outside of this process and outlives it, as the code that runs it gets it."""

from __future__ import annotations

from typing import NoReturn, Protocol

from ...errors import PerdureError
from .model import Run


class Detached(Protocol):
    """A detached attempt, as the function of its task gets it (first argument) and keeps it."""

    @property
    def run(self) -> Run:
        """The run that it belongs to."""

    @property
    def action(self) -> int:
        """The number of its action within the run."""

    @property
    def attempt(self) -> int:
        """The number of the attempt, from 1. Nothing was ever begun under it but what `state` tells of, and what this
        very process began."""

    @property
    def token(self) -> bytes:
        """The claim under which it is driven."""

    @property
    def state(self) -> bytes | None:
        """What an earlier process kept of this very attempt; `None`: it got to nothing worth keeping."""

    @property
    def seconds_left(self) -> float | None:
        """Until the attempt's timeout; `None`: it has none."""

    cached_under: bytes | None
    """Set by the function: a key under which the outcome may be shared with other runs."""

    async def keep(self, state: bytes) -> None:
        """Store what it takes to join this attempt. On disk when this returns (P9); does not return where this process
        has lost its claim (P3)."""

    def cached(self, key: bytes) -> bytes | None:
        """What an earlier attempt, of whatever run, has left under a key."""

    def suspend(self, reason: PerdureError) -> NoReturn:
        """Drive the run no further, so that it stays interrupted and the attempt what it is: nothing is known of it."""
