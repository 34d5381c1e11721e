"""P3 and the ends of a process: frozen past its lease, two that resume at once, SIGINT and SIGTERM, a crash loop.

Plain processes here, started from scratch: what they do at their very beginning and end counts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.crash.harness import WORKFLOWS, Hosts, Lab, check, finish
from tests.stores import wait_until_lease_is_over
from tests.waiting import PATIENCE, Stall, wait_for

SCRIPT = WORKFLOWS / "long.py"


class Process:
    """One process that runs a workflow in a lab's directory."""

    def __init__(self, lab: Lab, **env: str) -> None:
        self.lab = lab
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), lab.workflow],
            cwd=lab.directory,
            env={**os.environ, "LAB_LOG": str(lab.log_file), **lab.env, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self, timeout: float = PATIENCE) -> Any:
        """How it ended: its answer, or its exit code if it gave none."""
        try:
            out, self.errors = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            _, self.errors = self.process.communicate()
            raise AssertionError(f"still there after {timeout} s\n{self.errors}\n{self.lab.story()}") from None
        return json.loads(out) if out.strip() else self.process.returncode


def lines(lab: Lab, kind: str) -> list[list[Any]]:
    if not lab.log_file.exists():
        return []
    found = [json.loads(line) for line in lab.log_file.read_text().splitlines()]
    return [line for line in found if line[2] == kind]


def executed(lab: Lab) -> list[str]:
    return [line[3] for line in lines(lab, "executed")]


@pytest.mark.parametrize("task", ["ticking", "sync_ticking"])
def test_a_process_frozen_past_its_lease_is_fenced_when_it_continues(hosts: Hosts, place: Path, task: str) -> None:
    """P3, D1.

    Another process takes the run over; the frozen one, continued, writes nothing and says what happened."""
    lab = Lab(hosts, place / task, SCRIPT, task, {"PERDURE_LEASE": "1", "TICKS": "40"})
    first = Process(lab)
    wait_for(lambda: len(executed(lab)) >= 4)
    first.signal(signal.SIGSTOP)
    wait_until_lease_is_over(lab.remote or str(lab.database), first.process.pid)
    second = Process(lab)
    wait_for(lambda: len(lines(lab, "alive")) == 2 and len({line[0] for line in lines(lab, "executed")}) == 2)
    first.signal(signal.SIGCONT)
    answer = first.end()
    assert answer["error"] == "LeaseLostError", f"{answer}\n{first.errors}\n{lab.story()}"
    assert second.end() == {"value": [f"t{number}" for number in range(40)]}, lab.story()
    pid = first.process.pid
    took_over = next(line[1] for line in lines(lab, "executed") if line[0] != pid)
    late = [line[3] for line in lines(lab, "executed") if line[0] == pid and line[1] > took_over]
    # It may have begun the step that was next; what it did with it was not recorded.
    assert len(late) <= 1, lab.story()
    rows = lab.journal()
    assert [row.n for row in rows] == list(range(1, 41)), lab.story()


@pytest.mark.parametrize("task", ["ticking", "sync_ticking", "pairs", "sleeping"])
def test_a_frozen_process_writes_nothing_to_a_run_that_another_has_finished(
    hosts: Hosts, place: Path, task: str
) -> None:
    """P3: the same, where the other has finished the run before the first goes on."""
    lab = Lab(hosts, place / "frozen", SCRIPT, task, {"PERDURE_LEASE": "1", "TICKS": "8", "SECONDS": "2"})
    first = Process(lab)
    # The sleep is on disk, so that the process is not stopped inside that commit.
    wait_for(lambda: len(executed(lab)) >= 3 or (task == "sleeping" and lines(lab, "naps") and lab.actions()))
    first.signal(signal.SIGSTOP)
    wait_until_lease_is_over(lab.remote or str(lab.database), first.process.pid)
    assert "value" in Process(lab).end(), lab.story()
    before = lab.journal(), lab.run_row(), lab.actions()
    first.signal(signal.SIGCONT)
    answer = first.end()
    assert answer["error"] == "LeaseLostError", f"{answer}\n{lab.story()}"
    assert (lab.journal(), lab.run_row(), lab.actions()) == before, lab.story()


def test_a_frozen_process_writes_nothing_to_a_run_that_another_still_drives(hosts: Hosts, place: Path) -> None:
    """P3: the run is not over yet and the frozen process has several outcomes at hand: not one of them is written."""
    lab = Lab(hosts, place / "pairs", SCRIPT, "pairs", {"PERDURE_LEASE": "1", "TICKS": "25"})
    first = Process(lab)
    wait_for(lambda: len(executed(lab)) >= 6)
    first.signal(signal.SIGSTOP)
    wait_until_lease_is_over(lab.remote or str(lab.database), first.process.pid)
    second = Process(lab)
    wait_for(lambda: len({line[0] for line in lines(lab, "executed")}) == 2)
    first.signal(signal.SIGCONT)
    answer = first.end()
    assert answer["error"] == "LeaseLostError", f"{answer}\n{first.errors}\n{lab.story()}"
    assert second.end() == {"value": [f"{side}{number}" for number in range(25) for side in "lr"]}, lab.story()
    assert [row.n for row in lab.journal()] == list(range(1, 76)), lab.story()


