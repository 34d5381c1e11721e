"""The contract of the port `Store`: what every implementation promises, the in-memory twin included.

P1 (recorded once) and P3 (one driver) rest on these promises. Each test states one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec.structs import replace
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
    state,
    worker,
    writes,
)
from tests.postgres_server import Handed

from perdure.core.ground.model import (
    NO_PARENT,
    ROOT,
    STORED_STATUSES,
    CachePut,
    Claim,
    Created,
    CreateRun,
    Ended,
    Finish,
    NewRefusal,
    Park,
    Refusal,
    Result,
    RunRow,
    RunWrites,
    Segment,
    Source,
    Status,
    Wake,
)
from perdure.core.ground.ports import Store
from perdure.errors import StoreError, StoreUnavailableError
from perdure.store.memory import MemoryStore
from perdure.store.sqlite import SQLiteStore

RUNNING = frozenset({Status.RUNNING})
NOW = 123_456


class StoppedClock:
    boot_id = "boot-1"

    def wall(self) -> int:
        return NOW

    def boot(self) -> int:
        return 0


MAKERS: dict[str, Callable[[Path], Store]] = {
    "memory": lambda _: MemoryStore(clock=StoppedClock()),
    "sqlite": lambda path: SQLiteStore(path / "store.db", clock=StoppedClock()),
    "sqlite-process": lambda path: SQLiteStore(path / "store.db", "process", clock=StoppedClock()),
    "postgres": lambda _: cast(Store, Handed(StoppedClock())),
}


@pytest.fixture(params=MAKERS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made = MAKERS[request.param](tmp_path)
    yield made
    made.close()


def fail_with(store: Store, run: RunRow) -> RunRow:
    """The run, ended by an exception of its own."""
    assert store.commit([writes(run.id, finish=Finish(Status.FAILED, int(Result.ERROR), b"boom", 50))]) == [True]
    found = store.run_by_id(run.id)
    assert found is not None
    return found


class TestServing:
    def test_a_worker_tells_what_it_serves_with_each_renewal(self, store: Store) -> None:
        told = worker("w1", lease=1_000_000)._replace(serves='{"tasks":["a.b"],"places":3}')
        for row in (told, told._replace(serves="")):
            store.renew(row)
            found = store.worker("w1")
            assert found is not None
            assert found.serves == row.serves
            assert [one.serves for one in store.workers()] == [row.serves]


class TestRefusals:
    """RF1: what the store keeps of a process that could not drive a run."""

    TOLD = NewRefusal("host-7-ab", "NonDeterminismError", "line one\nline two \u00e9 \0", "w.py:3 (main)", 5, 1_000_005)

    def refuse(self, store: Store, run: RunRow) -> Refusal | None:
        assert store.release(run.id, TOKEN, self.TOLD)
        return store.refusal(run.id)

    def claim(self, store: Store, run: RunRow) -> None:
        length = store.journal_length(run.id)
        assert store.claim(run.id, Claim(TOKEN, "w"), expect=None, entries=length, statuses=RUNNING) is not None

    def test_a_refusal_goes_with_the_claim_and_counts_until_the_run_moves(self, store: Store) -> None:
        """RF1."""
        run = created(store)
        assert not store.release(run.id, OTHER, self.TOLD)
        assert store.refusal(run.id) is None
        found = self.refuse(store, run)
        assert found is not None
        assert found.message.replace("\\0", "\0") == self.TOLD.message  # no database keeps a NUL in every text
        assert found._replace(message="") == Refusal(*self.TOLD._replace(message=""), 1, 0)
        assert store.run("run") == run._replace(token=None, worker=None, crashes=0)
        self.claim(store, run)
        assert store.refusal(run.id) is None
        assert store.release(run.id, TOKEN)
        assert store.refusal(run.id) is None

    def test_refusals_in_a_row_are_counted(self, store: Store) -> None:
        """RF1."""
        run = created(store)
        for tries in (1, 2, 3):
            found = self.refuse(store, run)
            assert found is not None
            assert (found.tries, found.entries) == (tries, 0)
            self.claim(store, run)
        assert store.commit([writes(run.id, entry(1))]) == [True]
        assert store.release(run.id, TOKEN, self.TOLD._replace(again=None))
        found = store.refusal(run.id)
        assert found is not None
        assert (found.tries, found.entries, found.again) == (1, 1, None)

    def test_an_end_and_a_removal_take_the_refusal_along(self, store: Store) -> None:
        run = created(store)
        assert self.refuse(store, run) is not None
        assert store.abort(run.id, 50)
        assert store.refusal(run.id) is None
        assert store.remove([run.id], 100, {Status.ABORTED}) == [True]
        while store.purge(1_000):
            pass
        assert store.refusal(run.id) is None


class TestSubmitting:
    def test_without_a_claim_the_run_is_queued(self, store: Store) -> None:
        new = new_run("a")._replace(carried=b"\x80", tags='{"a":"b"}')
        [answer] = store.commit([CreateRun(new, None)])
        assert isinstance(answer, Created)
        assert answer.fresh
        run = answer.run
        assert (*run[1:9], run.tags, run.queue, run.key, run.priority, run.carried) == tuple(new)
        assert store.run("a") == run
        assert run.status is Status.QUEUED
        assert (run.token, run.worker, run.started_at, run.ended_at, run.result, run.value) == (None,) * 6
        assert (run.crashes, run.mark) == (0, 0)

    def test_with_a_claim_it_runs_as_if_queued_and_claimed_at_once(self, store: Store) -> None:
        at_once = created(store, "a")
        queued = created(store, "b", token=None)
        later = store.claim(queued.id, Claim(TOKEN, "worker-1"), expect=None, entries=0, statuses={Status.QUEUED})
        assert later is not None
        assert at_once.status is Status.RUNNING
        assert at_once.started_at == at_once.created_at
        assert later == at_once._replace(id=later.id, uid=later.uid, name="b", started_at=NOW)

    def test_what_is_answered_is_what_is_stored(self, store: Store) -> None:
        run = created(store, "a", reuse="older")
        assert store.run("a") == store.run_by_id(run.id) == run
        assert type(store.run("a").status) is Status  # type: ignore[union-attr]

    def test_a_taken_name_answers_with_the_run_that_has_it_and_changes_nothing(self, store: Store) -> None:
        first = created(store, "a")
        assert store.commit([CreateRun(new_run("a", task="other", inputs=b"x"), Claim(OTHER, "w2"))]) == [
            Created(first, False)
        ]
        assert store.runs() == [first]

    def test_of_two_creations_of_one_name_in_one_batch_the_first_wins(self, store: Store) -> None:
        one, two = store.commit(
            [CreateRun(new_run("a", inputs=b"1"), None), CreateRun(new_run("a", inputs=b"2"), None)]
        )
        assert isinstance(one, Created)
        assert one.fresh
        assert two == Created(one.run, False)
        assert one.run.inputs == b"1"

    def test_many_in_one_batch_get_numbers_in_order(self, store: Store) -> None:
        answers = store.commit([CreateRun(new_run(f"r{i}"), None) for i in range(50)])
        runs = [answer.run for answer in answers if isinstance(answer, Created)]
        assert [run.name for run in runs] == [f"r{i}" for i in range(50)]
        assert [run.id for run in runs] == sorted({run.id for run in runs})
        assert store.runs() == runs[::-1]

    def test_an_empty_batch_is_nothing(self, store: Store) -> None:
        assert store.commit([]) == []


class TestFencing:
    """P3: every write carries the claim's token."""

    SHAPES: dict[str, Callable[[int, bytes], RunWrites]] = {
        "one entry": lambda run, token: writes(run, entry(1), token=token),
        "entries": lambda run, token: writes(run, entry(1), entry(2), token=token),
        "finish": lambda run, token: writes(run, token=token, finish=DONE),
        "all": lambda run, token: RunWrites(
            run, token, [segment(entry(1))], [action(run, 1)], (state(run, 1),), (CachePut(b"k", b"v", 1),), DONE
        ),
        "only cache": lambda run, token: RunWrites(run, token, cache=(CachePut(b"k", b"v", 1),)),
        "nothing": lambda run, token: RunWrites(run, token),
    }

    @pytest.fixture(params=SHAPES)
    def shape(self, request: pytest.FixtureRequest) -> Callable[[int, bytes], RunWrites]:
        return self.SHAPES[request.param]

    @staticmethod
    def assert_untouched(store: Store, run: RunRow | None, number: int) -> None:
        assert store.run_by_id(number) == run
        assert entries(store, number) == []
        assert store.actions(number) == []
        assert store.cache_get(b"k") is None

    def test_the_holder_writes(self, store: Store, shape: Callable[[int, bytes], RunWrites]) -> None:
        run = created(store)
        assert store.commit([shape(run.id, TOKEN)]) == [True]

    def test_another_token_writes_nothing(self, store: Store, shape: Callable[[int, bytes], RunWrites]) -> None:
        run = created(store)
        assert store.commit([shape(run.id, OTHER)]) == [False]
        self.assert_untouched(store, run, run.id)

    def test_a_claim_that_was_taken_over_writes_nothing(
        self, store: Store, shape: Callable[[int, bytes], RunWrites]
    ) -> None:
        run = created(store)
        taken = store.claim(run.id, Claim(OTHER, "w2"), expect=TOKEN, entries=0, statuses=RUNNING)
        assert store.commit([shape(run.id, TOKEN)]) == [False]
        self.assert_untouched(store, taken, run.id)

    def test_a_queued_run_takes_no_writes(self, store: Store, shape: Callable[[int, bytes], RunWrites]) -> None:
        run = created(store, token=None)
        assert store.commit([shape(run.id, TOKEN)]) == [False]
        self.assert_untouched(store, run, run.id)

    def test_an_ended_run_takes_no_writes(self, store: Store, shape: Callable[[int, bytes], RunWrites]) -> None:
        run = fail_with(store, created(store))
        assert store.commit([shape(run.id, TOKEN)]) == [False]
        self.assert_untouched(store, run, run.id)

    def test_an_aborted_run_takes_no_writes(self, store: Store, shape: Callable[[int, bytes], RunWrites]) -> None:
        run = created(store)
        assert store.abort(run.id, 60)
        assert store.commit([shape(run.id, TOKEN)]) == [False]
        self.assert_untouched(store, store.run("run"), run.id)

    def test_a_released_run_takes_no_writes(self, store: Store, shape: Callable[[int, bytes], RunWrites]) -> None:
        run = created(store)
        assert store.release(run.id, TOKEN)
        assert store.commit([shape(run.id, TOKEN)]) == [False]
        self.assert_untouched(store, store.run("run"), run.id)

    def test_a_run_that_is_not_there_takes_no_writes(
        self, store: Store, shape: Callable[[int, bytes], RunWrites]
    ) -> None:
        assert store.commit([shape(77, TOKEN)]) == [False]
        self.assert_untouched(store, None, 77)

    def test_within_a_batch_a_fenced_element_fails_alone(self, store: Store) -> None:
        a, b, c = (created(store, name) for name in "abc")
        assert store.abort(b.id, 60)
        full = self.SHAPES["all"]
        answers = store.commit([writes(a.id, entry(1)), full(b.id, TOKEN), writes(c.id, entry(1), finish=DONE)])
        assert answers == [True, False, True]
        assert entries(store, a.id) == [entry(1)]
        assert entries(store, c.id) == [entry(1)]
        self.assert_untouched(store, store.run("b"), b.id)

    def test_within_a_batch_the_end_of_a_run_fences_what_follows_it(self, store: Store) -> None:
        run = created(store).id
        answers = store.commit([writes(run, entry(1), finish=DONE), writes(run, entry(2))])
        assert answers == [True, False]
        assert entries(store, run) == [entry(1)]

    def test_within_a_batch_a_creation_meets_the_end_of_the_run_before_it(self, store: Store) -> None:
        run = created(store, "a").id
        answers = store.commit([writes(run, finish=DONE), CreateRun(new_run("a"), None)])
        assert answers == [True, Created(store.run("a"), False)]
        assert answers[1].run.status is DONE.status

    def test_within_a_batch_two_tokens_for_one_run_are_told_apart(self, store: Store) -> None:
        run = created(store).id
        answers = store.commit([writes(run, entry(1), token=OTHER), writes(run, entry(2)), writes(run)])
        assert answers == [False, True, True]
        assert entries(store, run) == [entry(2)]


