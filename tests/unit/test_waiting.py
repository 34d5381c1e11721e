"""The tests' own tools: a wait that hangs or ends too early would make any test say what it likes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.waiting import Stall, is_gone, is_stopped, kill, running, stays_true, wait_for, wait_for_file


def test_a_wait_returns_the_value_of_its_condition() -> None:
    answers = iter([None, 0, "", "there"])
    assert wait_for(lambda: next(answers)) == "there"


def test_a_wait_that_fails_tells_its_story() -> None:
    with pytest.raises(AssertionError, match=r"not true within 0.02 s.*\n.*the story"):
        wait_for(lambda: False, 0.02, story=lambda: "the story")


def test_what_must_stay_true_fails_at_once() -> None:
    stays_true(lambda: True, 0.02)
    began = time.monotonic()
    with pytest.raises(AssertionError, match="no longer true"):
        stays_true(lambda: False, 60.0)
    assert time.monotonic() - began < 30


def test_a_file_is_waited_for_until_it_holds_the_text(tmp_path: Path) -> None:
    file = tmp_path / "file"
    threading.Timer(0.05, file.write_text, ["begin"]).start()
    threading.Timer(0.1, file.write_text, ["begin end"]).start()
    assert wait_for_file(file, "end") == "begin end"


def test_a_stopped_a_killed_and_a_living_process_are_told_apart() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert not is_gone(process.pid)
    assert not is_stopped(process.pid)
    process.send_signal(signal.SIGSTOP)
    wait_for(lambda: is_stopped(process.pid))
    os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: is_gone(process.pid))  # a zombie, as its parent has not waited for it
    kill(process)
    assert is_gone(process.pid)


def test_a_process_takes_those_that_it_started_along(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    script = "import os, sys, time; os.fork(); open(sys.argv[1], 'a').write(f'{os.getpid()} '); input()"
    with running(sys.executable, "-c", script, pid, stdin=subprocess.PIPE):
        pids = wait_for(lambda: pid.exists() and len(found := pid.read_text().split()) == 2 and found)
    for each in pids:
        wait_for(lambda each=each: is_gone(int(each)))  # type: ignore[misc]


def test_a_bound_grows_with_the_stall_that_was_measured() -> None:
    with Stall() as stall:
        wait_for(lambda: stall.worst > 0)
    assert stall.bound(1.0) > 1.0
    stall.worst = 0.5
    assert stall.bound(1.0) == 1.0 + 0.5 * Stall.FACTOR
    stall.crowd = 3.0
    assert stall.bound(1.0, work=0.2) == 1.0 + 0.5 * Stall.FACTOR + 0.2 * 3.0
