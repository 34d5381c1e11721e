"""`perdure store`: runs move from one store to another, over kills at every moment; stores are checked and made."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.integration.shell import Shell
from tests.journals import recorded_in
from tests.postgres_server import server

from perdure.core.ground.model import ScheduleRow, Status
from perdure.core.journal.segment import Chain
from perdure.errors import UsageError
from perdure.store import open_blobs, open_store
from perdure.upkeep.moving import Moved, _Move, move

WORKFLOWS = """
import perdure
from perdure.extras import durable_sleep
from perdure.io import File

env = perdure.TaskEnvironment(name="wf")

@perdure.trace
def once(what: str) -> str:
    with open("log", "a") as file:
        file.write(what + "\\n")
    return what

@env.task
def quick(n: int = 1) -> str:
    return once(f"quick{n}")

@env.task
def make(text: str = "data") -> File:
    with open("made", "w") as file:
        file.write(text)
    return File.from_local("made")

@env.task
async def naps(seconds: float, who: str) -> str:
    first = once(f"{who}-before")
    await durable_sleep.aio(seconds)
    return first + once(f"{who}-after")

@env.task
def fails() -> None:
    raise ValueError("for good")
"""


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    made = Shell(tmp_path)
    made.write("wf.py", WORKFLOWS)
    return made


def postgres() -> str:
    return server().url()


@pytest.fixture(params=["sqlite", "postgres"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "new" / "target.db") if request.param == "sqlite" else postgres()


def serve_until(shell: Shell, status: str, name: str) -> None:
    worker = shell.start("serve", "wf.py", "--park-after", "0s")
    try:
        shell.until_status(name, status)
    finally:
        worker.terminate()
        worker.communicate(timeout=30)


def test_runs_move_and_carry_on_over_there(shell: Shell, target: str, tmp_path: Path) -> None:
    """M4, M2."""
    (tmp_path / "new").mkdir()
    shell("run", "wf.py", "quick", "--name", "done")
    shell("run", "wf.py", "make", "--name", "file", "--text", "content")
    shell("run", "wf.py", "fails", "--name", "failed")
    shell("submit", "wf.py", "naps", "--name", "asleep", "--who", "asleep", "--seconds", "6")
    begun = time.time()
    serve_until(shell, "SLEEPING", "asleep")
    shell("submit", "wf.py", "quick", "--n", "2", "--name", "queued")
    dry = shell.json("store", "copy", ".perdure/perdure.db", target, "--dry-run")
    assert (dry["runs"], dry["waiting"], dry["staying"]) == (5, 2, {})
    moved = shell.json("store", "copy", ".perdure/perdure.db", target)
    assert (moved["runs"], moved["waiting"], moved["staying"]) == (5, 2, {})
    assert (moved["files"], moved["bytes"]) == (1, 7)

    # Here they are only names.
    assert {run["status"] for run in shell.json("ls")} == {"MOVED"}
    for command in (
        ("run", "wf.py", "quick", "--name", "done"), ("resume", "failed"), ("abort", "asleep"), ("wait", "asleep"),
    ):  # fmt: skip
        refused = shell(*command)
        assert refused.returncode == 2, command
        assert "was moved to" in refused.stderr
        assert "s3cret-word" not in refused.stderr

    shell.env["PERDURE_STORE"] = target
    by_name = {run["name"]: run["status"] for run in shell.json("ls")}
    assert by_name == {
        "done": "SUCCEEDED", "file": "SUCCEEDED", "failed": "FAILED", "asleep": "SLEEPING", "queued": "QUEUED",
    }  # fmt: skip
    assert [run["name"] for run in shell.json("ls")][::-1] == ["done", "file", "failed", "asleep", "queued"]
    again = shell("run", "wf.py", "quick", "--name", "done")
    assert (again.returncode, again.stdout.strip()) == (0, "quick1")
    file = shell.json("run", "wf.py", "make", "--name", "file", "--text", "content")
    assert file["executed"] == 0
    serve_until(shell, "SUCCEEDED", "asleep")
    assert 6 <= time.time() - begun < 120
    assert sorted(shell.log()) == ["asleep-after", "asleep-before", "quick1", "quick2"]


def test_what_was_removed_over_there_does_not_come_again(shell: Shell, target: str, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    shell("run", "wf.py", "quick", "--name", "done")
    shell("submit", "wf.py", "quick", "--n", "2", "--name", "queued")
    assert shell.json("store", "copy", ".perdure/perdure.db", target)["runs"] == 2
    here = dict(shell.env)
    shell.env["PERDURE_STORE"] = target
    serve_until(shell, "SUCCEEDED", "queued")
    assert len(shell.json("gc", "--older-than", "0s")["runs"]) == 2
    shell.env = here
    again = shell.json("store", "copy", ".perdure/perdure.db", target)
    assert (again["runs"], again["staying"]) == (2, {})
    shell.env["PERDURE_STORE"] = target
    assert shell.json("ls") == []
    assert sorted(shell.log()) == ["quick1", "quick2"]


def test_a_move_that_is_killed_is_carried_on(shell: Shell, tmp_path: Path) -> None:
    source, target = f"{tmp_path}/source.db", postgres()
    shell.env["PERDURE_STORE"] = source
    shell("run", "wf.py", "make", "--name", "run-0", "--text", "0")
    for number in range(1, 60):
        _copy_row(Path(source), "run-0", f"run-{number}")
    for delay in (0.35, 0.45, 0.55):
        process = shell.start("store", "copy", source, target)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
    moved = shell.json("store", "copy", source, target)
    assert (moved["runs"], moved["staying"]) == (60, {})
    shell.env["PERDURE_STORE"] = target
    assert len(shell.json("ls", "--status", "SUCCEEDED")) == 60


def _copy_row(path: Path, name: str, new: str) -> None:
    """Another finished run like that one."""
    with sqlite3.connect(path) as database:
        columns = [row[1] for row in database.execute("PRAGMA table_info(runs)") if row[1] not in ("id", "name", "uid")]
        listed = ", ".join(columns)
        uid = os.urandom(16)
        database.execute(
            f"INSERT INTO runs (name, uid, {listed}) SELECT ?, ?, {listed} FROM runs WHERE name = ?", (new, uid, name)
        )
        [[number]] = database.execute("SELECT id FROM runs WHERE name = ?", (new,)).fetchall()
        [[model]] = database.execute("SELECT id FROM runs WHERE name = ?", (name,)).fetchall()
        chain = Chain(new, uid)
        for run, entry in recorded_in(path):
            if run == model:
                database.execute("INSERT INTO segments VALUES (?, ?, ?)", (number, *chain.add([entry], b"mark")))


class Killed(Exception):
    """The process ends here."""


class Fragile:
    """A store that ends the process before or after its n-th change."""

    VERBS = frozenset({"move", "adopt", "take_back", "advance", "source_id"})

    def __init__(self, store: Any, countdown: list[int]) -> None:
        self._store = store
        self._countdown = countdown

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name not in self.VERBS:
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self._tick()
            answer = found(*args, **kwargs)
            self._tick()
            return answer

        return call

    def _tick(self) -> None:
        self._countdown[0] -= 1
        if self._countdown[0] == 0:
            raise Killed


@pytest.fixture
def prepared(shell: Shell) -> Callable[[str], str]:
    shell("run", "wf.py", "make", "--name", "file", "--text", "content")
    shell("run", "wf.py", "fails", "--name", "failed")
    shell("submit", "wf.py", "quick", "--name", "queued", "--in", "1h")
    original = (shell.path / ".perdure" / "perdure.db").read_bytes()

    def make(name: str) -> str:
        folder = shell.path / name / ".perdure"
        folder.mkdir(parents=True)
        (folder / "perdure.db").write_bytes(original)
        os.symlink(shell.path / ".perdure" / "blobs", folder / "blobs")
        return str(folder / "perdure.db")

    return make


def test_killed_between_any_two_changes(prepared: Callable[[str], str], tmp_path: Path) -> None:
    """M1, M2, M3: no store has the run twice, and the run is never lost."""
    for point in range(1, 1000):
        source_url, target_url = prepared(f"source-{point}"), str(tmp_path / f"target-{point}.db")
        countdown = [point]
        ended = _try(source_url, target_url, countdown)
        _nothing_lost_or_doubled(source_url, target_url)
        assert _try(source_url, target_url, [-1]) is not None
        target, _ = open_store(target_url)
        assert {run.name: run.status for run in target.runs()} == {
            "file": Status.SUCCEEDED, "failed": Status.FAILED, "queued": Status.QUEUED,
        }  # fmt: skip
        target.close()
        if ended is not None:
            assert point > 4
            return
    raise AssertionError("it never came to its end")


def test_a_paused_schedule_stays_paused_over_there_wherever_the_move_was_killed(
    prepared: Callable[[str], str], tmp_path: Path
) -> None:
    """FI2. Family: a move that makes a schedule known before its pause. Tried: killed at each call of either store,
    with a paused and an active schedule, and with a schedule that the target knows already."""
    rows = [ScheduleRow("a cron", 5, 6, 4), ScheduleRow("b cron", 7, None, 7), ScheduleRow("c cron", 8, 9)]
    for point in range(1, 1000):
        source_url, target_url = prepared(f"source-{point}"), str(tmp_path / f"target-{point}.db")
        source, _ = open_store(source_url)
        target, _ = open_store(target_url)
        assert all(map(source.adopt_schedule, rows))
        assert target.advance("c cron", 10, expect=None) == []
        source.close()
        ended = _try(source_url, target_url, [point])
        expected = [*rows[:2], ScheduleRow("c cron", 10)]
        assert all(row in expected for row in target.schedules())
        _try(source_url, target_url, [-1])
        assert target.schedules() == expected
        target.close()
        if ended is not None:
            return
    raise AssertionError("it never came to its end")


def _try(source_url: str, target_url: str, countdown: list[int]) -> Moved | None:
    source, _ = open_store(source_url)
    target, _ = open_store(target_url)
    files, target_files = open_blobs(source_url), open_blobs(target_url)
    moving = _Move(Fragile(source, countdown), files, Fragile(target, countdown), target_files)  # type: ignore[arg-type]
    try:
        return moving.all(None)
    except Killed:
        return None
    finally:
        source.close()
        target.close()


def _nothing_lost_or_doubled(source_url: str, target_url: str) -> None:
    source, _ = open_store(source_url)
    target, _ = open_store(target_url)
    try:
        here = {run.name: run.status for run in source.runs()}
        there = {run.name: run.status for run in target.runs()}
        assert set(here) == {"file", "failed", "queued"}
        for name, status in here.items():
            assert name not in there or status is Status.MOVED, name
        for run in target.runs():
            assert target.journal_length(run.id) == source.journal_length(_number(source, run.name))
    finally:
        source.close()
        target.close()


def _number(store: Any, name: str) -> int:
    run = store.run(name)
    assert run is not None
    return int(run.id)


def test_what_is_driven_or_has_a_namesake_stays(shell: Shell, tmp_path: Path) -> None:
    """M3, M5."""
    source, target = str(tmp_path / "source.db"), str(tmp_path / "target.db")
    shell("--store", target, "run", "wf.py", "quick", "--name", "same")
    shell("--store", source, "run", "wf.py", "quick", "--name", "same", "--n", "2")
    shell("--store", source, "run", "wf.py", "quick", "--name", "other", "--n", "3")
    nap = ("--name", "driven", "--who", "driven", "--seconds", "60")
    driven = shell.start("--store", source, "run", "wf.py", "naps", *nap)
    try:
        shell.until_logged("driven-before")
        done = shell("store", "copy", source, target)
    finally:
        driven.kill()
        driven.communicate(timeout=30)
    assert done.returncode == 1
    assert done.stdout.strip() == "moved: 1 run"
    assert "same stays: " in done.stderr
    assert "driven stays: " in done.stderr
    with pytest.raises(UsageError, match="the same store"):
        move(source, source)
    with pytest.raises(UsageError, match="there is no store"):
        move(str(tmp_path / "nowhere.db"), target)
    assert not (tmp_path / "nowhere.db").exists()


def test_a_run_that_was_moved_by_mistake_moves_back(shell: Shell, tmp_path: Path) -> None:
    first, second = str(tmp_path / "first.db"), str(tmp_path / "second.db")
    shell("--store", first, "run", "wf.py", "quick", "--name", "one")
    assert move(first, second).runs == 1
    assert move(second, first).runs == 1
    shell.env["PERDURE_STORE"] = first
    assert [(run["name"], run["status"]) for run in shell.json("ls")] == [("one", "SUCCEEDED")]


def test_a_store_is_checked_and_made(shell: Shell, tmp_path: Path) -> None:
    url = postgres()
    missing = shell("store", "check", url)
    assert missing.returncode == 1
    assert "`perdure store migrate`" in missing.stderr
    for _ in range(2):
        made = shell("store", "migrate", url)
        assert made.returncode == 0, made.stderr
        assert "up to date" in made.stdout
        assert "s3cret-word" not in made.stdout + made.stderr
    found = shell.json("store", "check", url)
    assert found["problems"] == []
    assert found["runs"] == {}
    assert found["kind"].startswith("PostgreSQL")
    assert "s3cret-word" not in json.dumps(found)

    assert shell("store", "check").returncode == 2
    shell("run", "wf.py", "quick")
    assert shell.json("store", "check")["runs"] == {"SUCCEEDED": 1}
    file = shell.path / ".perdure" / "perdure.db"
    with sqlite3.connect(file) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        [[page]] = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'segments'").fetchall()
    with file.open("r+b") as raw:
        raw.seek((page - 1) * 4096)
        raw.write(b"\xff" * 4096)
    damaged = shell("store", "check")
    assert damaged.returncode == 1
    assert "damaged" in damaged.stderr
