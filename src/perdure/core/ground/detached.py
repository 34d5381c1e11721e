"""The interface of detached attempts, which run outside of the process and outlive the process."""

from __future__ import annotations

from typing import NoReturn, Protocol

from ...errors import PerdureError
from .model import RunRow


class Detached(Protocol):
    """A detached attempt: the first argument of the task's function."""

    @property
    def run(self) -> RunRow:
        """The run of the attempt."""

    @property
    def action(self) -> int:
        """The number of the action within the run."""

    @property
    def attempt(self) -> int:
        """The number of the attempt, from 1. Only the container of `state`, and containers of the present process, were
        ever begun under this number."""

    @property
    def token(self) -> bytes:
        """The token of the claim."""

    @property
    def state(self) -> bytes | None:
        """The state that an earlier process stored for this attempt by `keep`; `None`: nothing was stored."""

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the attempt's timeout; `None`: there is no timeout."""

    cached_under: bytes | None
    """Set by the function: a cache key for the outcome, shared with other runs."""

    async def keep(self, state: bytes) -> None:
        """Store the state that a later process needs to join the attempt. On return the state is on disk (P9). Without
        the claim the call does not return (P3)."""

    def cached(self, key: bytes) -> bytes | None:
        """The cached outcome of an earlier attempt of any run, by key."""

    def suspend(self, reason: PerdureError) -> NoReturn:
        """Stop driving: the state of the attempt is unknown. The run stays interrupted, the attempt unchanged."""
