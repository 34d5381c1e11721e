"""Attempts that run outside of this process (containers, pods): what is attached to a run, and until when.

- An attached attempt has a purpose until the outcome of its action, or of an action that the attempt is part of, is on
  disk. Then the attempt is disposed of.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NoReturn

from ...errors import PerdureError
from ..body.interfaces import BodyPort
from ..ground.clock import Deadline
from ..ground.model import Action, ActionState, RunRow
from ..ground.spec import TaskSpec
from .effects import Durable

ENDED = b""
"""State of a detached attempt that must not be joined: its own or its caller's outcome is committed."""


def state_row(
    action: Action, attempt: int, failures: int, deadline: Deadline | None, stored: bool, state: bytes | None = None
) -> Action | ActionState:
    wall, boot, boot_id = deadline if deadline is not None else (None, None, None)
    if not stored:
        return action._replace(
            attempt=attempt, failures=failures, wake_at=wall, wake_boot=boot, boot=boot_id, state=state
        )
    return ActionState(action.run, action.parent, action.action, attempt, failures, wall, boot, boot_id, state)


def deadline_of(action: Action) -> Deadline | None:
    """The deadline that an action's row holds."""
    if action.wake_at is None:
        return None
    return Deadline(action.wake_at, action.wake_boot, action.boot)


class Attached:
    """`detached.Detached`, attached to the body that stands for it here."""

    def __init__(
        self,
        body: BodyPort,
        spec: TaskSpec,
        action: Action,
        attempt: int,
        failures: int,
        limit: Deadline | None,
        stored: bool,
        joined: bool,
    ) -> None:
        self.body = body
        self.spec = spec
        self.attempt = attempt
        self.stored = stored
        self.state = action.state if joined else None
        self.cached_under: bytes | None = None
        self._row = action
        self._failures = failures
        self._limit = limit
        self.within = {action.action}
        """The action and its ancestors: the outcome of any of them ends the purpose of this attempt."""
        parent = body.parent
        while parent is not None:
            self.within.add(parent.action)
            parent = parent.parent
        body.driver.attached.add(self)

    @property
    def run(self) -> RunRow:
        """See `Detached`."""
        run: RunRow = self.body.driver.run
        return run

    @property
    def action(self) -> int:
        """See `Detached`."""
        return self._row.action

    @property
    def token(self) -> bytes:
        """See `Detached`."""
        token: bytes = self.body.driver.token
        return token

    @property
    def seconds_left(self) -> float | None:
        """See `Detached`."""
        if self._limit is None:
            return None
        return max(0.0, self._limit.remaining(self.body.driver.worker.clock) / 1_000_000)

    async def keep(self, state: bytes) -> None:
        """See `Detached`."""
        if self.body.stopped:
            # The attempt has timed out, say, and its row is another's by now.
            raise self.body.driver.stopped_error()
        row = state_row(self._row, self.attempt, self._failures, self._limit, self.stored, state)
        self.stored = True
        await Durable(self.body, row)

    def ended(self) -> Action | ActionState | None:
        """The row that forbids joining this attempt from now on; `None`: no process could join it."""
        return state_row(self._row, self.attempt, self._failures, None, True, ENDED) if self.stored else None

    def cached(self, key: bytes) -> bytes | None:
        """See `Detached`."""
        found: bytes | None = self.body.driver.worker.store.cache_get(key)
        return found

    def suspend(self, reason: PerdureError) -> NoReturn:
        """See `Detached`."""
        self.body.driver.stop(reason)
        raise self.body.driver.stopped_error()


class Attachments:
    """The attached attempts of one run whose outcome is not on disk yet. From any thread."""

    def __init__(self) -> None:
        self._attempts: list[Attached] = []
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        return bool(self._attempts)

    def add(self, attached: Attached) -> None:
        """An attempt begins outside of this process."""
        with self._lock:
            self._attempts.append(attached)

    def ended(self, action: int) -> list[Any]:
        """Rows to commit with the outcome of an action: attempts outside of this process for the action, or for an
        action that it called, must not be joined by a later call."""
        if not self._attempts:
            return []
        with self._lock:
            rows = [attached.ended() for attached in self._attempts if action in attached.within]
        return [row for row in rows if row is not None]

    def settled(self, action: int, *, final: bool = True) -> None:
        """The outcome of an action is on disk: dispose of the attempts outside of this process for the action, and for
        actions that it called. Or (not `final`) the outcome of one attempt is on disk, and the next attempt may join
        the attempts that its calls have left running."""
        if self._attempts:
            self._dispose(lambda attached: action in attached.within if final else action == attached.action)

    def dispose_all(self) -> None:
        """The run has ended."""
        self._dispose(lambda _: True)

    def _dispose(self, over: Callable[[Attached], bool]) -> None:
        with self._lock:
            gone = [attached for attached in self._attempts if over(attached)]
            self._attempts = [attached for attached in self._attempts if attached not in gone]
        for attached in gone:
            assert attached.spec.dispose is not None
            attached.spec.dispose(attached)
