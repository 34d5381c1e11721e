"""The contract of `Store`, second part: removing what is over. A run goes whole or not at all; nothing else goes."""

from __future__ import annotations

import pytest
from tests.contract._records import (
    DONE,
    OTHER,
    TOKEN,
    action,
    created,
    entries,
    entry,
    root_action,
    segment,
    worker,
    writes,
)
from tests.contract.test_store import fail_with, store

from perdure.core.ground.model import (
    FINISHED,
    CachePut,
    Claim,
    EndedRun,
    Finish,
    Result,
    RunRow,
    RunWrites,
    Source,
    Status,
)
from perdure.core.ground.ports import Store

__all__ = ["store"]
FAILED = frozenset({Status.FAILED})


def ended(store: Store, name: str, at: int = 99) -> RunRow:
    run = created(store, name)
    finish = DONE._replace(ended_at=at)
    assert store.commit([RunWrites(run.id, TOKEN, [segment(entry(1))], [root_action(run.id)], finish=finish)]) == [True]
    found = store.run(name)
    assert found is not None
    return found


def purge(store: Store, limit: int = 10) -> None:
    while store.purge(limit):
        pass


def test_what_has_ended_before_is_listed_by_number(store: Store) -> None:
    first, late, failed = (
        ended(store, "first", 10),
        ended(store, "late", 50),
        fail_with(store, created(store, "failed")),
    )
    created(store, "running")
    created(store, "queued", token=None)
    shown = [EndedRun(run.id, run.uid, run.name, run.status, run.ended_at or 0) for run in (first, late, failed)]
    assert store.ended(51, FINISHED, limit=9) == shown
    assert store.ended(50, FINISHED, limit=9) == shown[:1]
    assert store.ended(51, FAILED, limit=9) == shown[2:]
    assert store.ended(51, FINISHED, above=first.id, limit=1) == shown[1:2]


def test_a_removed_run_is_not_found_and_its_name_is_free(store: Store) -> None:
    run, other = ended(store, "old"), ended(store, "other")
    assert store.remove([run.id], 100, FINISHED) == [True]
    assert store.run("old") is None
    assert store.run_by_id(run.id) is None
    assert store.runs() == [other]
    assert store.uids() == {other.uid}
    assert store.claim(run.id, Claim(OTHER, "w"), expect=None, entries=1, statuses=FINISHED) is None
    assert store.remove([run.id], 100, FINISHED) == [False]
    fresh = created(store, "old")
    assert fresh.id not in (run.id, other.id) or not entries(store, fresh.id)
    purge(store)
    assert store.run("old") == fresh
    assert entries(store, other.id) == [entry(1)]
    assert store.actions(other.id) == [root_action(other.id)]


def test_a_number_is_not_used_again_before_all_its_rows_are_gone(store: Store) -> None:
    run = created(store, "long")
    rows = [segment(entry(n)) for n in range(1, 31)]
    started = [action(run.id, n) for n in range(1, 31)]
    store.commit([RunWrites(run.id, TOKEN, rows, started, finish=DONE)])
    assert store.remove([run.id], 100, FINISHED) == [True]
    for number in range(40):
        fresh = created(store, f"new-{number}")
        assert entries(store, fresh.id) == []
        assert store.actions(fresh.id) == []
        more = store.purge(5)
    assert not more
    assert entries(store, run.id) == store.actions(run.id) == [] or store.run_by_id(run.id) is not None


@pytest.mark.parametrize(("before", "statuses"), [(99, FINISHED), (100, FAILED), (100, frozenset(Status) - FINISHED)])
def test_a_run_that_is_not_meant_stays_whole(store: Store, before: int, statuses: frozenset[Status]) -> None:
    run = ended(store, "kept")
    assert store.remove([run.id], before, statuses) == [False]
    purge(store)
    assert store.run("kept") == run
    assert entries(store, run.id) == [entry(1)]


