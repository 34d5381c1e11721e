"""`perdure gc`: finished runs and what only they needed go; data of live runs stays, over kills at every moment."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.integration.shell import Shell
from tests.waiting import wait_for_file

from perdure.store.blobs.directory import LocalBlobs
from perdure.upkeep.collecting import references

WORKFLOWS = """
import os, time
import perdure
from perdure.io import Dir, File

env = perdure.TaskEnvironment(name="wf")

def put(text):
    with open("made", "w") as file:
        file.write(text)
    return File.from_local("made")

@env.task
def make(text: str = "data") -> File:
    return put(text)

@env.task
def tree() -> Dir:
    os.makedirs("top/sub", exist_ok=True)
    with open("top/sub/x", "w") as file:
        file.write("in a tree")
    return Dir.from_local("top")

@env.task(cache="auto")
def cached() -> File:
    return put("cached")

@env.task
def caller() -> str:
    return cached().name

@env.task
def holds(text: str = "held") -> str:
    file = put(text)                    # not recorded anywhere
    os.mkfifo("go")
    open("put", "w").close()
    open("go").close()                  # until the test opens the other end
    return file.open("r").read()

@perdure.trace
def many(n: int) -> list[int]:
    return list(range(n))

@env.task
def long(n: int) -> int:
    return sum(many(20)[0] for _ in range(n))

@env.task
def fails(n: int) -> int:
    for _ in range(n):
        many(3)
    if not os.path.exists("fixed"):
        raise RuntimeError("not fixed")
    return n