class TestWriting:
    def test_rows_come_back_exactly(self, store: Store) -> None:
        run = created(store).id
        full = entry(
            1, branch=-(2**63), seq=2**63 - 1, occ=3, item=4, label="group", value=b"\0" * 9, inputs=b"",
            child=7, after=0, took=0, name="naïve ☃ \0 name",
        )  # fmt: skip
        empty = entry(2, value=None)
        started = action(run, 3, label="g", inputs=None, wake_at=1, wake_boot=2, boot="b")
        assert store.commit([RunWrites(run, TOKEN, [segment(full, empty)], [root_action(run), started])]) == [True]
        assert entries(store, run) == [full, empty]
        assert store.actions(run) == [root_action(run), started]
        assert next(iter(entries(store, run))).label == "group"
        assert store.actions(run)[1].boot == "b"

    def test_an_action_started_and_changed_in_one_element_ends_changed(self, store: Store) -> None:
        run = created(store).id
        assert store.commit([RunWrites(run, TOKEN, actions=[action(run, 1)], states=(state(run, 1),))]) == [True]
        [found] = store.actions(run, ROOT)
        assert found == action(run, 1, attempt=2, failures=1, wake_at=77, wake_boot=78, boot="boot-1")

    def test_the_last_state_of_an_action_counts(self, store: Store) -> None:
        run = created(store).id
        store.commit([RunWrites(run, TOKEN, actions=[action(run, 1), action(run, 2)])])
        store.commit([RunWrites(run, TOKEN, states=(state(run, 1, attempt=2), state(run, 1, attempt=3, wake_at=None)))])
        one, two = store.actions(run)
        assert (one.attempt, one.wake_at) == (3, None)
        assert two == action(run, 2)

    def test_a_state_of_an_unknown_action_is_nothing(self, store: Store) -> None:
        run = created(store).id
        assert store.commit([RunWrites(run, TOKEN, states=(state(run, 9),))]) == [True]
        assert store.actions(run) == []

    def test_finish_ends_the_run_and_clears_its_claim(self, store: Store) -> None:
        run = created(store)
        assert store.commit([writes(run.id, entry(1), finish=DONE)]) == [True]
        assert store.run("run") == run._replace(
            status=Status.SUCCEEDED, token=None, worker=None, ended_at=99, result=0, value=b"result", crashes=0, mark=1
        )

    @pytest.mark.parametrize("place", [0, 1, 2])
    def test_the_mark_counts_segments_of_a_batch_that_creates_runs_too(self, store: Store, place: int) -> None:
        """The family: rows of a batch that a later row is computed from. A submission before, between and behind the
        ends of two runs makes no difference to the mark (SG1)."""
        first, second = created(store, "first"), created(store, "second")
        batch: list[RunWrites | CreateRun] = [
            writes(run.id, entry(1), entry(2), finish=DONE) for run in (first, second)
        ]
        batch.insert(place, CreateRun(new_run("third"), None))
        store.commit(batch)
        for run in (first, second):
            found = store.run_by_id(run.id)
            assert found is not None
            assert found.mark == 2

    @pytest.mark.parametrize("alone", [True, False])
    def test_an_entry_number_that_is_taken_is_an_error_and_changes_nothing(self, store: Store, alone: bool) -> None:
        run = created(store).id
        store.commit([writes(run, entry(1))])
        again = [entry(1, value=b"other")] if alone else [entry(2), entry(1, value=b"other")]
        with pytest.raises(StoreError):
            store.commit([writes(run, *again)])
        assert entries(store, run) == [entry(1)]
        assert store.commit([writes(run, entry(2))]) == [True]

    def test_a_large_value_comes_back(self, store: Store) -> None:
        run = created(store).id
        large = entry(1, value=bytes(range(256)) * 40_000)
        assert store.commit([writes(run, large)]) == [True]
        assert entries(store, run) == [large]


