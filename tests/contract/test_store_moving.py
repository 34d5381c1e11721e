"""The contract of `Store`, fifth part: runs that leave for another store, and runs that come from one."""

from __future__ import annotations

from tests.contract._records import DONE, TOKEN, action, created, entries, entry, root_action, segment
from tests.contract.test_store_waiting import CLAIMS, MINE, Hands, clock, parked, queued, store, taken

from perdure.core.ground.model import (
    NO_PARENT,
    ROOT,
    Created,
    Ended,
    Finish,
    Result,
    RunRow,
    RunWrites,
    ScheduleRow,
    Status,
    Wake,
    WholeRun,
)
from perdure.core.ground.ports import Store
from perdure.store.memory import MemoryStore

__all__ = ["clock", "store"]

TO = "postgresql://db.example.org/flows"
FAILED = Finish(Status.FAILED, int(Result.ERROR), b"error", 99)


def one_of_each(store: Store, clock: Hands) -> dict[str, RunRow]:
    """A run of every status that may move."""
    queued(store, "queued", clock.after(5))
    parked(store, "asleep", clock.after(7))
    for name, finish in (("succeeded", DONE), ("failed", FAILED)):
        run = created(store, name)
        store.commit([RunWrites(run.id, TOKEN, [segment(entry(1))], [root_action(run.id)], finish=finish)])
    store.abort(queued(store, "aborted", clock.after(9)).id, 77)
    return {run.name: run for run in store.runs()}


def test_a_run_that_moved_cannot_be_driven_here_and_can_be_taken_back(store: Store, clock: Hands) -> None:
    before = one_of_each(store, clock)
    numbers = [run.id for run in before.values()]
    assert store.move(numbers, TO) == list(before.values())
    for run in before.values():
        assert store.run(run.name) == run._replace(status=Status.MOVED, worker=TO)
    clock.wait(60)
    assert taken(store) == []
    assert store.next_due(MINE) is None
    for run in before.values():
        assert store.claim(run.id, CLAIMS[0], expect=None, entries=1, statuses=tuple(Status)[:-1]) is None
        assert not store.abort(run.id, 100)
    assert store.remove(numbers, 1 << 50, set(Status)) == [False] * len(numbers)
    assert store.ended(1 << 50, set(Status), limit=10) == []
    assert store.counts() == {Status.MOVED: len(numbers)}
    # A move that was killed after it gets the same answer again; to another store they do not go.
    assert store.move(numbers, TO) == list(before.values())
    assert store.move(numbers, "elsewhere") == [None] * len(numbers)
    for run in before.values():
        assert store.take_back(run.id)
        assert not store.take_back(run.id)
        assert store.run(run.name) == run
    assert sorted(taken(store)) == [("asleep", True), ("queued", False)]


def test_a_run_that_has_arrived_goes_nowhere_again(store: Store, clock: Hands) -> None:
    before = one_of_each(store, clock)
    first, *others = [run.id for run in before.values()]
    store.move([first, *others], TO)
    store.arrived([first, 999], "their-id")
    moved = store.run_by_id(first)
    assert moved is not None
    assert (moved.status, moved.worker, moved.token) == (Status.MOVED, TO, b"their-id")
    assert store.move([first, *others], TO) == [None, *list(before.values())[1:]]
    assert store.take_back(first)
    store.arrived([first], "their-id")  # it is not away
    assert store.run_by_id(first) == next(iter(before.values()))


def test_what_is_driven_or_gone_does_not_move(store: Store) -> None:
    held, let_go = created(store, "held"), created(store, "let-go")
    assert store.release(let_go.id, TOKEN)
    assert store.move([held.id, let_go.id, 999], TO) == [None, None, None]
    assert {run.status for run in store.runs()} == {Status.RUNNING}
    assert not store.take_back(held.id)
    assert store.commit([RunWrites(held.id, TOKEN, [segment(entry(1))])]) == [True]


def test_a_run_is_adopted_with_all_that_it_has(store: Store, clock: Hands) -> None:
    source = MemoryStore(clock=clock)
    run = parked(source, "asleep", clock.after(7))
    other = created(store, "other")  # so that the numbers differ
    rows = [entry(1), entry(2, action=3, child=4, value=None)]
    actions = [root_action(run.id), action(run.id, 3, wake_at=5, wake_boot=6, boot="boot-1", state=b"s")]
    due = clock.after(3)
    [answer] = store.adopt([WholeRun(run, [segment(*rows)], actions, due, [Ended(ROOT, 3, True)], [1])])
    assert answer == Created(run._replace(id=other.id + 1, wake_at=due.at), True)
    assert store.run("asleep") == answer.run
    number = answer.run.id
    assert entries(store, number) == rows
    assert store.actions(number) == [row._replace(run=number) for row in actions]
    assert store.open_actions(number) == [root_action(number)]
    clock.wait(2.999)
    assert taken(store) == []
    clock.wait(0.001)
    assert taken(store) == [("asleep", True)]
    assert store.commit([RunWrites(number, CLAIMS[0].token, [segment(entry(3))])]) == [True]


