"""P1, P2, P7, P8, P12: one workflow that mixes everything, killed at every journal write and at random moments.

After each kill the run is started again until it ends. No step whose outcome was in the database when the kill came
runs again; results equal those of an undisturbed run, readings those that were recorded first; each sleep ends within
100 ms of the later of its deadline and the moment the run lives again.
"""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path
from typing import Any

from tests.crash.harness import SAMPLE, WORKFLOWS, Broken, Explorer, Hosts, Lab, Late, explore, in_sample, run_parallel

SLACK = 0.1
RANDOM_KILLS = -(-60 // SAMPLE)

SLEEP_KIND = 3
REST = [
    "c.0+c.1", "u.kept u.flaky 36", "o.in.0o.owno.un.kepto.un.flaky", "m0", "m1", "m2", "g0", "g1", "bad",
    "on the loop", "one two on the loop go 7", "beside",
]  # fmt: skip


def accept(value: dict[str, Any]) -> bool:
    return (
        value["rest"] == REST
        and [(row[0], row[2]) for row in value["fetched"]] == [(f"f{n}", [f"f{n}.1", f"f{n}.2"]) for n in range(3)]
        and value["began"] <= min(row[1] for row in value["fetched"])
        and max(row[1] for row in value["fetched"]) < value["ended"]
        and 0 <= value["chance"] < 1
        and len(value["token"]) == 36
    )


def check_sleeps(lab: Lab, slack: float = SLACK) -> None:
    """P7: a sleep has one deadline, which lies its length after it was first begun; it ends then, or as soon as the run
    lives again, and never before. "Then" is measured against what bare timers of the same processes suffered."""
    stalls = [line.fields[0] for trial in lab.trials for line in trial.log if line.kind == "stall"]
    slack += 4 * max(stalls, default=0.0)
    deadlines: dict[str, float] = {}
    for _, _, kind, label, _, _, _, wake_boot in lab.actions():
        if kind == SLEEP_KIND:
            if label in deadlines:
                raise Broken(f"P7: sleep {label} has two deadlines\n{lab.story()}")
            deadlines[label] = wake_boot / 1e6
    late = ""
    for number, trial in enumerate(lab.trials):
        alive = next((line.boot for line in trial.log if line.kind == "lives"), 0.0)
        for line in trial.log:
            if line.kind == "woke":
                name = line.fields[0]
                if line.boot < deadlines[name] - 0.001:
                    raise Broken(f"P7: sleep {name} ended {deadlines[name] - line.boot:.4f} s early\n{lab.story()}")
                over = line.boot - max(deadlines[name], alive)
                if over > slack:
                    late = f"P7: sleep {name} ended {over * 1000:.0f} ms late in process {number}"
    calls = [line for trial in lab.trials for line in trial.log if line.kind in ("naps", "woke")]
    for name, deadline in deadlines.items():
        length = next((line.fields[1] for line in calls if line.kind == "woke" and line.fields[0] == name), None)
        begun = [line.boot for line in calls if line.kind == "naps" and line.fields[0] == name]
        if length is not None and not any(0 <= deadline - length - moment < slack for moment in begun):
            raise Broken(f"P7: the deadline of {name} is not {length} s after any call of it\n{lab.story()}")
    if late:
        raise Late(f"{late}\n{lab.story()}")


def explorer(hosts: Hosts, place: Path, slow: float = 0.0) -> Explorer:
    return Explorer(hosts, place, WORKFLOWS / "mixed.py", "everything", accept, slow=slow, extra=check_sleeps)


def test_a_mixed_workflow_goes_on_after_a_kill_at_any_write(hosts: Hosts, place: Path) -> None:
    """P1, P2, P7, P8: before the write, inside its transaction, and after it."""
    assert explore(explorer(hosts, place), inside=True) > in_sample(100)


def test_a_mixed_workflow_goes_on_after_a_kill_at_any_write_on_a_slow_disk(hosts: Hosts, place: Path) -> None:
    """The same where commits are slow, so that a thread of their own makes them."""
    trials = explorer(hosts, place, slow=0.008)
    trials.extra = partial(check_sleeps, slack=5 * SLACK)
    commits = trials.undisturbed()
    assert trials.every_write(("after",), commits) > in_sample(15)


def test_a_mixed_workflow_goes_on_after_a_kill_of_each_of_its_processes(hosts: Hosts, place: Path) -> None:
    """P1, P2: every process is killed at its first write that adds something, or just before its second."""
    trials = explorer(hosts, place)
    # So many processes, one after the other: on a busy machine one of them is always somewhat late.
    trials.extra = partial(check_sleeps, slack=5 * SLACK)
    # A process's first own commit may hold no entry (children under way), so each cycle reaches further.
    cycles = (
        ("2:after", "4:before"),
        ("3:before", "3:after"),
        ("3:inside", "5:after"),
        ("2:after", "3:after", "4:after"),
    )
    jobs = [partial(trials.chain, *points) for points in cycles]
    assert sum(run_parallel(jobs)) > 100


def test_a_mixed_workflow_goes_on_after_kills_at_random_moments(hosts: Hosts, place: Path) -> None:
    """P1, P2, P7: SIGKILL from outside, up to three times in a row, at moments that have nothing to do with writes."""
    trials = explorer(hosts, place)
    chance = random.Random(20261122)
    # Of three, as one in which the machine stood still would have the kills come when all is over.
    whole = min(trials.duration() for _ in range(3))
    delays = [[chance.uniform(0.1, 0.8) * whole for _ in range(chance.randint(1, 3))] for _ in range(RANDOM_KILLS)]
    before = hosts.kills
    run_parallel([partial(trials.random_kills, delay) for delay in delays])
    assert hosts.kills - before >= RANDOM_KILLS // 2
