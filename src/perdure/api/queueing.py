"""Queues: limits under which workers take submitted runs. `api.queues_known` operates queues."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from datetime import timedelta
from typing import Any, Final, Literal, get_args

import msgspec

from ..core.ground.clock import US
from ..core.ground.model import QueueSettings
from ..core.ground.spec import QueueSpec
from ..errors import UsageError
from .policies import WhenFull, check_limit, check_when_full

Order = Literal["fifo", "priority", "fair"]
_LARGEST: Final = 1000
"""The highest priority; the lowest is the negative."""
_LONGEST: Final = 366 * 86400


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` (starts, or units of cost) within any window of `per` seconds (or a `timedelta`): `Rate(600,
    per=60)`."""

    count: int
    _: KW_ONLY
    per: float | timedelta

    def __post_init__(self) -> None:
        check_count(self.count, "Rate: the count")
        seconds = self.seconds
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 1e-3 <= seconds <= _LONGEST:
            raise UsageError(f"Rate: per must be seconds from 0.001 to a year, or a timedelta, not {self.per!r}")

    @property
    def seconds(self) -> float:
        """The length of the window."""
        return self.per.total_seconds() if isinstance(self.per, timedelta) else self.per


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue for submitted runs: `@env.task(queue=Queue("crawl", concurrency=20))`.

    A worker takes a run of the queue only while the limits leave room. The limits hold over all processes and machines
    that use the store. A run holds a slot while a worker drives the run: not while the run is parked. Tasks may share a
    queue: declare one `Queue`, and give it to each task.

    Args:
        name: identifies the queue in the store.
        concurrency: how many runs are driven at once.
        per_worker: how many runs one worker process drives at once.
        rate: how many runs start. A run that goes on after a pause or a crash is no start.
        key: gives the key of a run: called with the task's arguments by their names, gives text or an int.
        per_key: how many runs of one key are driven at once.
        order: which waiting run is taken: `"fifo"`, the run that was due first; `"priority"`, the run of the highest
            priority (`with_runcontext(priority=...)`); `"fair"`, keys take turns. In each order, runs that have begun
            go before runs that have not.
        aging: with `order="priority"`: a priority counts as much as waiting for so long (seconds or a `timedelta`),
            so that no run waits for ever behind runs of higher priorities.
        when_full: what becomes of a submitted run if the queue has as many unfinished runs as `concurrency` allows, or,
            with `per_key`, the key of the run as many as that: `"wait"`; `"skip"`, the new run is cancelled;
            `"replace"`, the oldest runs are cancelled, with their cleanup, until there is room; `"latest"`, the new run
            takes the place of the run that waits.

    Raises:
        UsageError: a setting means nothing.
    """

    name: str
    _: KW_ONLY
    concurrency: int | None = None
    per_worker: int | None = None
    rate: Rate | None = None
    key: Callable[..., Any] | None = None
    per_key: int | None = None
    order: Order = "fifo"
    aging: float | timedelta = 3600.0
    when_full: WhenFull = "wait"
    spec: QueueSpec = field(init=False, repr=False, compare=False)
    """The queue as the core takes it."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip() or "\0" in self.name or len(self.name) > 200:
            raise UsageError(f"a Queue needs a name of at most 200 characters, not {self.name!r}")
        settings = queue_settings(
            f"queue {self.name}", self.concurrency, self.per_worker, self.rate, self.per_key, self.order, self.aging
        )
        if self.key is None and (self.per_key is not None or self.order == "fair"):
            raise UsageError(f"queue {self.name}: per_key= and order='fair' need key=, which gives the key of a run")
        if self.key is not None and not callable(self.key):
            raise UsageError(f"queue {self.name}: key must be a function of the task's arguments, not {self.key!r}")
        check_when_full(self.when_full, f"queue {self.name}: when_full")
        settings = msgspec.structs.replace(settings, when_full=self.when_full)
        if self.when_full != "wait":
            check_limit(QueueSpec(self.name, settings), f"queue {self.name}: when_full=")
        object.__setattr__(self, "spec", QueueSpec(self.name, settings, self.key))


def queue_of(queue: Any, where: str) -> QueueSpec:
    """`queue=` as the core takes it."""
    if not isinstance(queue, Queue):
        raise UsageError(f"{where}: queue must be a perdure.Queue, not {queue!r}")
    return queue.spec


def check_priority(priority: Any, queue: QueueSpec | None) -> None:
    """Raise `UsageError` for a priority that means nothing."""
    if isinstance(priority, bool) or not isinstance(priority, int) or abs(priority) > _LARGEST:
        raise UsageError(f"priority must be an int from -{_LARGEST} to {_LARGEST}, not {priority!r}")
    if priority and (queue is None or queue.settings.order != "priority"):
        which = "the task has no queue" if queue is None else f"queue {queue.name} has order={queue.settings.order!r}"
        raise UsageError(f"priority= needs a queue with order='priority', and {which}")


def queue_settings(
    where: str, concurrency: Any, per_worker: Any, rate: Any, per_key: Any, order: Any, aging: Any
) -> QueueSettings:
    """Settings of a queue, checked. `where` begins the messages of errors."""
    for name, value in (("concurrency", concurrency), ("per_worker", per_worker), ("per_key", per_key)):
        if value is not None:
            check_count(value, f"{where}: {name}")
    if rate is not None and not isinstance(rate, Rate):
        raise UsageError(f"{where}: rate must be a perdure.Rate, not {rate!r}")
    if order not in get_args(Order):
        raise UsageError(f"{where}: order must be 'fifo', 'priority' or 'fair', not {order!r}")
    seconds = aging.total_seconds() if isinstance(aging, timedelta) else aging
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds <= _LONGEST:
        raise UsageError(f"{where}: aging must be seconds from 0 to a year, or a timedelta, not {aging!r}")
    return QueueSettings(
        concurrency=concurrency,
        per_worker=per_worker,
        per_key=per_key,
        starts=None if rate is None else rate.count,
        per=0 if rate is None else math.ceil(rate.seconds * US),
        order=order,
        aging=int(seconds * US) if order == "priority" else 0,
    )


def check_count(value: Any, what: str) -> None:
    """Raise `UsageError` for all but an int from 1 up."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{what} must be an int from 1 up, not {value!r}")
