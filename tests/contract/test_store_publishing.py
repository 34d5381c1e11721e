"""The contract of the port `Messages`, second part: what runs publish: values and streams (PB1, PB2, ST1)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.contract._records import DONE, OTHER, TOKEN, created, entry, segment
from tests.contract.test_store_messages import LATER, MAKERS
from tests.waiting import PATIENCE

from perdure.core.ground.model import Park, Publication, RunWrites, Status, Streamed, WholeRun
from perdure.core.ground.ports import Store
from perdure.errors import StoreError

ONE, TWO = Publication("progress", b"1", 5), Publication("progress", b"2", 6)
LONG = Publication("long", b"x" * 40, 7)


@pytest.fixture(params=MAKERS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made = MAKERS[request.param](tmp_path)
    yield made
    made.close()


def test_the_latest_value_of_each_name_is_kept(store: Store) -> None:
    run, other = created(store), created(store, "other")
    assert store.published(run.id) == []
    assert store.publish(run.id, TOKEN, [ONE, LONG])
    assert store.publish(run.id, TOKEN, [TWO])
    assert store.published(run.id) == [LONG, TWO]
    assert store.published(other.id) == []


def test_of_two_values_in_one_commit_the_last_value_counts(store: Store) -> None:
    run = created(store)
    writes = [RunWrites(run.id, TOKEN, published=[TWO, ONE]), RunWrites(run.id, TOKEN, published=[LONG, TWO])]
    assert store.commit(writes) == [True, True]
    assert store.published(run.id) == [LONG, TWO]


def test_a_value_is_published_with_its_entry_or_not_at_all(store: Store) -> None:
    """P15, PB1. Family: refused by the token, by the database, and because the run has ended or is parked."""
    run = created(store)
    one = segment(entry(1))
    assert store.commit([RunWrites(run.id, TOKEN, [one], published=[ONE])]) == [True]
    assert store.commit([RunWrites(run.id, OTHER, [segment(entry(2), token=OTHER)], published=[TWO])]) == [False]
    with pytest.raises(StoreError):
        store.commit([RunWrites(run.id, TOKEN, [one], published=[TWO])])
    assert store.published(run.id) == [ONE]
    assert store.commit([RunWrites(run.id, TOKEN, park=Park(LATER, 1))]) == [True]
    assert store.commit([RunWrites(run.id, TOKEN, published=[TWO])]) == [False]
    assert store.published(run.id) == [ONE]


def test_a_worker_without_the_claim_publishes_nothing(store: Store) -> None:
    """P15, PB2. Family: another token, a run that has ended, a run that is removed, an unknown run."""
    run = created(store)
    assert store.publish(run.id, TOKEN, [ONE])
    assert not store.publish(run.id, OTHER, [TWO])
    assert not store.publish(run.id + 1, TOKEN, [TWO])
    store.commit([RunWrites(run.id, TOKEN, finish=DONE)])
    assert not store.publish(run.id, TOKEN, [TWO])
    assert store.published(run.id) == [ONE]
    store.remove([run.id], 10**15, {Status.SUCCEEDED})
    assert not store.publish(run.id, TOKEN, [TWO])


def test_the_values_of_a_removed_run_are_purged_with_the_run(store: Store) -> None:
    run = created(store)
    assert store.publish(run.id, TOKEN, [LONG, *(Publication(f"n{n}", b"v", n) for n in range(5))])
    assert LONG.value in set(store.stored())
    store.commit([RunWrites(run.id, TOKEN, finish=DONE)])
    store.remove([run.id], 10**15, {Status.SUCCEEDED})
    while store.purge(2):
        pass
    assert store.published(run.id) == []
    assert LONG.value not in set(store.stored())


def test_a_run_from_another_store_brings_its_values_along(store: Store) -> None:
    run = created(store, "one")
    assert store.publish(run.id, TOKEN, [ONE, LONG])
    stranger = run._replace(uid=b"q" * 16, name="two", status=Status.SLEEPING)
    [answer] = store.adopt([WholeRun(stranger, [], [], LATER, published=store.published(run.id))])
    assert answer.fresh
    assert store.published(answer.run.id) == [LONG, ONE]


def items(store: Store, run: int, name: str = "answer", **limits: int | None) -> list[tuple[int, int, bytes | None]]:
    return [(one.number, one.attempt, one.value) for one in store.streamed(run, name, **limits)]


def item(value: bytes | None, attempt: int = 1, name: str = "answer") -> Streamed:
    return Streamed(name, 0, attempt, value, 7)


def test_the_items_of_each_stream_are_numbered_in_commit_order(store: Store) -> None:
    run, other = created(store), created(store, "other")
    assert store.last_streamed(run.id, "answer") is None
    writes = [RunWrites(run.id, TOKEN, streamed=[item(b"a"), item(b"x", name="beside"), item(b"b")])]
    assert store.commit(writes) == [True]
    assert store.publish(run.id, TOKEN, [ONE], [item(b"c", 2), item(None, 2)])
    whole = [(1, 1, b"a"), (2, 1, b"b"), (3, 2, b"c"), (4, 2, None)]
    assert items(store, run.id) == whole
    assert items(store, run.id, above=1, limit=2) == whole[1:3]
    assert items(store, run.id, "beside") == [(1, 1, b"x")]
    assert store.last_streamed(run.id, "answer") == Streamed("answer", 4, 2, None, 7)
    assert store.published(run.id) == [ONE]
    assert items(store, other.id) == []
    assert [one.name for one in store.all_streamed(run.id)] == ["answer"] * 4 + ["beside"]


def test_an_item_is_written_with_its_entry_or_not_at_all(store: Store) -> None:
    """P15, ST1. Family: refused by the token, refused by the database, refused because the run has ended."""
    run = created(store)
    one = segment(entry(1))
    assert store.commit([RunWrites(run.id, TOKEN, [one], streamed=[item(b"a")])]) == [True]
    assert store.commit([RunWrites(run.id, OTHER, [segment(entry(2), token=OTHER)], streamed=[item(b"b")])]) == [False]
    assert not store.publish(run.id, OTHER, (), [item(b"b")])
    with pytest.raises(StoreError):
        store.commit([RunWrites(run.id, TOKEN, [one], streamed=[item(b"b")])])
    store.commit([RunWrites(run.id, TOKEN, finish=DONE)])
    assert not store.publish(run.id, TOKEN, (), [item(b"b")])
    assert items(store, run.id) == [(1, 1, b"a")]


@pytest.mark.parametrize("by_commit", [True, False])
@pytest.mark.parametrize("what", ["value", "item"])
def test_a_bell_rings_for_a_value_and_for_an_item(store: Store, what: str, by_commit: bool) -> None:
    run = created(store)
    rung = threading.Event()
    assert store.hear(rung.set)
    rung.clear()
    published = [Publication("progress", b"a", 7)] if what == "value" else []
    streamed = [item(b"a")] if what == "item" else []
    if by_commit:
        store.commit([RunWrites(run.id, TOKEN, [segment(entry(1))], published=published, streamed=streamed)])
    else:
        store.publish(run.id, TOKEN, published, streamed)
    assert rung.wait(PATIENCE)


def test_a_page_of_a_stream_ends_behind_so_many_bytes(store: Store) -> None:
    """The family: items of equal and of other sizes, the end of a stream, one item over the limit, a limit of items."""
    run = created(store)
    sizes = [10, 10, 0, 30, 1, None, 5]
    store.publish(run.id, TOKEN, (), [item(None if size is None else b"x" * size) for size in sizes])

    def page(above: int, size: int | None, limit: int | None = None) -> list[int]:
        found = store.streamed(run.id, "answer", above=above, limit=limit, size=size)
        return [one.number for one in found]

    assert page(0, None) == [1, 2, 3, 4, 5, 6, 7]
    assert page(0, 1) == [1]
    assert page(0, 10) == [1]
    assert page(0, 11) == [1, 2]
    assert page(0, 20) == [1, 2]
    assert page(0, 21) == [1, 2, 3, 4]
    assert page(2, 5) == [3, 4]
    assert page(3, 5) == [4]
    assert page(4, 3) == [5, 6, 7]
    assert page(0, 1_000, limit=2) == [1, 2]
    assert page(7, 5) == []


def test_the_items_of_a_removed_run_are_purged_with_the_run(store: Store) -> None:
    run = created(store)
    assert store.publish(run.id, TOKEN, (), [item(LONG.value), *(item(b"v") for _ in range(5)), item(None)])
    assert LONG.value in set(store.stored())
    assert LONG.value not in set(store.stored({run.id}))
    store.commit([RunWrites(run.id, TOKEN, finish=DONE)])
    store.remove([run.id], 10**15, {Status.SUCCEEDED})
    while store.purge(2):
        pass
    assert list(store.all_streamed(run.id)) == []
    assert LONG.value not in set(store.stored())


def test_a_run_from_another_store_brings_its_streams_along(store: Store) -> None:
    run = created(store, "one")
    assert store.publish(run.id, TOKEN, (), [item(b"a"), item(b"b", 2), item(None, 2), item(b"x", name="beside")])
    brought = list(store.all_streamed(run.id))
    stranger = run._replace(uid=b"q" * 16, name="two", status=Status.SLEEPING)
    [answer] = store.adopt([WholeRun(stranger, [], [], LATER, streamed=brought)])
    assert answer.fresh
    assert list(store.all_streamed(answer.run.id)) == brought
