"""RT1, RT2: a worker dies in every pause between two attempts, and the next worker waits for the rest of the pause."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from tests.crash.fleet import Fleet
from tests.crash.harness import WORKFLOWS
from tests.waiting import wait_for

from perdure.core.ground.clock import US

CALLS = {"sync_parent": ["r"], "parent": ["r.a", "r.b"], "whole": ["r"], "mapped": ["r.0", "r.1"]}
PAUSE = 2.0
"""As in the workflow: the shortest pause, since the failure asks for as much."""


@pytest.fixture
def fleet(place: Path) -> Iterator[Fleet]:
    found = Fleet(place / "fleet", WORKFLOWS / "pausing_retries.py", env={"PERDURE_LEASE": "1"})
    yield found
    found.close()


def deadlines(fleet: Fleet) -> int:
    """How many failures are recorded."""
    return sum(failures for (failures,) in fleet.query("SELECT failures FROM actions"))


@pytest.mark.parametrize("park_after", [0.1, 60])
@pytest.mark.parametrize("task", CALLS)
def test_a_pause_goes_on_after_a_kill(fleet: Fleet, task: str, park_after: float) -> None:
    """Family: traces of sync and async bodies, child tasks, the task of the run, `map`; parked or in memory."""
    worker = fleet.serve("--park-after", park_after)
    fleet.submit(fleet.new(task, "r", tag="r"))
    for failures in (1, 2):
        wait_for(lambda: deadlines(fleet) == failures * len(CALLS[task]), story=fleet.story)  # noqa: B023
        worker.kill()
        worker = fleet.serve("--park-after", park_after)
    fleet.wait("r")
    attempts = fleet.log("attempt")
    # Each failure was recorded before its kill, so that no attempt was made again.
    assert Counter(line.fields[0] for line in attempts) == dict.fromkeys(CALLS[task], 3), fleet.story()
    for call in CALLS[task]:
        at = [line.boot for line in attempts if line.fields[0] == call]
        assert all(later - earlier >= PAUSE for earlier, later in pairwise(at)), fleet.story()
    # A pause that began again from its full length would end later than its recorded end.
    recorded = fleet.query("SELECT wake_boot, failures FROM actions WHERE failures > 0")
    for wake_boot, _ in recorded:
        last = max(line.boot for line in attempts)
        assert wake_boot / US <= last + 0.01, fleet.story()


def test_failures_before_a_kill_count(fleet: Fleet) -> None:
    """RT2: killed in each pause, a call that always fails is executed once more than it has retries."""
    worker = fleet.serve()
    fleet.submit(fleet.new("gives_up", "r", tag="r"))
    for failures in (1, 2):
        wait_for(lambda: deadlines(fleet) == failures, story=fleet.story)  # noqa: B023
        worker.kill()
        worker = fleet.serve()
    fleet.wait("r")
    assert len(fleet.log("attempt")) == 3, fleet.story()
