"""P9: perdure is killed with SIGKILL at every point of a container's life, and the run resumed."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from tests.containers.engines import Engine
from tests.containers.flows.victim import POINTS
from tests.containers.victims import Victims


@pytest.mark.parametrize("point", POINTS)
def test_one_container_ever_runs_and_none_is_left(engine: Engine, tmp_path: Path, point: str) -> None:
    """P9, L1, BG1, BG2."""
    victims = Victims(engine, tmp_path, "main", a="x")
    code, _, err = victims.run(point)
    assert code == -signal.SIGKILL, err
    code, answer, err = victims.run()
    assert answer == {"value": ["before", "x and 3", "after"]}, err
    assert victims.ran() == ["started", "ended"]
    # What is removed is removed beside the next step, which may have been under way when the process died (P2).
    assert victims.notes()[:2] == ["before", "after"]
    assert len(victims.notes()) == 2 or "remove" in point
    assert victims.left() == []


@pytest.mark.parametrize("point", ["before collect", "after collect"])
def test_twice_at_the_same_point(engine: Engine, tmp_path: Path, point: str) -> None:
    victims = Victims(engine, tmp_path, "blocking", a="y")
    for _ in range(2):
        code, _, err = victims.run(point)
        assert code == -signal.SIGKILL, err
    _, answer, err = victims.run()
    assert answer == {"value": "y and 4"}, err
    assert victims.ran() == ["started", "ended"]
    assert victims.left() == []


def test_a_failed_attempt_stays_failed(engine: Engine, tmp_path: Path) -> None:
    """Each attempt has a container of its own, however often its process dies."""
    victims = Victims(engine, tmp_path, "retried")
    kills = 0
    for point in ("before collect", "before remove") * 6:
        code, answer, err = victims.run(point)
        if code == 0:
            break
        kills += 1
        assert code == -signal.SIGKILL, err
    assert kills >= 3
    _, answer, err = victims.run()
    assert answer == {"value": "done"}, err
    assert victims.ran() == ["started"] * 3
    assert victims.left() == []


def test_a_timeout_stops_the_container_and_the_next_attempt_begins(engine: Engine, tmp_path: Path) -> None:
    victims = Victims(engine, tmp_path, "hasty")
    _, answer, err = victims.run()
    assert answer["error"] == "TaskTimeoutError", err
    assert victims.ran() == ["started", "stopped"] * 2
    assert victims.left() == []


def test_a_timeout_runs_on_while_no_process_lives(engine: Engine, tmp_path: Path) -> None:
    victims = Victims(engine, tmp_path, "hasty")
    process = victims.begin()
    victims.wait_for(1)
    process.kill()
    process.communicate()
    _, answer, err = victims.run()
    assert answer["error"] == "TaskTimeoutError", err
    assert victims.ran() == ["started", "stopped"] * 2
    assert victims.left() == []


def test_a_container_stopped_at_its_timeout_has_not_succeeded(engine: Engine, tmp_path: Path) -> None:
    """L6: The process dies between the stop and the outcome; the program has ended with 0, as it was told to."""
    victims = Victims(engine, tmp_path, "hasty")
    code, _, err = victims.run("after late stop")
    assert code == -signal.SIGKILL, err
    assert victims.ran() == ["started", "stopped"]
    _, answer, err = victims.run()
    assert answer["error"] == "TaskTimeoutError", err
    assert victims.ran() == ["started", "stopped"] * 2
    assert victims.left() == []


def test_a_container_that_ended_in_time_counts_however_late_it_is_joined(engine: Engine, tmp_path: Path) -> None:
    victims = Victims(engine, tmp_path, "timed", a="x", b=3)
    process = victims.begin()
    victims.wait_for(1)
    process.kill()
    process.communicate()
    time.sleep(3.5)  # longer than its timeout, which is counted whether a process lives or not
    _, answer, err = victims.run()
    assert answer == {"value": "x and 3"}, err
    assert victims.ran() == ["started", "ended"]
    assert victims.left() == []


def test_a_container_is_joined_by_a_retry_of_its_caller(engine: Engine, tmp_path: Path) -> None:
    """The outcome of the first one, which the retry has discarded, says nothing of the second: it is not swept."""
    victims = Victims(engine, tmp_path, "again")
    process = victims.begin()
    victims.wait_for(2)
    process.kill()
    process.communicate()
    _, answer, err = victims.run()
    assert answer == {"value": "done"}, err
    assert victims.ran() == ["started", "started", "ended"]
    logs = sorted((tmp_path / ".perdure" / "perdure.db-logs").glob("*/*.log"))
    assert [log.read_text() for log in logs] == ["this is 1\n", "this is 2\n"]
    assert victims.left() == []


def test_a_cancelled_container_is_stopped(engine: Engine, tmp_path: Path) -> None:
    victims = Victims(engine, tmp_path, "cancelled")
    _, answer, err = victims.run()
    assert answer == {"value": "late"}, err
    assert victims.ran() == ["started", "stopped"]
    assert victims.left() == []


def test_an_interrupted_run_leaves_its_container_running(engine: Engine, tmp_path: Path) -> None:
    """Ctrl-C ends driving, not the container; the next process joins it."""
    victims = Victims(engine, tmp_path, "main", a="x")
    process = victims.begin()
    victims.wait_for(1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert "was destroyed" not in said
    _, answer, err = victims.run()
    assert answer == {"value": ["before", "x and 3", "after"]}, err
    assert victims.ran() == ["started", "ended"]
    assert victims.left() == []