def test_a_process_frozen_within_its_lease_keeps_its_run(hosts: Hosts, place: Path) -> None:
    """P3: no other process takes over after a short freeze."""
    lab = Lab(hosts, place / "short", SCRIPT, "ticking", {"PERDURE_LEASE": "5", "TICKS": "8"})
    first = Process(lab)
    wait_for(lambda: len(executed(lab)) >= 3)
    first.signal(signal.SIGSTOP)
    other = Process(lab)
    answer = other.end()
    assert answer["error"] == "RunAlreadyActive", answer
    assert str(first.process.pid) in answer["text"]
    first.signal(signal.SIGCONT)
    assert first.end() == {"value": [f"t{number}" for number in range(8)]}
    assert len(executed(lab)) == len(set(executed(lab)))


def test_of_two_processes_that_resume_at_once_one_drives(hosts: Hosts, place: Path) -> None:
    """P3: of two processes that continue a run at the same moment, one drives it, the other is told so."""
    told = 0
    for number in range(6):
        lab = Lab(hosts, place / f"two{number}", SCRIPT, "ticking", {"TICKS": "6"})
        assert lab.start(kill_at="4:after").killed
        with ThreadPoolExecutor(2) as pool:
            answers = [answer for answer, _ in pool.map(lambda name, lab=lab: lab.aside(name), ("one", "two"))]
        assert {"value": [f"t{tick}" for tick in range(6)]} in answers, f"{answers}\n{lab.story()}"
        errors = [answer["error"] for answer in answers if "error" in answer]
        assert errors in ([], ["RunAlreadyActive"]), f"{answers}\n{lab.story()}"
        told += len(errors)
        # The step that was under way at the kill may run again, and nothing else.
        steps = executed(lab)
        assert {name for name in steps if steps.count(name) > 1} <= {"t3", "t2"} - lab.trials[0].recorded, lab.story()
    # On a busy machine the one may have ended before the other begins.
    assert told >= 3


def test_of_two_processes_that_submit_one_name_at_once_one_drives(hosts: Hosts, place: Path) -> None:
    """The name is the key: of two first starts, one drives."""
    told = 0
    for number in range(4):
        lab = Lab(hosts, place / f"new{number}", SCRIPT, "ticking", {"TICKS": "5"})
        with ThreadPoolExecutor(2) as pool:
            answers = [answer for answer, _ in pool.map(lambda name, lab=lab: lab.aside(name), ("one", "two"))]
        assert {"value": [f"t{tick}" for tick in range(5)]} in answers, f"{answers}\n{lab.story()}"
        assert sorted(executed(lab)) == [f"t{tick}" for tick in range(5)], lab.story()
        told += sum(answer.get("error") == "RunAlreadyActive" for answer in answers)
    assert told >= 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize(
    "task", ["ticking", "sync_ticking", "sleeping", "sync_sleeping", "stubborn", "blocks_the_loop"]
)
def test_a_signal_ends_the_process_promptly_and_the_run_can_be_resumed(
    hosts: Hosts, place: Path, task: str, number: int
) -> None:
    """SIGINT and SIGTERM: the process ends at once and the run can be resumed."""
    lab = Lab(hosts, place / task, SCRIPT, task, {"TICKS": "6", "SECONDS": "1.5"})
    process = Process(lab)
    begun = {"stubborn": ("executed", 2), "blocks_the_loop": ("blocks", 1), "sleeping": ("naps", 1)}
    kind, count = begun.get(task.removeprefix("sync_"), ("executed", 2))
    wait_for(lambda: len(lines(lab, kind)) >= count, story=lab.story)
    with Stall() as stall:
        process.signal(number)
        answer = process.end()
    assert stall.took < stall.bound(4.0, work=0.5), f"{stall.took:.1f} s\n{process.errors}"
    assert answer in (-number, 130, 1), f"{answer}\n{process.errors}"
    assert lab.status() == "INTERRUPTED", lab.story()
    if task in ("stubborn", "blocks_the_loop"):
        return
    lab._new_lines()
    finish(lab, lambda value: len(value) == (2 if "sleeping" in task else 6))


def test_ten_crashes_without_a_new_entry_fail_the_run(hosts: Hosts, place: Path) -> None:
    """Ten crashes in a row without a new entry end the run; a new entry starts the count again."""
    lab = Lab(hosts, place / "loop", SCRIPT, "ticking", {"TICKS": "3"})
    for _ in range(4):
        assert lab.start(kill_at="2:before").killed
    assert lab.start(kill_at="2:after").killed
    for _ in range(10):
        assert lab.start(kill_at="2:before").killed, lab.story()
    last = lab.start(kill_at="3:before")
    assert last.answer is not None, lab.story()
    assert last.answer["error"] == "CrashLoopError", lab.story()
    assert lab.run_row()["status"] == "FAILED"
    assert "perdure resume r" in last.answer["text"]
    check(lab)


def test_a_run_goes_on_after_nine_crashes_without_a_new_entry(hosts: Hosts, place: Path) -> None:
    """The run ends well if the tenth start survives."""
    lab = Lab(hosts, place / "nine", SCRIPT, "ticking", {"TICKS": "3"})
    for _ in range(9):
        assert lab.start(kill_at="2:before").killed
    finish(lab, lambda value: value == ["t0", "t1", "t2"])