class TestClaiming:
    def test_a_queued_run_is_claimed_once(self, store: Store) -> None:
        run = created(store, token=None)
        first = store.claim(run.id, Claim(TOKEN, "w1"), expect=None, entries=0, statuses={Status.QUEUED})
        second = store.claim(run.id, Claim(OTHER, "w2"), expect=None, entries=0, statuses={Status.QUEUED})
        assert first == store.run("run")
        assert first is not None
        assert (first.status, first.token, first.worker, first.started_at) == (Status.RUNNING, TOKEN, "w1", NOW)
        assert second is None

    def test_a_claim_expecting_another_token_is_refused(self, store: Store) -> None:
        run = created(store)
        for expect in (None, OTHER, b""):
            assert store.claim(run.id, Claim(OTHER, "w2"), expect=expect, entries=0, statuses=RUNNING) is None
        assert store.run("run") == run

    def test_a_claim_of_a_run_in_another_status_is_refused(self, store: Store) -> None:
        run = created(store)
        others = set(STORED_STATUSES) - RUNNING
        assert store.claim(run.id, Claim(OTHER, "w2"), expect=TOKEN, entries=0, statuses=others) is None
        assert store.claim(run.id, Claim(OTHER, "w2"), expect=TOKEN, entries=0, statuses=()) is None
        assert store.run("run") == run

    def test_a_run_that_is_not_there_cannot_be_claimed(self, store: Store) -> None:
        assert store.claim(9, Claim(TOKEN, "w"), expect=None, entries=0, statuses=STORED_STATUSES) is None

    def test_a_failed_run_is_claimed_as_if_it_had_not_ended(self, store: Store) -> None:
        run = fail_with(store, created(store))
        again = store.claim(run.id, Claim(OTHER, "w2"), expect=None, entries=3, statuses={Status.FAILED})
        assert again == run._replace(
            status=Status.RUNNING, token=OTHER, worker="w2", result=None, value=None, ended_at=None, crashes=1, mark=3
        )
        assert again.started_at == run.started_at

    def test_crashes_count_claims_in_a_row_that_brought_no_new_entry(self, store: Store) -> None:
        run = created(store)
        seen = [(run.crashes, run.mark)]
        token = TOKEN
        for turn, length in enumerate((0, 0, 2, 2, 2, 5)):
            taken = bytes([turn]) * 16
            after = store.claim(run.id, Claim(taken, "w"), expect=token, entries=length, statuses=RUNNING)
            assert after is not None
            seen.append((after.crashes, after.mark))
            token = taken
        assert seen == [(1, 0), (2, 0), (3, 0), (1, 2), (2, 2), (3, 2), (1, 5)]

    def test_a_claim_lost_by_a_living_worker_is_no_crash(self, store: Store) -> None:
        """Lost leases, however many, leave the count alone; a crash after them counts."""
        run = created(store)
        seen, token = [], TOKEN
        for turn, (length, crashed) in enumerate([(0, False), (0, False), (0, True), (0, False), (1, False)]):
            taken = bytes([turn]) * 16
            after = store.claim(
                run.id, Claim(taken, "w"), expect=token, entries=length, statuses=RUNNING, crashed=crashed
            )
            assert after is not None
            seen.append((after.crashes, after.mark))
            token = taken
        assert seen == [(1, 0), (1, 0), (2, 0), (2, 0), (1, 1)]

    def test_the_place_of_the_code_changes_under_the_claim_alone(self, store: Store) -> None:
        run = created(store, "a")
        assert not store.move_code(run.id, OTHER, "/new.py::new::w.main::old")
        assert store.move_code(run.id, TOKEN, "/new.py::new::w.main::old")
        found = store.run_by_id(run.id)
        assert found is not None
        assert found == run._replace(target="/new.py::new::w.main::old")
        assert store.release(run.id, TOKEN)
        assert not store.move_code(run.id, TOKEN, "/other.py::other::w.main")

    def test_release_gives_the_claim_back_and_forgives_the_crashes(self, store: Store) -> None:
        run = created(store)
        assert not store.release(run.id, OTHER)
        assert store.run("run") == run
        assert store.release(run.id, TOKEN)
        assert not store.release(run.id, TOKEN)
        assert store.run("run") == run._replace(token=None, worker=None, crashes=0)
        assert store.claim(run.id, Claim(OTHER, "w2"), expect=None, entries=0, statuses=RUNNING) is not None

    def test_abort_ends_a_run_under_any_driver(self, store: Store) -> None:
        running, queued = created(store, "a"), created(store, "b", token=None)
        assert store.abort(running.id, 60)
        assert store.abort(queued.id, 61)
        gone: dict[str, Any] = {"status": Status.ABORTED, "token": None, "worker": None, "wake_at": None}
        assert store.run("a") == running._replace(**gone, ended_at=60)
        assert store.run("b") == queued._replace(**gone, ended_at=61)

    def test_a_run_that_has_ended_cannot_be_aborted(self, store: Store) -> None:
        run = fail_with(store, created(store))
        assert not store.abort(run.id, 60)
        assert not store.abort(77, 60)
        assert store.run("run") == run

    def test_of_many_threads_one_wins_the_claim(self, store: Store) -> None:
        run = created(store, token=None)
        won: list[RunRow] = []
        start = threading.Barrier(8)

        def take(number: int) -> None:
            start.wait()
            claim = Claim(bytes([number]) * 16, f"w{number}")
            if after := store.claim(run.id, claim, expect=None, entries=0, statuses={Status.QUEUED}):
                won.append(after)

        in_threads(take, 8)
        assert won == [store.run("run")]


