"""The contract of `Store`, for runs that are paused (PS2)."""

from __future__ import annotations

import pytest
from tests.contract._records import DONE, OTHER, TOKEN, created, entry, segment, writes
from tests.contract.test_store_waiting import (
    MINE,
    Hands,
    claiming_meanwhile,
    clock,
    parked,
    queued,
    store,
    taken,
)

from perdure.core.ground.clock import US
from perdure.core.ground.model import Claim, NewMessage, Park, RunRow, RunWrites, Status
from perdure.core.ground.ports import Store

__all__ = ["clock", "store"]


def row(store: Store, name: str = "r") -> RunRow:
    found = store.run(name)
    assert found is not None
    return found


def test_a_paused_run_without_a_driver_is_not_taken_until_the_pause_ends(store: Store, clock: Hands) -> None:
    """PS2. Family: QUEUED and parked, due now and later; a message and `wake` make nothing of it due."""
    queued(store, "now")
    queued(store, "later", clock.after(5))
    parked(store, "sleeps", clock.after(5))
    runs = [row(store, name) for name in ("now", "later", "sleeps")]
    assert all(store.pause(run.id, 77) for run in runs)
    for run in runs:
        assert row(store, run.name) == run._replace(paused=77)
        assert store.wake(run.id)
        assert store.send(run.id, NewMessage("mailbox:a", None, b"v", 1)).fresh
    clock.wait(9)
    assert store.next_due(MINE) is None
    assert taken(store) == []
    assert [store.unpause(run.id) for run in runs] == [True] * 3
    assert [store.unpause(run.id) for run in runs] == [False] * 3
    left = store.next_due(MINE)
    assert left is not None
    assert left <= 0
    assert sorted(taken(store)) == [("later", False), ("now", False), ("sleeps", True)]
    assert row(store, "sleeps").paused is None


def test_a_pause_is_set_once_and_on_unfinished_runs_only(store: Store, clock: Hands) -> None:
    """Family: a second pause, an unknown run, an ended run, a moved run, a run that is asked to cancel."""
    run = queued(store, "r")
    assert store.pause(run.id, 5)
    assert store.pause(run.id, 9)
    assert row(store).paused == 5
    assert not store.pause(run.id + 99, 5)
    ended = created(store, "ended")
    assert store.commit([writes(ended.id, finish=DONE)]) == [True]
    moved = queued(store, "moved")
    store.move([moved.id], "there")
    asked = parked(store, "asked", clock.after(9))
    store.cancel(asked.id, "why", None, 1)
    for other in (ended, moved, asked):
        assert not store.pause(other.id, 5)
        assert not store.unpause(other.id)


def test_a_claim_of_a_paused_run_stays_and_no_other_is_made(store: Store) -> None:
    """PS2. Family: a driver that commits, parks and gives back its claim; a claim by name, and a claim that resumes."""
    run = created(store, "r")
    assert store.pause(run.id, 5)
    assert store.append(run.id, TOKEN, segment(entry(1)))
    assert row(store).token == TOKEN
    assert [one.name for one in store.abandoned(MINE, [], limit=9)] == ["r"]
    assert store.abandoned(MINE, ["worker-1"], limit=9) == []
    assert store.release(run.id, TOKEN)
    assert store.abandoned(MINE, [], limit=9) == []
    claim, running = Claim(OTHER, "w"), [Status.RUNNING]
    assert store.claim(run.id, claim, expect=None, entries=1, statuses=running) is None
    found = store.claim(run.id, claim, expect=None, entries=1, statuses=running, resumes=True)
    assert found == row(store)
    assert found.paused is None
    assert found.token == OTHER


def test_a_paused_run_may_be_parked_and_is_due_after_the_pause(store: Store, clock: Hands) -> None:
    run = created(store, "r")
    assert store.pause(run.id, 5)
    assert store.commit([RunWrites(run.id, TOKEN, park=Park(clock.after(2), 0))]) == [True]
    assert (row(store).status, row(store).paused) == (Status.SLEEPING, 5)
    clock.wait(3)
    assert taken(store) == []
    assert store.unpause(run.id)
    assert taken(store) == [("r", True)]


@pytest.mark.parametrize("how", ["finish", "abort", "cancel", "end_cancelled"])
def test_the_end_of_a_run_and_a_request_to_cancel_end_the_pause(store: Store, how: str) -> None:
    run = created(store, "r")
    if how == "end_cancelled":
        store.cancel(run.id, "", 0, 1)
    assert store.pause(run.id, 5) == (how != "end_cancelled")
    if how == "finish":
        assert store.commit([writes(run.id, finish=DONE)]) == [True]
    elif how == "abort":
        assert store.abort(run.id, 9)
    elif how == "cancel":
        assert store.cancel(run.id, "", None, 1) == row(store)
    else:
        assert store.end_cancelled(run.id, 9)
    assert row(store).paused is None


def test_a_parked_run_that_is_paused_cleans_up_when_it_is_cancelled(store: Store, clock: Hands) -> None:
    run = parked(store, "r", clock.after(99))
    assert store.pause(run.id, 5)
    store.cancel(run.id, "why", None, 1)
    assert taken(store) == [("r", True)]


def test_a_paused_run_moves_and_stays_paused(store: Store, clock: Hands) -> None:
    from perdure.core.ground.model import WholeRun
    from perdure.store.memory import MemoryStore

    run = parked(store, "r", clock.after(1))
    store.pause(run.id, 5)
    [before] = store.move([run.id], "there")
    assert before is not None
    there = MemoryStore(clock=clock)
    [answer] = there.adopt([WholeRun(before, [], [], clock.after(1))])
    assert answer.run.paused == 5
    assert store.take_back(run.id)
    assert row(store).paused == 5
    store.move([run.id], "there")
    [back] = store.adopt([WholeRun(answer.run, [], [], clock.after(1))])
    assert (back.fresh, back.run.paused, row(store).paused) == (True, 5, 5)
    clock.wait(2)
    assert taken(store) == []


def test_a_pause_and_a_claim_at_the_same_moment(store: Store) -> None:
    """PS2. Either the claim comes first, and its holder sees the pause in the row, or no claim is made."""
    for number in range(20):
        run = queued(store, f"r{number}")
        with claiming_meanwhile(store) as claimed:
            assert store.pause(run.id, int(US))
        found = row(store, run.name)
        assert found.paused == US
        assert (found.token is not None) == bool(claimed)
        store.abort(run.id, 9)
