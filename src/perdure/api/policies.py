"""What a submission looks at beside the name of its run: keys, full queues, the time to begin."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final, Literal, get_args

from .. import runtime
from ..core.ground.clock import US
from ..core.ground.model import Policy
from ..core.ground.spec import QueueSpec
from ..errors import UsageError
from .local_time import local_moment

WhenFull = Literal["wait", "skip", "replace", "latest"]
_LONGEST: Final = 366 * 86400


class SubmitPolicy:
    """The settings of `with_runcontext` for submissions, checked."""

    def __init__(
        self,
        dedup: str | None = None,
        dedup_for: float | timedelta | None = None,
        debounce: float | timedelta | None = None,
        throttle: float | timedelta | None = None,
        start_by: datetime | float | timedelta | None = None,
        when_full: WhenFull | None = None,
    ) -> None:
        if dedup is not None and (not isinstance(dedup, str) or not dedup or "\0" in dedup or len(dedup) > 200):
            raise UsageError(f"dedup must be text of 1 to 200 characters, not {dedup!r}")
        if dedup is None:
            for name, value in (("dedup_for", dedup_for), ("debounce", debounce), ("throttle", throttle)):
                if value is not None:
                    raise UsageError(f"{name}= is about runs of one key, and needs dedup=")
        if dedup_for is not None and (debounce is not None or throttle is not None):
            raise UsageError("dedup_for= keeps the first run of a key, debounce= and throttle= keep the newest: choose")
        if when_full is not None:
            check_when_full(when_full, "when_full")
        self.dedup = dedup
        self.keep = None if dedup_for is None else _microseconds(dedup_for, "dedup_for")
        self.debounce = 0 if debounce is None else _microseconds(debounce, "debounce")
        self.throttle = 0 if throttle is None else _microseconds(throttle, "throttle")
        self.when_full = when_full
        self.start_by = start_by
        if start_by is not None and not isinstance(start_by, datetime):
            _microseconds(start_by, "start_by")

    @property
    def given(self) -> bool:
        """Whether any setting was given."""
        return self.dedup is not None or self.start_by is not None or self.when_full is not None

    def resolved(self, queue: QueueSpec | None, *, later: bool, connected: bool) -> Policy | None:
        """The policy of one submission; `None`: nothing but the name counts.

        Args:
            queue: the queue of the run.
            later: the run has a time of its own to begin (`at`, `delay`).
            connected: the run is submitted in a transaction of the caller's.
        """
        full = queue is not None and queue.settings.when_full != "wait"
        if not self.given and not full:
            return None
        if connected:
            raise UsageError(
                "dedup=, debounce=, throttle=, start_by= and when_full= look at other runs in a transaction of the "
                "store itself, and cannot be used with connection="
            )
        if later and (self.debounce or self.throttle):
            raise UsageError("debounce= and throttle= say when the run begins; at= and delay= cannot be given as well")
        if self.when_full not in (None, "wait"):
            check_limit(queue, "when_full=")
        start_by = None if self.start_by is None else _moment(self.start_by)
        return Policy(self.dedup, self.keep, self.debounce, self.throttle, self.when_full, start_by)


def check_when_full(value: Any, where: str) -> None:
    """Raise `UsageError` for a value of `when_full=` that means nothing."""
    if value not in get_args(WhenFull):
        raise UsageError(f"{where} must be 'wait', 'skip', 'replace' or 'latest', not {value!r}")


def check_limit(queue: QueueSpec | None, where: str) -> None:
    """Raise `UsageError` for a queue that is never full."""
    if queue is None or (queue.settings.concurrency is None and queue.settings.per_key is None):
        raise UsageError(f"{where} needs a queue that can be full: one with concurrency= or per_key=")


def _microseconds(value: Any, name: str) -> int:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds <= _LONGEST:
        raise UsageError(f"{name} must be seconds above 0 and up to a year, or a timedelta, not {value!r}")
    return int(seconds * US)


def _moment(start_by: datetime | float | timedelta) -> int:
    if isinstance(start_by, datetime):
        return int(local_moment(start_by).timestamp() * US)
    return runtime.worker().clock.wall() + _microseconds(start_by, "start_by")
