"""What the core knows of a task: a function and its settings, without the public classes around it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NoReturn, Protocol

from ..errors import PerdureError
from .model import Kind, Run
from .values import Signature


@dataclass(frozen=True, slots=True)
class Backoff:
    """The pause between two attempts: `initial` seconds, times `factor` each time, at most `maximum` seconds.

    `jitter` is the share of the pause (0 to 1) that is random.
    """

    initial: float = 1.0
    factor: float = 2.0
    maximum: float = 300.0
    jitter: float = 0.0

    def seconds(self, failures: int) -> float:
        """The pause after that many failures (from 1)."""
        try:
            pause = self.initial * self.factor ** (failures - 1)
        except OverflowError:
            pause = self.maximum
        pause = min(pause, self.maximum)
        return pause * (1 - self.jitter * random.random())


@dataclass(frozen=True, slots=True)
class RetryStrategy:
    """How often a failed attempt is tried again, and after which pause. `count` retries make `count + 1` attempts."""

    count: int = 0
    backoff: Backoff | None = None


NO_RETRIES = RetryStrategy()


@dataclass(eq=False, slots=True)
class Function:
    """A function under the durability boundary: its identity and the codecs of what crosses it."""

    kind: Kind
    fn: Callable[..., Any]
    name: str
    """For people, such as `etl.fetch` or `call_api`."""
    is_async: bool
    signature: Signature
    qualified: Callable[[], str]
    """The qualified name under the logical module; computed late, because `__main__` has to be resolved first."""
    _prefix: Any = field(default=None)

    def fingerprint(self, identity: bytes) -> bytes:
        """16 bytes over kind, qualified name and canonical arguments (DESIGN §4)."""
        prefix = self._prefix
        if prefix is None:
            prefix = self._prefix = blake2b(
                b"%d\0%b\0" % (self.kind, self.qualified().encode("utf-8", "surrogatepass")), digest_size=16
            )
        digest = prefix.copy()
        digest.update(identity)
        return digest.digest()  # type: ignore[no-any-return]


class AttemptLost(Exception):
    """The machine, the engine or the node under a detached attempt is gone, and the attempt with it. Another attempt
    is made that is not charged to the task's retries."""


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


@dataclass(eq=False, slots=True)
class TaskSpec(Function):
    """A task's function and settings."""

    retries: RetryStrategy = NO_RETRIES
    timeout: float | None = None
    """Seconds of live time for one attempt."""
    cache_key: Callable[[bytes], bytes] | None = None
    """From the canonical inputs to the key under which the outcome is shared between runs; `None`: not cached."""
    target: Callable[[], str] = field(default=lambda: "")
    """Where the code is, as `NewRun.target` says it."""
    env_vars: dict[str, str] = field(default_factory=dict)
    dispose: Callable[[Detached], None] | None = None
    """Set for a task whose attempts run outside of this process and outlive it. Its function is called with a
    `Detached` in front of its arguments. `dispose` is told, from any thread, when the outcome of an attempt is on
    disk, or its cancellation: whatever is left of it may, and must, go."""
