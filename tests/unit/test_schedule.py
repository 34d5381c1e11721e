"""Schedules: which instants a definition names, what becomes of missed ones, and that each is considered once.

What many real processes do to one file stands in `tests/crash/test_schedule.py`.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice, takewhile
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import perdure
from perdure import Cron, FixedRate, Trigger, TriggerTime
from perdure.api.triggers import Triggers, schedule_for
from perdure.core.ground.clock import EPOCH, US, moment
from perdure.core.ground.model import FINISHED, Created, CreateRun, NewRun, RunRow, ScheduleRow, Status
from perdure.core.process.schedule import LATE, PAGE, CatchUp, CronCalendar, RateCalendar, Schedule, calendar_of
from perdure.errors import InputError, UsageError
from perdure.store.memory import MemoryStore

MINUTE = 60 * US
HOUR = 60 * MINUTE
DAY = 24 * HOUR

env = perdure.TaskEnvironment("etl")


def at(text: str) -> int:
    """`2026-11-22 02:00` in UTC, as microseconds."""
    return (datetime.fromisoformat(text).replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)


def shown(instants: Iterator[int] | list[int]) -> list[str]:
    return [moment(instant).strftime("%m-%d %H:%M") for instant in instants]


def declared(triggers: Triggers) -> perdure.Task[[], None]:
    @env.task(triggers=triggers)
    def nightly() -> None: ...

    return nightly


def scheduled(triggers: Triggers, start: int, store: MemoryStore | None = None) -> tuple[MemoryStore, Schedule]:
    """The schedule of a task with these triggers, first seen at `start`."""
    store = MemoryStore() if store is None else store
    schedule = schedule_for(store, [declared(triggers)])
    assert schedule.fire(start) == []
    return store, schedule


def names(runs: list[RunRow]) -> list[str]:
    return [run.name for run in runs]


# -- which instants --------------------------------------------------------------------------------------------


class TestClockChanges:
    """In Berlin, 2026-03-29 02:00 to 03:00 is left out (01:00 UTC), and 2026-10-25 02:00 to 03:00 comes twice (00:00
    and 01:00 UTC)."""

    @pytest.mark.parametrize(
        ("expression", "expected"),
        [
            ("30 2 * * *", ["03-28 01:30", "03-29 01:00", "03-30 00:30"]),  # at the end of the gap
            ("15,45 2 * * *", ["03-28 01:15", "03-28 01:45", "03-29 01:00", "03-30 00:15"]),  # once for both
            ("0 2,3 * * *", ["03-28 01:00", "03-28 02:00", "03-29 01:00", "03-30 00:00"]),
            ("0 3 * * *", ["03-28 02:00", "03-29 01:00", "03-30 01:00"]),
            ("*/30 2 * * *", ["03-28 01:00", "03-28 01:30", "03-30 00:00"]),  # real time: there is no such hour
        ],
    )
    def test_a_time_that_is_left_out(self, expression: str, expected: list[str]) -> None:
        calendar = CronCalendar(expression, ZoneInfo("Europe/Berlin"))
        assert shown(list(islice(calendar.after(at("2026-03-28 00:00")), len(expected)))) == expected

    @pytest.mark.parametrize(
        ("expression", "expected"),
        [
            ("30 2 * * *", ["10-24 00:30", "10-25 00:30", "10-26 01:30"]),  # the first time only
            ("0 0-3 * * *", ["10-23 22:00", "10-23 23:00", "10-24 00:00", "10-24 01:00",
                             "10-24 22:00", "10-24 23:00", "10-25 00:00", "10-25 02:00", "10-25 23:00"]),
            ("*/30 2 * * *", ["10-24 00:00", "10-24 00:30", "10-25 00:00", "10-25 00:30", "10-25 01:00",
                              "10-25 01:30", "10-26 01:00"]),  # real time: both times around
        ],
    )  # fmt: skip
    def test_a_time_that_comes_twice(self, expression: str, expected: list[str]) -> None:
        calendar = CronCalendar(expression, ZoneInfo("Europe/Berlin"))
        assert shown(list(islice(calendar.after(at("2026-10-23 20:00")), len(expected)))) == expected

    @pytest.mark.parametrize(("day", "hours"), [("2026-03-28 23:00", 23), ("2026-10-24 22:00", 25)])
    def test_every_hour_of_a_day_that_is_shorter_or_longer(self, day: str, hours: int) -> None:
        calendar = CronCalendar("0 * * * *", ZoneInfo("Europe/Berlin"))
        found = list(islice(calendar.after(at(day)), hours))
        assert {b - a for a, b in itertools.pairwise(found)} == {HOUR}

    @pytest.mark.parametrize(
        ("expression", "expected"),
        [
            # On Lord Howe Island clocks are set back by half an hour, from 02:00 to 01:30, on 2026-04-05 (15:00 UTC).
            (
                "*/15 1 * * *",
                ["04-04 14:00", "04-04 14:15", "04-04 14:30", "04-04 14:45", "04-04 15:00", "04-04 15:15"],
            ),
            ("40 1 * * *", ["04-03 14:40", "04-04 14:40", "04-05 15:10"]),
            ("*/30 3 * * *", ["04-03 16:00", "04-03 16:30", "04-04 16:30", "04-04 17:00"]),
        ],
    )
    def test_half_an_hour_that_comes_twice(self, expression: str, expected: list[str]) -> None:
        calendar = CronCalendar(expression, ZoneInfo("Australia/Lord_Howe"))
        start = at("2026-04-03 15:00") if expression.startswith("*/15") else at("2026-04-03 14:00")
        assert shown(list(islice(calendar.after(start), len(expected)))) == expected

    @pytest.mark.parametrize(
        ("expression", "expected"),
        [
            # ... and forward from 02:00 to 02:30 on 2026-10-04 (15:30 UTC).
            ("*/15 2 * * *", ["10-03 15:30", "10-03 15:45", "10-04 15:00"]),
            ("15 2 * * *", ["10-03 15:30", "10-04 15:15"]),
            ("*/20 3 * * *", ["10-03 16:00", "10-03 16:20", "10-03 16:40", "10-04 16:00"]),
        ],
    )
    def test_half_an_hour_that_is_left_out(self, expression: str, expected: list[str]) -> None:
        calendar = CronCalendar(expression, ZoneInfo("Australia/Lord_Howe"))
        assert shown(list(islice(calendar.after(at("2026-10-03 15:00")), len(expected)))) == expected

    def test_from_within_the_second_time_around_the_first_is_over(self) -> None:
        calendar = CronCalendar("30 2 * * *", ZoneInfo("Europe/Berlin"))
        assert shown(islice(calendar.after(at("2026-10-25 01:10")), 1)) == ["10-26 01:30"]


EXPRESSIONS = st.sampled_from(
    ["* * * * *", "*/7 * * * *", "30 2 * * *", "15,45 2 * * *", "0 0-23 * * *", "0 0 * * *", "*/20 0-3 * * *",
     "30 1-3/2 * * 0", "0 */5 * * *", "59 23 L * *", "30 0 * * SUN", "0 3 1 * *", "*/10 */3 * * *", "* 0,3 * * *",
     "*/20 0,3 * * *", "15 */3 * * *", "*/5 2 * * *", "15 2 * * *", "*/20 4 * * *", "40 1 * * *"]
)  # fmt: skip
# Changes by whole hours, at midnight too, by half an hour, and by a whole day.
CHANGES = [
    ("Europe/Berlin", "2026-03-29 01:00"), ("Europe/Berlin", "2026-10-25 01:00"),
    ("America/New_York", "2026-11-01 06:00"), ("Africa/Cairo", "2026-04-23 22:00"),
    ("Africa/Cairo", "2026-10-29 21:00"), ("Asia/Kathmandu", "2026-01-01 00:00"), ("UTC", "2026-01-01 00:00"),
    ("Australia/Lord_Howe", "2026-04-04 15:00"), ("Australia/Lord_Howe", "2026-10-03 15:30"),
    ("Pacific/Apia", "2011-12-30 10:00"), ("America/St_Johns", "2026-11-01 04:30"),
]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(EXPRESSIONS, st.sampled_from(CHANGES), st.integers(-300, 300), st.integers(0, 600))
@example("30 2 * * *", CHANGES[1], 10, 60)
def test_an_instant_fires_or_not_wherever_the_look_begins(
    expression: str, change: tuple[str, str], start: int, length: int
) -> None:
    zone, middle = change
    calendar = CronCalendar(expression, ZoneInfo(zone))
    first = at(middle) - 6 * HOUR
    end = at(middle) + 16 * HOUR
    whole = list(takewhile(lambda instant: instant <= end, calendar.after(first)))
    assert all(a < b for a, b in itertools.pairwise(whole))
    since = at(middle) + start * MINUTE + 17
    until = since + length * MINUTE
    assert list(takewhile(lambda i: i <= until, calendar.after(since))) == [i for i in whole if since < i <= until]
    assert calendar.latest(since, until) == max((i for i in whole if since < i <= until), default=None)


@given(st.integers(1, 50), st.integers(-100, 100), st.integers(-200, 200), st.integers(0, 100))
def test_a_rate_names_its_start_and_every_period_after_it(period: int, start: int, since: int, length: int) -> None:
    calendar = RateCalendar(period, start)
    whole = [instant for instant in range(start, 400, period) if since < instant]
    assert list(takewhile(lambda instant: instant < 400, calendar.after(since))) == whole
    until = since + length
    assert calendar.latest(since, until) == max((i for i in whole if i <= until), default=None)


def test_the_last_firing_of_a_long_time_is_found_quickly() -> None:
    calendar = CronCalendar("* * * * *", ZoneInfo("Europe/Berlin"))
    assert calendar.latest(at("1970-01-01"), at("2026-05-05 10:00") + 1) == at("2026-05-05 10:00")
    leap = CronCalendar("0 0 29 2 *", ZoneInfo("UTC"))
    assert leap.latest(at("1990-01-01"), at("2026-05-05")) == at("2024-02-29")


def test_a_rate_is_counted_from_the_epoch_or_from_its_start() -> None:
    quarter = declared(FixedRate(15)).triggers[0].calendar
    assert shown(islice(quarter.after(at("2026-01-01 10:07")), 2)) == ["01-01 10:15", "01-01 10:30"]
    begin = datetime(2026, 1, 1, 12, 5, tzinfo=ZoneInfo("Europe/Berlin"))
    later = declared(FixedRate(timedelta(hours=1), begin)).triggers[0].calendar
    assert shown(islice(later.after(at("2025-01-01")), 2)) == ["01-01 11:05", "01-01 12:05"]


@pytest.mark.parametrize(
    ("rate", "period"),
    [
        (FixedRate(90), 90 * MINUTE), (FixedRate(0.5), 30 * US), (FixedRate(timedelta(seconds=3)), 3 * US),
        (FixedRate(period=0.2), 200_000), (FixedRate(period=timedelta(days=1)), DAY),
    ],
)  # fmt: skip
def test_a_distance_in_minutes_as_in_flyte_or_in_seconds(rate: FixedRate, period: int) -> None:
    first, second = islice(declared(rate).triggers[0].calendar.after(0), 2)
    assert second - first == period


# -- what is due -----------------------------------------------------------------------------------------------


def hourly(catch_up: CatchUp) -> Cron:
    return Cron("0 * * * *", catch_up=catch_up)


START = at("2026-11-22 00:30")


class TestFiring:
    @pytest.mark.parametrize("catch_up", ["skip", "one", "all"])
    def test_on_time_each_policy_fires_once(self, catch_up: CatchUp) -> None:
        store, schedule = scheduled(hourly(catch_up), START)
        assert schedule.next_at() == at("2026-11-22 01:00")
        assert schedule.fire(at("2026-11-22 01:00") - 1) == []
        assert names(schedule.fire(at("2026-11-22 01:00"))) == ["etl.nightly@2026-11-22T01:00:00Z"]
        assert schedule.fire(at("2026-11-22 01:00") + 5) == []
        assert schedule.next_at() == at("2026-11-22 02:00")
        assert [run.status for run in store.runs()] == [Status.QUEUED]

    @pytest.mark.parametrize(
        ("catch_up", "late", "expected"),
        [
            ("skip", LATE, ["03"]),  # on time; those before it were found together with it
            ("skip", LATE + 1, []),
            ("one", LATE, ["03"]),
            ("one", LATE + 1, ["03"]),
            ("all", LATE + 1, ["01", "02", "03"]),
        ],
    )
    def test_missed_firings(self, catch_up: CatchUp, late: int, expected: list[str]) -> None:
        _, schedule = scheduled(hourly(catch_up), START)
        found = schedule.fire(at("2026-11-22 03:00") + late)
        assert names(found) == [f"etl.nightly@2026-11-22T{hour}:00:00Z" for hour in expected]
        assert schedule.fire(at("2026-11-22 03:00") + late) == []
        assert schedule.next_at() == at("2026-11-22 04:00")

    def test_what_was_before_the_first_look_is_not_due(self) -> None:
        _, schedule = scheduled(hourly("all"), START)
        assert names(schedule.fire(at("2026-11-22 01:00"))) == ["etl.nightly@2026-11-22T01:00:00Z"]

    def test_the_first_look_lasts(self) -> None:
        store, _ = scheduled(hourly("all"), START)
        again = schedule_for(store, [declared(hourly("all"))])
        assert len(again.fire(START + 2 * HOUR)) == 2

    def test_a_rule_never_seen_is_looked_at_once(self) -> None:
        schedule = schedule_for(MemoryStore(), [declared(hourly("one"))])
        assert schedule.next_at() == 0

    def test_another_definition_begins_at_the_present(self) -> None:
        store, _ = scheduled(hourly("all"), START)
        changed = schedule_for(store, [declared(Cron("30 * * * *", catch_up="all"))])
        assert changed.fire(START + DAY) == []
        assert len(changed.fire(START + DAY + HOUR)) == 1

    def test_no_triggers_no_time(self) -> None:
        schedule = schedule_for(MemoryStore(), [declared(())])
        assert schedule.next_at() is None
        assert schedule.fire(START) == []

    def test_a_year_of_minutes_comes_in_pages(self) -> None:
        _, schedule = scheduled(Cron("* * * * *", catch_up="all"), START)
        now = START + 365 * DAY
        first = schedule.fire(now)
        assert len(first) == PAGE
        assert schedule.next_at() == START + (PAGE + 1) * MINUTE
        second = schedule.fire(now)
        assert names(second)[0] == f"etl.nightly@{moment(START + (PAGE + 1) * MINUTE):%Y-%m-%dT%H:%M:%SZ}"

    def test_names_show_fractions_of_a_second(self) -> None:
        _, schedule = scheduled(FixedRate(period=0.2, catch_up="all"), START)
        assert names(schedule.fire(START + US))[:2] == [
            "etl.nightly@2026-11-22T00:30:00.200000Z",
            "etl.nightly@2026-11-22T00:30:00.400000Z",
        ]

    def test_two_triggers_with_the_same_inputs_fire_once_where_they_meet(self) -> None:
        both = [Cron("0 2 * * *"), Cron("0 */2 * * *")]
        _, schedule = scheduled(both, START)
        assert names(schedule.fire(at("2026-11-22 02:00"))) == ["etl.nightly@2026-11-22T02:00:00Z"]

    def test_a_taken_name_is_mentioned_and_the_schedule_goes_on(self, caplog: pytest.LogCaptureFixture) -> None:
        store, schedule = scheduled(hourly("one"), START)
        other = NewRun(b"u" * 16, "etl.nightly@2026-11-22T01:00:00Z", "other", "::", b"", b"h" * 16, 1)
        store.commit([CreateRun(other, None)])
        with caplog.at_level(logging.WARNING):
            assert schedule.fire(at("2026-11-22 01:00")) == []
        assert "etl.nightly@2026-11-22T01:00:00Z was taken" in caplog.text
        assert names(schedule.fire(at("2026-11-22 02:00"))) == ["etl.nightly@2026-11-22T02:00:00Z"]


class TestClocks:
    def test_a_clock_that_steps_back_fires_nothing_twice(self, caplog: pytest.LogCaptureFixture) -> None:
        store, schedule = scheduled(hourly("all"), START)
        fired = names(schedule.fire(START + 3 * HOUR))
        for run in store.runs():
            assert store.abort(run.id, 5)
        assert store.remove([run.id for run in store.runs()], 6, FINISHED) == [True] * 3
        with caplog.at_level(logging.WARNING):
            again = [schedule.fire(START + minutes * MINUTE) for minutes in range(0, 150, 10)]
        assert again == [[]] * 15
        assert caplog.text.count("stepped back") == 1
        assert names(schedule.fire(START + 4 * HOUR)) == ["etl.nightly@2026-11-22T04:00:00Z"]
        assert "etl.nightly@2026-11-22T04:00:00Z" not in fired

    @pytest.mark.parametrize(("catch_up", "runs"), [("skip", 0), ("one", 1), ("all", 50)])
    def test_a_clock_that_steps_forward_has_missed_what_it_passed(self, catch_up: CatchUp, runs: int) -> None:
        _, schedule = scheduled(hourly(catch_up), START)
        assert len(schedule.fire(START + 50 * HOUR)) == runs


class TestPausing:
    @pytest.mark.parametrize("catch_up", ["skip", "one", "all"])
    def test_a_paused_rule_fires_nothing_and_goes_on_from_the_resume(self, catch_up: CatchUp) -> None:
        """Family: firings of a pause that are made up for. Tried with each policy, over many firings, and for a worker
        that begins while the rule is paused."""
        store, schedule = scheduled(hourly(catch_up), START)
        assert store.pause_schedules("etl.nightly", START + 1) == 1
        assert schedule.fire(START + 5 * HOUR) == []
        assert schedule.next_at() is None
        assert schedule.any_paused
        begun = schedule_for(store, [declared(hourly(catch_up))])
        assert begun.fire(START + 6 * HOUR) == []
        assert begun.next_at() is None
        assert store.resume_schedules("etl.nightly", START + 6 * HOUR + MINUTE) == 1
        following = at("2026-11-22 07:00")
        assert schedule.next_at() == following
        assert not schedule.any_paused
        assert schedule.fire(following - 1) == []
        assert len(schedule.fire(following) + begun.fire(following)) == 1

    def test_a_paused_rule_does_not_hold_up_others(self) -> None:
        store = MemoryStore()
        both = schedule_for(store, [declared([Cron("0 * * * *", name="a"), Cron("30 * * * *", name="b")])])
        assert both.fire(START) == []
        store.pause_schedules("etl.nightly:a", START)
        assert both.next_at() == START + HOUR
        assert names(both.fire(START + DAY)) == ["etl.nightly:b@2026-11-23T00:30:00Z"]

    def test_a_pause_between_look_and_move_wins(self) -> None:
        store = FrozenBetween()
        _, schedule = scheduled(hourly("all"), START, store)
        store.meanwhile = lambda: store.pause_schedules("etl.nightly", START)
        assert schedule.fire(START + 3 * HOUR) == []
        assert store.runs() == []

    @pytest.mark.parametrize(
        "trigger",
        [
            Cron("*/5 1-3 * JAN-MAR MON", timezone="America/Argentina/Buenos_Aires"),
            Cron("0   2 L * *"),
            FixedRate(period=0.25),
            FixedRate(90, start_time=datetime(2026, 1, 1, 5, tzinfo=UTC)),
        ],
    )
    def test_a_definition_leads_back_to_its_calendar(self, trigger: Cron | FixedRate) -> None:
        [rule] = declared(trigger).triggers
        found = calendar_of(rule.calendar.definition)
        assert found is not None
        assert found.definition == rule.calendar.definition
        assert list(islice(found.after(START), 5)) == list(islice(rule.calendar.after(START), 5))

    @pytest.mark.parametrize(
        "text", ["", "cron", "cron 0 2 * * * No/Zone", "cron 99 2 * * * UTC", "every x from 0", "lunar 7"]
    )
    def test_a_definition_of_another_version_has_no_calendar(self, text: str) -> None:
        assert calendar_of(text) is None


# -- neither lost nor doubled ----------------------------------------------------------------------------------


class FrozenBetween(MemoryStore):
    """Runs something else between a look at a schedule and the moving on, as if this process were frozen there."""

    meanwhile: Any = None

    def schedule(self, key: str) -> ScheduleRow | None:
        found = super().schedule(key)
        if self.meanwhile is not None:
            do, self.meanwhile = self.meanwhile, None
            do()
        return found


@pytest.mark.parametrize("catch_up", ["skip", "one", "all"])
def test_a_process_that_was_frozen_while_others_fired_fires_nothing_even_after_gc(catch_up: CatchUp) -> None:
    """FI1."""
    store = FrozenBetween()
    _, frozen = scheduled(hourly(catch_up), START, store)
    _, other = scheduled(hourly(catch_up), START, store)
    now = at("2026-11-22 03:00")
    found: list[str] = []

    def others() -> None:
        found.extend(names(other.fire(now)))
        for run in store.runs():
            assert store.abort(run.id, 5)
            assert store.remove([run.id], 6, FINISHED) == [True]

    store.meanwhile = others
    assert frozen.fire(now) == []
    assert found
    assert store.runs() == []


def test_of_two_first_looks_the_faster_decides_when_a_rule_begins() -> None:
    store = FrozenBetween()
    one, two = (schedule_for(store, [declared(hourly("all"))]) for _ in range(2))
    store.meanwhile = lambda: two.fire(START)
    assert one.fire(START + 2 * HOUR) == []
    assert len(one.fire(START + 2 * HOUR)) == 2


STEPS = st.tuples(st.integers(0, 2), st.integers(-90, 200), st.none() | st.integers(0, 100))


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["skip", "one", "all"]), st.lists(STEPS, max_size=30))
def test_each_instant_is_considered_once(catch_up: CatchUp, steps: list[tuple[int, int, int | None]]) -> None:
    """Three processes look in any order, at clocks that step, while others look in between and finished runs go."""
    store = FrozenBetween()
    schedules = [schedule_for(store, [declared(Cron("*/10 * * * *", catch_up=catch_up))]) for _ in range(3)]
    now = highest = START
    schedules[0].fire(START)
    fired: list[str] = []

    def look(which: int, now: int) -> None:
        fired.extend(names(schedules[which].fire(now)))
        for run in store.runs():
            store.abort(run.id, 5)
        store.remove([run.id for run in store.runs()], 6, FINISHED)

    for which, minutes, earlier in steps:
        now = max(START, now + minutes * MINUTE)
        highest = max(highest, now)
        if earlier is not None:
            store.meanwhile = partial(look, (which + 1) % 3, max(START, now - earlier * MINUTE))
        look(which, now)
    assert len(fired) == len(set(fired))
    if catch_up == "all":
        look(0, highest)
        due = list(takewhile(lambda i: i <= highest, CronCalendar("*/10 * * * *", ZoneInfo("UTC")).after(START)))
        if len(due) <= PAGE:
            assert fired == [f"etl.nightly@{moment(instant):%Y-%m-%dT%H:%M:%SZ}" for instant in due]


# -- inputs and declarations -----------------------------------------------------------------------------------


def test_a_run_gets_the_scheduled_time_and_its_inputs() -> None:
    @env.task(triggers=Cron("0 2 * * *", timezone="Europe/Berlin", inputs={"day": TriggerTime, "n": 3}))
    def report(day: datetime, n: int, more: str = "x") -> None: ...

    store = MemoryStore()
    schedule = schedule_for(store, [report])
    schedule.fire(START)
    [run] = schedule.fire(at("2026-11-22 01:00"))
    assert run.name == "etl.report@2026-11-22T01:00:00Z"
    assert (run.task, run.target) == ("etl.report", report.spec.target())
    args, kwargs = report.spec.signature.decode_inputs(run.inputs)
    when = args[0]
    assert (args[1:], kwargs) == ((3,), {})
    assert when == datetime(2026, 11, 22, 2, tzinfo=ZoneInfo("Europe/Berlin"))
    assert when.utcoffset() == timedelta(0)
    [created] = store.commit([CreateRun(report.triggers[0].new_run(at("2026-11-22 01:00"), 1), None)])
    assert isinstance(created, Created)
    assert created.run.inputs_hash == run.inputs_hash


def test_named_triggers_keep_their_runs_apart() -> None:
    @env.task(triggers=[Cron("0 2 * * *", inputs={"n": n}, name=name) for n, name in ((1, "one"), (2, "two"))])
    def work(n: int) -> None: ...

    schedule = schedule_for(MemoryStore(), [work, work])
    schedule.fire(START)
    assert names(schedule.fire(at("2026-11-22 02:00"))) == [
        "etl.work:one@2026-11-22T02:00:00Z",
        "etl.work:two@2026-11-22T02:00:00Z",
    ]


def test_triggers_as_flyte_writes_them() -> None:
    quiet = Trigger("off", Cron("* * * * *"), auto_activate=False)

    @env.task(triggers=(Trigger.hourly(inputs={"x": 5}), Trigger("rate", FixedRate(90), inputs={"x": 1}), quiet))
    def example_task(trigger_time: datetime | None = None, x: int = 1) -> None: ...

    first, second = example_task.triggers
    assert first.inputs == {"trigger_time": TriggerTime, "x": 5}
    assert first.prefix == "etl.example_task:hourly"
    assert second.calendar.definition == f"every {90 * MINUTE} from 0"


@pytest.mark.parametrize(
    ("make", "expression"),
    [
        (Trigger.minutely, "* * * * *"), (Trigger.hourly, "0 * * * *"), (Trigger.daily, "0 0 * * *"),
        (Trigger.weekly, "0 0 * * 0"), (Trigger.monthly, "0 0 1 * *"),
    ],
)  # fmt: skip
def test_flytes_short_forms(make: Any, expression: str) -> None:
    trigger = make("when")
    assert trigger.automation == Cron(expression)
    assert trigger.inputs == {"when": TriggerTime}
    assert trigger.name == make.__name__


class TestRefused:
    @pytest.mark.parametrize(
        ("trigger", "message"),
        [
            (Cron("61 2 * * *"), r"etl.nightly: cron expression '61 2 \* \* \*': Bad minute"),
            (Cron("2 * *"), r"etl.nightly: cron expression '2 \* \*': five fields"),
            (Cron("@daily"), "five fields"),
            (Cron("* * * * * *"), "five fields"),
            (Cron("0 0 31 2 *"), r"cron expression '0 0 31 2 \*'"),
            (Cron("0 0 30 2 */2"), "cron expression '0 0 30 2"),
            (Cron(5), "a cron expression is text"),  # type: ignore[arg-type]
            (Cron("0 2 * * *", timezone="Europe/Berlim"), "etl.nightly: no time zone 'Europe/Berlim'"),
            (Cron("0 2 * * *", timezone="Europe"), "no time zone 'Europe'"),
            (Cron("0 2 * * *", timezone="../etc/passwd"), "no time zone"),
            (Cron("0 2 * * *", timezone=""), "no time zone ''"),
            (Cron("0 2 * * *", timezone=None), "no time zone None"),  # type: ignore[arg-type]
            (Cron("0 2 * * *", catch_up="some"), "catch_up must be 'skip', 'one' or 'all', not 'some'"),  # type: ignore[arg-type]
            (Cron("0 2 * * *", name="a@b"), "a trigger's name"),
            (Cron("0 2 * * *", name=""), "a trigger's name"),
            (Cron("0 2 * * *", name="n" * 200), "its triggers cannot name runs"),
            (Cron("0 2 * * *", inputs=[1]), "a trigger's inputs must map"),  # type: ignore[arg-type]
            (FixedRate(0), "a millisecond at least, not 0"),
            (FixedRate(-5), "a millisecond at least, not -5"),
            (FixedRate(period=0), "a millisecond at least"),
            (FixedRate(period=-0.1), "a millisecond at least"),
            (FixedRate(period=0.0001), "a millisecond at least"),
            (FixedRate(period=timedelta(0)), "a millisecond at least"),
            (FixedRate(period=float("nan")), "a millisecond at least, not nan"),
            (FixedRate(period=float("inf")), "a millisecond at least, not inf"),
            (FixedRate(True), "a millisecond at least, not True"),
            (FixedRate("5"), "a millisecond at least, not '5'"),  # type: ignore[arg-type]
            (FixedRate(), "either interval_minutes or period"),
            (FixedRate(1, period=60), "either interval_minutes or period"),
            (FixedRate(1, datetime(2026, 1, 1)), "start_time must be a datetime with a time zone"),
            (Trigger("", Cron("0 2 * * *")), "a Trigger needs a name"),
            (Trigger("t", "0 2 * * *"), "automation is a Cron or a FixedRate"),  # type: ignore[arg-type]
            (Trigger("t", Cron("0 2 * * *", inputs={})), "give name, inputs and catch_up to the Trigger 't'"),
            ("0 2 * * *", "triggers must be Cron"),
            (5, "triggers must be Cron"),
            (["0 2 * * *"], "a trigger is a Cron, a FixedRate or a Trigger"),
            ([Cron("0 2 * * *"), Cron("0  2 * * *")], "two of its triggers are the same"),
        ],
    )
    def test_a_trigger_that_means_nothing(self, trigger: Any, message: str) -> None:
        with pytest.raises(UsageError, match=f"task etl.nightly.*{message}|{message}") as caught:
            declared(trigger)
        assert "etl.nightly" in str(caught.value)

    @pytest.mark.parametrize(
        ("inputs", "message"),
        [
            ({}, r"task etl.work: its trigger \(cron 0 2 \* \* \* UTC\) has wrong inputs: .*missing .*'n'"),
            ({"n": 1, "m": 2}, "unexpected keyword argument 'm'"),
            ({"n": "text"}, "'n'"),
            ({"n": TriggerTime}, "'n'"),
            ({"n": object()}, "'n'"),
        ],
    )
    def test_inputs_that_do_not_fit(self, inputs: dict[str, Any], message: str) -> None:
        with pytest.raises(InputError, match=message) as caught:

            @env.task(triggers=Cron("0 2 * * *", inputs=inputs))
            def work(n: int) -> None: ...

        assert "etl.work" in str(caught.value)

    def test_inputs_of_a_type_that_is_defined_later_are_looked_at_when_served(self) -> None:
        space: dict[str, Any] = {"perdure": perdure, "__name__": "later"}
        exec(
            "from __future__ import annotations\n"
            "import typing\n"
            "env = perdure.TaskEnvironment('etl')\n"
            "@env.task(triggers=perdure.Cron('0 2 * * *', inputs={'n': 5}))\n"
            "def work(n: Later) -> None: ...\n"
            "class Later(typing.NamedTuple):\n"
            "    x: int\n",
            space,
        )
        with pytest.raises(InputError, match=r"task etl\.work: its trigger"):
            schedule_for(MemoryStore(), [space["work"]])

    def test_triggers_of_one_task_that_differ_in_inputs_alone(self) -> None:
        with pytest.raises(UsageError, match=r"task etl\.work: two of its triggers have different inputs.*name="):

            @env.task(triggers=[Cron("0 2 * * *", inputs={"n": 1}), Cron("0 3 * * *", inputs={"n": 2})])
            def work(n: int) -> None: ...

    def test_two_tasks_of_one_name(self) -> None:
        one, two = declared(Cron("0 2 * * *")), declared(Cron("0 3 * * *"))
        with pytest.raises(UsageError, match=r"two tasks with triggers are called 'etl\.nightly'"):
            schedule_for(MemoryStore(), [one, two])


def test_an_overridden_task_has_no_triggers_of_its_own() -> None:
    task = declared(Cron("0 2 * * *"))
    assert task.override(retries=3).triggers == ()


def test_importing_perdure_and_declaring_tasks_loads_no_calendar() -> None:
    import subprocess
    import sys

    code = (
        "import sys, perdure\n"
        "@perdure.TaskEnvironment('etl').task\n"
        "def work() -> None: ...\n"
        "perdure.run\n"
        "assert not {'cronsim', 'zoneinfo', 'perdure.core.process.schedule'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
