"""The contract of `Store`, third part: runs that wait for their time, and runs whose driver is gone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from tests.contract._records import (
    DONE,
    OTHER,
    TOKEN,
    action,
    created,
    entries,
    entry,
    new_run,
    root_action,
    segment,
    worker,
    writes,
)
from tests.postgres_server import Handed

from perdure.core.ground.clock import US
from perdure.core.ground.model import Claim, Created, CreateRun, Park, Result, RunRow, RunWrites, Status, Wake
from perdure.core.ground.ports import Store
from perdure.store.memory import MemoryStore
from perdure.store.sqlite import SQLiteStore

MINE = {"etl.main"}
CLAIMS = [Claim(bytes([number]) * 16, "w9") for number in range(1, 9)]


class Hands:
    """A clock whose hands the test moves."""

    def __init__(self) -> None:
        self.boot_id = "boot-1"
        self.now = 1_000 * US
        self.since_boot = 100 * US

    def wall(self) -> int:
        return self.now

    def boot(self) -> int:
        return self.since_boot

    def wait(self, seconds: float) -> None:
        self.now += int(seconds * US)
        self.since_boot += int(seconds * US)

    def after(self, seconds: float) -> Wake:
        return Wake(self.now + int(seconds * US), self.since_boot + int(seconds * US))


@pytest.fixture
def clock() -> Hands:
    return Hands()


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Hands) -> Iterator[Store]:
    make: dict[str, Callable[[], Store]] = {
        "memory": lambda: MemoryStore(clock=clock),
        "sqlite": lambda: SQLiteStore(tmp_path / "store.db", clock=clock),
        "postgres": lambda: cast(Store, Handed(clock)),
    }
    found = make[request.param]()
    yield found
    found.close()


def queued(store: Store, name: str, due: Wake | None = None, task: str = "etl.main") -> RunRow:
    [answer] = store.commit([CreateRun(new_run(name, task=task), None, due)])
    assert isinstance(answer, Created)
    return answer.run


def parked(store: Store, name: str, wake: Wake) -> RunRow:
    run = created(store, name)
    assert store.commit([RunWrites(run.id, TOKEN, [segment(entry(1))], park=Park(wake, 1))]) == [True]
    found = store.run(name)
    assert found is not None
    return found


@contextmanager
def claiming_meanwhile(store: Store) -> Iterator[list[Any]]:
    """A thread claims a due run at the moment at which the block begins; what it claimed, once the block has ended."""
    claimed: list[Any] = []
    start = threading.Barrier(2)

    def take() -> None:
        start.wait()
        claimed.extend(store.take_due(MINE, CLAIMS[:1]))

    thread = threading.Thread(target=take)
    thread.start()
    start.wait()
    yield claimed
    thread.join()


def taken(store: Store, count: int = 8, tasks: set[str] = MINE) -> list[tuple[str, bool]]:
    return [(run.name, woken) for run, woken, _ in store.take_due(tasks, CLAIMS[:count])]


def test_a_queued_run_is_due_at_once_or_when_it_was_to_be(store: Store, clock: Hands) -> None:
    assert store.next_due(MINE) is None
    later = queued(store, "later", clock.after(10))
    assert (later.status, later.wake_at) == (Status.QUEUED, clock.now + 10 * US)
    assert store.next_due(MINE) == 10
    assert taken(store) == []
    queued(store, "now")
    assert store.next_due(MINE) == 0
    assert taken(store) == [("now", False)]
    clock.wait(9.999)
    assert taken(store) == []
    clock.wait(0.001)
    assert taken(store) == [("later", False)]
    assert store.next_due(MINE) is None


def test_a_run_that_is_taken_is_claimed(store: Store, clock: Hands) -> None:
    run = queued(store, "a")
    clock.wait(3)
    [(found, woken, known)] = store.take_due(MINE, CLAIMS[:1])
    assert not woken
    assert known is None
    assert found == store.run("a")
    assert found == run._replace(
        status=Status.RUNNING, token=CLAIMS[0].token, worker="w9", started_at=clock.now, crashes=1, wake_at=None
    )


def test_those_that_are_due_longest_come_first_and_no_more_than_asked_for(store: Store, clock: Hands) -> None:
    for name, wait in (("c", 3), ("a", 1), ("b", 2), ("d", 4)):
        queued(store, name, clock.after(wait))
    parked(store, "between", clock.after(2.5))
    clock.wait(60)
    assert taken(store, 3) == [("a", False), ("b", False), ("between", True)]
    assert taken(store, 1) == [("c", False)]
    assert taken(store, 0) == []
    assert taken(store) == [("d", False)]


def test_only_runs_of_these_tasks_are_taken(store: Store) -> None:
    queued(store, "other", task="etl.other")
    assert store.next_due(MINE) is None
    assert taken(store) == []
    assert taken(store, tasks={"etl.main", "etl.other"}) == [("other", False)]
    assert store.next_due(set()) is None
    assert taken(store, tasks=set()) == []


def test_a_parked_run_has_no_driver_until_its_time(store: Store, clock: Hands) -> None:
    run = created(store)
    wake = clock.after(60)
    assert store.commit([RunWrites(run.id, TOKEN, [segment(entry(1))], park=Park(wake, 1))]) == [True]
    assert store.run("run") == run._replace(
        status=Status.SLEEPING, token=None, worker=None, crashes=0, mark=1, wake_at=wake.at
    )
    assert entries(store, run.id) == [entry(1)]
    assert store.commit([writes(run.id, entry(2))]) == [False]
    assert store.abandoned(MINE, [], limit=9) == []
    assert store.runs(statuses={Status.SLEEPING}) == [store.run("run")]
    assert store.runs(statuses={Status.RUNNING}) == []
    assert store.next_due(MINE) == 60
    clock.wait(60)
    assert taken(store) == [("run", True)]
    found = store.run("run")
    assert found is not None
    assert (found.status, found.crashes, found.mark, found.wake_at) == (Status.RUNNING, 1, 1, None)


def test_what_a_parked_run_needs_first_comes_along(store: Store, clock: Hands) -> None:
    first, long = created(store, "first"), created(store, "long")
    actions = [action(first.id, 1), action(first.id, 2, parent=1), root_action(first.id)]
    segments = [segment(entry(1), entry(2, action=1)), segment(entry(3))]
    wake = clock.after(0)
    store.commit([RunWrites(first.id, TOKEN, segments, actions, park=Park(wake, 3))])
    store.commit([RunWrites(long.id, TOKEN, [segment(*(entry(n) for n in range(1, 200)))], park=Park(wake, 199))])
    one, two = sorted(store.take_due(MINE, CLAIMS[:2]))
    assert one.known == (segments, [actions[2], actions[0]])
    assert two.run.name == "long"
    assert two.known is None


def test_whose_claim_is_gone_cannot_park_a_run(store: Store, clock: Hands) -> None:
    run = created(store)
    assert store.commit([RunWrites(run.id, OTHER, park=Park(clock.after(1), 0))]) == [False]
    assert store.run("run") == run


def test_within_a_batch_a_park_fences_what_follows_it(store: Store, clock: Hands) -> None:
    run = created(store).id
    park = RunWrites(run, TOKEN, [segment(entry(1))], park=Park(clock.after(1), 1))
    assert store.commit([park, writes(run, entry(2)), CreateRun(new_run("run"), None)]) == [
        True, False, Created(store.run("run"), False)
    ]  # fmt: skip
    assert entries(store, run) == [entry(1)]


def test_a_sleeping_run_can_be_claimed_by_hand_and_aborted(store: Store, clock: Hands) -> None:
    run = parked(store, "a", clock.after(60))
    assert store.claim(run.id, CLAIMS[0], expect=None, entries=1, statuses={Status.SLEEPING}) is not None
    assert store.next_due(MINE) is None
    other = parked(store, "b", clock.after(60))
    assert store.abort(other.id, 77)
    found = store.run("b")
    assert found is not None
    assert (found.status, found.wake_at) == (Status.ABORTED, None)
    assert store.next_due(MINE) is None
    clock.wait(99)
    assert taken(store) == []


def test_a_woken_run_is_due_at_once_whether_it_was_queued_or_parked(store: Store, clock: Hands) -> None:
    one, two = queued(store, "queued", clock.after(60)), parked(store, "parked", clock.after(90))
    assert taken(store) == []
    assert store.wake(one.id)
    assert store.wake(two.id)
    assert store.wake(two.id)
    left = store.next_due(MINE)
    assert left is not None
    assert left <= 0
    assert sorted(taken(store)) == [("parked", True), ("queued", False)]


def test_a_wake_never_delays_a_run_that_is_due(store: Store, clock: Hands) -> None:
    run, other = queued(store, "first", clock.after(1)), queued(store, "second", clock.after(2))
    clock.wait(5)
    assert store.wake(run.id)
    assert store.wake(other.id)
    assert taken(store) == [("first", False), ("second", False)]


def test_a_run_that_waits_for_no_time_is_not_woken(store: Store, clock: Hands) -> None:
    running, ended = created(store, "running"), created(store, "ended")
    store.commit([writes(ended.id, finish=DONE)])
    assert not store.wake(running.id)
    assert not store.wake(ended.id)
    assert not store.wake(77)
    assert store.run("running") == running


def test_runs_whose_worker_is_none_of_these_are_abandoned(store: Store, clock: Hands) -> None:
    one = created(store, "one")
    [answer] = store.commit([CreateRun(new_run("two"), Claim(OTHER, "worker-2"))])
    assert isinstance(answer, Created)
    let_go = created(store, "three")
    store.release(let_go.id, TOKEN)
    ended = created(store, "four")
    store.commit([writes(ended.id, finish=DONE)])
    created(store, "five", task="etl.other")
    parked(store, "six", clock.after(1))
    queued(store, "seven")
    left = store.run("three")
    assert store.abandoned(MINE, [], limit=9) == [one, answer.run, left]
    assert store.abandoned(MINE, ["worker-1"], limit=9) == [answer.run, left]
    assert store.abandoned(MINE, ["worker-1", "worker-2"], limit=9) == [left]
    assert store.abandoned(MINE, [], limit=1) == [one]


def test_the_rows_of_all_workers(store: Store) -> None:
    assert store.workers() == []
    store.renew(worker("a"))
    store.renew(worker("b"))
    store.renew(worker("a", 20))
    assert sorted(store.workers()) == [worker("a", 20), worker("b")]


def test_a_lease_runs_out_by_the_stores_clock(store: Store, clock: Hands) -> None:
    store.renew(worker("a", 10 * US))
    clock.wait(4)
    store.renew(worker("b", 10 * US))
    assert sorted(row.lease for row in store.workers()) == [6 * US, 10 * US]
    clock.wait(7)
    row = store.worker("a")
    assert row is not None
    assert row.lease <= 0
    store.renew(worker("a", 10 * US))
    assert store.worker("a") == worker("a", 10 * US)


def test_what_was_leased_in_another_boot_has_run_out(tmp_path: Path, clock: Hands) -> None:
    store = SQLiteStore(tmp_path / "store.db", clock=clock)
    store.renew(worker("a", 10 * US))
    clock.boot_id = "boot-2"
    [row] = store.workers()
    assert row.lease <= 0
    store.close()


def test_the_version_changes_with_every_commit(store: Store, clock: Hands) -> None:
    seen = {store.version()}
    assert store.version() in seen
    run = queued(store, "a")
    steps: list[Callable[[], object]] = [
        lambda: taken(store),
        lambda: store.commit([RunWrites(run.id, CLAIMS[0].token, park=Park(clock.after(0), 0))]),
        lambda: taken(store, 1),
        lambda: store.release(run.id, CLAIMS[0].token),
        lambda: store.abort(run.id, 1),
    ]
    for step in steps:
        seen.add(store.version())
        count = len(seen)
        step()
        seen.add(store.version())
        assert len(seen) == count + 1


def test_after_a_boot_the_wall_clock_says_what_is_due(tmp_path: Path, clock: Hands) -> None:
    store = SQLiteStore(tmp_path / "store.db", clock=clock)
    parked(store, "a", clock.after(60))
    queued(store, "b", clock.after(30))
    store.close()
    clock.boot_id, clock.since_boot = "boot-2", 5 * US
    clock.now += 20 * US
    store = SQLiteStore(tmp_path / "store.db", clock=clock)
    assert store.next_due(MINE) == 10
    # Within the boot a step of the wall clock moves nothing, even if a process opens the store meanwhile (P7).
    clock.now += 1_000 * US
    store.close()
    store = SQLiteStore(tmp_path / "store.db", clock=clock)
    assert store.next_due(MINE) == 10
    clock.since_boot += 40 * US
    assert taken(store) == [("b", False), ("a", True)]
    store.close()


def test_two_stores_share_what_is_due(tmp_path: Path, clock: Hands) -> None:
    one, two = (SQLiteStore(tmp_path / "store.db", clock=clock) for _ in range(2))
    for number in range(5):
        queued(one, f"run-{number}")
    version = two.version()
    assert [name for name, _ in taken(one, 3)] == ["run-0", "run-1", "run-2"]
    assert two.version() != version
    assert [name for name, _ in taken(two, 8)] == ["run-3", "run-4"]
    one.close()
    two.close()


def test_a_queued_run_that_is_cancelled_is_over_at_once(store: Store, clock: Hands) -> None:
    run = queued(store, "q", clock.after(60))
    asked = store.cancel(run.id, "why", 5, 77)
    assert asked == run._replace(
        status=Status.CANCELLED, result=int(Result.CANCELLED), ended_at=77, wake_at=None, cancel="why", cancel_until=5
    )
    assert store.run("q") == asked
    assert store.next_due(MINE) is None
    assert store.cancel(run.id, "again", None, 78) is None
    assert not store.end_cancelled(run.id, 79)


def test_a_parked_run_that_is_asked_to_cancel_is_due_now(store: Store, clock: Hands) -> None:
    run = parked(store, "p", clock.after(60))
    asked = store.cancel(run.id, "why", None, 77)
    assert asked is not None
    assert (asked.status, asked.cancel, asked.cancel_until) == (Status.SLEEPING, "why", None)
    assert taken(store) == [("p", True)]
    found = store.run("p")
    assert found is not None
    assert found.cancel == "why"


def test_the_first_reason_and_the_earliest_limit_count(store: Store) -> None:
    run = created(store, "r")
    assert store.cancel(run.id, "first", None, 1) == run._replace(cancel="first")
    assert store.cancel(run.id, "second", 90, 1) == run._replace(cancel="first", cancel_until=90)
    assert store.cancel(run.id, "third", 70, 1) == run._replace(cancel="first", cancel_until=70)
    assert store.cancel(run.id, "", 80, 1) == run._replace(cancel="first", cancel_until=70)
    assert store.cancel(run.id, "", None, 1) == run._replace(cancel="first", cancel_until=70)


def test_a_run_that_parks_without_knowledge_of_the_request_is_due_now(store: Store, clock: Hands) -> None:
    """B12: the request may come while the driver parks the run; a run that cleans up may sleep."""
    for name, aware in (("unaware", False), ("aware", True)):
        run = created(store, name)
        store.cancel(run.id, "why", None, 1)
        assert store.commit([RunWrites(run.id, TOKEN, park=Park(clock.after(60), 0, aware=aware))]) == [True]
    assert taken(store) == [("unaware", True)]


def test_the_hard_end_of_a_cancelled_run_overrules_its_driver(store: Store) -> None:
    run = created(store, "r")
    assert not store.end_cancelled(run.id, 50)
    store.cancel(run.id, "why", 1, 1)
    assert store.end_cancelled(run.id, 50)
    assert store.commit([writes(run.id, entry(1))]) == [False]
    found = store.run("r")
    assert found is not None
    assert (found.status, found.ended_at, found.token, found.result) == (Status.CANCELLED, 50, None, Result.CANCELLED)
    assert [ended.name for ended in store.ended(60, {Status.CANCELLED}, limit=9)] == ["r"]


@pytest.mark.parametrize("end", [Status.SUCCEEDED, Status.ABORTED])
def test_a_run_that_has_ended_takes_no_request_to_cancel(store: Store, end: Status) -> None:
    run = created(store, "r")
    if end is Status.ABORTED:
        store.abort(run.id, 9)
    else:
        store.commit([writes(run.id, finish=DONE)])
    before = store.run("r")
    assert store.cancel(run.id, "why", None, 1) is None
    assert store.cancel(77, "why", None, 1) is None
    assert store.run("r") == before
