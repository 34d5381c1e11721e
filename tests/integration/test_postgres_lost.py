"""Answers that are lost while others are at work: what they did is no proof of what we did."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.contract._records import OTHER, TOKEN, created, entries, entry, new_run, segment, writes
from tests.integration.test_postgres_store import Cut, cutting
from tests.postgres_server import Server, programs
from tests.waiting import stays_true, wait_for

from perdure.core.ground.model import (
    FINISHED,
    Claim,
    Created,
    CreateRun,
    Entry,
    Park,
    Result,
    RunWrites,
    Status,
    Wake,
    WholeRun,
)
from perdure.errors import StoreUnavailableError
from perdure.store.memory import MemoryStore
from perdure.store.postgres import PostgresStore
from perdure.store.postgres.link import PostgresLink


@pytest.fixture
def url(postgres: Server) -> str:
    return postgres.url()


@contextmanager
def at_reopening(work: Callable[[], None]) -> Iterator[None]:
    """Others do that before a connection that was cut is there again."""
    plain = PostgresLink._open
    done: list[bool] = []

    def opened(self: PostgresLink) -> Any:
        if Cut.count > Cut.turn >= 0 and not done:
            Cut.turn = -1
            done.append(True)
            work()
        return plain(self)

    PostgresLink._open = opened  # type: ignore[method-assign]
    try:
        yield
    finally:
        PostgresLink._open = plain  # type: ignore[method-assign]


def parked_beside(
    url: str, with_entry: bool, row: Entry, meanwhile: Callable[[PostgresStore, int], list[Any]]
) -> Iterator[tuple[int, list[Any], list[Any]]]:
    """A batch that parks one run and writes an entry of another one, or parks that too, cut before each statement in
    turn; what was to become of the other one has. Gives the statement, the answers, and what others did meanwhile."""
    turn = 0
    while turn >= 0:
        with cutting(-1, False):
            store, other = PostgresStore(f"{url}_{turn}"), PostgresStore(f"{url}_{turn}")
            one, two = created(store, "one").id, created(store, "two").id
            parked = Park(Wake(1, 1), 0)
            rest = writes(two, row) if with_entry else RunWrites(two, TOKEN, park=parked)
            told: list[Any] = []
            Cut.count, Cut.turn = 0, turn
            with at_reopening(lambda: told.extend(meanwhile(other, one))):  # noqa: B023
                answers = store.commit([RunWrites(one, TOKEN, park=parked), rest])
            cut, Cut.turn = Cut.turn == -1, -1
            yield turn, answers, told
            found = store.run_by_id(two)
            assert found is not None
            if with_entry:
                assert entries(store, two) == [row], f"statement {turn}"
            else:
                assert found.status is Status.SLEEPING, f"statement {turn}"
            store.close()
            other.close()
        turn = turn + 1 if cut else -1


def untimed() -> Entry:
    """An entry that every writer would write in the same bytes."""
    return entry(1, result=Result.DISCARD, at=0, took=0, fp=bytes(16))


@pytest.mark.parametrize("with_entry", [True, False])
def test_a_run_that_others_ended_is_no_proof_that_it_was_parked(url: str, with_entry: bool) -> None:
    def meanwhile(other: PostgresStore, one: int) -> list[Any]:
        return [other.abort(one, 7)]

    for _, answers, _ in parked_beside(url, with_entry, entry(1), meanwhile):
        assert answers[1] is True


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_equal_entries_of_two_claims_are_told_apart(url: str, after: bool) -> None:
    """SG4: the answer to a commit is lost and another driver has the run since. The commit counts if it was done, and a
    segment of the other driver with an equal entry is no proof of it."""
    with cutting(-1, after):
        store, other = PostgresStore(url), PostgresStore(url)
        run = created(store).id
        mark = untimed()

        def meanwhile() -> None:
            assert other.claim(run, Claim(OTHER, "w"), expect=TOKEN, entries=0, statuses={Status.RUNNING})
            if not after:
                assert other.commit([writes(run, mark, token=OTHER)]) == [True]

        Cut.count, Cut.turn = 0, 0
        with at_reopening(meanwhile):
            assert store.commit([writes(run, mark)]) == [after]
        assert Cut.turn == -1
        assert entries(store, run) == [mark]
        store.close()
        other.close()


@pytest.mark.parametrize("with_entry", [True, False])
def test_a_run_that_others_parked_in_the_same_way_is_no_proof_of_the_rest(url: str, with_entry: bool) -> None:
    def meanwhile(other: PostgresStore, one: int) -> list[Any]:
        # Nothing can be claimed where what was cut is the notification behind the commit.
        if not other.claim(one, Claim(OTHER, "w"), expect=TOKEN, entries=0, statuses={Status.RUNNING}):
            return []
        return other.commit([RunWrites(one, OTHER, park=Park(Wake(1, 1), 0))])

    for turn, answers, took in parked_beside(url, with_entry, untimed(), meanwhile):
        assert answers == [not took, True], f"statement {turn}"
        assert took or turn > 0


def test_a_run_that_others_removed_is_no_proof_that_the_rest_is_gone(url: str) -> None:
    with cutting(-1, False):
        store, other = PostgresStore(url), PostgresStore(url)
        one, two = created(store, "one").id, created(store, "two").id
        for run in (one, two):
            assert store.abort(run, 7)

        def meanwhile() -> None:
            assert other.remove([one], 100, FINISHED) == [True]

        # Before COMMIT: behind BEGIN, a look at each, one at what is reused, and a removal of each.
        Cut.count, Cut.turn = 0, 6
        with at_reopening(meanwhile):
            assert store.remove([one, two], 100, FINISHED) == [False, True]
        assert Cut.turn == -1
        assert store.run_by_id(two) is None
        store.close()
        other.close()


@pytest.mark.parametrize("comes_back", [False, True])
def test_a_run_that_others_moved_is_no_proof_that_the_rest_was(url: str, comes_back: bool) -> None:
    with cutting(-1, False):
        store, other, source = PostgresStore(url), PostgresStore(url), MemoryStore()
        rows = [created(source, name, token=None) for name in ("one", "two")]
        wholes = [WholeRun(row, [], [], Wake(1, 1)) for row in rows]
        if comes_back:
            # What is there under their names is what they left when they went.
            there = store.adopt(wholes)
            store.move([answer.run.id for answer in there], "elsewhere")

        def meanwhile() -> None:
            if not comes_back:
                assert [answer.fresh for answer in other.adopt(wholes[:1])] == [True]

        # Before COMMIT: behind BEGIN and an insertion of each; a look, a removal and an insertion more where they were.
        Cut.count, Cut.turn = 0, 9 if comes_back else 3
        with at_reopening(meanwhile):
            answers = store.adopt(wholes)
        assert Cut.turn == -1
        assert [answer.fresh for answer in answers] == [comes_back, True]
        for row in rows:
            found = store.run(row.name)
            assert found is not None
            assert found.uid == row.uid
            assert found.status is Status.QUEUED
        store.close()
        other.close()


@pytest.mark.parametrize("alone", [True, False])
def test_what_is_committed_behind_the_look_counts(url: str, alone: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As behind a pooler: the session that is ended is another one than the one that was at it."""
    with cutting(-1, False):
        store, other = PostgresStore(url), PostgresStore(url)
        run = created(store).id
        rows = [segment(entry(n)) for n in ((1,) if alone else (1, 2))]
        trace = store._segment_trace
        looks: list[object] = []

        def late(*args: Any) -> Any:
            looks.append(args)
            if len(looks) > 1:
                return trace(*args)
            assert other.commit([RunWrites(run, TOKEN, rows)]) == [True]
            return "SELECT 1 WHERE false", ()

        monkeypatch.setattr(store, "_segment_trace", late)
        Cut.count, Cut.turn = 0, 0 if alone else 3  # the statement, or COMMIT
        with at_reopening(lambda: None):
            assert store.commit([RunWrites(run, TOKEN, rows)]) == [True]
        assert len(looks) == 2
        assert list(store.segments(run)) == rows
        store.close()
        other.close()


