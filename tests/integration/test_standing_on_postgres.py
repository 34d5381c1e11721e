"""PS1, PS2, PS3, FK1, FK2 on Postgres: the scenarios of pauses and forks, with a store on a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.crash.fleet import Fleet, fleet_of
from tests.integration import test_forking as forks
from tests.integration import test_pausing as pauses
from tests.integration import test_pausing_tasks as tasks
from tests.postgres_server import server
from tests.stores import drop_postgres


@pytest.fixture
def url() -> Iterator[str]:
    found = server().url()
    yield found
    drop_postgres(found)


PAUSES: list[Callable[[Fleet], None]] = [
    lambda fleet: pauses.test_what_executes_is_recorded_and_nothing_new_starts(fleet, "in_a_child"),
    lambda fleet: pauses.test_a_sleep_that_ends_in_the_pause_ends_at_the_resume(fleet, "sleeps", "0s"),
    pauses.test_a_paused_run_keeps_its_messages,
    pauses.test_a_paused_run_outlives_its_worker_and_no_other_takes_it_up,
    pauses.test_a_caller_that_drives_a_run_hears_that_it_is_paused,
    lambda fleet: pauses.test_a_run_that_is_resumed_before_it_stands_still_goes_on_with_its_driver(
        fleet, "async_steps"
    ),
    lambda fleet: pauses.test_a_paused_run_is_cancelled_with_its_cleanup_or_aborted(fleet, "cancel"),
    pauses.test_the_end_of_a_run_beside_a_pause_is_one_of_both,
    lambda fleet: tasks.test_what_executes_is_recorded_and_nothing_new_starts(fleet, "sync_steps"),
    lambda fleet: tasks.test_runs_of_every_state_stand_still_and_all_go_on(fleet, "0s"),
    tasks.test_the_pause_outlives_every_process,
    lambda fleet: tasks.test_a_direct_run_is_stored_and_does_not_execute(fleet, "sync"),
    tasks.test_a_run_that_this_process_drives_raises_and_goes_on_later,
]
FORKS: list[Callable[[Fleet], None]] = [
    forks.test_a_run_is_forked_before_each_of_its_entries,
    forks.test_a_child_under_way_is_executed_from_its_beginning_and_an_ended_child_is_not,
    forks.test_an_outcome_is_replaced_by_its_declared_type,
    forks.test_a_worker_goes_on_with_a_fork,
    forks.test_received_messages_stay_received_and_later_ones_are_not_shared,
    forks.test_removing_the_original_leaves_the_fork_whole,
    forks.test_a_cancelled_run_is_forked_before_its_code_knew,
]


@pytest.mark.parametrize("scenario", PAUSES)
def test_a_pause_on_a_server_goes_as_in_a_file(tmp_path: Path, url: str, scenario: Callable[[Fleet], None]) -> None:
    """PS1, PS2, PS3. Family: runs in every state, tasks, dying workers, a cancellation, and messages in the pause."""
    with fleet_of(tmp_path, "flow.py", pauses.FLOW, remote=url) as fleet:
        scenario(fleet)


@pytest.mark.parametrize("scenario", FORKS)
def test_a_fork_on_a_server_goes_as_in_a_file(tmp_path: Path, url: str, scenario: Callable[[Fleet], None]) -> None:
    """FK1, FK2. Family: each entry, children, a replaced outcome, a worker, messages, a removed original."""
    with fleet_of(tmp_path, "flow.py", forks.FLOW, remote=url) as fleet:
        scenario(fleet)