class TestReading:
    def test_what_is_not_there(self, store: Store) -> None:
        assert store.run("a") is None
        assert store.run_by_id(1) is None
        assert store.runs() == []
        assert store.similar("etl.main", b"x") == []
        assert store.journal_length(1) == 0
        assert store.last_action(1) == 0
        assert entries(store, 1) == entries(store, 1) == []
        assert store.actions(1) == store.actions(1, ROOT) == []
        assert store.source(1) is None
        assert store.cache_get(b"k") is None
        assert store.worker("w") is None

    def test_runs_are_listed_newest_first_by_status_and_up_to_a_limit(self, store: Store) -> None:
        a = created(store, "a", token=None)
        b = created(store, "b")
        c = fail_with(store, created(store, "c"))
        d = created(store, "d")
        store.commit([writes(d.id, finish=DONE)])
        e = created(store, "e")
        store.abort(e.id, 9)
        f = created(store, "f", token=None)
        d, e = store.run("d"), store.run("e")  # type: ignore[assignment]
        assert store.runs() == [f, e, d, c, b, a]
        assert store.runs(limit=2) == [f, e]
        assert store.runs(limit=0) == []
        assert store.runs(statuses=[Status.QUEUED]) == [f, a]
        assert store.runs(statuses=[Status.QUEUED], limit=1) == [f]
        assert store.runs(statuses=[Status.RUNNING]) == [b]
        assert store.runs(statuses=[Status.SUCCEEDED]) == [d]
        assert store.runs(statuses=(Status.FAILED, Status.ABORTED)) == [e, c]
        assert store.runs(statuses={Status.RUNNING, Status.QUEUED, Status.FAILED}, limit=3) == [f, c, b]
        assert store.runs(statuses=STORED_STATUSES) == store.runs()
        assert store.runs(statuses=()) == []
        assert store.runs(statuses=[Status.SLEEPING, Status.INTERRUPTED]) == []
        assert store.runs(task="no.such") == store.runs(task="no.such", statuses=STORED_STATUSES) == []
        assert store.runs(task=a.task) == store.runs(task=a.task, statuses=STORED_STATUSES) == store.runs()
        assert store.runs(task=a.task, statuses=[Status.QUEUED, Status.FAILED], below=f.id) == [c, a]
        assert store.runs(task=a.task, statuses=[Status.RUNNING, Status.SUCCEEDED], limit=1) == [d]

    def test_a_run_that_changes_during_the_listing_is_listed_once(self, store: Store) -> None:
        run = created(store, token=None).id
        statuses = {Status.QUEUED, Status.RUNNING, Status.SLEEPING}
        over = threading.Event()

        def drive() -> None:
            while not over.is_set():
                store.claim(run, Claim(TOKEN, "w"), expect=None, entries=0, statuses={Status.QUEUED, Status.SLEEPING})
                store.commit([RunWrites(run, TOKEN, park=Park(Wake(1 << 50, 1 << 50), 0))])

        driver = threading.Thread(target=drive)
        driver.start()
        try:
            found = {len(store.runs(statuses=statuses)) for _ in range(500)}
        finally:
            over.set()
            driver.join()
        assert found == {1}

    def test_similar_runs_have_the_task_and_inputs_and_are_running(self, store: Store) -> None:
        a = created(store, "a", inputs=b"x")
        created(store, "b", inputs=b"y")
        created(store, "c", inputs=b"x", task="etl.other")
        created(store, "d", inputs=b"x", token=None)
        e = created(store, "e", inputs=b"x")
        fail_with(store, created(store, "f", inputs=b"x"))
        released = created(store, "g", inputs=b"x")
        store.release(released.id, TOKEN)
        assert store.similar(a.task, a.inputs_hash) == [store.run("g"), e, a]

    def test_segments_come_in_order_of_their_number_for_every_order_of_writing(self, store: Store) -> None:
        run, other = created(store, "a").id, created(store, "b").id
        kept = [segment(entry(n)) for n in range(1, 31)]
        store.commit([RunWrites(run, TOKEN, kept[:10][::-1]), writes(other, entry(1))])
        store.commit([RunWrites(run, TOKEN, kept[10:])])
        assert list(store.segments(run)) == kept
        assert list(store.segments(run, [7, 2, 99, 30])) == [kept[1], kept[6], kept[29]]
        assert list(store.segments(run, [])) == list(store.segments(77, [1])) == []

    def test_a_segment_keeps_any_bytes(self, store: Store) -> None:
        run = created(store).id
        kept = [Segment(3, bytes(range(256)) * 9), Segment(4, b"")]
        assert store.commit([RunWrites(run, TOKEN, kept)]) == [True]
        assert list(store.segments(run)) == kept
        assert store.journal_length(run) == 4

    def test_a_segment_that_is_appended_alone_is_fenced_as_in_a_commit(self, store: Store) -> None:
        """The family: the right token, another token, an ended run, a run that was never stored."""
        run, other = created(store, "a").id, created(store, "b").id
        first, second = segment(entry(1)), segment(entry(2))
        assert store.append(run, TOKEN, first)
        assert not store.append(run, b"another token ab", second)
        assert store.append(run, TOKEN, second)
        assert store.commit([writes(other, finish=DONE)]) == [True]
        assert not store.append(other, TOKEN, first)
        assert not store.append(77, TOKEN, first)
        assert list(store.segments(run)) == [first, second]
        assert list(store.segments(other)) == list(store.segments(77)) == []

    def test_a_long_journal_is_read_whole(self, store: Store) -> None:
        run = created(store).id
        kept = [segment(entry(n)) for n in range(1, 10_001)]
        store.commit([RunWrites(run, TOKEN, kept)])
        assert list(store.segments(run)) == kept
        assert list(store.segments(run, range(1, 10_001, 2))) == kept[::2]

    def test_a_journal_that_is_being_read_does_not_keep_others_from_writing(self, store: Store) -> None:
        run = created(store).id
        store.commit([RunWrites(run, TOKEN, [segment(entry(n)) for n in range(1, 6_001)])])
        reading = store.segments(run)
        assert next(reading).number == 1
        assert store.commit([writes(run, entry(6_001))]) == [True]
        assert [row.number for row in reading][:5_999] == list(range(2, 6_001))

    def test_the_journal_length_is_the_number_of_the_last_segment(self, store: Store) -> None:
        run, other = created(store, "a").id, created(store, "b").id
        assert store.journal_length(run) == 0
        store.commit([writes(run, entry(1, action=5))])
        assert store.journal_length(run) == 1
        store.commit([writes(run, entry(2, action=0), entry(3, action=9), entry(4, action=2))])
        store.commit([writes(other, entry(8))])
        assert store.journal_length(run) == 4
        assert store.journal_length(other) == 8

    def test_the_last_action_is_the_highest_number_under_any_parent(self, store: Store) -> None:
        run, other = created(store, "a").id, created(store, "b").id
        store.commit([RunWrites(run, TOKEN, actions=[root_action(run)])])
        assert store.last_action(run) == 0
        rows = [action(run, 4), action(run, 9, parent=4), action(run, 6, parent=9), action(run, 5)]
        store.commit([RunWrites(run, TOKEN, actions=rows), RunWrites(other, TOKEN, actions=[action(other, 50)])])
        assert store.last_action(run) == 9
        assert store.last_action(other) == 50

    def test_open_actions_are_those_without_an_outcome_that_counts(self, store: Store) -> None:
        run, other = created(store, "a").id, created(store, "b").id
        rows = [root_action(run), action(run, 1), action(run, 2, parent=1), action(run, 3)]
        store.commit([RunWrites(run, TOKEN, actions=rows), RunWrites(other, TOKEN, actions=[action(other, 3)])])
        store.commit([writes(run, entry(1)), replace(writes(other, entry(1)), ends=[Ended(ROOT, 1, True)])])
        assert store.open_actions(run) == rows
        store.commit([replace(writes(run, entry(2)), ends=[Ended(1, 2, True), Ended(ROOT, 3, True)])])
        assert store.open_actions(run) == [rows[0], rows[1]]
        assert store.open_actions(other) == [action(other, 3)]
        store.commit([replace(writes(run, entry(3)), ends=[Ended(ROOT, 1, True), Ended(ROOT, 3, False)])])
        assert store.open_actions(run) == [rows[0], rows[3]]
        late = RunWrites(run, TOKEN, [segment(entry(4))], [action(run, 5)], ends=[Ended(ROOT, 5, True)])
        assert store.commit([late]) == [True]
        assert store.open_actions(run) == [rows[0], rows[3]]
        assert store.open_actions(77) == []

    def test_actions_come_in_order_of_their_number(self, store: Store) -> None:
        run, other = created(store, "a").id, created(store, "b").id
        four, two, three = action(run, 4), action(run, 2, parent=4), action(run, 3)
        store.commit([RunWrites(run, TOKEN, actions=[four, two, root_action(run), three])])
        store.commit([RunWrites(other, TOKEN, actions=[action(other, 1)])])
        assert store.actions(run) == [root_action(run), two, three, four]
        assert store.actions(run, ROOT) == [three, four]
        assert store.actions(run, 4) == [two]
        assert store.actions(run, NO_PARENT) == [root_action(run)]


