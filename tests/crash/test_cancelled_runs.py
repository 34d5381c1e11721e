"""B12, P1, P4: a cancelled run cleans up with durable calls, and is cancelled at the same place after every kill.

Each workflow asks to cancel its own run in a trace, so that kills fall before the request, between the request and the
end of the trace, during the cleanup, and behind the end. The harness checks that no recorded step runs again, that each
body sees the same in the same order, and that the finished journal replays to the same end without executing anything.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.crash.harness import WORKFLOWS, Explorer, Hosts, Lab, explore, in_sample

CANCELLED = "run 'r' was cancelled: enough"

CASES: dict[str, Any] = {
    "saga": {"book", "refund book", "refund again"},
    "sync_saga": {"book", "refund book", "refund again", "refund async"},
    "finally_only": {"cleanup"},
    "sync_next_call": {"cleanup"},
    "in_gather": {"main cleanup"},
    "in_group": {"main cleanup"},
    "async_child_of_async": {"refund main"},
    "async_child_of_sync": {"refund main"},
    "sync_child_of_sync": {"child cleanup", "refund main"},
    "swallowed_by_the_child": {"parent cleanup"},
    "root_with_retries": {"cleanup"},
    "failing_cleanup": {"instead"},
}
"""By workflow: steps that are recorded in each life."""


def explorer_for(hosts: Hosts, place: Path, name: str, expected: Any = CANCELLED) -> Explorer:
    explorer = Explorer(hosts, place, WORKFLOWS / "named_cancels.py", name, lambda value: value == expected)
    status = "CANCELLED" if isinstance(expected, str) else "SUCCEEDED"

    def ended(lab: Lab) -> None:
        assert lab.run_row()["status"] == status, lab.story()
        assert lab.trials[-1].recorded >= CASES.get(name, set()), lab.story()

    explorer.extra = ended
    return explorer


@pytest.mark.parametrize("name", CASES)
def test_a_cancelled_run_cleans_up_whenever_it_is_killed(hosts: Hosts, place: Path, name: str) -> None:
    """B12, B7, B11, P1, P4."""
    assert explore(explorer_for(hosts, place, name)) >= in_sample(3)


@pytest.mark.parametrize("name", ["swallowed", "sync_swallowed"])
def test_a_body_that_swallows_the_cancellation_succeeds(hosts: Hosts, place: Path, name: str) -> None:
    """B12."""
    assert explore(explorer_for(hosts, place, name, ["went on", "after"])) >= in_sample(3)


def test_a_second_request_changes_nothing(hosts: Hosts, place: Path) -> None:
    assert explore(explorer_for(hosts, place, "asked_twice", "run 'r' was cancelled: first")) >= in_sample(3)
