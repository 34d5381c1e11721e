"""P1, P4: interleavings that naive designs get wrong, each killed at every journal write, before and after.

What every case is held to stands in `harness.py`: no recorded step runs again, every body sees again what it saw
before the kill and in that order, and the finished journal replays to the same result without executing anything.
Beyond that, `accept` says here what a right result looks like.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.crash.harness import WORKFLOWS, Explorer, Hosts, explore, in_sample, run_parallel


def exactly(*expected: Any) -> Any:
    return lambda value: value == list(expected)


def _gather_times(value: list[Any]) -> bool:
    pauses = {"a": 0.03, "b": 0.01, "c": 0.02}
    return [row[0] for row in value] == ["a", "b", "c"] and all(
        second - first >= pauses[name] for name, first, second in value
    )


def _same_names(*names: str) -> Any:
    return lambda value: sorted(value) == sorted(names)


def _uuids(value: list[Any]) -> bool:
    flat = [*value[0], *value[1], value[2], value[3]]
    return len(set(flat)) == 6


def _in_order(value: list[str], *chains: tuple[str, ...]) -> bool:
    return all([name for name in value if name in chain] == list(chain) for chain in chains)


CASES: dict[str, Any] = {
    "gather:gather_times_and_sleeps": _gather_times,
    "gather:gather_random_order": lambda v: (
        _in_order(v, ("a", "a2"), ("b", "b2"), ("c", "c2"), ("d", "d2")) and len(v) == 8
    ),
    "gather:two_append_to_one_list": lambda v: _in_order(v, ("x0", "x1", "x2"), ("y0", "y1", "y2")) and len(v) == 6,
    "gather:same_coroutine_same_arguments": _uuids,
    # Where the machine halts for some milliseconds, the first step ends before the quick one.
    "gather:user_cancels_gather": lambda v: v[1:] == ["slow cancelled", "last"] and v[0].startswith("quick"),
    "races:race_first_completed": lambda v: v[1] == f"{v[0]} won",
    "races:race_loser_kept": lambda v: v[1] == f"{v[0]} won" and sorted([v[0], v[2]]) == ["blue", "red"],
    "races:race_of_sleeps": lambda v: v[1] == f"after {v[0]}",
    "races:as_completed_times": lambda v: sorted(row[0] for row in v) == ["a", "b", "c"],
    "races:wait_with_timeout_keeps_task": lambda v: v in (["meanwhile", "slow", "end"], ["slow", "end"]),
    "timeouts:asyncio_timeout_fallback": exactly("fallback0.02", "try5.0"),
    "timeouts:wait_for_fallback": exactly("fallback0.02", "try5.0"),
    "timeouts:timeout_around_two_steps": exactly("inside1", "fallback"),
    "timeouts:durable_timeout_fallback": exactly("fallback0.02", "try5.0"),
    "timeouts:durable_timeout_in_branches": lambda v: v[0] == "a late" and v[2] == "c",
    "timeouts:durable_timeout_sync": exactly("try0.01", "late0.01", "try5.0"),
    "timeouts:closure_holds_a_clock": lambda v: _same_names("a", "b", "end")(v),
    "tasks:task_group_failing_sibling": exactly("early", "late cancelled", "failed: ['bad']", "after"),
    "tasks:created_here_awaited_there": exactly("main", "other saw first", "first"),
    "tasks:task_of_a_task": exactly("m0", "m1", "n0", "n1"),
    "helpers:nested_helpers": lambda v: [row[0] for row in v] == ["one", "two", "same", "other"],
    "helpers:closures_in_a_loop": exactly("closure0", "closure1", "closure2"),
    "threads:to_thread_with_durable_calls": lambda v: [row[0] for row in v[:3]] == ["alone", "left", "right"],
    "threads:own_executor_with_durable_calls": exactly("e1", "e2", "e3", "e4"),
    "children:children": exactly("one!", "two!", "three!", "four!"),
    "children:late_sibling": exactly("early.1early.2early.3", "late.1late.2late.3"),
    "children:nested_sync_children": exactly("one!", "two.inner!two.mine", "own"),
    "children:async_child_from_sync_body": exactly("one!", "own", "two!"),
    "children:sync_task_called_on_the_loop": exactly("q.x!q.y!q.end", "own"),
    "children:sync_trace_called_on_the_loop": lambda v: (
        _in_order(v, ("a1", "a2", "a3"), ("b1", "b2", "b3")) and len(v) == 6
    ),
    "map:map_async": exactly("m0", "m1", "m2", "m3", "f1", "LabError f2", "f3"),
    "map:map_async_limited": exactly("m0", "m1", "m2", "m3", "m4"),
    "map:map_sync": exactly("m0", "m1", "m2", "m3", "m4", "u0", "u1"),
    "map:map_half_consumed": exactly("m0", "m1", "after"),
    "map:map_sync_half_consumed": exactly("m0", "m1", "after"),
    "generators:generators": exactly("g0", "g1", "g2", "h0", "h1", "between", "f0", "f1", "failed f2", "end"),
    "generators:async_generators": exactly("g0", "g1", "g2", "h0", "h1", "between", "f0", "f1", "failed f2", "end"),
    "generators:generators_interleaved": lambda v: _in_order(v, ("i0", "i1", "i2"), ("j0", "j1", "j2")) and len(v) == 6,
    "generators:generator_kept_open": exactly("k0", "mid", "k1", "end"),
    "tools:queue_between_branches": exactly("cp0", "cp1", "cp2", "cp3"),
    "tools:two_consumers_one_queue": lambda v: sorted(name[-1] for name in v) == ["a", "b", "c", "d"],
    "tools:lock_event_semaphore": _same_names("locked x", "locked y", "limited a", "limited b", "limited c"),
    "tools:condition_and_barrier": lambda v: set(v[:2]) == {"a1", "b1"} and set(v[2:]) == {"a2", "b2"},
    "tools:plain_sleeps_between": lambda v: _same_names("one", "two", "a", "b", "end")(v),
    "tools:plain_sleep_races_a_step": lambda v: v in (["nap", "nap won", "slow"], ["step", "step won", "slow"]),
    "retries:caught_and_raised_again": exactly("bad", "again LabError", "end"),
    "retries:retries_with_backoff": exactly("a kepta flaky", "b keptb flaky", "beside", "end"),
    "retries:traces_of_their_own": exactly("x", "y", "beside", "s", "u", "t", "caught v", "w", "end"),
    "retries:second_attempt_other_path": lambda v: v in (["o done at 1", "end"], ["o done at 2", "end"]),
    "retries:cleanup_only_when_failing": exactly("d common d flaky d rest", "end"),
    "retries:child_fails_under_retrying_parent": exactly("k parentk flaky", "l parentl flaky", "end"),
    "retries:gather_then_fail": exactly("one", "two", "three.athree.b", "flaky"),
    "retries:caught_from_child": exactly("caught u out", "u after", "caught v out", "v after"),
}


# Where both deadlines have passed while nothing ran, both fire at once, and the outer one takes it all.
NESTED = (
    ["inner late", "after inner", "outer late", "end"],
    ["inner late", "outer late", "end"],
    ["outer late", "end"],
)

CASES |= {
    "more:shielded_step": lambda v: v in (["late", "between", "inner"], ["inner", "between", "inner"]),
    "more:gather_with_exceptions": exactly("one", "two", "three", "end"),
    "more:first_exception": exactly("2 done, 1 pending", "then", "quick", "bad", "slow"),
    "more:cleanup_when_cancelled": lambda v: sorted(v) == ["a cleaned", "b cleaned", "end", "first"],
    "more:cancellation_swallowed": exactly("first", "instead", "end"),
    "more:cancelled_twice_called_again": exactly("late 0", "late 1", "again", "end"),
    "more:child_cancelled": exactly("late", "t.1", "late too", "end"),
    "more:child_cancelled_from_outside": exactly("main0", "main1", "main2", "main3", "cancelled", "end"),
    "more:cancelled_before_it_began": exactly("one", "early call, late await", "cancelled", "two"),
    "more:nested_timeouts": lambda v: v in NESTED,
    "more:timeouts_late_at_the_door": exactly("late", "after durable", "late", "after plain"),
    "more:sleep_cut_short": exactly("late", "one", "late too", "two"),
    "more:group_in_a_group": exactly("1 failed", "end"),
    "more:exception_group_retried": exactly("g kept", "h kept", "end"),
    "more:plain_generators_of_steps": lambda v: _in_order(v, ("x0", "x1", "x2"), ("y0", "y1", "y2")) and len(v) == 6,
    "more:same_child_same_input": lambda v: len({name[:36] for name in v}) == 4,
    "more:task_timeout_retried": exactly("t", "beside", "end"),
    "more:queue_workers_cancelled": exactly(*(f"job{number}" for number in range(5))),
    "more:generator_under_timeout": lambda v: v[0] == "g0" and 1 <= int(v[1].removeprefix("after ")) <= 5,
    "more:many_at_once": exactly(*(f"n{number}" for number in range(40))),
    "more:callbacks_spawn": exactly("c0", "c1", "c2", "c3"),
    "more:body_ends_while_a_step_runs": exactly("one", "two"),
    "more:sync_body_with_map_of_async": exactly("one", "x.1", "y.1", "z.1", "two"),
    "more:thread_cancelled": lambda v: v in (["late", "end"], ["in threadsecond", "end"]),
}
CASES |= {
    "messages:sent_before_the_receive": exactly("a", "b", "c"),
    "messages:two_receivers": exactly("0", "1", "2", "3"),
    "messages:first_waits_first": exactly("older a", "younger b"),
    "messages:receive_races_a_step": exactly("late", "quick"),
    "messages:receive_cancelled_gives_way": exactly("m"),
    "messages:receive_cancelled_as_the_message_comes": exactly("m"),
    "messages:child_ends_as_the_message_comes": exactly("m", "m", "m"),
    "messages:timeout_then_message": exactly("fallback", "m"),
    "messages:condition_for_two_branches": exactly("a yes", "b yes", "yes"),
    "messages:receive_in_a_sync_body": exactly("a", "b", "none"),
    "messages:receive_in_children": exactly("a", "b"),
    "messages:misfit_in_the_mailbox": exactly("misfit", "7"),
    "messages:values_of_a_body_and_of_traces": exactly("body 2", "shared trace 2", "thread 1", "trace 2"),
    "messages:streams_of_a_body_and_of_a_trace": exactly("0", "1", "2", "inner", "0", "1", "2"),
}
LEFTOVERS = {"more:body_ends_while_a_step_runs", "more:thread_cancelled", "map:map_sync_half_consumed"}
TIMER_RACES = {
    "more:generator_under_timeout",
    "more:shielded_step",
    "more:thread_cancelled",
    "races:wait_with_timeout_keeps_task",
    "tools:plain_sleep_races_a_step",
}
"""See `harness.finish`."""

REPEATS = {
    "more:cancelled_twice_called_again": frozenset({"again"}),
    "more:task_timeout_retried": frozenset({"t nap"}),
    "retries:traces_of_their_own": frozenset({"u", "v", "w", "x", "y"}),
}
"""Steps that are executed again without an outcome in between: called again after a cancellation, or retried."""


def explorer_for(hosts: Hosts, place: Path, name: str, slow: float = 0.0) -> Explorer:
    home, _, case = name.partition(":")
    explorer = Explorer(hosts, place, WORKFLOWS / f"named_{home}.py", case, CASES[name], slow=slow)
    explorer.leftovers = name in LEFTOVERS
    explorer.repeats = REPEATS.get(name, frozenset())
    explorer.timer_race = name in TIMER_RACES
    return explorer


@pytest.mark.parametrize("name", CASES)
def test_a_workflow_goes_on_after_a_kill_at_any_write(hosts: Hosts, place: Path, name: str) -> None:
    """P1, P4, P12, P15, B1, B2, B5, B6, W2, W4, MS1, MS2, MS3, PB1, ST1, ST2, ST3."""
    assert explore(explorer_for(hosts, place, name)) >= in_sample(4)


# These count on a step being faster than a timeout, which it is not where every commit takes its time.
SLOW_CASES = [name for name in CASES if name not in TIMER_RACES and "timeout" not in name]


@pytest.mark.parametrize("part", range(4))
def test_workflows_go_on_after_a_kill_on_a_slow_disk(hosts: Hosts, place: Path, part: int) -> None:
    """P1, P4: the same cases where a thread of its own commits; each killed once, in the middle."""
    explorers = [explorer_for(hosts, place, name, slow=0.006) for name in SLOW_CASES[part::4]]
    run_parallel([partial(explorer.one_kill, "4:after") for explorer in explorers])
