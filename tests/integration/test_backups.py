"""`perdure store backup`: a copy of a store that is in use is whole, verified, and never overwrites a file."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

import pytest
from tests.integration.shell import Shell
from tests.integration.test_damaged_journals import WORKFLOW, change, edit
from tests.journals import recorded_in

STREAM = """
import perdure

env = perdure.TaskEnvironment(name="wf")

@perdure.trace
def once(number: int) -> int:
    return number

@env.task
def main() -> int:
    number = 0
    while True:
        number = once(number + 1)
        if number == 20:
            with open("log", "w") as file:
                file.write("busy")
"""


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    made = Shell(tmp_path)
    made.write("wf.py", WORKFLOW)
    return made


def test_a_copy_taken_while_a_run_writes_is_one_moment_of_the_store(shell: Shell) -> None:
    """A process commits without a pause; its journal in each copy has no gap and a whole chain."""
    shell.write("stream.py", STREAM)
    writer = shell.start("run", "stream.py", "main")
    try:
        shell.until_logged("busy")
        lengths = []
        for number in range(3):
            found = shell.json("store", "backup", f"copy{number}.db")
            assert found["runs"] == 1
            rows = [entry.n for _, entry in recorded_in(shell.path / f"copy{number}.db")]
            assert rows == list(range(1, len(rows) + 1))
            lengths.append(len(rows))
        assert 20 <= lengths[0] < lengths[1] < lengths[2]
    finally:
        writer.kill()
        writer.communicate()
    assert stat.S_IMODE((shell.path / "copy0.db").stat().st_mode) == 0o600
    assert [path.name for path in shell.path.glob("copy0.db*")] == ["copy0.db"]


def test_a_restored_copy_goes_on_where_the_backup_was_taken(shell: Shell) -> None:
    assert shell("run", "wf.py", "work", "--who", "a", "--name", "a").returncode == 1
    assert shell("store", "backup", "copy.db").returncode == 0
    (shell.path / "go").touch()
    done = shell("resume", "a", "--file", "wf.py", PERDURE_STORE="copy.db")
    assert done.returncode == 0, done.stderr
    assert shell.log() == ["a0", "a1", "a2", "a3"]


def test_a_file_that_is_there_is_kept(shell: Shell) -> None:
    shell("run", "wf.py", "work", "--who", "a")
    (shell.path / "copy.db").write_text("mine")
    done = shell("store", "backup", "copy.db")
    assert done.returncode == 2
    assert "copy.db: File exists" in done.stderr
    assert (shell.path / "copy.db").read_text() == "mine"
    assert shell("store", "backup", "none/copy.db").returncode == 2


def test_a_copy_with_problems_is_removed(shell: Shell) -> None:
    for who in ("a", "b"):
        shell("run", "wf.py", "work", "--who", who, "--name", who)
    change(shell, edit)
    done = shell("store", "backup", "copy.db")
    assert done.returncode == 1
    assert "run 'b': its journal is damaged" in done.stderr
    assert not list(shell.path.glob("copy.db*"))


def test_a_clean_exit_leaves_all_commits_in_the_file_although_others_have_it_open(shell: Shell) -> None:
    shell("run", "wf.py", "work", "--who", "first")
    path = shell.path / ".perdure/perdure.db"
    other = sqlite3.connect(path)
    other.execute("SELECT count(*) FROM runs").fetchall()
    shell("run", "wf.py", "work", "--who", "second")
    copy = shell.path / "copied.db"
    copy.write_bytes(path.read_bytes())
    other.close()
    assert len({run for run, _ in recorded_in(copy)}) == 2
