"""Random cron expressions and rates around the days on which clocks change, looked at by two processes.

The oracle walks the minutes of real time, one after the other, and asks of each whether its local time fits. Two
schedules on one store look at moments by chance, seconds or days apart. The runs in the store must be those that the
policy for missed firings demands.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import perdure
from perdure.core.ground.clock import EPOCH, US, moment
from perdure.core.process.schedule import LATE, Calendar, CatchUp, CronCalendar, RateCalendar, Rule, Schedule
from perdure.store.memory import MemoryStore

from . import Violation

MINUTE = 60 * US
DAY = 24 * 60 * MINUTE
PLACES = (
    ("Europe/Berlin", "2025-03-30"), ("Europe/Berlin", "2025-10-26"), ("America/New_York", "2025-11-02"),
    ("Australia/Lord_Howe", "2025-04-06"), ("Australia/Lord_Howe", "2025-10-05"), ("UTC", "2025-06-01"),
)  # fmt: skip
"""Zones, and days on which their clocks change."""
MINUTES = ("*", "*/7", "0", "30", "15,45", "0-5")
HOURS = ("*", "*/3", "1", "2", "1-3", "2,14")

env = perdure.TaskEnvironment("generated")


@env.task
def fired() -> None:
    """The task of all schedules."""


def history(seed: int) -> None:
    """One rule, two processes, some looks.

    Raises:
        Violation: FI1, or the policy for missed firings, is not kept.
    """
    dice = random.Random(seed)
    zone, day = dice.choice(PLACES)
    start = (datetime.fromisoformat(day).replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)
    start += dice.randrange(-DAY, DAY)
    length = 2 * DAY
    calendar, instants = _calendar(dice, zone, start, length)
    policy: CatchUp = dice.choice(("skip", "one", "all"))
    store = MemoryStore()
    rule = Rule(fired.spec, calendar, policy, {})
    processes = [Schedule(store, [rule]) for _ in range(2)]
    processes[0].fire(start)
    expected: set[int] = set()
    position = now = start
    while (now := _next_look(dice, now, instants)) < start + length:
        due = [at for at in instants if position < at <= now]
        if policy == "all":
            expected.update(due)
        elif due and (policy == "one" or now - due[-1] <= LATE):
            expected.add(due[-1])
        position = due[-1] if due else position
        for _ in range(1 if policy != "all" else len(due) // 100 + 2):
            dice.choice(processes).fire(now)
    found = {run.name for run in store.runs()}
    wanted = {rule.run_name(at) for at in expected}
    if found != wanted:
        raise Violation(
            f"FI1 {calendar.definition}, {policy}, from {moment(start)}: runs too many {sorted(found - wanted)[:3]}, "
            f"missing {sorted(wanted - found)[:3]}"
        )


def _next_look(dice: random.Random, now: int, instants: list[int]) -> int:
    """A moment behind this: seconds, minutes or hours, and sometimes just an instant of the calendar."""
    later = now + dice.choice((20 * US, 5 * MINUTE, 3 * 60 * MINUTE, 14 * 60 * MINUTE))
    return next((at for at in instants if at > now), later) if dice.random() < 0.3 else later


def _calendar(dice: random.Random, zone: str, start: int, length: int) -> tuple[Calendar, list[int]]:
    """A calendar, and its instants behind `start` by the slow reading."""
    if dice.random() < 0.25:
        period = dice.choice((90 * US, 7 * MINUTE, 11 * 60 * MINUTE))
        first = start + dice.randrange(-DAY, DAY)
        slow = [at for at in range(first, start + length, period) if at > start]
        return RateCalendar(period, first), slow
    minutes, hours = dice.choice(MINUTES), dice.choice(HOURS)
    there = ZoneInfo(zone)
    calendar = CronCalendar(f"{minutes} {hours} * * *", there)
    instants = _walked(_numbers(minutes, 60), _numbers(hours, 24), "*" in minutes + hours, there, start, length)
    return calendar, instants


def _numbers(field: str, count: int) -> set[int]:
    """What a field of cron names, for the forms above."""
    if field.startswith("*"):
        return set(range(0, count, int(field[2:] or 1)))
    found: set[int] = set()
    for part in field.split(","):
        low, _, high = part.partition("-")
        found.update(range(int(low), int(high or low) + 1))
    return found


def _walked(
    minutes: set[int], hours: set[int], is_real_time: bool, zone: ZoneInfo, start: int, length: int
) -> list[int]:
    """All minutes of real time, from a day earlier on, because local times repeat.

    In real time every minute whose local time fits fires. Otherwise a local time fires at its first minute; the local
    times of a gap fire at the first minute behind the gap.
    """
    found, seen, before = [], set(), None
    at = (start - DAY) // MINUTE * MINUTE
    while at <= start + length:
        local = moment(at).astimezone(zone).replace(tzinfo=None)
        fits = [local] if local not in seen else []
        if is_real_time:
            fits = [local]
        elif before is not None:
            skipped = before + timedelta(minutes=1)
            while skipped < local:
                fits.append(skipped)
                skipped += timedelta(minutes=1)
        if any(each.minute in minutes and each.hour in hours for each in fits) and at > start:
            found.append(at)
        seen.add(local)
        before = local
        at += MINUTE
    return found
