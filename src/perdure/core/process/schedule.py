"""Schedules: finding due runs, and submitting each due run exactly once, by any number of processes and over crashes.

A `Rule` gives the times of a task. The *firings* of a rule are instants of the wall clock; they follow from the
definition alone and are the same in every process. The store keeps a position per rule: all firings up to the position
have been considered. A look considers the firings from the position up to now. A single transaction advances the
position and creates the runs, and counts only if the position is unchanged since the look began (`Store.advance`). So
each stretch of time is considered exactly once: crashes, frozen processes, clocks that step and the removal of ended
runs neither lose nor double a firing. Times are microseconds, as in `core.model`.

- FI1 each firing is considered once by one of any number of processes, and gets at most one run.
- FI2 no firing between the return of a pause and the resume gets a run: a paused position is never moved on, and a
  resume moves the position to the present.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice, takewhile
from typing import Any, Final, Literal, Protocol
from zoneinfo import ZoneInfo

from ..ground.clock import EPOCH, MICROSECOND, US, moment
from ..ground.model import NewRun, RunRow
from ..ground.ports import Store
from ..ground.spec import TaskSpec
from .submission import new_run

log = logging.getLogger("perdure")

CatchUp = Literal["skip", "one", "all"]

LATE: Final = 60 * US
"""A firing that is found with a longer delay was missed."""
PAGE: Final = 100
"""The largest number of runs of a rule that a look submits."""

_END: Final = (datetime.max.replace(tzinfo=UTC) - EPOCH) // MICROSECOND
_HOUR: Final = 3600 * US
_MINUTE: Final = timedelta(minutes=1)
_LONGEST_SHIFT: Final = timedelta(hours=24)
"""Clocks were never set back by more at once."""


class Calendar(Protocol):
    """The instants of a definition."""

    @property
    def definition(self) -> str:
        """The definition as text. Equal texts name equal instants."""

    def after(self, at: int) -> Iterator[int]:
        """The instants later than `at`, in order."""

    def latest(self, after: int, until: int) -> int | None:
        """The last instant that is later than `after` and not later than `until`."""


class CronCalendar:
    """The instants of a cron expression of five fields, in a time zone.

    cronsim walks the calendar of local times, as if no clock were ever changed. Where clocks change, the rules of
    Debian's cron decide. An expression whose minute or hour begins with `*` follows real time: a local time in a gap
    has no instant, and a repeated local time has two. Any other expression names times of the day: a time in a gap
    fires at the end of the gap, and a repeated time fires once, the first time.

    Raises:
        ValueError: the expression means nothing, or names no instant at all.
    """

    def __init__(self, expression: str, timezone: ZoneInfo) -> None:
        from cronsim import CronSim, CronSimError

        fields = expression.split()
        self.definition: Final = f"cron {' '.join(fields)} {timezone.key}"
        if len(fields) != 5:
            raise ValueError("five fields are needed: minute, hour, day of month, month, day of week")
        self._zone = timezone
        self._real_time = fields[0].startswith("*") or fields[1].startswith("*")
        self._walk = partial(CronSim, expression)
        try:
            first = next(self.after(0), None)
        except CronSimError as error:
            raise ValueError(str(error)) from None
        if first is None:
            raise ValueError("no such day ever comes")

    def after(self, at: int) -> Iterator[int]:
        last = at
        repeated: deque[int] = deque()
        try:
            for local in self._walk(self._local_start(at)):
                for position, instant in enumerate(self._instants(local)):
                    if position:
                        repeated.append(instant)
                        continue
                    while repeated and repeated[0] < instant:
                        if repeated[0] > last:
                            last = repeated[0]
                            yield last
                        repeated.popleft()
                    if instant > last:
                        last = instant
                        yield instant
        except OverflowError:
            pass  # the end of Python's calendar
        yield from (instant for instant in repeated if instant > last)

    def latest(self, after: int, until: int) -> int | None:
        if next(self.after(after), _END) > until:
            return None
        # Backwards by growing windows: the last of a year's minutes is found within an hour, the last leap day by a few
        # long windows.
        span = _HOUR
        while True:
            start = max(after, until - span)
            last = deque(takewhile(lambda instant: instant <= until, self.after(start)), maxlen=1)
            if last:
                return last[0]
            span *= 16

    def _local_start(self, at: int) -> datetime:
        """The local time at an instant; earlier where clocks are about to be set back, as local times come again."""
        start = moment(at // US * US)
        local = start.astimezone(self._zone)
        if self._real_time:
            shift = _offset(local) - _offset((start + _LONGEST_SHIFT).astimezone(self._zone))
            local -= max(shift, timedelta(0))
        return local.replace(tzinfo=UTC, fold=0)

    def _instants(self, local: datetime) -> Sequence[int]:
        """The instants of a local time (which is marked as UTC): none, one or two."""
        local = local.replace(tzinfo=self._zone)
        first, second = _offset(local), _offset(local.replace(fold=1))
        if first >= second:
            offsets = (first, second) if first > second and self._real_time else (first,)
            return [_since_epoch(local, offset) for offset in offsets]
        if self._real_time:
            return ()
        while first < second:
            local += _MINUTE
            first, second = _offset(local), _offset(local.replace(fold=1))
        return (_since_epoch(local, first),)


def _offset(local: datetime) -> timedelta:
    offset = local.utcoffset()
    assert offset is not None
    return offset


def _since_epoch(local: datetime, offset: timedelta) -> int:
    return (local.replace(tzinfo=UTC) - offset - EPOCH) // MICROSECOND


class RateCalendar:
    """`start`, and every `period` after it (microseconds)."""

    def __init__(self, period: int, start: int) -> None:
        self.definition: Final = f"every {period} from {start}"
        self._period = period
        self._start = start

    def after(self, at: int) -> Iterator[int]:
        return iter(range(self._at_or_after(at + 1), _END, self._period))

    def latest(self, after: int, until: int) -> int | None:
        found = self._at_or_after(until + 1) - self._period
        return found if found > after and found >= self._start else None

    def _at_or_after(self, at: int) -> int:
        return self._start + max(0, -(-(at - self._start) // self._period)) * self._period


def calendar_of(definition: str) -> Calendar | None:
    """The calendar of a definition, the inverse of `Calendar.definition`; `None`: the definition is of another version
    of perdure, or its time zone is unknown here."""
    kind, _, rest = definition.partition(" ")
    try:
        if kind == "every":
            period, _, start = rest.partition(" from ")
            return RateCalendar(int(period), int(start))
        if kind == "cron":
            expression, _, zone = rest.rpartition(" ")
            return CronCalendar(expression, ZoneInfo(zone))
    except (ValueError, KeyError, OSError):
        pass
    return None


class TriggerTimeType:
    """The type of `TriggerTime`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "perdure.TriggerTime"


