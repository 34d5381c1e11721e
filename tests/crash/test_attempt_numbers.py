"""The number of an attempt (`perdure.ctx().attempt`) counts crashes: of the root task and of a child, with and without
an outcome recorded in the attempt, of bodies in threads, on the event loop and in another process."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from tests.waiting import kill, wait_for

PROGRAM = """
import asyncio, os, sys, time
import perdure

env = perdure.TaskEnvironment(name="attempts")
far = perdure.TaskEnvironment(name="far", executor="process")

@perdure.trace
def step(name: str) -> str:
    return name

def linger() -> int:
    with open("log", "a") as log:
        print(perdure.ctx().attempt, file=log, flush=True)
    time.sleep(0.0 if os.path.exists("go") else 1000)
    return perdure.ctx().attempt

@env.task
def root() -> int:
    return linger()

@env.task
def later_root() -> int:
    step("first")
    return linger()

@env.task
async def async_root() -> int:
    return await asyncio.to_thread(linger)

@env.task
def child() -> int:
    return linger()

@far.task
def far_child() -> int:
    return linger()

@env.task
def calls_child() -> int:
    return child()

@env.task
def calls_far_child() -> int:
    return far_child()

if __name__ == "__main__":
    print(perdure.with_runcontext(name="r").run(globals()[sys.argv[1]]).result)
"""


CALLED = {"calls_child": "attempts.child", "calls_far_child": "far.far_child"}


def attempt_on_disk(place: Path, task: str) -> int:
    """The number of the lingering task's attempt, as a crash at this moment leaves it; 0 without a row."""
    with closing(sqlite3.connect(place / ".perdure" / "perdure.db")) as database:
        name = CALLED.get(task, f"attempts.{task}")
        found = database.execute("SELECT max(attempt) FROM actions WHERE name = ?", (name,)).fetchone()
    return found[0] or 0


@pytest.mark.parametrize("task", ["root", "later_root", "async_root", "calls_child", "calls_far_child"])
def test_attempts_count_crashes_that_recorded_nothing(place: Path, task: str) -> None:
    """Three crashes in a row at one place: the fourth attempt is number four."""
    place = place / task
    place.mkdir()
    (place / "script.py").write_text(PROGRAM)
    log = place / "log"

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "script.py", task]
        return subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def seen() -> list[str]:
        return log.read_text().split() if log.exists() else []

    for number in range(1, 4):
        process = start()
        wait_for(lambda number=number: len(seen()) == number)
        # The root's first attempt needs no row.
        wait_for(lambda number=number: (number == 1 and task not in CALLED) or attempt_on_disk(place, task) == number)
        kill(process)
        process.communicate()
    (place / "go").touch()
    out, err = start().communicate(timeout=100)
    assert (seen(), out.strip()) == (["1", "2", "3", "4"], "4"), err
