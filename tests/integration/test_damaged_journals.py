"""Journals that were changed in the database: each is found, named and left alone, and all other runs go on."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.integration.shell import Shell

WORKFLOW = """
import os
import perdure

env = perdure.TaskEnvironment(name="wf")

@perdure.trace
def once(what: str) -> str:
    with open("log", "a") as file:
        file.write(what + "\\n")
    return what

@env.task
def work(who: str) -> str:
    steps = [once(f"{who}{number}") for number in range(4)]
    if not os.path.exists("go"):
        raise ValueError("not yet")
    return " ".join(steps)
"""


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    made = Shell(tmp_path)
    made.write("wf.py", WORKFLOW)
    for who in ("a", "b", "c"):
        assert made("run", "wf.py", "work", "--who", who, "--name", who).returncode == 1
    return made


Database = sqlite3.Connection


def edit(database: Database) -> None:
    [[data]] = database.execute("SELECT data FROM segments WHERE run = 2 AND number = 2").fetchall()
    changed = data.replace(b"b1", b"b9")
    assert changed != data
    database.execute("UPDATE segments SET data = ? WHERE run = 2 AND number = 2", (changed,))


def drop(database: Database) -> None:
    database.execute("DELETE FROM segments WHERE run = 2 AND number = 2")


def swap(database: Database) -> None:
    rows = database.execute("SELECT data FROM segments WHERE run = 2 AND number IN (2, 3) ORDER BY number").fetchall()
    database.executemany("UPDATE segments SET data = ? WHERE run = 2 AND number = ?", [(*rows[1], 2), (*rows[0], 3)])


def copy(database: Database) -> None:
    [other] = database.execute("SELECT data FROM segments WHERE run = 1 AND number = 2").fetchall()
    database.execute("UPDATE segments SET data = ? WHERE run = 2 AND number = 2", other)


def cut(database: Database) -> None:
    database.execute("DELETE FROM segments WHERE run = 2 AND number > 1")


def newer(database: Database) -> None:
    database.execute("UPDATE segments SET data = CAST(x'02' || substr(data, 2) AS BLOB) WHERE run = 2 AND number = 2")


def change(shell: Shell, damage: Callable[[Database], None]) -> None:
    connection = sqlite3.connect(shell.path / ".perdure/perdure.db")
    with connection:
        damage(connection)
    connection.close()


@pytest.mark.parametrize("damage", [edit, drop, swap, copy, newer])
def test_a_damaged_journal_stops_its_run_and_no_other(shell: Shell, damage: Callable[[Database], None]) -> None:
    """Five ways to damage one run's second segment."""
    change(shell, damage)
    checked = shell("store", "check")
    assert checked.returncode == 1
    assert "run 'b'" in checked.stderr
    assert "entr" in checked.stderr
    assert "'a'" not in checked.stderr
    assert "'c'" not in checked.stderr
    shown = shell("show", "b")
    assert shown.returncode == 1
    assert "run 'b'" in shown.stderr
    assert "Traceback" not in shown.stderr
    assert {run["name"] for run in shell.json("ls")} == {"a", "b", "c"}
    (shell.path / "go").touch()
    before = shell.log()
    resumed = shell("resume", "a", "b", "c", "--file", "wf.py")
    assert "run 'b'" in resumed.stderr
    status = {run["name"]: run["status"] for run in shell.json("ls")}
    assert status["a"] == status["c"] == "SUCCEEDED"
    assert status["b"] != "SUCCEEDED"
    assert shell.log() == before


def test_a_journal_without_its_end_is_found_by_its_mark(shell: Shell) -> None:
    change(shell, cut)
    checked = shell("store", "check")
    assert checked.returncode == 1
    assert "run 'b': its journal ends with entry 1 and had" in checked.stderr


def test_a_damaged_run_stays_and_the_others_move(shell: Shell) -> None:
    change(shell, edit)
    moved = shell("store", "copy", ".perdure/perdure.db", "other.db", "--json")
    found = json.loads(moved.stdout)
    assert (found["runs"], list(found["staying"])) == (2, ["b"])
    assert {run["name"]: run["status"] for run in shell.json("ls")} == {"a": "MOVED", "b": "FAILED", "c": "MOVED"}
    assert shell("store", "check", "other.db").returncode == 0


def test_a_dump_has_a_line_for_each_entry(shell: Shell) -> None:
    lines = [json.loads(line) for line in shell("store", "dump", "a").stdout.splitlines()]
    traces = [line for line in lines if line["kind"] == "trace"]
    assert [line["entry"] for line in lines] == list(range(1, len(lines) + 1))
    assert [(line["result"], line["name"], line["inputs"], line["outcome"]) for line in traces] == [
        ("VALUE", "once", {"what": f"a{number}"}, f"a{number}") for number in range(4)
    ]


def test_a_dump_of_a_damaged_journal_ends_with_the_error(shell: Shell) -> None:
    change(shell, edit)
    done = shell("store", "dump", "b")
    assert done.returncode == 1
    assert "run 'b': its journal is damaged at entry 2" in done.stderr
    assert shell("store", "dump", "none").returncode != 0
