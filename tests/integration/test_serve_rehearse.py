"""`perdure serve --rehearse`: a worker drives the runs that fit its code, and leaves the others alone.

Family: how a run comes to the worker (parked and due, left behind by a process that died, queued), and whether its past
fits the code (as it is, edited in the past, edited behind the past, patched).
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.integration.shell import Shell
from tests.waiting import PATIENCE, wait_for

CODE = """
    import os, time
    import perdure

    env = perdure.TaskEnvironment("w")

    @perdure.trace
    def step(n: int) -> int:
        with open("log", "a") as stream:
            stream.write(f"step{n}\\n")
        return n

    @env.task
    def sleeps(first: int) -> int:
        found = step(first)
        perdure.new_condition("go", prompt="Go?", data_type=bool).wait()
        return found + step(20)

    @env.task
    def left(first: int) -> int:
        found = step(first)
        while not os.path.exists("go"):
            time.sleep(0.01)
        return found + step(30)

    @env.task
    def queued() -> int:
        return step(40)
"""
PAST = CODE.replace("found = step(first)", "found = step(first + 1)")
FUTURE = CODE.replace("step(20)", "step(21)").replace("step(30)", "step(31)")
PATCHED = CODE.replace("found = step(first)", 'found = step(first + 1 if perdure.patched("p") else first)')


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@contextmanager
def serving(shell: Shell, *options: str) -> Iterator[Path]:
    log = shell.path / "serve.log"
    with log.open("a") as stderr:
        server = subprocess.Popen(
            [sys.executable, "-m", "perdure", "serve", "flow.py", "--park-after", "0s", *options], cwd=shell.path,
            env=shell.env, stderr=stderr,
        )  # fmt: skip
    try:
        yield log
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(PATIENCE)


def status(shell: Shell, run: str) -> str:
    return str(shell.json("show", run)["status"])


@pytest.mark.parametrize(("code", "fits"), [(CODE, True), (PAST, False), (FUTURE, True), (PATCHED, True)])
def test_a_worker_drives_only_what_fits(shell: Shell, code: str, fits: bool) -> None:
    shell.write("flow.py", CODE)
    shell("submit", "flow.py", "sleeps", "--name", "asleep", "--first", "1")
    with serving(shell):
        wait_for(lambda: status(shell, "asleep") == "WAITING")
    killed = subprocess.Popen(
        [sys.executable, "-m", "perdure", "run", "flow.py", "left", "--name", "left", "--first", "5"], cwd=shell.path,
        env=shell.env, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_for(lambda: "step5" in shell.log())
    wait_for(lambda: shell.json("show", "left")["total"] > 1)
    killed.kill()
    killed.wait()
    before = shell.log()
    shell.write("flow.py", code)
    (shell.path / "go").touch()
    shell("submit", "flow.py", "queued", "--name", "queued")
    assert shell("signal", "asleep", "go", "true").returncode == 0
    with serving(shell, "--rehearse") as log:
        wait_for(lambda: status(shell, "queued") == "SUCCEEDED", story=log.read_text)
        for run in ("asleep", "left"):
            if fits:
                wait_for(lambda run=run: status(shell, run) == "SUCCEEDED", story=log.read_text)
            else:
                wait_for(lambda run=run: f"run {run} does not fit the code served here" in log.read_text())
    if not fits:
        assert [one for one in shell.log() if one not in before] == ["step40"]
        text = log.read_text()
        assert "expected: " in text
        assert text.count("run asleep does not fit") == 1
        # Nothing is lost: under code that fits, both go on.
        shell.write("flow.py", CODE)
        with serving(shell, "--rehearse"):
            wait_for(lambda: {status(shell, run) for run in ("asleep", "left")} == {"SUCCEEDED"}, story=log.read_text)
