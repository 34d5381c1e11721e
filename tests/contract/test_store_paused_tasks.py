"""The contract of `Store`, for tasks that are paused on all runs (PS3)."""

from __future__ import annotations

import json
import random
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.contract._records import DONE, OTHER, TOKEN, created, entry, new_run, segment, writes
from tests.contract.test_store_queues import queued as queued_in
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
from perdure.core.ground.model import Claim, Created, CreateRun, Park, RunRow, RunWrites, Status
from perdure.core.ground.ports import Store
from perdure.store import open_store
from perdure.store.sqlite import SQLiteStore

__all__ = ["clock", "store"]

BOTH = {"etl.main", "etl.other"}


def row(store: Store, name: str) -> RunRow:
    found = store.run(name)
    assert found is not None
    return found


def test_the_pause_of_a_task_is_set_once_and_kept(store: Store) -> None:
    assert store.paused_tasks() == {}
    assert store.pause_task("etl.main", 5)
    assert not store.pause_task("etl.main", 9)
    assert store.pause_task("a.b", 7)
    assert store.paused_tasks() == {"a.b": 7, "etl.main": 5}
    assert store.resume_task("etl.main")
    assert not store.resume_task("etl.main")
    assert not store.resume_task("unknown")
    assert store.paused_tasks() == {"a.b": 7}


def test_no_run_of_a_paused_task_is_taken_until_the_pause_ends(store: Store, clock: Hands) -> None:
    """PS3. Family: runs that were QUEUED and parked before the pause, due now and later; runs submitted in the pause;
    `wake`; the runs of another task beside them."""
    queued(store, "now")
    queued(store, "later", clock.after(5))
    parked(store, "sleeps", clock.after(5))
    queued(store, "beside", task="etl.other")
    before = [row(store, name) for name in ("now", "later", "sleeps")]
    assert store.pause_task("etl.main", 77)
    queued(store, "since")
    assert [row(store, run.name) for run in before] == before
    assert all(store.wake(run.id) for run in before)
    clock.wait(9)
    assert store.next_due(MINE) is None
    assert taken(store) == []
    assert taken(store, tasks=BOTH) == [("beside", False)]
    assert store.next_due(BOTH) is None
    assert store.resume_task("etl.main")
    left = store.next_due(MINE)
    assert left is not None
    assert left <= 0
    assert sorted(taken(store)) == [("later", False), ("now", False), ("since", False), ("sleeps", True)]


def test_runs_of_a_paused_task_take_no_place_from_others(store: Store) -> None:
    """Family: many due runs of the paused task before one run of another, and claims for fewer."""
    for number in range(12):
        queued(store, f"r{number}")
    queued(store, "beside", task="etl.other")
    store.pause_task("etl.main", 5)
    assert taken(store, 2, BOTH) == [("beside", False)]


def test_no_run_of_a_paused_task_is_claimed_by_name(store: Store, clock: Hands) -> None:
    """PS3. Family: QUEUED, parked, without a driver; with and without `resumes`; a run that is paused itself."""
    runs = [queued(store, "q"), parked(store, "p", clock.after(0)), created(store, "left")]
    assert store.release(runs[2].id, TOKEN)
    paused = queued(store, "paused")
    assert store.pause(paused.id, 3)
    store.pause_task("etl.main", 5)
    statuses = [Status.QUEUED, Status.SLEEPING, Status.RUNNING]
    for run in (*runs, paused):
        for resumes in (False, True):
            claim = Claim(OTHER, "w")
            assert store.claim(run.id, claim, expect=None, entries=0, statuses=statuses, resumes=resumes) is None, (
                run.name
            )
    assert row(store, "paused").paused == 3
    store.resume_task("etl.main")
    found = store.claim(runs[0].id, Claim(OTHER, "w"), expect=None, entries=0, statuses=statuses)
    assert found is not None
    assert found.token == OTHER
    assert store.claim(paused.id, Claim(OTHER, "w"), expect=None, entries=0, statuses=statuses) is None


