"""Messages on a connection that is counted and cut: few round trips (the latency of P12), and none lost or doubled."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.contract._records import OTHER, TOKEN, action, created, entry, segment
from tests.faults.proxy import Proxy
from tests.postgres_server import Server, programs

from perdure.core.ground.model import Awaited, Ended, Kind, NewMessage, RunRow, RunWrites, Take
from perdure.store.postgres import PostgresStore

pytestmark = pytest.mark.skipif(programs() is None, reason="needs a Postgres server (apt-get install postgresql)")

BOX = "mailbox:orders"


@pytest.fixture
def proxy(postgres: Server) -> Iterator[Proxy]:
    found = Proxy(postgres.root)
    yield found
    found.close()


@pytest.fixture
def store(postgres: Server, proxy: Proxy) -> Iterator[PostgresStore]:
    found = PostgresStore(postgres.url().replace(postgres.root, proxy.directory))
    yield found
    found.close()


def waiting(store: PostgresStore, number: int) -> RunRow:
    """A driven run that waits for the box."""
    run = created(store, f"run-{number}")
    wait = action(run.id, 1, kind=int(Kind.RECEIVE), name=BOX)
    assert store.commit([RunWrites(run.id, TOKEN, actions=[wait])]) == [True]
    return run


def taking(store: PostgresStore, run: RunRow, number: int, token: bytes = TOKEN) -> RunWrites:
    """What a driver commits when a call takes a message."""
    journal = [segment(entry(number), token=token)]
    return RunWrites(run.id, token, journal, ends=[Ended(0, 1, True)], takes=[Take(number, number)])


def test_a_message_takes_two_round_trips_of_its_sender_and_two_of_its_receiver(
    store: PostgresStore, proxy: Proxy
) -> None:
    run = waiting(store, 1)
    trips = []
    for number in range(1, 5):
        before = proxy.trips
        addressee = store.addressee("run-1", BOX)
        assert addressee is not None
        assert store.send(addressee.run, NewMessage(BOX, f"k{number}", b"v", number)).fresh
        sent = proxy.trips
        assert list(store.news([Awaited(run.id, BOX, number - 1)])) == [(run.id, BOX)]
        assert store.commit([taking(store, run, number)]) == [True]
        trips.append((sent - before, proxy.trips - sent))
    # The first statements of a connection are prepared.
    assert trips[-1] == (2, 2)


@pytest.mark.parametrize("key", [None, "k"])
def test_a_send_that_is_cut_at_any_message_stores_one_message(
    store: PostgresStore, proxy: Proxy, key: str | None
) -> None:
    """P12. The family: a driven, a queued and an unknown number of a run; cut before or after each message; here the
    driven, whose way is the shortest."""
    number = cut = 0
    for after in (False, True):
        cut = 0
        while True:
            number += 1
            run = waiting(store, number)
            proxy.arm(cut, after)
            sent = store.send(run.id, NewMessage(BOX, key, b"v", number))
            struck = proxy.was_cut
            proxy.disarm()
            assert [one[:4] for one in store.all_messages(run.id)] == [(1, BOX, key, b"v")]
            assert sent.message is not None
            assert sent.message.number == 1
            if not struck:
                break
            # The proxy waits where a lost answer is yet to come, so only half of those messages are tried.
            cut += 2 if after else 1
        assert cut > 5


def test_a_driver_without_its_claim_writes_nothing_beside_one_with_a_claim(store: PostgresStore) -> None:
    """P3: a batch whose runs are not all held; the rows of the others are there."""
    held, lost, other = waiting(store, 1), waiting(store, 2), waiting(store, 3)
    for run in (held, lost, other):
        store.send(run.id, NewMessage(BOX, None, b"v", 1))
    batch = [taking(store, held, 1), taking(store, lost, 1, OTHER), taking(store, other, 1)]
    assert store.commit(batch) == [True, False, True]
    assert [len(store.messages(run.id, BOX)) for run in (held, lost, other)] == [0, 1, 0]
    assert [len(list(store.segments(run.id))) for run in (held, lost, other)] == [1, 0, 1]
    assert store.commit([taking(store, lost, 1, OTHER)]) == [False]
    assert store.commit([taking(store, lost, 1)]) == [True]
