"""P9: what happens to an attempt whose engine, machine or driver is lost. Nothing of that is charged to `retries`."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.containers.engines import Engine, PrivatePodman
from tests.containers.victims import Victims
from tests.stores import wait_until_lease_is_over
from tests.waiting import is_stopped, wait_for

RESULT = {"value": ["before", "x and 3", "after"]}


def perdure_cli(victims: Victims, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """A command line in the project directory."""
    return subprocess.run(
        [sys.executable, "-m", "perdure", *words], cwd=victims.directory, env={**victims.environ, **environ},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def killed_while_running(victims: Victims) -> None:
    """The first process is killed when its container runs."""
    process = victims.begin()
    victims.wait_for(1)
    process.kill()
    process.communicate()


def test_an_engine_that_is_killed_and_comes_back(engine: Engine, tmp_path: Path) -> None:
    """L4, L5: Podman's containers run on without it; Docker takes its own along, so another attempt is made."""
    victims = Victims(engine, tmp_path, "holds")
    process = victims.begin()
    victims.wait_for(1)
    # The program runs before the engine has recorded the start.
    wait_for(lambda: engine.run_cli("ps", "-q"))
    engine.kill()
    engine.restart()
    (victims.shared / "go").touch()
    out, err = process.communicate(timeout=90)
    assert msgspec.json.decode(out) == {"value": "held"}, err
    if engine.kind == "podman":
        assert victims.ran() == ["started", "ended"], err
        assert "was lost" not in err
    else:
        assert victims.ran().count("started") == 2, err
        assert "was lost" in err
    assert victims.left() == []


@pytest.mark.parametrize("then", ["it runs", "it has ended", "perdure is gone as well"])
def test_an_engine_that_is_killed_before_it_has_recorded_a_start(podman: Engine, tmp_path: Path, then: str) -> None:
    """L3, P9: Podman shows such a container as *created* for ever, whether it runs or has ended, and would start it
    again. No container is started twice: the attempt is lost, and its container is gone before the next begins."""
    assert isinstance(podman, PrivatePodman)
    victims = Victims(podman, tmp_path, "main", a="x")
    with podman.unrecorded_starts():
        process = victims.begin()
        victims.wait_for(1)
        if then == "perdure is gone as well":
            process.kill()
            process.communicate()
        podman.kill()
    if then != "it runs":
        wait_for(lambda: "ended" in victims.ran(), story=victims.ran)
    podman.restart()
    if then == "perdure is gone as well":
        process = victims.begin()
    out, err = process.communicate(timeout=90)
    assert msgspec.json.decode(out) == RESULT, err
    assert "was lost (the container engine was restarted, perhaps during the start of the container)" in err, err
    assert [mark for mark in victims.ran() if mark == "started"] == ["started"] * 2
    assert victims.ran()[-2:] == ["started", "ended"]
    assert victims.left() == []


def test_an_engine_that_has_lost_everything(engine: Engine, tmp_path: Path) -> None:
    victims = Victims(engine, tmp_path, "main", a="x")
    killed_while_running(victims)
    engine.wipe()
    _, answer, err = victims.run()
    assert answer == RESULT, err
    assert "was lost" in err
    assert victims.ran().count("ended") == 1
    assert victims.left() == []


def test_a_container_removed_by_hand_is_a_lost_attempt(engine: Engine, tmp_path: Path) -> None:
    victims = Victims(engine, tmp_path, "main", a="x")
    killed_while_running(victims)
    engine.clear()
    _, answer, err = victims.run()
    assert answer == RESULT, err
    assert "was lost (the container is gone)" in err
    assert victims.left() == []


@pytest.mark.parametrize("point", ["after record", "before collect"])
def test_another_boot(engine: Engine, tmp_path: Path, point: str) -> None:
    """L3: after a reboot Podman shows a container that ran as *created*, and any engine would start it again."""
    victims = Victims(engine, tmp_path, "main", a="x")
    code, _, err = victims.run(point)
    assert code == -signal.SIGKILL, err
    before = victims.ran()
    change_state(victims, 3, "another-boot")
    _, answer, err = victims.run()
    assert answer == RESULT, err
    assert "was lost (the machine was restarted)" in err
    assert victims.ran() == [*before, "started", "ended"]
    assert victims.left() == []


def change_state(victims: Victims, field: int, value: Any) -> None:
    """What is recorded of the running container, as another machine might have left it."""
    with contextlib.closing(sqlite3.connect(victims.directory / ".perdure" / "perdure.db")) as database, database:
        (state,) = database.execute("SELECT state FROM actions WHERE state IS NOT NULL").fetchone()
        fields = msgspec.msgpack.decode(state)
        fields[field] = value
        database.execute("UPDATE actions SET state = ? WHERE state IS NOT NULL", (msgspec.msgpack.encode(fields),))