@pytest.mark.parametrize("token", [TOKEN, None])
def test_a_live_run_stays_under_every_request(store: Store, token: bytes | None) -> None:
    run = created(store, "live", token=token)
    assert store.remove([run.id, 77], 10**18, frozenset(Status)) == [False, False]
    assert store.run("live") == run


def test_a_failed_run_that_was_resumed_stays(store: Store) -> None:
    run = fail_with(store, created(store))
    resumed = store.claim(run.id, Claim(OTHER, "w"), expect=None, entries=0, statuses=FAILED)
    assert store.remove([run.id], 100, FINISHED) == [False]
    assert store.run_by_id(run.id) == resumed
    assert store.commit([writes(run.id, entry(1), token=OTHER)]) == [True]


@pytest.mark.parametrize("token", [TOKEN, None])
def test_a_run_stays_while_an_unfinished_one_reuses_its_work(store: Store, token: bytes | None) -> None:
    """G3."""
    run = ended(store, "old")
    again = created(store, "again", reuse="old", token=token)
    assert store.ended(100, FINISHED, limit=9) == []
    assert store.remove([run.id], 100, FINISHED) == [False]
    assert store.abort(again.id, 200)
    assert store.remove([run.id], 100, FINISHED) == [True]


def test_who_holds_claims_and_since_when(store: Store) -> None:
    assert store.claimed_since() == {}
    run = created(store, "a")
    created(store, "queued", token=None)
    ended(store, "done")
    assert store.claimed_since() == {"worker-1": 1_000}
    assert store.release(run.id, TOKEN)
    assert store.claimed_since() == {}


def test_all_that_may_hold_a_value_is_read_back(store: Store) -> None:
    values = [bytes([65 + number]) * 40 for number in range(7)]
    run = created(store, "a", inputs=values[0])
    rows = segment(entry(1, value=values[1], inputs=values[2]), entry(2, action=5, value=values[1]))
    started = [root_action(run.id), action(run.id, 1, inputs=values[3], state=values[4])]
    store.commit([RunWrites(run.id, TOKEN, [rows], started, (), (CachePut(b"k", values[5], 1),), None)])
    store.commit([writes(run.id, finish=Finish(Status.SUCCEEDED, int(Result.VALUE), values[6], 9))])
    assert {value for value in store.stored() if len(value) >= 32} == {*values, rows.data} - {values[1], values[2]}
    assert list(store.stored({run.id})) == [values[5]]


def test_cached_outcomes_go_by_their_age_unless_put_again(store: Store) -> None:
    run = created(store).id
    puts = (CachePut(b"old", b"1", 10), CachePut(b"new", b"2", 20))
    store.commit([RunWrites(run, TOKEN, cache=puts)])
    assert store.cached(20, limit=9) == [puts[0]]
    assert store.cached(21, limit=1) in ([puts[0]], [puts[1]])
    store.commit([RunWrites(run, TOKEN, cache=(CachePut(b"old", b"3", 30),))])
    assert store.uncache([b"old", b"new", b"none"], 25) == 1
    assert (store.cache_get(b"old"), store.cache_get(b"new")) == (b"3", None)


def test_snapshots_go_when_no_row_needs_them_and_no_worker_lives(store: Store) -> None:
    """G5."""
    ids = [store.source_id(Source(digest, "3.11", {})) for digest in (b"a", b"b", b"c")]
    run = created(store).id
    rows = RunWrites(run, TOKEN, [segment(entry(1))], [action(run, 1, source=ids[1])], sources=[ids[0]])
    assert store.commit([rows]) == [True]
    store.renew(worker("w"))
    assert store.drop_sources(lambda id: False) == 0
    assert store.source(ids[2]) is not None
    assert store.drop_sources(lambda id: id == "w") == 1
    assert [store.source(id) is None for id in ids] == [False, False, True]
    assert store.drop_sources(lambda id: True) == 0