TriggerTime: Final = TriggerTimeType()
"""As an input's value: the scheduled time of the run, as a `datetime` in UTC."""


@dataclass(frozen=True, slots=True)
class Rule:
    """The times and inputs of a task's scheduled runs, and the treatment of missed firings."""

    spec: TaskSpec
    calendar: Calendar
    catch_up: CatchUp
    inputs: Mapping[str, Any]
    name: str | None = None
    """Tells the runs of the task's rules apart."""

    @property
    def prefix(self) -> str:
        """The beginning of the runs' names."""
        return self.spec.name if self.name is None else f"{self.spec.name}:{self.name}"

    @property
    def key(self) -> str:
        """The rule's key in the store. Another definition is another schedule, with a position of its own."""
        return f"{self.prefix} {self.calendar.definition}"

    def run_name(self, at: int) -> str:
        """The name of the run of the firing at `at`."""
        return f"{self.prefix}@{moment(at).isoformat().removesuffix('+00:00')}Z"

    def new_run(self, at: int, now: int) -> NewRun:
        """The run of the firing at `at`, submitted at `now`. Raises the errors of `submission.new_run`."""
        when = moment(at)
        inputs = {name: when if value is TriggerTime else value for name, value in self.inputs.items()}
        name, queue = self.run_name(at), self.spec.queue
        return new_run(self.spec, (), inputs, name=name, created_at=now, queue=queue)

    def due(self, since: int, now: int) -> tuple[list[int], int] | None:
        """The firings after `since` that get a run now, and the new position; `None`: nothing is due."""
        if self.catch_up == "all":
            page = list(islice(takewhile(lambda at: at <= now, self.calendar.after(since)), PAGE))
            return (page, page[-1]) if page else None
        newest = self.calendar.latest(since, now)
        if newest is None:
            return None
        return ([newest] if self.catch_up == "one" or now - newest <= LATE else []), newest


class Schedule:
    """The rules of a serving process; see the module text. Any thread and any number of processes may call."""

    def __init__(self, store: Store, rules: Sequence[Rule]) -> None:
        self._store = store
        self._rules = tuple(rules)
        self._told: set[str] = set()
        self.any_paused = False
        """Whether the last call of `next_at` has found a paused rule. Written by the thread that calls `next_at`."""

    def fire(self, now: int) -> list[RunRow]:
        """Submit the runs that are due at `now` (wall), and give the created runs, QUEUED and on disk.

        A rule that the store does not know begins at `now`: no earlier firing is due. At most `PAGE` runs are submitted
        for each rule; if more are due, `next_at` is not later than `now`, and the next call goes on. Blocks for the
        store.

        Raises:
            StoreError: the store cannot be used. Runs that were submitted before stay submitted.
            UsageError: a rule's inputs no longer fit the task.
        """
        fired: list[RunRow] = []
        for rule in self._rules:
            row = self._store.schedule(rule.key)
            if row is None:
                self._store.advance(rule.key, now, expect=None)
                continue
            if row.paused is not None:
                continue
            self._mention_future(rule, row.at, now)
            due = rule.due(row.at, now)
            if due is None:
                continue
            firings, considered = due
            asked = [rule.new_run(at, now) for at in firings]
            newest = max(firings, default=None)
            # If another process was faster, the rest is due in the next look.
            answers = self._store.advance(rule.key, considered, expect=row.at, runs=asked, fired=newest) or ()
            for new, (run, fresh) in zip(asked, answers, strict=False):
                if fresh:
                    fired.append(run)
                elif run.task != new.task or run.inputs_hash != new.inputs_hash:
                    log.warning(
                        "schedule of %s: the run name %s was taken by another task or other inputs, so this firing "
                        "has no run of its own", rule.prefix, new.name,
                    )  # fmt: skip
        return fired

    def next_at(self) -> int | None:
        """The time of the next call of `fire` (wall); a past time means at once, `None`: nothing will be due.

        Paused rules do not count. If `any_paused`, the answer holds until the store has changed.
        """
        found: list[int] = []
        self.any_paused = False
        for rule in self._rules:
            row = self._store.schedule(rule.key)
            if row is None:
                return 0
            if row.paused is not None:
                self.any_paused = True
                continue
            found += islice(rule.calendar.after(row.at), 1)
        return min(found, default=None)

    def _mention_future(self, rule: Rule, since: int, now: int) -> None:
        if since > now + LATE and rule.key not in self._told:
            self._told.add(rule.key)
            log.warning(
                "schedule of %s: the system clock has stepped back. Firings up to %s are done with; it goes on after "
                "that time", rule.prefix, moment(since).isoformat(),
            )  # fmt: skip
