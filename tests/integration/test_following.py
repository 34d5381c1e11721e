"""A run's tree while the run goes on: `perdure show --follow`, and `perdure run` on a terminal."""

from __future__ import annotations

import json
import os
import signal

import pytest
from tests.integration.shell import Shell
from tests.terminal import Terminal
from tests.waiting import wait_for

WORKFLOW = """
import os, time, perdure
from perdure.extras import durable_sleep

env = perdure.TaskEnvironment(name="f")

def wait_for_file(name):
    while not os.path.exists(name):
        time.sleep(0.02)

@perdure.trace
def quick(n: int) -> int:
    return n

@env.task
def part(n: int) -> int:
    wait_for_file(f"go{n}")
    if n == 2:
        raise ValueError("two\\nis too many\\x1b[2J")
    return quick(n)

@env.task
def main(n: int = 1) -> int:
    for i in range(n):
        part(i)
    durable_sleep(0.5)
    return 7

@env.task
def wide(n: int) -> int:
    for i in range(n):
        quick(i)
    return part(0)
"""


@pytest.fixture
def shell(shell: Shell) -> Shell:
    shell.write("f.py", WORKFLOW)
    return shell


def go(shell: Shell, n: int) -> None:
    (shell.path / f"go{n}").touch()


def test_each_change_is_a_line_until_the_run_has_ended(shell: Shell) -> None:
    """Outside a terminal. Variants: a run that succeeds, one that fails, as text and as JSON; a run that has ended
    before; a run that is killed and resumed meanwhile."""
    running = shell.start("run", "f.py", "main", "--name", "one")
    wait_for(lambda: shell("show", "one").returncode == 0)
    following = shell.start("show", "one", "--follow")
    assert following.stdout is not None
    assert "  one  RUNNING  " in following.stdout.readline()
    running.send_signal(signal.SIGKILL)
    wait_for(lambda: "INTERRUPTED" in following.stdout.readline())  # type: ignore[union-attr]
    go(shell, 0)
    assert shell("resume", "one").returncode == 0
    lines, errors = following.communicate(timeout=60)
    assert following.returncode == 0, errors
    assert "  f.part  SUCCEEDED  " in lines
    assert "  quick  SUCCEEDED  " in lines
    assert lines.splitlines()[-1].endswith("  one  SUCCEEDED") or "  one  SUCCEEDED\n" in lines
    done = shell("show", "one", "-f", "--json")
    changes = [json.loads(line) for line in done.stdout.splitlines()]
    assert changes[0]["run"]["status"] == "SUCCEEDED"
    assert {one["action"]["name"] for one in changes[1:]} == {"f.part", "quick", "durable_sleep"}
    running.communicate()


def test_a_failure_is_one_line_without_control_characters_of_the_code(shell: Shell) -> None:
    for n in range(3):
        go(shell, n)
    assert shell("run", "f.py", "main", "--n", "3", "--name", "bad").returncode == 1
    lines = shell("show", "bad", "--follow").stdout.splitlines()
    assert "  bad  FAILED  " in lines[0]
    assert [line for line in lines if "f.part  FAILED" in line and line.endswith("ValueError: two")]
    both = shell("show", "bad", "--follow", "--failed")
    assert both.returncode == 2
    assert "different views" in both.stderr
    assert "no run is called 'none'" in shell("show", "none", "--follow").stderr


def test_a_terminal_shows_the_tree_live_and_at_last_as_a_whole(shell: Shell) -> None:
    running = shell.start("run", "f.py", "main", "--n", "2", "--name", "two")
    wait_for(lambda: shell("show", "two").returncode == 0)
    terminal = Terminal(shell.path, shell.env, "show", "two", "--follow")
    try:
        terminal.until("f.part  ")
        terminal.until("RUNNING")
        go(shell, 0)
        terminal.until("quick  ")
        go(shell, 1)
        terminal.until("ACTION")  # the table of `perdure show`
        terminal.until("OUTCOME")
        assert terminal.process.wait(60) == 0
        terminal.until("\x1b[?25h")  # the cursor is back
    finally:
        terminal.close()
        running.communicate(timeout=60)


def test_run_shows_what_is_under_way_among_many_actions_and_ends_with_a_summary(shell: Shell) -> None:
    """The terminal has ten lines and the run two hundred actions: the action under way and the newest are shown.
    Variants: a run that takes less than the first look shows no tree and no summary; `--quiet`."""
    terminal = Terminal(shell.path, shell.env, "run", "f.py", "wide", "--n", "200", "--name", "many", rows=10)
    try:
        terminal.until("more actions")
        terminal.until("f.part  ")
        shown = terminal.seen
        assert shown.count(b"quick") < 100
        go(shell, 0)
        terminal.until("f.part: 1 in ")
        terminal.until("quick: 201 in ")
        assert terminal.process.wait(60) == 0
    finally:
        terminal.close()
    quiet = Terminal(shell.path, shell.env, "run", "-q", "f.py", "wide", "--n", "200", "--name", "quiet", rows=10)
    try:
        assert quiet.process.wait(60) == 0
        while quiet.read():
            pass
        assert quiet.seen == b"0\r\n"
    finally:
        quiet.close()
    assert os.path.exists(shell.path / "go0")
    plain = shell("run", "f.py", "wide", "--n", "200", "--name", "plain")
    assert "f.part" not in plain.stderr.replace("f.wide", "")
