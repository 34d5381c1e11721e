"""P4: replay hands over outcomes, timers, ends of threads and cancellations in the order of the first life (B2, B7,
B11).

The family: what decides which side of a race wins. Each program is killed at the end of its first life, killed
somewhere before, and replayed. A program that goes another way on replay asks for a step that is not recorded.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest
from tests.crash.harness import WORKFLOWS, Explorer, Hosts, run_parallel

THREADS = (
    "thread_and_task",
    "thread_and_tasks_as_completed",
    "threads_of_several_steps",
    "thread_without_steps",
    "thread_that_holds_a_lock",
    "sync_body_with_map",
    "thread_fails_beside_siblings",
    "thread_computes_for_long",
    "thread_decides_by_an_exception",
)
CANCELLATIONS = (
    "cancelled_step_beside_another",
    "cancelled_steps_with_cleanup",
    "cancelled_child_beside_a_step",
    "cancelled_in_depth",
    "cancelled_generator",
    "cancellation_that_is_swallowed",
    "cancellation_repeated_until_the_task_has_ended",
)
TIMERS = (
    "timeout_between_outcome_and_call",
    "wait_for_near_the_end",
    "plain_sleeps_race_steps",
    "callbacks_race_steps",
    "durable_timeout_near_the_end",
    "polling_without_a_pause",
)
LEFT_BEHIND = (
    "thread_left_behind",
    "tasks_left_behind",
    "tasks_and_sleeps_left_behind",
    "threads_left_by_a_thread",
)
LIVES = int(os.environ.get("PERDURE_TEST_LIVES", "1"))
"""How often each program is tried."""


@pytest.mark.parametrize("case", [*THREADS, *CANCELLATIONS, *TIMERS, *LEFT_BEHIND])
def test_replay_goes_the_way_of_the_first_life(hosts: Hosts, place: Path, case: str) -> None:
    """B7, B11."""
    explorer = Explorer(hosts, place, WORKFLOWS / "named_order.py", case, lambda value: value == 12)
    explorer.leftovers = True
    commits = explorer.undisturbed()
    for _ in range(LIVES):
        points = [f"{commits}:before", f"{commits}:after", f"{commits // 2}:after", f"{commits // 3}:before"]
        run_parallel([partial(explorer.one_kill, point) for point in points])
