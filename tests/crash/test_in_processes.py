"""P1, P4, P5: named interleavings with every body in a process of the pool; the process that drives is killed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.crash.harness import WHOLE, Hosts, run_parallel
from tests.crash.test_cancelled_runs import explorer_for as cancelling
from tests.crash.test_named_interleavings import CASES, explorer_for


@pytest.fixture(scope="module")
def pool_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """Warm processes whose workflows are declared with `executor="process"`."""
    found = Hosts(tmp_path_factory.mktemp("pool-hosts"), extra_env={"LAB_EXECUTOR": "process"})
    yield found
    found.close()


PICKED = """
    children:async_child_from_sync_body children:late_sibling children:sync_trace_called_on_the_loop
    gather:gather_times_and_sleeps generators:async_generators generators:generators map:map_sync
    more:child_cancelled more:child_cancelled_from_outside more:many_at_once more:task_timeout_retried
    races:race_loser_kept retries:child_fails_under_retrying_parent retries:retries_with_backoff
    tasks:task_group_failing_sibling threads:to_thread_with_durable_calls timeouts:asyncio_timeout_fallback
    timeouts:durable_timeout_sync tools:two_consumers_one_queue
""".split()  # noqa: SIM905 - a list literal would take a line for each name
"""Those in which processes meet; the others differ only inside of one."""
KILLS = ("3:before", "4:after", "6:after")


@pytest.mark.parametrize("name", PICKED)
def test_workflows_with_bodies_in_a_pool_go_on_after_a_kill(pool_hosts: Hosts, place: Path, name: str) -> None:
    """P1, P4, E1, E2."""
    explorer = explorer_for(pool_hosts, place, name)
    explorer.undisturbed()
    run_parallel([partial(explorer.one_kill, point) for point in KILLS])


OTHERS = [name for name in CASES if name not in PICKED]
READING = ("messages:values_of_a_body_and_of_traces", "messages:streams_of_a_body_and_of_a_trace")
"""These look at runs from a body, which is refused in another process."""


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in (OTHERS if WHOLE else OTHERS[::4]) if name not in READING])
def test_workflows_that_differ_inside_of_one_process_go_on_as_well(pool_hosts: Hosts, place: Path, name: str) -> None:
    """P1, P4."""
    explorer_for(pool_hosts, place, name).one_kill("4:after")


@pytest.mark.parametrize("name", ["saga", "sync_saga", "finally_only"])
def test_a_cancelled_body_in_a_pool_cleans_up_whenever_its_worker_is_killed(
    pool_hosts: Hosts, place: Path, name: str
) -> None:
    """E7, B12, P1: before the request, in the cleanup, and behind it."""
    explorer = cancelling(pool_hosts, place, name)
    explorer.undisturbed()
    run_parallel([partial(explorer.one_kill, point) for point in (*KILLS, "8:after")])


def test_bodies_in_a_pool_go_on_where_every_commit_is_slow(pool_hosts: Hosts, place: Path) -> None:
    """P1, P4: where a thread of its own commits, in both processes."""
    names = ("gather:gather_times_and_sleeps", "children:async_child_from_sync_body", "map:map_sync")
    explorers = [explorer_for(pool_hosts, place, name, slow=0.006) for name in names]
    run_parallel([partial(explorer.one_kill, "4:after") for explorer in explorers])


def test_a_run_with_bodies_in_a_pool_survives_a_kill_of_each_of_its_processes(pool_hosts: Hosts, place: Path) -> None:
    """P1, P4: each process at one of its first writes, until one ends by itself."""
    explorer = explorer_for(pool_hosts, place, "children:nested_sync_children")
    assert explorer.chain("4:after", "6:before", "7:after") >= 3