class TestSources:
    def test_equal_digests_have_one_number(self, store: Store) -> None:
        one = Source(b"1" * 16, "3.11", {"etl": b"\0\xff", "lib.x": b""})
        two = Source(b"2" * 16, "3.12", {})
        numbers = [store.source_id(source) for source in (one, two, one, two)]
        assert numbers[:2] == numbers[2:]
        assert numbers[0] != numbers[1]
        assert store.source(numbers[0]) == one
        assert store.source(numbers[1]) == two
        assert store.source(max(numbers) + 1) is None
        assert store.source(0) is None

    def test_of_many_threads_all_get_the_same_number(self, store: Store) -> None:
        numbers: list[int] = []
        in_threads(lambda _: numbers.append(store.source_id(Source(b"d", "3.11", {}))), 8)
        assert len(numbers) == 8
        assert len(set(numbers)) == 1


class TestCache:
    def test_a_put_is_seen_by_all_runs_and_the_last_one_counts(self, store: Store) -> None:
        a, b = created(store, "a").id, created(store, "b").id
        one = RunWrites(a, TOKEN, cache=(CachePut(b"k", b"1", 1), CachePut(b"other", b"", 1)))
        two = RunWrites(b, TOKEN, cache=(CachePut(b"k", b"2", 2),))
        assert store.commit([one]) == [True]
        assert store.cache_get(b"k") == b"1"
        assert store.commit([one, two]) == [True, True]
        assert store.cache_get(b"k") == b"2"
        assert store.cache_get(b"other") == b""