"""


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    made = Shell(tmp_path)
    made.write("wf.py", WORKFLOWS)
    return made


def age(shell: Shell, days: float = 3) -> None:
    """Let all stored files have been put days ago."""
    then = time.time() - days * 86_400
    for path in (shell.path / ".perdure/blobs/sha256").rglob("*"):
        if path.is_file():
            os.utime(path, (then, then))


def contents(shell: Shell) -> set[bytes]:
    return {path.read_bytes() for path in (shell.path / ".perdure/blobs/sha256").rglob("*") if path.is_file()}


def names(shell: Shell) -> list[str]:
    return sorted(run["name"] for run in shell.json("ls"))


def rows(shell: Shell, table: str) -> int:
    with sqlite3.connect(shell.path / ".perdure/perdure.db") as database:
        return int(database.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def test_finished_runs_go_with_all_that_only_they_needed(shell: Shell) -> None:
    shell("run", "wf.py", "make", "--name", "one", "--text", "alone")
    shell("run", "wf.py", "tree", "--name", "two")
    shell.json("show", "two")
    logs = shell.path / ".perdure/perdure.db-logs" / ("0" * 32)
    logs.mkdir(parents=True)
    (logs / "1.1.log").write_text("of a run that is gone")
    age(shell)
    shown = shell.json("gc", "--older-than", "0s", "--dry-run")
    assert [run["name"] for run in shown["runs"]] == ["one", "two"]
    assert (shown["dry_run"], shown["blobs"], shown["logs"]) == (True, 3, 1)
    assert names(shell) == ["one", "two"]
    done = shell.json("gc", "--older-than", "0s")
    assert {**done, "dry_run": True, "sources": None} == shown
    assert done["sources"] is not None
    assert names(shell) == []
    assert contents(shell) == set()
    assert not logs.exists()
    assert [rows(shell, table) for table in ("runs", "segments", "actions", "run_sources")] == [0, 0, 0, 0]
    assert "nothing to remove" in shell("gc", "--older-than", "0s").stdout
    assert shell("run", "wf.py", "make", "--name", "one", "--text", "again").returncode == 0


def test_age_and_status_choose(shell: Shell) -> None:
    shell("run", "wf.py", "make", "--name", "good")
    shell("run", "wf.py", "fails", "--name", "bad", "--n", "1")
    assert shell.json("gc", "--older-than", "1h")["runs"] == []
    assert [run["name"] for run in shell.json("gc", "--older-than", "0s", "--status", "failed")["runs"]] == ["bad"]
    assert names(shell) == ["good"]
    for wrong in (["gc"], ["gc", "--older-than", "30x"], ["gc", "--older-than", ""],
                  ["gc", "--older-than", "1d", "--status", "RUNNING"]):  # fmt: skip
        assert shell(*wrong).returncode == 2
    assert names(shell) == ["good"]


def test_what_other_runs_refer_to_stays_a_tree_with_all_its_files(shell: Shell) -> None:
    shell("run", "wf.py", "tree", "--name", "kept")
    shell("run", "wf.py", "fails", "--name", "bad", "--n", "1")
    age(shell)
    before = contents(shell)
    assert shell.json("gc", "--older-than", "0s", "--status", "FAILED")["blobs"] == 0
    assert contents(shell) == before
    assert b"in a tree" in before


def test_files_that_were_put_within_a_day_stay_without_a_reference(shell: Shell) -> None:
    """G7."""
    shell("run", "wf.py", "make", "--name", "one")
    assert shell.json("gc", "--older-than", "0s")["blobs"] == 0
    assert contents(shell) == {b"data"}
    age(shell)
    assert shell.json("gc", "--older-than", "0s")["blobs"] == 1


def test_files_of_cached_outcomes_go_one_collection_later(shell: Shell) -> None:
    """G4."""
    shell("run", "wf.py", "caller", "--name", "one")
    age(shell)
    assert shell.json("gc", "--older-than", "1h")["cached"] == 0
    first = shell.json("gc", "--older-than", "0s")
    assert (first["cached"], first["blobs"]) == (1, 0)
    age(shell)
    assert shell.json("gc", "--older-than", "0s")["blobs"] == 1


def test_a_run_in_progress_keeps_the_file_that_it_has_just_put(shell: Shell) -> None:
    """G7."""
    shell("run", "wf.py", "make", "--name", "old", "--text", "held")
    age(shell)
    held = shell.start("run", "wf.py", "holds", "--name", "live")
    try:
        wait_for_file(shell.path / "put")  # its content was there already, days old
        for number in range(3):
            shell("gc", "--older-than", "0s")
            assert contents(shell) == {b"held"}
            # As if it were driven, and had put the file, since days.
            with sqlite3.connect(shell.path / ".perdure/perdure.db") as database:
                then = int((time.time() - 5 * 86_400) * 1e6)
                database.execute("UPDATE runs SET started_at = ? WHERE name = 'live'", (then,))
            age(shell, 3 + number)
        (shell.path / "go").open("w").close()
        out, error = held.communicate(timeout=60)
        assert out == "held\n", error
    finally:
        held.kill()
    age(shell)
    shell("gc", "--older-than", "0s")
    assert contents(shell) == set()


def test_a_put_and_a_removal_of_the_same_content_never_meet(tmp_path: Path) -> None:
    """G8: one process removes the blob as often as it can, another one puts it: after a put it is there, or newer."""
    root = tmp_path / "blobs"
    code = (
        "import sys, os, time; from perdure.store.blobs.directory import LocalBlobs\n"
        "b = LocalBlobs(sys.argv[1]); h = b.put_bytes(b'x'); p = os.path.join(b.root, 'sha256', h[:2], h)\n"
        "print(h, flush=True)\n"
        "while True:\n"
        "    b.remove([h], int((time.time() - 3600) * 1e6))\n"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(root)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        hash = other.stdout.readline().strip()
        blobs = LocalBlobs(root)
        path = root / "sha256" / hash[:2] / hash
        for _ in range(400):
            then = time.time() - 7200
            try:
                os.utime(path, (then, then))
            except FileNotFoundError:
                pass
            blobs.put_bytes(b"x")
            assert path.exists()
    finally:
        other.kill()
        other.wait()


def test_a_collection_that_is_killed_is_finished_by_the_next_one(shell: Shell) -> None:
    kept = shell("run", "wf.py", "tree", "--name", "kept")
    assert kept.returncode == 0, kept.stderr
    shell("run", "wf.py", "fails", "--name", "keeper", "--n", "2")
    entries = rows(shell, "segments")
    for number in range(2):
        shell("run", "wf.py", "long", "--name", f"long-{number}", "--n", "2000", "-q")
    shell("run", "wf.py", "make", "--name", "file")
    age(shell)
    killed = 0
    for delay in (0.15, 0.22, 0.3, 0.4):
        collecting = shell.start("gc", "--older-than", "0s", "--status", "SUCCEEDED")
        time.sleep(delay)
        collecting.send_signal(signal.SIGKILL)
        killed += collecting.wait() == -signal.SIGKILL
        for run in shell.json("ls"):
            assert shell("show", run["name"]).returncode == 0
    assert killed
    assert shell("gc", "--older-than", "0s", "--status", "SUCCEEDED").returncode == 0
    assert names(shell) == ["keeper"]
    assert rows(shell, "runs") == 1
    assert rows(shell, "segments") == entries
    assert contents(shell) == set()


def test_rows_of_a_removal_that_was_cut_short_are_purged_by_the_next(shell: Shell) -> None:
    """G2."""
    shell("run", "wf.py", "long", "--name", "long", "--n", "300", "-q")
    with sqlite3.connect(shell.path / ".perdure/perdure.db") as database:  # all that its first transaction does
        database.execute("UPDATE runs SET status = 'REMOVED', name = char(1) || id")
    assert names(shell) == []
    assert shell("run", "wf.py", "long", "--name", "long", "--n", "1", "-q").stdout == "0\n"
    shell("gc", "--older-than", "1d")
    assert (rows(shell, "runs"), rows(shell, "segments")) == (1, 1)


def test_a_failed_run_that_is_resumed_meanwhile_goes_whole_or_not_at_all(shell: Shell) -> None:
    seen: set[bool] = set()
    for number in range(4):
        name = f"run-{number}"
        shell("run", "wf.py", "fails", "--name", name, "--n", "50", "-q")
        (shell.path / "fixed").touch()
        first, second = (["gc", "--older-than", "0s", "--status", "FAILED"], ["resume", name])
        one = shell.start(*(first if number % 2 else second))
        time.sleep((0, 0.05, 0.15, 0.3)[number])
        two = shell.start(*(second if number % 2 else first))
        resumed, collected = (two, one) if number % 2 else (one, two)
        out, error = resumed.communicate(timeout=60)
        collected.communicate(timeout=60)
        (shell.path / "fixed").unlink()
        stays = name in names(shell)
        seen.add(stays)
        if stays:
            assert out == "50\n", error
            assert len(shell.json("show", name)["actions"]) >= 50
        else:
            assert resumed.returncode != 0
            assert "Traceback" not in error
            shell("gc", "--older-than", "1d")
            assert rows(shell, "runs") == rows_of_runs(shell)
    assert seen


def test_a_run_that_is_resumed_between_being_found_and_being_removed_stays_whole(shell: Shell) -> None:
    """G1."""
    shell("run", "wf.py", "fails", "--name", "late", "--n", "3")
    (shell.path / "fixed").touch()
    code = (
        "import subprocess, sys, datetime\n"
        "from perdure.store.sqlite import SQLiteStore\n"
        "from perdure.upkeep.collecting import collect\n"
        "ended = SQLiteStore.ended\n"
        "def listed(*args, **settings):\n"
        "    found = ended(*args, **settings)\n"
        "    if found: subprocess.run([sys.executable, '-m', 'perdure', 'resume', 'late'], check=True)\n"
        "    return found\n"
        "SQLiteStore.ended = listed\n"
        "removed = collect(datetime.timedelta(0))\n"
        "assert not removed.runs, removed\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=shell.path, env=shell.env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert shell("resume", "late").stdout == "3\n"
    assert rows(shell, "segments") >= 3


def rows_of_runs(shell: Shell) -> int:
    return len(names(shell))


def test_hashes_are_found_as_digests_and_as_text() -> None:
    """G6."""
    digest = bytes(range(32))
    text = digest.hex()
    assert set(references(b"\x93\xc4\x20" + digest + b"\x05")) == {text}
    assert text in set(references(b"/blobs/files/" + text.encode() + b"/name"))
    assert text in set(references(b"abc" + text.encode() + b"def"))
    assert set(references(b"\xc4\x20short")) == set()


def test_what_was_removed_from_the_blobs_takes_along_what_was_made_of_it(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path / "blobs")
    hash = blobs.put_bytes(b"x")
    blobs.path(hash, 1, "name")
    blobs.link(hash, 1, str(tmp_path / "linked"), executable=True)
    blobs.tree(hash, "folder", lambda top: Path(top, "inner").write_text("y") and None)
    far = int((time.time() + 3600) * 1e6)
    assert dict(blobs.older(far)) == {hash: 1}
    assert blobs.remove([hash], int((time.time() - 3600) * 1e6)) == [False]
    assert blobs.remove([hash, "0" * 64], far) == [True, False]
    assert not [path for path in Path(blobs.root).rglob("*") if path.is_file()]
    assert (tmp_path / "linked").read_bytes() == b"x"
