"""Local times as moments, where clocks change: a skipped time means the end of the gap, a repeated time the first.

The rule is the rule of `Cron` triggers (`core.process.schedule`).
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta

_SECOND = timedelta(seconds=1)


def local_moment(at: datetime) -> datetime:
    """A datetime as a moment; a time without a zone is local."""
    if at.tzinfo is not None:
        return at.astimezone()
    readings = _readings(at)
    return min(readings) if readings else _end_of_gap(at)


def next_local(clock: time, now: datetime) -> datetime:
    """The next moment at which a local clock shows a time. A repeated time counts twice."""
    today: date = now.astimezone(clock.tzinfo).date()
    if clock.tzinfo is not None:
        moment = datetime.combine(today, clock)
        return moment if moment > now else moment + timedelta(days=1)
    for day in range(2):
        naive = datetime.combine(today + timedelta(days=day), clock)
        for moment in sorted(_readings(naive)) or [_end_of_gap(naive)]:
            if moment > now:
                return moment
    return local_moment(datetime.combine(today + timedelta(days=2), clock))


def _readings(naive: datetime) -> set[datetime]:
    """The moments, in UTC, at which a local clock shows the time: one, two, or none in a gap."""
    moments = {naive.replace(fold=fold).astimezone(UTC) for fold in (0, 1)}
    return {moment for moment in moments if moment.astimezone().replace(tzinfo=None, fold=0) == naive.replace(fold=0)}


def _end_of_gap(naive: datetime) -> datetime:
    """The moment at which clocks jump over a time, by bisection between the readings with the two offsets."""
    early, late = sorted(naive.replace(fold=fold).astimezone(UTC) for fold in (0, 1))
    before = early.astimezone().utcoffset()
    while late - early > _SECOND:
        middle = early + ((late - early) // 2)
        if middle.astimezone().utcoffset() == before:
            early = middle
        else:
            late = middle
    return late.replace(microsecond=0)
