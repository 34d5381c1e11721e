"""The contract of `Store`, the outbox: events for receivers, written with the end of a run."""

from __future__ import annotations

import threading

import pytest
from tests.contract._records import DONE, TOKEN, created, entry, writes
from tests.contract.test_store_waiting import Hands, clock, queued, store

from perdure.core.ground.model import FINISHED, Finish, NoticeState, Result, RunWrites, Status, Subscription
from perdure.core.ground.ports import Store

__all__ = ["clock", "store"]

FAILED = Finish(Status.FAILED, int(Result.ERROR), b"error", 99)
ALL = "failure,stuck,waiting"


def subscribe(store: Store, name: str = "ops", kinds: str = ALL, task: str | None = None) -> None:
    store.subscribe(Subscription(name, kinds, task, None, "{}", 5))


def fail(store: Store, name: str, how: str) -> None:
    run = created(store, name)
    if how == "finish":
        assert store.commit([RunWrites(run.id, TOKEN, finish=FAILED)]) == [True]
    elif how == "batch":
        other = created(store, f"{name}-other")
        both = [writes(run.id, entry(1), finish=FAILED), RunWrites(other.id, TOKEN, finish=DONE)]
        assert store.commit(both) == [True, True]
    else:
        assert store.abort(run.id, 99)


@pytest.mark.parametrize("how", ["finish", "batch", "abort"])
def test_every_end_that_is_a_failure_writes_one_event_for_each_receiver(store: Store, how: str) -> None:
    """NT1."""
    fail(store, "before", how)
    assert store.notices(10) == []
    subscribe(store)
    subscribe(store, "others", task="etl.other")
    subscribe(store, "stuck", "stuck")
    subscribe(store, "mine", "failure", task="etl.main")
    fail(store, "run", how)
    found = store.notices(10)
    run = store.run("run")
    assert run is not None
    assert sorted(one.subscription for one in found) == ["mine", "ops"]
    for one in found:
        value = None if how == "abort" else b"error"
        assert one[2:9] == (run.id, "failure", "99", 99, str(run.status), value, NoticeState.PENDING)


def test_other_ends_write_no_event(store: Store) -> None:
    subscribe(store)
    run = created(store, "good")
    store.commit([RunWrites(run.id, TOKEN, finish=DONE)])
    store.cancel(queued(store, "waits").id, "enough", None, 7)
    store.commit([RunWrites(created(store, "late").id, b"x" * 16, finish=FAILED)])
    assert store.notices(10) == []


def test_an_event_that_is_noted_again_is_one_event(store: Store) -> None:
    """NT2."""
    subscribe(store)
    subscribe(store, "failures", "failure")
    run = created(store)
    assert store.note_event(run.id, "stuck", "interrupted-0", 7, b"{}") == 1
    assert store.note_event(run.id, "stuck", "interrupted-0", 8, b"{}") == 0
    assert store.note_event(run.id, "stuck", "interrupted-4", 9, b"{}") == 1
    assert [one.cause for one in store.notices(10)] == ["interrupted-4", "interrupted-0"]
    assert store.noted_of_task("etl.main", "stuck", "interrupted-4") == 9
    assert store.noted_of_task("etl.other", "stuck", "interrupted-4") is None


def test_a_leased_event_comes_back_when_the_lease_is_over(store: Store) -> None:
    """NT3."""
    subscribe(store)
    fail(store, "run", "finish")
    assert store.next_notice("ops") == 99
    assert store.take_notice("ops", b"a", 98, 200) is None
    first = store.take_notice("ops", b"a", 99, 200)
    assert first is not None
    assert store.take_notice("ops", b"b", 199, 300) is None
    again = store.take_notice("ops", b"b", 200, 300)
    assert again is not None
    assert (again.id, again.attempts) == (first.id, 0)
    assert not store.settle_notice(first.id, b"a", NoticeState.DELIVERED, 200, None, failed=False)
    assert store.settle_notice(first.id, b"b", NoticeState.PENDING, 250, "away", failed=True)
    third = store.take_notice("ops", b"c", 250, 300)
    assert third is not None
    assert (third.attempts, third.error) == (1, "away")
    assert store.settle_notice(third.id, b"c", NoticeState.DEAD, 250, "away", failed=True)
    assert store.take_notice("ops", b"d", 10_000, 20_000) is None
    assert store.next_notice("ops") is None
    assert [(one.state, one.number) for one in store.notice_counts()] == [(NoticeState.DEAD, 1)]
    assert store.revive_notices("ops", 400) == 1
    last = store.take_notice("ops", b"e", 400, 500)
    assert last is not None
    assert store.settle_notice(last.id, b"e", NoticeState.DELIVERED, 400, None, failed=False)
    assert store.take_notice("ops", b"f", 10_000, 20_000) is None


def test_two_takers_never_lease_one_event(store: Store) -> None:
    """NT3."""
    subscribe(store)
    for number in range(20):
        fail(store, f"run-{number}", "finish")
    found: list[int] = []

    def take(token: bytes) -> None:
        while (notice := store.take_notice("ops", token, 100, 10_000)) is not None:
            found.append(notice.id)

    threads = [threading.Thread(target=take, args=(bytes([n]),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == len(set(found)) == 20


def test_events_leave_with_their_run_and_with_their_receiver(store: Store) -> None:
    subscribe(store)
    subscribe(store, "other")
    fail(store, "one", "finish")
    fail(store, "two", "finish")
    run = store.run("one")
    assert run is not None
    assert store.remove([run.id], 1_000, FINISHED) == [True]
    while store.purge(100):
        pass
    assert {one.run for one in store.notices(10)}.isdisjoint({run.id})
    assert store.unsubscribe("other")
    assert not store.unsubscribe("other")
    assert [one.subscription for one in store.notices(10)] == ["ops"]
    assert [one.name for one in store.subscriptions()] == ["ops"]


def test_a_receiver_keeps_the_time_of_its_beginning(store: Store, clock: Hands) -> None:
    subscribe(store)
    store.subscribe(Subscription("ops", "failure", None, None, '{"task": "x"}', 77))
    assert store.subscriptions() == [Subscription("ops", "failure", None, None, '{"task": "x"}', 5)]
