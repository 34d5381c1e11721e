"""Schedules from Python and the command line: listing, pausing, resuming and triggering, while workers serve them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.integration.shell import Shell
from tests.waiting import wait_for

import perdure
from perdure import errors, runtime
from perdure.api.loading import load_file

FILE = """
from datetime import datetime
import perdure

env = perdure.TaskEnvironment("etl")


@env.task(triggers=perdure.FixedRate(period=0.2, inputs={"day": perdure.TriggerTime, "limit": 7}))
def often(day: datetime, limit: int = 1) -> str:
    return f"{day.isoformat()} {limit}"


BERLIN = perdure.Cron("0 2 * * *", name="eu", timezone="Europe/Berlin")


@env.task(triggers=[BERLIN, perdure.Cron("0 3 1 1 *", name="us")])
def nightly() -> None: ...


@env.task
async def pauses(name: str) -> None:
    [one] = perdure.schedules(task=name)
    one.pause()
"""
LATER = 1.0
"""Seconds in which five firings of `often` fall."""


@pytest.fixture
def etl(tmp_path: Path) -> Iterator[Any]:
    perdure.init(store=tmp_path / "perdure.db")
    file = tmp_path / "etl.py"
    file.write_text(FILE)
    yield load_file(str(file))
    perdure.init()


def often() -> perdure.TaskSchedule:
    [found] = perdure.schedules(task="etl.often")
    return found


def fired() -> set[str]:
    return {run.name for run in perdure.runs(name="etl.often@*", limit=1000)}


def test_a_served_schedule_is_listed_with_its_next_firings_and_its_newest(etl: Any) -> None:
    assert perdure.schedules() == []
    with perdure.Worker([etl]):
        wait_for(lambda: len(fired()) > 2)
        now = datetime.now(UTC)
        eu, us, frequent = perdure.schedules(ahead=2)
    assert (eu.name, eu.task, eu.rule) == ("etl.nightly:eu", "etl.nightly", "cron 0 2 * * * Europe/Berlin")
    assert [at.astimezone().utcoffset() is not None for at in eu.next] == [True, True]
    assert now < eu.next[0] < eu.next[1] <= eu.next[0] + timedelta(hours=25)
    assert (eu.paused, eu.fired, eu.overdue) == (None, None, None)
    assert us.next[0].month == us.next[0].day == 1
    assert frequent.fired is not None
    assert timedelta(0) <= datetime.now(UTC) - frequent.fired < timedelta(minutes=1)
    assert frequent.next[1] - frequent.next[0] == timedelta(seconds=0.2)
    assert perdure.schedules(task=etl.nightly) == perdure.schedules(task="etl.nightly")
    assert asyncio.run(perdure.schedules.aio(task="no.such")) == []


def test_from_the_pause_to_the_resume_no_run_is_made_and_none_makes_up_for_it(etl: Any) -> None:
    """FI2. Family: a firing in a pause gets a run after all. Tried: a worker that serves while the pause begins, a
    worker that begins in the pause, and the resume under a worker that waits for nothing else."""
    with perdure.Worker([etl.often]):
        wait_for(lambda: len(fired()) > 1)
        assert often().pause()
        assert not often().pause()
        known = fired()
        time.sleep(LATER)
        assert fired() == known
    assert often().next == ()
    assert often().overdue is None
    with perdure.Worker([etl.often]):
        time.sleep(LATER)
        assert fired() == known
        before = datetime.now(UTC)
        assert asyncio.run(often().resume.aio())
        assert not often().resume()
        wait_for(lambda: len(fired()) > len(known) + 1)
    times = {datetime.fromisoformat(name.partition("@")[2].replace("Z", "+00:00")) for name in fired() - known}
    assert min(times) > before
    assert often().paused is None


def test_triggered_by_hand_a_run_has_the_inputs_of_the_trigger(etl: Any) -> None:
    """Also while the schedule is paused, and without a change of the firings."""
    with perdure.Worker([etl]):
        wait_for(lambda: bool(fired()))
        assert often().pause()
        before, stands = datetime.now(UTC), runtime.worker().store.schedules()
        run = often().trigger()
        again = asyncio.run(often().trigger.aio())
        assert again.name != run.name
        day, limit = run.wait(60).result.split()
        assert limit == "7"
        assert before <= datetime.fromisoformat(day) <= datetime.now(UTC)
        assert runtime.worker().store.schedules() == stands
        [eu] = [one for one in perdure.schedules() if one.name == "etl.nightly:eu"]
        assert eu.trigger().wait(60).name.startswith("etl.nightly:eu@")


def test_without_the_module_a_trigger_is_refused_with_the_remedy(etl: Any) -> None:
    runtime.worker().store.advance("etl.unknown cron 0 2 * * * UTC", 5, expect=None)
    [found] = perdure.schedules(task="etl.unknown")
    with pytest.raises(errors.UsageError, match=r"perdure schedule trigger etl\.unknown --file FILE"):
        found.trigger()
    assert found.overdue is not None
    assert found.overdue.isoformat() == "1970-01-01T02:00:00+00:00"


def test_a_body_cannot_pause_a_schedule(etl: Any) -> None:
    runtime.worker().store.advance("etl.often x", 5, expect=None)
    with pytest.raises(errors.NestedRunError, match=r"TaskSchedule\.pause was called in the body of task etl\.pauses"):
        perdure.run(etl.pauses, "etl.often")
    assert often().paused is None


@pytest.mark.parametrize(("given", "match"), [({"task": 7}, "task must be"), ({"ahead": -1}, "ahead must be")])
def test_bad_arguments_are_refused(etl: Any, given: dict[str, Any], match: str) -> None:
    with pytest.raises(errors.UsageError, match=match):
        perdure.schedules(**given)


def test_the_command_line_pauses_resumes_and_triggers(shell: Shell) -> None:
    shell.write("etl.py", FILE)
    assert shell.json("schedules") == []
    worker = shell.start("serve", "etl.py")
    try:
        wait_for(lambda: [one for one in shell.json("schedules") if one["fired"]])
        paused = shell("schedule", "pause", "etl.often", "etl.nightly:us")
        assert paused.returncode == 0
        assert "schedule etl.often is paused" in paused.stdout + paused.stderr
        assert "paused before" in shell("schedule", "pause", "etl.often").stderr
        eu, us, frequent = shell.json("schedules")
        assert (eu["paused"], us["next"], frequent["next"]) == (None, [], [])
        assert frequent["paused"] is not None
        table = shell("schedules", "--task", "etl.often").stdout
        assert "etl.often  every 200 ms  paused" in table
        assert "paused" in table
        known = shell.json("ls", "--limit", "1000")
        name = shell("schedule", "trigger", "etl.often", "--file", "etl.py").stdout.strip()
        assert shell("wait", name).stdout.strip().endswith(" 7")
        assert len(shell.json("ls", "--limit", "1000")) == len(known) + 1
        assert shell("schedule", "resume", "etl.often").returncode == 0
        wait_for(lambda: len(shell.json("ls", "--limit", "1000")) > len(known) + 1)
        assert "is not paused" in shell("schedule", "resume", "etl.often").stderr
        unknown = shell("schedule", "pause", "etl.oftn")
        assert unknown.returncode == 2
        assert "knows no schedule 'etl.oftn'" in unknown.stderr
        assert "etl.often" in unknown.stderr
    finally:
        worker.kill()
        worker.wait()