@pytest.mark.parametrize("beside", ["alone", "with claims", "with writes"])
def test_a_run_that_is_created_with_a_claim_is_queued_instead(store: Store, beside: str) -> None:
    """PS3. Family: alone, in a batch of creations, in a batch with other writes; a name that is taken."""
    old = created(store, "old")
    store.pause_task("etl.main", 5)
    asked: list[Any] = [CreateRun(new_run("r", task="etl.main"), Claim(OTHER, "w"))]
    if beside == "with claims":
        asked += [
            CreateRun(new_run("free", task="etl.other"), Claim(b"f" * 16, "w")),
            CreateRun(new_run("old", task="etl.main"), Claim(b"g" * 16, "w")),
        ]
    elif beside == "with writes":
        asked.insert(0, writes(old.id, finish=DONE))
    answers = store.commit(asked)
    made = next(one for one in answers if isinstance(one, Created) and one.run.name == "r")
    assert made.fresh
    assert made.run == row(store, "r")
    assert (made.run.status, made.run.token, made.run.worker, made.run.crashes) == (Status.QUEUED, None, None, 0)
    if beside == "with claims":
        free, again = answers[1:]
        assert isinstance(free, Created)
        assert isinstance(again, Created)
        assert (free.run.token, free.fresh) == (b"f" * 16, True)
        assert (again.run.token, again.fresh) == (TOKEN, False)
    assert taken(store) == []
    store.resume_task("etl.main")
    assert taken(store) == [("r", False)]


def test_a_claim_stays_in_the_pause_and_is_given_back(store: Store, clock: Hands) -> None:
    """PS3. Family: a driver that commits, parks, ends and gives back its claim; runs left behind with and without a
    claim."""
    run, other, ends = created(store, "r"), created(store, "parks"), created(store, "ends")
    store.pause_task("etl.main", 5)
    for one in (run, other, ends):
        assert store.append(one.id, TOKEN, segment(entry(1)))
    assert {one.name for one in store.abandoned(MINE, [], limit=9)} == {"r", "parks", "ends"}
    assert store.release(run.id, TOKEN)
    assert store.commit([RunWrites(other.id, TOKEN, park=Park(clock.after(2), 1))]) == [True]
    assert store.commit([writes(ends.id, finish=DONE)]) == [True]
    assert store.abandoned(MINE, [], limit=9) == []
    clock.wait(3)
    assert taken(store) == []
    store.resume_task("etl.main")
    assert [one.name for one in store.abandoned(MINE, [], limit=9)] == ["r"]
    assert taken(store) == [("parks", True)]


@pytest.mark.parametrize("order", ["fifo", "priority", "fair"])
def test_runs_in_a_queue_wait_while_their_task_is_paused(store: Store, clock: Hands, order: str) -> None:
    """PS3, FC1. Family: before and after the runs have entered their lanes, and another task of the same queue."""
    store.declare_queue("q", json.dumps({"concurrency": 1, "order": order}))
    queued_in(store, clock, "a", "b", "c")
    queued_in(store, clock, "x", task="etl.other")
    claims = [Claim(random.randbytes(16), "w") for _ in range(4)]
    assert [one.run.name for one in store.take_due(BOTH, claims)] == ["a"]
    store.pause_task("etl.main", 5)
    assert store.commit([RunWrites(row(store, "a").id, row(store, "a").token or b"", finish=DONE)]) == [True]
    assert store.next_due(MINE) is None
    left = store.next_due(BOTH)
    assert left is not None
    assert left <= 0
    assert [one.run.name for one in store.take_due(BOTH, claims)] == ["x"]
    assert store.commit([RunWrites(row(store, "x").id, row(store, "x").token or b"", finish=DONE)]) == [True]
    assert store.take_due(BOTH, claims) == []
    store.resume_task("etl.main")
    assert [one.run.name for one in store.take_due(BOTH, claims)] == ["b"]


