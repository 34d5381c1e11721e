"""PS1, PS2, PS3, P1, P4: a run paused, itself or by its task, goes the way of its first life, killed at any write.

Each workflow pauses its own run or task in a trace, and the process that finds the run paused resumes them. So kills
fall before the pause, between the pause and the end of the trace, before the claim is given back, and after the resume.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.crash.harness import WORKFLOWS, Explorer, Hosts, Lab, explore, in_sample

CASES: dict[str, Any] = {
    "between_steps": ["a", 0, 1, "b"],
    "sync_between_steps": ["a", 0, "b"],
    "beside_a_sleep": ["slept", "paused"],
    "in_children": ["child", "sync child", "beside"],
    "in_attempts": ["tried", "after"],
    "resumed_at_once": ["a", "b"],
    "of_the_task": ["a", 0, 1, "b"],
    "sync_of_the_task": ["a", 0, "b"],
    "of_the_task_beside_a_sleep": ["slept", "paused", "child"],
    "of_the_task_in_attempts": ["tried", "after"],
    "of_the_task_and_back": ["a", "b"],
}


@pytest.mark.parametrize("name", CASES)
def test_a_paused_run_goes_on_whenever_it_is_killed(hosts: Hosts, place: Path, name: str) -> None:
    """PS1, PS2, PS3, P1, P4. Family: a pause of the run and of its task, by sync and async code, beside other branches,
    in children, in an attempt that fails, and a resume before the run stands still."""
    explorer = Explorer(hosts, place, WORKFLOWS / "named_pauses.py", name, lambda value: value == CASES[name])

    def ended(lab: Lab) -> None:
        [[paused]] = lab.query("SELECT paused FROM runs WHERE name = 'r'")
        assert paused is None, lab.story()
        assert lab.query("SELECT task FROM paused_tasks") == [], lab.story()

    explorer.extra = ended
    assert explore(explorer) >= in_sample(3)
