"""`perdure store backup`: a copy of a store that is in use is whole, verified, and never overwrites a file."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest
from tests.integration.shell import Shell
from tests.integration.test_damaged_journals import WORKFLOW, change, edit
from tests.journals import recorded_in

from perdure.store.sqlite import SQLiteStore

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


def ran(shell: Shell, name: str) -> None:
    shell.write("go", "")
    done = shell("run", "wf.py", "work", "--who", "ann", "--name", name)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("moved", ["away", "within", "gone"])
def test_a_finished_copy_keeps_its_content_where_its_preliminary_name_was_left(shell: Shell, moved: str) -> None:
    """A process was killed between naming the copy and removing its preliminary name. The next copy wrote into that
    file, which was the earlier backup.

    The family: where the earlier copy is by then: in another directory, beside the new copy, or removed."""
    ran(shell, "r")
    shell.json("store", "backup", "copy.db")
    first = (shell.path / "copy.db").read_bytes()
    os.link(shell.path / "copy.db", shell.path / "copy.db.part")
    (shell.path / "archive").mkdir()
    kept = shell.path / ("archive/first.db" if moved == "away" else "first.db")
    if moved == "gone":
        (shell.path / "copy.db").unlink()
    else:
        (shell.path / "copy.db").rename(kept)
    ran(shell, "second")
    assert shell.json("store", "backup", "copy.db")["runs"] == 2
    assert moved == "gone" or kept.read_bytes() == first
    assert not (shell.path / "copy.db.part").exists()


def test_a_complete_copy_counts_although_its_preliminary_name_cannot_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The family: the fault at each of the files beside the copy, once and for good. The command failed, and said at
    its repetition that there is a file already."""
    SQLiteStore(str(tmp_path / "perdure.db")).close()
    store = SQLiteStore(str(tmp_path / "perdure.db"))
    unlink = os.unlink
    for number, broken in enumerate((".part", "-journal", "-wal", "")):
        copy = tmp_path / f"copy{number}.db"

        def failing(path: str, *, copy: Path = copy, broken: str = broken, **options: Any) -> None:
            if copy.exists() and path.endswith(broken):
                raise OSError(errno.ENOSPC, "No space left on device")
            unlink(path, **options)

        monkeypatch.setattr(os, "unlink", failing)
        store.backup(str(copy), lambda _: None)
        monkeypatch.setattr(os, "unlink", unlink)
        assert copy.exists()
    store.close()


def test_two_processes_that_write_the_same_copy_leave_one_whole_copy(shell: Shell) -> None:
    """The one that comes second is refused, or finds the finished copy, and takes nothing from it."""
    ran(shell, "r")
    for number in range(5):
        those = [shell.start("store", "backup", f"copy{number}.db") for _ in range(3)]
        codes = [process.wait() for process in those]
        assert codes.count(0) == 1, [process.communicate() for process in those]
        assert recorded_in(shell.path / f"copy{number}.db")


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
