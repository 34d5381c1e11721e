"""FK1, FK2, P1: a run is forked, and original and fork are killed at any write."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from tests.crash.harness import WORKFLOWS, Hosts, Lab, run_parallel, sampled

CASES = {
    "in_turn": ["f b", "f in first", "f in second"],
    "beside": ["f b", "f late first", "f late second", "last"],
}
"""By workflow: the steps that the fork executes."""


def killed_at(hosts: Hosts, place: Path, name: str, kill_at: str) -> bool:
    """Kill one process there, and start others until the fork has ended. Whether the kill came."""
    lab = Lab(hosts, place / f"{name}-{kill_at.replace(':', '-')}", WORKFLOWS / "forks.py", name)
    hit = lab.start(kill_at=kill_at).killed
    last = lab.start() if hit else lab.trials[-1]
    assert last.code == 0, lab.story()
    assert isinstance(last.answer, dict), lab.story()
    original, fork = last.answer["value"]
    assert original == fork, lab.story()
    executed = [step for trial in lab.trials for step in trial.executed()]
    first = lab.trials[0]
    assert not (hit and first.recorded & {one for one in last.executed() if one != "last"}), lab.story()
    assert set(CASES[name]) <= set(executed), lab.story()
    assert {"a", "r b"} <= set(executed), lab.story()
    assert executed.count("a") <= 1 + hit, lab.story()
    assert lab.query("SELECT name, status, paused FROM runs ORDER BY id") == [
        ("r", "SUCCEEDED", None), ("f", "SUCCEEDED", None),
    ], lab.story()  # fmt: skip
    lab.remove()
    return hit


@pytest.mark.parametrize("name", CASES)
def test_a_fork_is_made_whole_and_goes_on_whenever_a_process_is_killed(hosts: Hosts, place: Path, name: str) -> None:
    """FK1, FK2, P1. Kills before, inside and after each write of the original, of the making, and of the fork."""
    points = [f"{number}:{when}" for number in range(1, 16) for when in ("before", "inside", "after")]
    hits = run_parallel([partial(killed_at, hosts, place, name, point) for point in sampled(points, name)])
    assert any(hits)
