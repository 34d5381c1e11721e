"""The contract of `Store`, third part: schedules. A stretch of time is considered once, with its runs or not at all."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from tests.contract._records import DONE, TOKEN, created, new_run, writes
from tests.contract.test_store import store

from perdure.core.ground.model import FINISHED, Created, ScheduleRow, Status
from perdure.core.ground.ports import Store
from perdure.errors import StoreUnavailableError
from perdure.store.sqlite import SQLiteStore

__all__ = ["store"]


def position(store: Store, key: str) -> int:
    """The time up to which a known schedule has been considered."""
    row = store.schedule(key)
    assert row is not None
    return row.at


def test_a_schedule_never_seen_has_no_place(store: Store) -> None:
    assert store.schedule("daily") is None


def test_the_first_to_begin_it_decides_where(store: Store) -> None:
    assert store.advance("daily", 100, expect=None) == []
    assert store.advance("daily", 200, expect=None, runs=[new_run("a")]) is None
    assert position(store, "daily") == 100
    assert store.runs() == []


def test_it_moves_on_together_with_its_runs(store: Store) -> None:
    store.advance("daily", 100, expect=None)
    answers = store.advance("daily", 300, expect=100, runs=[new_run("a"), new_run("b")])
    assert answers is not None
    assert [(answer.run.name, answer.run.status, answer.fresh) for answer in answers] == [
        ("a", Status.QUEUED, True),
        ("b", Status.QUEUED, True),
    ]
    assert [answer.run for answer in answers] == [store.run("a"), store.run("b")]
    assert position(store, "daily") == 300


def test_the_version_changes_with_the_runs_of_a_schedule(store: Store) -> None:
    """A worker that serves looks for due runs when the version has changed: runs of schedules, submitted runs (in
    `test_store_waiting`), adopted runs and cancelled runs."""
    store.advance("daily", 100, expect=None)
    before = store.version()
    store.advance("daily", 300, expect=100, runs=[new_run("a")])
    assert store.version() != before


@pytest.mark.parametrize(("at", "expect"), [(300, 99), (300, 101), (300, None), (100, 100), (99, 100)])
def test_from_anywhere_else_or_not_forward_nothing_is_written(store: Store, at: int, expect: int | None) -> None:
    store.advance("daily", 100, expect=None)
    assert store.advance("daily", at, expect=expect, runs=[new_run("a")]) is None
    assert position(store, "daily") == 100
    assert store.run("a") is None


def test_one_never_seen_cannot_be_moved_from_a_place(store: Store) -> None:
    assert store.advance("daily", 300, expect=100, runs=[new_run("a")]) is None
    assert store.schedule("daily") is None
    assert store.runs() == []


def test_schedules_do_not_touch_one_another(store: Store) -> None:
    store.advance("daily", 100, expect=None)
    store.advance("hourly", 5, expect=None)
    store.advance("hourly", 7, expect=5)
    assert (position(store, "daily"), position(store, "hourly")) == (100, 7)


def test_a_taken_name_answers_with_its_run_and_the_others_are_created(store: Store) -> None:
    mine = created(store, "a")
    store.advance("daily", 100, expect=None)
    answers = store.advance("daily", 200, expect=100, runs=[new_run("a", inputs=b"other"), new_run("b")])
    assert answers is not None
    assert answers[0] == Created(mine, False)
    assert answers[1].fresh
    assert position(store, "daily") == 200


def test_who_comes_late_creates_nothing_even_when_the_run_is_over_and_removed(store: Store) -> None:
    store.advance("daily", 100, expect=None)
    store.advance("daily", 200, expect=100, runs=[new_run("a")])
    run = store.run("a")
    assert run is not None
    assert store.abort(run.id, 50)
    assert store.remove([run.id], 51, FINISHED) == [True]
    assert store.advance("daily", 200, expect=100, runs=[new_run("a")]) is None
    assert store.run("a") is None
    assert position(store, "daily") == 200


def test_removal_of_runs_leaves_schedules_alone(store: Store) -> None:
    store.advance("daily", 100, expect=None)
    run = created(store)
    store.commit([writes(run.id, token=TOKEN, finish=DONE)])
    assert store.remove([run.id], 100, FINISHED) == [True]
    while store.purge(10):
        pass
    assert position(store, "daily") == 100


def test_of_many_that_move_it_at_once_one_does(store: Store) -> None:
    store.advance("daily", 0, expect=None)
    answers: list[list[Created] | None] = []

    def move(number: int) -> None:
        for at in range(20):
            answers.append(store.advance("daily", at + 1, expect=at, runs=[new_run(f"{at}-by-{number}")]))

    threads = [threading.Thread(target=move, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    moved = [answer for answer in answers if answer is not None]
    assert position(store, "daily") == len(moved)
    assert sorted(run.name.split("-")[0] for run in store.runs()) == sorted(map(str, range(len(moved))))


def test_where_a_schedule_stands_outlives_the_process(tmp_path: Path) -> None:
    first = SQLiteStore(tmp_path / "store.db")
    first.advance("daily", 100, expect=None)
    first.close()
    second = SQLiteStore(tmp_path / "store.db")
    assert position(second, "daily") == 100
    second.close()


def test_a_run_that_cannot_be_created_leaves_the_schedule_where_it_was(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "store.db")
    store.advance("daily", 100, expect=None)
    broken = new_run("b")._replace(inputs=None)  # type: ignore[arg-type]
    with pytest.raises(Exception, match="inputs"):
        store.advance("daily", 200, expect=100, runs=[new_run("a"), broken])
    assert position(store, "daily") == 100
    assert store.runs() == []
    store.close()


def test_a_closed_store_refuses(store: Store) -> None:
    store.close()
    with pytest.raises(StoreUnavailableError):
        store.schedule("daily")
    with pytest.raises(StoreUnavailableError):
        store.advance("daily", 1, expect=None)


# -- pausing ---------------------------------------------------------------------------------------------------


def test_a_paused_schedule_is_not_moved_on_from_any_position(store: Store) -> None:
    """FI2. Family: a worker that has looked before the pause moves the schedule on behind it. Tried: with runs, without
    runs, from the present position and from another one, under either schedule of the name."""
    store.advance("etl.nightly cron a", 100, expect=None)
    store.advance("etl.nightly cron b", 110, expect=None)
    store.advance("etl.nightly:eu cron a", 120, expect=None)
    assert store.pause_schedules("etl.nightly", 130) == 2
    assert store.pause_schedules("etl.nightly", 140) == 0
    assert store.advance("etl.nightly cron a", 200, expect=100, runs=[new_run("a")], fired=200) is None
    assert store.advance("etl.nightly cron b", 200, expect=110) is None
    assert store.advance("etl.nightly cron b", 200, expect=99) is None
    assert store.advance("etl.nightly:eu cron a", 200, expect=120) == []
    assert store.runs() == []
    assert store.schedules() == [
        ScheduleRow("etl.nightly cron a", 100, 130),
        ScheduleRow("etl.nightly cron b", 110, 130),
        ScheduleRow("etl.nightly:eu cron a", 200),
    ]


def test_a_resumed_schedule_goes_on_from_the_present(store: Store) -> None:
    """FI2. A position in the future, as after a step of the clock, stays."""
    store.advance("daily x", 100, expect=None)
    store.advance("daily y", 900, expect=None)
    assert store.resume_schedules("daily", 300) == 0
    store.pause_schedules("daily", 150)
    assert store.resume_schedules("daily", 300) == 2
    assert store.schedules() == [ScheduleRow("daily x", 300), ScheduleRow("daily y", 900)]
    assert store.advance("daily x", 400, expect=100, runs=[new_run("a")]) is None
    assert store.advance("daily x", 400, expect=300, runs=[new_run("a")], fired=400) is not None
    assert store.schedule("daily x") == ScheduleRow("daily x", 400, None, 400)


def test_the_newest_firing_with_a_run_stays_where_firings_are_left_out(store: Store) -> None:
    store.advance("daily", 100, expect=None)
    store.advance("daily", 200, expect=100, runs=[new_run("a")], fired=200)
    store.advance("daily", 300, expect=200)
    assert store.schedule("daily") == ScheduleRow("daily", 300, None, 200)


def test_a_changed_definition_of_a_paused_schedule_begins_paused(store: Store) -> None:
    store.advance("daily x", 100, expect=None)
    store.pause_schedules("daily", 150)
    store.advance("daily y", 200, expect=None)
    store.advance("daily:eu x", 200, expect=None)
    assert store.schedule("daily y") == ScheduleRow("daily y", 200, 150)
    assert store.schedule("daily:eu x") == ScheduleRow("daily:eu x", 200)


def test_a_pause_outlives_the_process_and_an_unknown_schedule_has_none(tmp_path: Path) -> None:
    first = SQLiteStore(tmp_path / "store.db")
    first.advance("daily", 100, expect=None)
    assert first.pause_schedules("daily", 150) == 1
    assert first.pause_schedules("hourly", 150) == 0
    assert first.resume_schedules("hourly", 150) == 0
    first.close()
    second = SQLiteStore(tmp_path / "store.db")
    assert second.schedules() == [ScheduleRow("daily", 100, 150)]
    second.close()
