"""Conditions and messages in bodies of other processes: the outer process has the mailbox (P12, MS1, MS2, MS3)."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.processes import flows
from tests.waiting import wait_for

import perdure
from perdure import runtime

pytestmark = [
    pytest.mark.usefixtures("store"),
    pytest.mark.filterwarnings("ignore::perdure.errors.PerdureWarning"),
]


def submitted(task: Any, *args: Any) -> Any:
    return perdure.with_runcontext(name="r").submit(task, *args)


def driven(task: Any, *args: Any) -> Any:
    return perdure.with_runcontext(name="r").run(task, *args).result


def test_a_body_in_a_pool_child_receives_what_was_sent_before(tmp_path: Path) -> None:
    run = submitted(flows.receives, 3, str(tmp_path / "log"))
    run.signal("go", flows.Point(5))
    for number in range(3):
        run.send("box", number)
    assert driven(flows.receives, 3, str(tmp_path / "log")) == [5, 0, 1, 2, "late"]


@pytest.mark.parametrize("task", [flows.receives_in_a_thread, flows.receives_here_and_there])
def test_messages_that_come_while_bodies_wait_are_each_received_once(task: Any) -> None:
    args = (4,) if task is flows.receives_in_a_thread else ()
    with perdure.Worker([flows]):
        run = submitted(task, *args)
        for number in range(4):
            wait_for(lambda: runtime.worker().store.open_waits())
            run.send("box", number)
        found = run.wait(100).result
    assert sorted(number for part in found for number in (part if isinstance(part, list) else [part])) == [0, 1, 2, 3]


def test_a_body_in_a_pool_child_sends_messages() -> None:
    assert driven(flows.talks_to_itself) == [0, 1, 2]


def test_a_receive_that_is_cancelled_in_a_pool_child_takes_no_message() -> None:
    with perdure.Worker([flows]):
        run = submitted(flows.receives_where_cancelled)
        wait_for(lambda: runtime.worker().store.open_waits())
        for number in range(3):
            run.send("box", number)
        assert run.wait(100).result == [0, 1, 2]


def test_a_message_is_received_again_by_the_attempt_after_a_dead_child(tmp_path: Path) -> None:
    """A child dies between two receives: the next child replays the first message, and gets the others."""
    log = str(tmp_path / "log")
    with perdure.Worker([flows]):
        run = submitted(flows.receives, 2, log)
        run.signal("go", flows.Point(5))
        run.send("box", 0)
        [[pid, _]] = wait_for(lambda: flows.marks(log))
        wait_for(lambda: runtime.worker().store.open_waits())
        os.kill(int(pid), signal.SIGKILL)
        run.send("box", 1)
        assert run.wait(100).result == [5, 0, 1, "late"]
    assert len(flows.marks(log)) == 1