def test_every_status_survives_the_move(store: Store, clock: Hands) -> None:
    source = MemoryStore(clock=clock)
    before = one_of_each(source, clock)
    moved = source.move([run.id for run in before.values()], TO)
    wholes = [
        WholeRun(
            run, list(source.segments(run.id)), source.actions(run.id),
            None if run.wake_at is None else Wake(run.wake_at, clock.boot() + run.wake_at - clock.wall()),
        )
        for run in moved if run is not None
    ]  # fmt: skip
    answers = store.adopt(wholes)
    assert [answer.fresh for answer in answers] == [True] * 5
    for run in before.values():
        found = store.run(run.name)
        assert found is not None
        assert found._replace(id=run.id) == run
        assert list(store.segments(found.id)) == list(source.segments(run.id))
    again = store.adopt(wholes)
    assert [answer.fresh for answer in again] == [False] * 5
    assert [answer.run.uid for answer in again] == [whole.run.uid for whole in wholes]


def test_a_name_that_is_taken_is_left_alone(store: Store, clock: Hands) -> None:
    source = MemoryStore(clock=clock)
    theirs = queued(source, "same")
    mine = created(store, "same")
    [answer] = store.adopt([WholeRun(theirs._replace(uid=b"u" * 16), [segment(entry(1))], [], None)])
    assert answer == Created(mine, False)
    assert entries(store, mine.id) == []


def test_a_run_comes_back(store: Store, clock: Hands) -> None:
    run = parked(store, "asleep", clock.after(7))
    assert store.move([run.id], TO) == [run]
    later = [segment(entry(1)), segment(entry(2))]
    ended = run._replace(status=Status.SUCCEEDED, result=int(Result.VALUE), value=b"done", ended_at=99, wake_at=None)
    [answer] = store.adopt([WholeRun(ended, later, [], None)])
    assert answer.fresh
    found = store.run("asleep")
    assert found == ended._replace(id=answer.run.id)
    assert len(entries(store, answer.run.id)) == 2
    assert [one.name for one in store.runs()] == ["asleep"]


def test_a_run_that_came_and_was_removed_does_not_come_again(store: Store, clock: Hands) -> None:
    """M3. A mover that was killed before it noted the arrival comes again, and the target has removed the run by then.

    The family: the name is free, the name is another run's, and a run that comes back home afterwards."""
    source = MemoryStore(clock=clock)
    due = Wake(clock.wall() + 5, clock.boot() + 5)
    wholes = [WholeRun(queued(source, name), [], [], due) for name in ("one", "two")]
    first = store.adopt(wholes)
    assert [answer.fresh for answer in first] == [True, True]
    for answer in first:
        assert store.abort(answer.run.id, 7)
    assert all(store.remove([answer.run.id for answer in first], 1 << 50, {Status.ABORTED}))
    other = created(store, "two")
    again = store.adopt(wholes)
    assert [(answer.fresh, answer.run.uid) for answer in again] == [(False, whole.run.uid) for whole in wholes]
    assert store.runs() == [other]
    # Moved on from here, a run may come back.
    [third] = store.adopt([WholeRun(queued(source, "three"), [], [], due)])
    assert store.move([third.run.id], TO)[0] is not None
    [back] = store.adopt([WholeRun(third.run, [segment(entry(1))], [], due)])
    assert back.fresh


def test_pages_of_runs_and_all_schedules(store: Store) -> None:
    numbers = [queued(store, f"run-{number}").id for number in range(5)]
    assert [run.id for run in store.runs(limit=2)] == numbers[:2:-1]
    assert [run.id for run in store.runs(limit=2, below=numbers[3])] == numbers[2:0:-1]
    assert [run.id for run in store.runs(statuses={Status.QUEUED, Status.RUNNING}, below=numbers[1])] == numbers[:1]
    assert store.runs(below=numbers[0]) == []
    assert store.schedules() == []
    store.advance("b", 7, expect=None)
    store.advance("a", 5, expect=None)
    assert store.schedules() == [ScheduleRow("a", 5), ScheduleRow("b", 7)]


def test_a_moved_schedule_keeps_its_position_and_its_pause(store: Store) -> None:
    """A known schedule of the target stays as it is."""
    assert store.adopt_schedule(ScheduleRow("a", 5, 6, 4))
    assert store.adopt_schedule(ScheduleRow("b", 7))
    assert not store.adopt_schedule(ScheduleRow("b", 9, 8))
    assert store.schedules() == [ScheduleRow("a", 5, 6, 4), ScheduleRow("b", 7)]


def test_a_healthy_store_has_no_problems(store: Store) -> None:
    found = store.check()
    assert found.problems == []
    assert found.facts["kind"]


def test_children_and_root_keep_their_places(store: Store) -> None:
    first = created(store, "first")
    whole = WholeRun(
        first._replace(name="copy", uid=b"c" * 16, status=Status.FAILED, ended_at=5, result=1, value=b"e"),
        [segment(entry(1, action=ROOT), entry(2, action=5))], [action(7, 0, NO_PARENT), action(7, 5, ROOT)], None,
    )  # fmt: skip
    [answer] = store.adopt([whole])
    assert (answer.run.token, answer.run.worker) == (None, None)
    assert store.journal_length(answer.run.id) == 2
    assert store.last_action(answer.run.id) == 5