def test_who_submits_never_has_the_token_of_who_took_it_over(url: str) -> None:
    with cutting(-1, True):
        store, other = PostgresStore(url), PostgresStore(url)

        def meanwhile() -> None:
            found = other.run("run")
            assert found is not None
            assert other.claim(found.id, Claim(OTHER, "w"), expect=TOKEN, entries=0, statuses={Status.RUNNING})

        Cut.count, Cut.turn = 0, 0
        with at_reopening(meanwhile):
            [answer] = store.commit([CreateRun(new_run(), Claim(TOKEN, "worker-1"))])
        assert Cut.turn == -1
        assert isinstance(answer, Created)
        assert (answer.fresh, answer.run.token) == (True, TOKEN)
        assert store.commit([writes(answer.run.id, entry(1))]) == [False]
        store.close()
        other.close()


def test_a_lock_that_a_lost_session_still_has_is_taken_from_it(url: str) -> None:
    store, other = PostgresStore(url), PostgresStore(url)
    store.liveness().hold("w1")
    session = store._session
    assert session is not None
    assert session._connection is not None
    fd = session._connection.fileno()
    kept = os.dup(fd)  # the server hears nothing of it
    here, there = socket.socketpair()
    os.dup2(here.fileno(), fd)
    there.close()
    here.close()
    live = other.liveness(grace=1)
    lost = session._connection
    created(other, token=None)  # it is told of that, and looks
    wait_for(lambda: session._connection is not lost)

    def holds_again() -> bool:
        assert not live.is_dead("w1")
        return "w1" in session._locked

    wait_for(holds_again)
    os.close(kept)
    stays_true(lambda: not live.is_dead("w1"), 1.5)
    store.close()
    other.close()