def test_a_main_process_that_is_gone_unnoticed(podman: Engine, tmp_path: Path) -> None:
    """A container whose conmon was killed is "up" for ever."""
    victims = Victims(podman, tmp_path, "main", a="x")
    process = victims.begin()
    victims.wait_for(1)
    for pid in podman.run_cli("ps", "--format", "{{.Pid}}").split():
        with open(f"/proc/{pid}/stat") as stat:
            conmon = int(stat.read().rpartition(")")[2].split()[1])
        for each in (conmon, int(pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
    out, err = process.communicate(timeout=60)
    assert msgspec.json.decode(out) == RESULT, err
    assert "was lost" in err
    assert victims.left() == []


def test_another_engine_is_not_taken_for_this_one(docker: Engine, podman: Engine, tmp_path: Path) -> None:
    """The run stays interrupted until the engine that has its container is there."""
    victims = Victims(docker, tmp_path, "main", a="x")
    killed_while_running(victims)
    victims.environ |= podman.environ()
    _, answer, err = victims.run()
    assert answer["error"] == "EngineUnavailableError", err
    assert docker.url in answer["text"]
    assert "INTERRUPTED" in perdure_cli(victims, "ls").stdout
    victims.environ |= docker.environ()
    _, answer, err = victims.run()
    assert answer == RESULT, err
    assert victims.ran() == ["started", "ended"]


@pytest.mark.parametrize("alive", [True, False])
def test_abort_stops_and_removes(engine: Engine, tmp_path: Path, alive: bool) -> None:
    victims = Victims(engine, tmp_path, "slow")
    process = victims.begin()
    victims.wait_for(1)
    if not alive:
        process.kill()
        process.communicate()
    done = perdure_cli(victims, "abort", "r")
    assert done.returncode == 0, done.stderr
    if alive:
        out, err = process.communicate(timeout=30)
        assert msgspec.json.decode(out)["error"] == "RunAbortedError", err
    assert victims.ran() == ["started", "stopped"]
    wait_for(lambda: victims.left() == [])


def test_equal_run_names_in_two_stores_do_not_meet(engine: Engine, tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    first.mkdir()
    second.mkdir()
    one, other = Victims(engine, first, "main", a="one"), Victims(engine, second, "main", a="other")
    killed_while_running(one)
    killed_while_running(other)
    assert len(engine.run_cli("ps", "-a", "--format", "{{.Names}}").split()) == 2
    assert one.run()[1] == {"value": ["before", "one and 3", "after"]}
    assert other.run()[1] == {"value": ["before", "other and 3", "after"]}
    assert (one.ran(), other.ran()) == (["started", "ended"], ["started", "ended"])
    assert one.left() == other.left() == []


@pytest.mark.parametrize("point", ["stop after create", "stop after record"])
def test_a_fenced_driver_cannot_start_it(engine: Engine, tmp_path: Path, point: str) -> None:
    """P3, L2: frozen between the creation and the start, for longer than its lease."""
    victims = Victims(engine, tmp_path, "main", a="x")
    victims.environ["PERDURE_LEASE"] = "1"
    frozen = victims.begin(point)
    wait_for(lambda: is_stopped(frozen.pid))
    wait_until_lease_is_over(str(tmp_path / ".perdure" / "perdure.db"), frozen.pid)
    _, answer, err = victims.run()
    assert answer == RESULT, err
    frozen.send_signal(signal.SIGCONT)
    out, err = frozen.communicate(timeout=30)
    assert "LeaseLostError" in out + err or msgspec.json.decode(out) == RESULT
    assert victims.ran() == ["started", "ended"]
    assert victims.left() == []


def test_a_container_that_another_process_joins_gets_another_name(engine: Engine, tmp_path: Path) -> None:
    """L2: the name that the first process knows reaches no container any more."""
    victims = Victims(engine, tmp_path, "main", a="x")
    victims.environ["PERDURE_LEASE"] = "1"
    frozen = victims.begin("stop after record")
    wait_for(lambda: is_stopped(frozen.pid))
    [created] = engine.run_cli("ps", "-a", "--format", "{{.ID}} {{.Names}}").splitlines()
    wait_until_lease_is_over(str(tmp_path / ".perdure" / "perdure.db"), frozen.pid)
    other = victims.begin()
    victims.wait_for(1)
    [running] = engine.run_cli("ps", "-a", "--format", "{{.ID}} {{.Names}}").splitlines()
    frozen.kill()
    other.communicate(timeout=60)
    frozen.communicate(timeout=30)
    assert created.split()[0] == running.split()[0]
    assert created.split()[1] != running.split()[1]


def test_a_fenced_driver_does_not_touch_its_successors_container(engine: Engine, tmp_path: Path) -> None:
    """P3: frozen before it clears up for what it is about to begin."""
    victims = Victims(engine, tmp_path, "main", a="x")
    victims.environ["PERDURE_LEASE"] = "1"
    frozen = victims.begin("stop before stage")
    wait_for(lambda: is_stopped(frozen.pid))
    wait_until_lease_is_over(str(tmp_path / ".perdure" / "perdure.db"), frozen.pid)
    other = victims.begin()
    victims.wait_for(1)
    frozen.send_signal(signal.SIGCONT)
    out, err = other.communicate(timeout=60)
    frozen.communicate(timeout=30)
    assert msgspec.json.decode(out) == RESULT, err
    assert victims.ran() == ["started", "ended"]


def test_a_secret_that_is_not_at_hand_leaves_the_run_interrupted(engine: Engine, tmp_path: Path) -> None:
    """The container has it; a process that has not could not strike it out of the log lines."""
    victims = Victims(engine, tmp_path, "guarded")
    victims.environ["TOKEN"] = "token-of-mine"
    killed_while_running(victims)
    del victims.environ["TOKEN"]
    _, answer, err = victims.run()
    assert answer["error"] == "UsageError", err
    assert "secret TOKEN is not here" in answer["text"]
    assert "INTERRUPTED" in perdure_cli(victims, "ls").stdout
    victims.environ["TOKEN"] = "token-of-mine"
    _, answer, err = victims.run()
    assert answer == {"value": None}, err
    assert victims.ran() == ["started", "ended"]
    assert victims.left() == []
