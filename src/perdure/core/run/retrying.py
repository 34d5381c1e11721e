"""Whether a failed call is tried again, and after which pause.

- RT1 the number of failures and the end of the pause are on disk before the pause begins. A process that goes on with
  the run waits for the rest of the pause. Jitter is part of the recorded end, so no process draws it again.
- RT2 a call is executed at most once more than its strategy has retries, crashes not counted.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from typing import Any

from ...errors import NonRecoverableError, UsageError
from ..body.branch import Call
from ..body.waits import sleep_until
from ..commit.records import Noted
from ..ground.clock import US, Deadline
from ..ground.model import Action, ActionState
from ..ground.spec import RetryStrategy
from ..ground.values import text_of
from .attached import deadline_of, state_row
from .effects import Durable
from .interfaces import Failure

log = logging.getLogger("perdure")

LONGEST_PAUSE = 366 * 86400.0
"""Seconds. A longer pause that an exception asks for is not honoured: the value is no time, or a mistake."""


def failure_of(error: BaseException) -> Failure | None:
    """How an attempt failed in another process; `None` for an exception that was raised here."""
    return getattr(error, "__perdure_failure__", None)


def is_final(error: BaseException) -> bool:
    """Whether retrying is pointless: the user said so, or the call or declaration itself is wrong."""
    failure = failure_of(error)
    if failure is not None:
        return failure.final
    return isinstance(error, (NonRecoverableError, UsageError)) or getattr(error, "recoverable", True) is False


def next_pause(strategy: RetryStrategy, failures: int, error: BaseException, wall: int) -> float | None:
    """The seconds until the next attempt, after so many failures; `None`: the call has failed for good."""
    if failures > strategy.count or is_final(error) or not _retries(strategy, error):
        return None
    pause = 0.0 if strategy.backoff is None else strategy.backoff.seconds(failures)
    return max(pause, asked_pause(error, wall))


def log_retry(name: str, strategy: RetryStrategy, failures: int, pause: float, error: BaseException) -> None:
    """Say that a call is tried again."""
    log.warning(
        "%s failed (attempt %d of %d), %s: %s: %s", name, failures, strategy.count + 1,
        f"next in {pause:.3g} s" if pause else "trying again", type(error).__name__, text_of(error),
    )  # fmt: skip


def _retries(strategy: RetryStrategy, error: BaseException) -> bool:
    """Whether the strategy is for this exception."""
    if strategy.retry_on is not None and not isinstance(error, strategy.retry_on):
        return False
    if strategy.retry_if is None:
        return True
    try:
        return bool(strategy.retry_if(error))
    except Exception as broken:
        error.add_note(f"Not tried again: retry_if raised {type(broken).__name__}: {text_of(broken)}")
        return False


def asked_pause(error: BaseException, wall: int) -> float:
    """The seconds that an exception asks for before the next attempt; 0 if the exception asks for nothing.

    The exception's `retry_after`, or the header `Retry-After` of its `response`, or of its own `headers`. Seconds as a
    number or text, a `timedelta`, a `datetime`, or the date of HTTP. What cannot be read asks for nothing.
    """
    failure = failure_of(error)
    if failure is not None:
        return failure.pause
    try:
        asked = getattr(error, "retry_after", None)
        if asked is None:
            headers = getattr(getattr(error, "response", None), "headers", None)
            headers = getattr(error, "headers", None) if headers is None else headers
            asked = None if headers is None else headers.get("Retry-After") or headers.get("retry-after")
        seconds = 0.0 if asked is None else _seconds(asked, wall)
    except Exception:
        # Properties of foreign classes may raise anything.
        return 0.0
    return seconds if 0 < seconds <= LONGEST_PAUSE else 0.0


def _seconds(asked: Any, wall: int) -> float:
    if isinstance(asked, timedelta):
        return asked.total_seconds()
    if isinstance(asked, str):
        try:
            asked = float(asked)
        except ValueError:
            from email.utils import parsedate_to_datetime  # a late import: few servers give a date

            asked = parsedate_to_datetime(asked)
    if isinstance(asked, datetime):
        moment = asked if asked.tzinfo is not None else asked.replace(tzinfo=UTC)
        return moment.timestamp() - wall / US
    return 0.0 if isinstance(asked, bool) or math.isnan(asked) else float(asked)


class TraceRetries:
    """The failures of one call of a trace with retries: an action, begun with the first failure."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._body = call.body
        assert call.function is not None
        self._strategy: RetryStrategy = call.function.retries
        self._action: Action | None = self._body.delivery.open_actions.pop((call.branch.id, call.fp, call.occ), None)
        found = self._action
        self._failures = 0 if found is None else found.failures
        self._attempt = 1 if found is None else found.attempt
        self._deadline = None if found is None else deadline_of(found)

    @property
    def child(self) -> int | None:
        """The number of the action; `None`: nothing has failed."""
        return None if self._action is None else self._action.action

    def again(self, error: BaseException) -> bool:
        """Whether the call is tried again after this failure; `announce` and `pause` come next."""
        clock = self._body.driver.worker.clock
        self._failures += 1
        pause = next_pause(self._strategy, self._failures, error, clock.wall()) if _is_failure(error) else None
        if pause is None:
            return False
        self._attempt += 1
        self._deadline = Deadline.after(pause, clock)
        log_retry(self._call.name, self._strategy, self._failures, pause, error)
        return True

    def announce(self, at: int) -> Generator[Any, Any, None]:
        """Get the failures and the end of the pause onto disk (RT1). `at`: when the failed attempt began."""
        if self._action is not None:
            yield Durable(self._body, self._row())
            return
        call, driver = self._call, self._body.driver
        wall, boot, boot_id = self._deadline if self._deadline is not None else (None, None, None)
        self._action = Action(
            driver.run_id, self._body.action, driver.next_action(), call.branch.id, call.seq, call.occ, call.kind,
            call.fp, call.name, call.label, None, driver.source_id, at, self._attempt, self._failures, wall, boot,
            boot_id, call.begun,
        )  # fmt: skip
        yield Durable(self._body, Noted(self._body), self._action)

    def pause(self) -> Generator[Any, Any, bool]:
        """Wait for the end of the pause. Gives `False` where the run was cancelled during the pause."""
        deadline, self._deadline = self._deadline, None
        return deadline is None or (yield from sleep_until(self._body, deadline))

    def given_up(self) -> tuple[ActionState, ...]:
        """The rows to commit with the last failure: called again, by a retry of the task, the call has all retries."""
        if self._action is None:
            return ()
        self._failures, self._deadline = 0, None
        return (self._row(),)

    def _row(self) -> ActionState:
        assert self._action is not None
        row = state_row(self._action, self._attempt, self._failures, self._deadline, True)
        assert isinstance(row, ActionState)
        return row


def _is_failure(error: BaseException) -> bool:
    """A stray cancellation or `KeyboardInterrupt` is recorded, and never tried again."""
    return isinstance(error, Exception)