def test_a_queued_run_of_a_paused_task_is_cancelled_and_aborted(store: Store) -> None:
    first, second = queued(store, "first"), queued(store, "second")
    store.pause_task("etl.main", 5)
    asked = store.cancel(first.id, "why", None, 9)
    assert asked is not None
    assert asked.status is Status.CANCELLED
    assert store.abort(second.id, 9)


def test_no_claim_is_committed_after_a_pause_has_returned(store: Store) -> None:
    """PS3. Family: claims of due runs, by number, and creations, by threads that go on claiming around the pause."""
    for round_ in range(8):
        names = [f"{round_}-{number}" for number in range(40)]
        runs = [queued(store, name) for name in names]
        stop = threading.Event()
        failures: list[BaseException] = []

        def take(
            of: int,
            runs: list[RunRow] = runs,
            stop: threading.Event = stop,
            round_: int = round_,
            failures: list[BaseException] = failures,
        ) -> None:
            try:
                for turn in range(10_000):
                    if stop.is_set():
                        return
                    claim = Claim(random.randbytes(16), "w")
                    if of == 0:
                        store.take_due(MINE, [claim])
                    elif of == 1:
                        run = random.choice(runs)
                        store.claim(run.id, claim, expect=None, entries=0, statuses=[Status.QUEUED])
                    else:
                        store.commit([CreateRun(new_run(f"{round_}-new-{turn}", task="etl.main"), claim)])
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=take, args=(of,)) for of in range(3)]
        for thread in threads:
            thread.start()
        threading.Event().wait(0.003 * round_)
        assert store.pause_task("etl.main", 5)
        at_pause = {run.id for run in store.runs(statuses={Status.RUNNING})}
        threading.Event().wait(0.01)
        later = {run.id for run in store.runs(statuses={Status.RUNNING})}
        stop.set()
        for thread in threads:
            thread.join()
        assert not failures
        assert later == at_pause
        assert store.resume_task("etl.main")
        for run in store.runs():
            store.abort(run.id, 9)


@pytest.mark.parametrize("store", ["sqlite", "postgres"], indirect=True)
def test_a_pause_returns_after_the_claims_that_were_under_way(store: Any) -> None:
    """PS3. A transaction that claims has looked at the paused tasks, and commits its claim before the pause returns."""
    run = queued(store, "r")
    # Another process: the connections of one store may wait for each other.
    other = open_store(getattr(store, "schema_url", store.url))[0]
    looked, go_on = threading.Event(), threading.Event()
    order: list[str] = []

    def claim(cursor: Any) -> None:
        assert cursor.execute(store._sql["paused_tasks"]).fetchall() == []
        looked.set()
        assert go_on.wait(60)
        order.append("claim")

    def pause() -> None:
        other.pause_task("etl.main", 5)
        order.append("pause")

    claiming = threading.Thread(target=lambda: store._aside.transaction(claim))
    pausing = threading.Thread(target=pause)
    with closing(other):
        claiming.start()
        assert looked.wait(60)
        pausing.start()
        pausing.join(1)
        assert pausing.is_alive()
        go_on.set()
        claiming.join()
        pausing.join()
    assert order == ["claim", "pause"]
    assert row(store, run.name).token is None


def test_the_pause_outlives_the_store(tmp_path: Path, clock: Hands) -> None:
    first = SQLiteStore(tmp_path / "store.db", clock=clock)
    first.pause_task("etl.main", 5)
    first.close()
    again = SQLiteStore(tmp_path / "store.db", clock=clock)
    assert again.paused_tasks() == {"etl.main": 5}
    again.close()


def test_the_first_look_sees_a_pause_at_the_same_moment(store: Store) -> None:
    """PS3. Either the claim comes first, and stays, or no claim is made."""
    for number in range(20):
        run = queued(store, f"r{number}")
        with claiming_meanwhile(store) as claimed:
            assert store.pause_task("etl.main", int(US))
            seen = row(store, run.name).token
        assert (seen is not None) == bool(claimed)
        store.abort(run.id, 9)
        store.resume_task("etl.main")
