"""The contract of the port `Messages`: messages to runs, and runs that wait for messages (P12, MS1, MS4)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
from tests.contract._records import DONE, OTHER, TOKEN, action, created, entry, segment
from tests.postgres_server import Handed

from perdure.core.ground.model import (
    ROOT,
    Addressee,
    Awaited,
    Claim,
    Ended,
    Kind,
    NewMessage,
    Park,
    RunRow,
    RunWrites,
    SendAnswer,
    Status,
    Take,
    Wake,
    WholeRun,
)
from perdure.core.ground.ports import Store
from perdure.store.memory import MemoryStore
from perdure.store.sqlite import SQLiteStore

TASKS = {"etl.main"}
LATER = Wake(10**12, 10**12)


class StoppedClock:
    boot_id = "boot-1"

    def wall(self) -> int:
        return 50

    def boot(self) -> int:
        return 50


MAKERS: dict[str, Callable[[Path], Store]] = {
    "memory": lambda _: MemoryStore(clock=StoppedClock()),
    "sqlite": lambda path: SQLiteStore(path / "store.db", clock=StoppedClock()),
    "postgres": lambda _: cast(Store, Handed(StoppedClock())),
}


@pytest.fixture(params=MAKERS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made = MAKERS[request.param](tmp_path)
    yield made
    made.close()


def message(box: str = "mailbox:orders", key: str | None = None, value: bytes = b"v") -> NewMessage:
    return NewMessage(box, key, value, 7)


def waiting(store: Store, box: str = "mailbox:orders", number: int = 2, **fields: int) -> RunRow:
    """A run with an open wait for the box."""
    run = created(store)
    wait = action(run.id, number, kind=int(Kind.RECEIVE), name=box, **fields)
    assert store.commit([RunWrites(run.id, TOKEN, actions=[wait])]) == [True]
    return run


def park(store: Store, run: RunRow, *, waits: bool = True) -> None:
    assert store.commit([RunWrites(run.id, TOKEN, park=Park(LATER, 0, waits))]) == [True]


def take(store: Store, run: RunRow, n: int, *takes: Take, token: bytes = TOKEN) -> bool:
    [answer] = store.commit([RunWrites(run.id, token, [segment(entry(n), token=token)], takes=takes)])
    assert isinstance(answer, bool)
    return answer


def numbers(store: Store, run: RunRow, box: str = "mailbox:orders") -> list[int]:
    return [one.number for one in store.messages(run.id, box)]


def is_due(store: Store) -> bool:
    left = store.next_due(TASKS)
    return left is not None and left <= 0


def test_messages_of_a_run_are_numbered_in_commit_order(store: Store) -> None:
    run = created(store)
    boxes = ["mailbox:a", "mailbox:b", "mailbox:a"]
    answers = [store.send(run.id, message(box)) for box in boxes]
    assert [answer.message and answer.message.number for answer in answers] == [1, 2, 3]
    assert all(answer.fresh for answer in answers)
    assert numbers(store, run, "mailbox:a") == [1, 3]
    assert [one.number for one in store.messages(run.id, "mailbox:a", above=1)] == [3]
    assert [one.number for one in store.messages(run.id, "mailbox:a", limit=1)] == [1]
    assert [one.box for one in store.all_messages(run.id)] == boxes


def test_a_message_with_a_known_key_is_the_earlier_message(store: Store) -> None:
    run = created(store)
    first = store.send(run.id, message(key="k", value=b"one"))
    again = store.send(run.id, message(key="k", value=b"two"))
    other_box = store.send(run.id, message("mailbox:other", key="k"))
    assert (again.message, again.fresh) == (first.message, False)
    assert other_box.fresh
    assert store.message(run.id, "mailbox:orders", "k") == first.message
    assert store.message(run.id, "mailbox:orders", "unknown") is None


@pytest.mark.parametrize("end", ["finished", "aborted", "moved", "removed", "unknown"])
def test_a_run_that_is_over_takes_no_message_but_answers_a_known_key(store: Store, end: str) -> None:
    run = created(store, token=None) if end == "moved" else created(store)
    kept = store.send(run.id, message(key="k")).message
    if end == "finished":
        store.commit([RunWrites(run.id, TOKEN, finish=DONE)])
    elif end == "aborted":
        store.abort(run.id, 9)
    elif end == "moved":
        store.move([run.id], "there")
    elif end == "removed":
        store.commit([RunWrites(run.id, TOKEN, finish=DONE)])
        assert store.remove([run.id], 10**15, {Status.SUCCEEDED}) == [True]
    number = run.id if end != "unknown" else run.id + 77
    refused = store.send(number, message())
    assert (refused.message, refused.fresh) == (None, False)
    assert (refused.run is None) == (end in ("removed", "unknown"))
    if end not in ("removed", "unknown"):
        assert store.send(number, message(key="k")).message == kept
    assert len(list(store.all_messages(number))) == (0 if refused.run is None and end != "removed" else 1) or end == (
        "removed"
    )


def test_a_message_is_taken_with_its_entry_or_not_at_all(store: Store) -> None:
    run = created(store)
    for _ in range(3):
        store.send(run.id, message())
    assert not take(store, run, 1, Take(1, 1), token=OTHER)
    assert numbers(store, run) == [1, 2, 3]
    assert take(store, run, 1, Take(1, 1))
    assert numbers(store, run) == [2, 3]
    assert take(store, run, 2, Take(1, None))
    assert numbers(store, run) == [1, 2, 3]


def test_the_first_entry_that_takes_a_message_stays_noted(store: Store) -> None:
    run = created(store)
    store.send(run.id, message("condition:go", key=""))
    assert take(store, run, 1, Take(1, 1))
    assert take(store, run, 2, Take(1, 2))
    found = store.message(run.id, "condition:go", "")
    assert found is not None
    assert found.taken == 1


@pytest.mark.parametrize("waits", [True, False])
def test_a_message_for_an_open_wait_makes_a_parked_run_due(store: Store, waits: bool) -> None:
    run = waiting(store)
    park(store, run, waits=waits)
    parked = store.run_by_id(run.id)
    assert parked is not None
    assert parked.status == (Status.WAITING if waits else Status.SLEEPING)
    assert not is_due(store)
    store.send(run.id, message("mailbox:another"))
    assert not is_due(store)
    store.send(run.id, message())
    assert is_due(store)
    [taken] = store.take_due(TASKS, [Claim(OTHER, "w2")])
    assert taken.woken
    assert taken.run.id == run.id


def test_a_run_that_parks_with_a_message_for_an_open_wait_is_due_at_once(store: Store) -> None:
    run = waiting(store)
    store.send(run.id, message())
    park(store, run)
    assert is_due(store)


def test_a_wait_with_an_outcome_wakes_no_run(store: Store) -> None:
    run = waiting(store)
    store.commit([RunWrites(run.id, TOKEN, [segment(entry(1, child=2))], ends=[Ended(ROOT, 2, True)])])
    park(store, run)
    store.send(run.id, message())
    assert not is_due(store)


def test_a_park_and_a_send_at_the_same_moment_leave_the_run_due(store: Store) -> None:
    """Whichever of both comes first sees the other: a message never lies beside a run that sleeps on."""
    for number in range(20):
        run = created(store, f"run{number}", token=TOKEN)
        wait = action(run.id, 2, kind=int(Kind.RECEIVE), name="mailbox:orders")
        store.commit([RunWrites(run.id, TOKEN, actions=[wait])])
        start = threading.Barrier(2)
        answers: list[SendAnswer] = []

        def send(run: RunRow = run, start: threading.Barrier = start, answers: list[SendAnswer] = answers) -> None:
            start.wait()
            answers.append(store.send(run.id, message()))

        sender = threading.Thread(target=send)
        sender.start()
        start.wait()
        park(store, run)
        sender.join()
        assert answers[0].fresh
        [taken] = store.take_due(TASKS, [Claim(OTHER, "w2")])
        assert taken.run.id == run.id
        store.abort(run.id, 9)


def test_senders_at_the_same_moment_get_different_numbers(store: Store) -> None:
    run = created(store)

    def send() -> None:
        for _ in range(20):
            store.send(run.id, message())

    senders = [threading.Thread(target=send) for _ in range(3)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert numbers(store, run) == list(range(1, 61))


def test_news_are_the_first_untaken_messages_above_a_number(store: Store) -> None:
    run, other = created(store), created(store, "another")
    for box in ("mailbox:a", "mailbox:b", "mailbox:a", "mailbox:a"):
        store.send(run.id, message(box))
    store.send(other.id, message("mailbox:a"))
    take(store, run, 1, Take(2, 1))

    def news(*wanted: tuple[int, str, int]) -> dict[tuple[int, str], int]:
        return {place: one.number for place, one in store.news([Awaited(*one) for one in wanted]).items()}

    unknown = [(run.id, "mailbox:c", 0), (run.id + 9, "mailbox:a", 0)]
    assert news((run.id, "mailbox:a", 0), (run.id, "mailbox:b", 0), *unknown) == {(run.id, "mailbox:a"): 1}
    assert news((run.id, "mailbox:a", 1), (other.id, "mailbox:a", 0)) == {
        (run.id, "mailbox:a"): 3, (other.id, "mailbox:a"): 1,
    }  # fmt: skip
    assert news((run.id, "mailbox:a", 3), (other.id, "mailbox:a", 1)) == {(run.id, "mailbox:a"): 4}
    assert news((run.id, "mailbox:a", 4)) == {}
    assert news() == {}
    assert store.news([Awaited(run.id, "mailbox:a", 0)])[run.id, "mailbox:a"] == next(store.all_messages(run.id))


def test_the_addressee_of_a_message_says_what_the_run_waits_for(store: Store) -> None:
    run = waiting(store)
    assert store.addressee("unknown", "mailbox:orders") is None
    assert store.addressee("run", "mailbox:orders") == Addressee(run.id, True, store.open_actions(run.id)[0].inputs)
    assert store.addressee("run", "mailbox:others") == Addressee(run.id, False, None)
    assert store.addressee("run", "condition:orders") == Addressee(run.id, False, None)


def test_senders_of_one_key_at_once_store_one_message(store: Store) -> None:
    run = created(store)
    answers: list[SendAnswer] = []
    start = threading.Barrier(4)

    def send() -> None:
        start.wait()
        for number in range(10):
            answers.append(store.send(run.id, message(key=f"k{number}")))

    senders = [threading.Thread(target=send) for _ in range(4)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert sum(answer.fresh for answer in answers) == 10
    assert numbers(store, run) == list(range(1, 11))


def test_a_bell_rings_for_a_message(store: Store) -> None:
    run = created(store)
    rung = threading.Event()
    assert store.hear(rung.set)
    rung.clear()
    store.send(run.id, message())
    assert rung.wait(5)


def test_open_waits_and_unread_messages_of_unfinished_runs_are_listed(store: Store) -> None:
    run = waiting(store)
    store.send(run.id, message("mailbox:never"))
    store.send(run.id, message("mailbox:never"))
    [wait] = store.open_waits()
    assert (wait.run, wait.action.name, wait.action.action) == ("run", "mailbox:orders", 2)
    [unread] = store.unread()
    assert unread == ("run", "mailbox:never", 2, 7)
    store.commit([RunWrites(run.id, TOKEN, finish=DONE)])
    assert store.open_waits() == []
    assert store.unread() == []


def test_the_messages_of_a_removed_run_are_purged_with_the_run(store: Store) -> None:
    run = created(store)
    for _ in range(5):
        store.send(run.id, message(value=b"x" * 40))
    assert b"x" * 40 in set(store.stored())
    store.commit([RunWrites(run.id, TOKEN, finish=DONE)])
    store.remove([run.id], 10**15, {Status.SUCCEEDED})
    while store.purge(2):
        pass
    assert list(store.all_messages(run.id)) == []
    assert b"x" * 40 not in set(store.stored())


def test_a_run_from_another_store_brings_its_messages_along(store: Store) -> None:
    run = created(store, "one")
    store.send(run.id, message(key="k"))
    take(store, run, 1, Take(1, 1))
    store.send(run.id, message())
    brought = list(store.all_messages(run.id))
    stranger = run._replace(uid=b"q" * 16, name="two", status=Status.SLEEPING)
    [answer] = store.adopt([WholeRun(stranger, [], [], LATER, messages=brought)])
    assert answer.fresh
    assert list(store.all_messages(answer.run.id)) == brought
