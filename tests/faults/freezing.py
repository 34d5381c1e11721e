"""A process is stopped at a random moment, past its lease, and continued while another process drives its run (P3)."""

from __future__ import annotations

import random
import shutil
import signal
import time
from pathlib import Path

from tests.crash.harness import WORKFLOWS, Hosts, Lab
from tests.crash.test_one_driver import Process, executed, lines
from tests.faults.syscalls import Violation
from tests.stores import wait_until_lease_is_over
from tests.waiting import kill, wait_for

TICKS = 30
WORKFLOW = WORKFLOWS / "long.py"


def freeze(hosts: Hosts, directory: Path, dice: random.Random) -> str:
    """One trial; how the stopped process ended.

    Raises:
        Violation: a promise was not kept.
    """
    task = dice.choice(("ticking", "sync_ticking", "pairs"))
    lab = Lab(hosts, directory, WORKFLOW, task, {"PERDURE_LEASE": "1", "TICKS": str(TICKS)})
    first = Process(lab)
    second = None
    try:
        wait_for(lambda: len(executed(lab)) >= 2)
        time.sleep(dice.random() * 0.5)  # the moment that is tried
        first.signal(signal.SIGSTOP)
        wait_until_lease_is_over(lab.remote or str(lab.database), first.process.pid)
        second = Process(lab)
        wait_for(lambda: len(lines(lab, "alive")) == 2 or second.process.poll() is not None)
        time.sleep(dice.random() * 1.0)  # the moment that is tried
        first.signal(signal.SIGCONT)
        frozen, other = first.end(), second.end()
        return _judge(lab, task, frozen, other)
    finally:
        for each in (first, second):
            if each is not None:
                kill(each.process)
        if not lab.trials:
            shutil.rmtree(directory, ignore_errors=True)


def _judge(lab: Lab, task: str, frozen: object, other: object) -> str:
    per = {"ticking": ["t"], "sync_ticking": ["t"], "pairs": ["l", "r"]}[task]
    wanted = {"value": [f"{side}{number}" for number in range(TICKS) for side in per]}
    ways = [frozen["error"] if isinstance(frozen, dict) and "error" in frozen else "value", "value"]
    if isinstance(other, dict) and other.get("error") in ("StoreUnavailableError", "RunAlreadyActive"):
        # Stopped inside a commit: the other process waits for the lock of the file, and then says who has it.
        ways = ["stopped inside a commit", other["error"]]
        other = frozen if frozen == wanted else Process(lab).end()
    if other != wanted:
        raise Violation(f"{task}: ended with {other}; the frozen process with {frozen}\n{lab.story()}")
    if ways[0] not in ("LeaseLostError", "value", "stopped inside a commit"):
        raise Violation(f"{task}: the frozen process ended with {frozen}\n{lab.story()}")
    numbers = [row.n for row in lab.journal()]
    if numbers != list(range(1, len(numbers) + 1)):
        raise Violation(f"{task}: W1: {numbers}\n{lab.story()}")
    steps = [row for row in lab.journal() if row.name in ("step", "sync_step")]
    if len(steps) != TICKS * len(per):
        raise Violation(f"{task}: {len(steps)} recorded steps\n{lab.story()}")
    return ways[0]