class TestWorkers:
    def test_a_row_is_inserted_updated_and_removed(self, store: Store) -> None:
        store.renew(worker("w1", lease=10))
        store.renew(worker("w2", lease=20))
        store.renew(worker("w1", lease=30))
        assert store.worker("w1") == worker("w1", lease=30)
        assert store.worker("w2") == worker("w2", lease=20)
        store.forget("w1")
        store.forget("w1")
        assert store.worker("w1") is None
        assert store.worker("w2") == worker("w2", lease=20)


class TestTheStoreItself:
    def test_its_id_is_random_and_its_url_names_it(self, store: Store, tmp_path: Path) -> None:
        (tmp_path / "b").mkdir()
        other = SQLiteStore(tmp_path / "b" / "store.db")
        assert store.id != other.id
        assert len(store.id) == 32
        assert store.url.startswith(("memory://", f"sqlite:///{tmp_path}", "postgresql://"))
        other.close()

    def test_closed_it_refuses_everything_but_to_be_closed_again(self, store: Store) -> None:
        run = created(store).id
        store.commit([writes(run, *(entry(n) for n in range(1, 4_002)))])
        name = store.url
        store.close()
        store.close()
        calls: list[Callable[[], object]] = [
            lambda: store.commit([writes(run, entry(1))]),
            lambda: store.commit([CreateRun(new_run("b"), None)]),
            lambda: store.claim(run, Claim(OTHER, "w"), expect=TOKEN, entries=0, statuses=RUNNING),
            lambda: store.release(run, TOKEN),
            lambda: store.abort(run, 1),
            lambda: store.run("run"),
            lambda: store.run_by_id(run),
            lambda: store.runs(),
            lambda: store.similar("t", b"h"),
            lambda: store.journal_length(run),
            lambda: store.last_action(run),
            lambda: entries(store, run),
            lambda: entries(store, run),
            lambda: store.actions(run),
            lambda: store.open_actions(run),
            lambda: store.source_id(Source(b"d", "3.11", {})),
            lambda: store.source(1),
            lambda: store.cache_get(b"k"),
            lambda: store.renew(worker()),
            lambda: store.worker("w"),
            lambda: store.forget("w"),
        ]
        for call in calls:
            with pytest.raises(StoreUnavailableError, match="is closed"):
                call()
        assert store.url == name

    def test_threads_commit_claim_read_and_renew_side_by_side(self, store: Store) -> None:
        """Every acknowledged entry is there once; every fenced one is not; no error crosses the border."""
        runs = [created(store, f"r{i}").id for i in range(6)]
        acknowledged: list[tuple[int, int]] = []

        def drive(number: int) -> None:
            run = runs[number]
            for n in range(1, 41):
                if n % 10 == 0:
                    answer = store.commit([writes(run, entry(n), token=OTHER), writes(run, entry(n))])
                    assert answer == [False, True]
                else:
                    assert store.commit([writes(run, entry(n))]) == [True]
                acknowledged.append((run, n))
                assert store.journal_length(run) == n
                if n % 7 == 0:
                    store.renew(worker(f"w{number}", lease=n))
                    [answered] = store.commit([CreateRun(new_run(f"shared-{n}"), None)])
                    assert isinstance(answered, Created)
                    assert answered.run.name == f"shared-{n}"
            assert store.release(run, TOKEN)

        in_threads(drive, 6)
        assert sorted(acknowledged) == [(run, e.n) for run in runs for e in entries(store, run)]
        assert [run.name for run in store.runs(statuses=[Status.QUEUED])].count("shared-7") == 1
        assert {store.worker(f"w{i}") for i in range(6)} == {worker(f"w{i}", lease=35) for i in range(6)}


def in_threads(work: Callable[[int], object], count: int) -> None:
    """Call `work(0)` to `work(count - 1)` at once; the first failure is raised here."""
    failures: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    if failures:
        raise failures[0]