@contextmanager
def waiting_for_a_standby(postgres: Server) -> Iterator[None]:
    """Let the server's commits wait for a standby that does not exist.

    A changed setting reaches the server's processes some time after the call, so commits are made until one waits.
    """
    stuck = threading.Event()

    def commits() -> None:
        with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
            while not stuck.is_set():
                connection.execute("SELECT pg_logical_emit_message(true, 'probe', '')")

    postgres.execute("ALTER SYSTEM SET synchronous_standby_names = 'absent'")
    postgres.execute("SELECT pg_reload_conf()")
    probe = threading.Thread(target=commits)
    probe.start()
    try:
        wait_for(lambda: postgres.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"))
        yield
    finally:
        stuck.set()
        postgres.execute("ALTER SYSTEM RESET synchronous_standby_names")
        postgres.execute("SELECT pg_reload_conf()")
        probe.join(20)


def test_what_a_standby_has_not_is_not_told(postgres: Server, url: str) -> None:
    """The session that waited for it is ended, and its row shows; the session that finds it waits in its place."""
    store = PostgresStore(url)
    run = created(store).id
    assert store.commit([writes(run, entry(1))]) == [True]
    connection = store._writer.connection
    assert connection is not None
    answers: list[Any] = []
    with waiting_for_a_standby(postgres):
        thread = threading.Thread(target=lambda: answers.extend(store.commit([writes(run, entry(2))])))
        thread.start()
        stays_true(lambda: answers == [], 0.5)
        broken = socket.fromfd(connection.fileno(), socket.AF_UNIX, socket.SOCK_STREAM)
        broken.shutdown(socket.SHUT_RDWR)
        broken.close()
        wait_for(lambda: len(entries(store, run)) >= 2)
        assert [row.n for row in entries(store, run)] == [1, 2]
        stays_true(lambda: answers == [], 0.5)
    thread.join(20)
    assert answers == [True]
    assert [row.n for row in entries(store, run)] == [1, 2]
    store.close()


def test_a_standby_is_neither_read_nor_written() -> None:
    found = programs()
    if found is None:
        pytest.skip("no Postgres server programs")
    primary, standby = Server(found), Server(found)
    try:
        standby.stop()
        Path(standby.root, "data", "standby.signal").touch()
        standby.start()
        with pytest.raises(StoreUnavailableError, match="is a standby, which cannot be written: name the primary"):
            PostgresStore(standby.url())
        both = primary.url().replace(f"host={primary.root}", f"host={standby.root},{primary.root}")
        store = PostgresStore(both)
        assert created(store).status is Status.RUNNING
        store.close()
    finally:
        standby.close()
        primary.close()
