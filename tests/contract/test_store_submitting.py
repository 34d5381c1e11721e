"""The contract of `Store`, submissions with a policy: keys, full queues, the time to begin."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.contract._records import DONE
from tests.contract.test_store_waiting import Hands, clock, store

from perdure.core.ground.clock import US
from perdure.core.ground.model import Claim, Created, CreateRun, NewRun, Policy, RunRow, RunWrites, Status, Wake
from perdure.core.ground.ports import Store

__all__ = ["clock", "store"]

TASK = "etl.main"


def new(clock: Hands, name: str, queue: str | None = None, key: str = "", task: str = TASK) -> NewRun:
    uid = name.encode().ljust(16, b"\0")
    return NewRun(uid, name, task, "etl.py::etl::main", b"in", b"h" * 16, clock.wall(), None, None, queue, key)


def submit(store: Store, clock: Hands, name: str, policy: Policy, due: Wake | None = None, **more: Any) -> Created:
    clock.wait(0.001)
    return store.submit(CreateRun(new(clock, name, **more), None, due), policy)


def declare(store: Store, **settings: Any) -> None:
    store.declare_queue("q", json.dumps(settings))


def take(store: Store, count: int = 8) -> list[str]:
    claims = [Claim(random.randbytes(16), "w9") for _ in range(count)]
    return [found.run.name for found in store.take_due({TASK}, claims)]


def row(store: Store, name: str) -> RunRow:
    found = store.run(name)
    assert found is not None
    return found


def finish(store: Store, name: str) -> None:
    run = row(store, name)
    assert run.token is not None
    assert store.commit([RunWrites(run.id, run.token, finish=DONE)]) == [True]


def statuses(store: Store, *names: str) -> list[str]:
    return [str(row(store, name).status) for name in names]


# -- one run of a key ------------------------------------------------------------------------------------------


def test_a_key_is_held_until_the_run_has_ended(store: Store, clock: Hands) -> None:
    """SP2."""
    policy = Policy("k")
    assert submit(store, clock, "a", policy) == Created(row(store, "a"), True)
    assert submit(store, clock, "b", policy) == Created(row(store, "a"), False)
    assert store.run("b") is None
    assert take(store) == ["a"]
    assert submit(store, clock, "c", policy).run.name == "a"
    # Other keys, and other tasks, have runs of their own.
    assert submit(store, clock, "other", Policy("k2")).fresh
    assert submit(store, clock, "task", policy, task="etl.other").fresh
    finish(store, "a")
    assert submit(store, clock, "d", policy) == Created(row(store, "d"), True)


def test_a_key_with_a_lifetime_is_held_for_so_long_after_the_submission(store: Store, clock: Hands) -> None:
    """SP2: also where the run has ended, and for as long as it has not."""
    policy = Policy("k", keep=60 * US)
    submit(store, clock, "a", policy)
    assert take(store) == ["a"]
    finish(store, "a")
    clock.wait(59)
    assert submit(store, clock, "b", policy).run.name == "a"
    clock.wait(1)
    assert submit(store, clock, "b", policy).run.name == "b"
    assert take(store) == ["b"]
    clock.wait(61)
    assert submit(store, clock, "c", policy).run.name == "b"


def test_a_cancelled_run_frees_its_key(store: Store, clock: Hands) -> None:
    policy = Policy("k", keep=60 * US)
    submit(store, clock, "a", policy)
    assert store.cancel(row(store, "a").id, "no", None, clock.wall()) is not None
    assert submit(store, clock, "b", policy).fresh


def test_a_submission_repeated_under_its_name_changes_nothing(store: Store, clock: Hands) -> None:
    """SP1: as after a crash of the submitter behind the commit. Family: each policy."""
    declare(store, concurrency=1)
    for n, policy in enumerate(
        [Policy("k"), Policy("l", debounce=US), Policy("m", throttle=US), Policy(when_full="replace")]
    ):
        first = submit(store, clock, f"a{n}", policy, queue="q")
        before = list(store.runs())
        assert submit(store, clock, f"a{n}", policy, queue="q") == Created(first.run, False)
        assert list(store.runs()) == before


# -- the newest run of a key -----------------------------------------------------------------------------------


def test_debounce_waits_for_the_last_submission(store: Store, clock: Hands) -> None:
    """SP3: each submission takes the place of the one before, and begins the wait again."""
    policy = Policy("k", debounce=10 * US)
    for name in "abc":
        submit(store, clock, name, policy)
        clock.wait(6)
        assert take(store) == []
    assert statuses(store, "a", "b", "c") == ["CANCELLED", "CANCELLED", "QUEUED"]
    assert row(store, "a").cancel == "replaced by run b, the newest of 'k'"
    clock.wait(4)
    assert take(store) == ["c"]
    # A run that has begun is not touched.
    submit(store, clock, "d", policy)
    assert statuses(store, "c", "d") == ["RUNNING", "QUEUED"]


def test_throttle_keeps_the_beginnings_apart_and_the_newest_waiting(store: Store, clock: Hands) -> None:
    """SP3."""
    policy = Policy("k", throttle=60 * US)
    submit(store, clock, "a", policy)
    assert take(store) == ["a"]
    began = row(store, "a").started_at
    assert began is not None
    clock.wait(10)
    for name in "bc":
        submit(store, clock, name, policy)
    assert statuses(store, "a", "b", "c") == ["RUNNING", "CANCELLED", "QUEUED"]
    assert row(store, "c").wake_at == began + 60 * US
    assert take(store) == []
    finish(store, "a")
    clock.wait(50)
    assert take(store) == ["c"]
    # Long after the last beginning, the next run begins at once.
    finish(store, "c")
    clock.wait(100)
    submit(store, clock, "d", policy)
    assert take(store) == ["d"]


# -- full queues -----------------------------------------------------------------------------------------------


def test_skip_cancels_the_new_run_while_the_queue_is_full(store: Store, clock: Hands) -> None:
    """Family: the other run waits, is driven, has lost its worker, has a full place of another key."""
    declare(store, concurrency=1)
    policy = Policy(when_full="skip")
    assert submit(store, clock, "a", policy, queue="q").run.status is Status.QUEUED
    answer = submit(store, clock, "b", policy, queue="q")
    assert answer == Created(row(store, "b"), True)
    assert (answer.run.status, answer.run.cancel) == (Status.CANCELLED, "skipped, because queue q was full")
    assert take(store) == ["a"]
    assert submit(store, clock, "c", policy, queue="q").run.status is Status.CANCELLED
    token = row(store, "a").token
    assert token is not None
    assert store.release(row(store, "a").id, token)
    assert submit(store, clock, "d", policy, queue="q").run.status is Status.CANCELLED
    assert submit(store, clock, "free", policy).run.status is Status.QUEUED
    assert store.abort(row(store, "a").id, clock.wall())
    assert submit(store, clock, "e", policy, queue="q").run.status is Status.QUEUED
    assert submit(store, clock, "f", Policy(when_full="wait"), queue="q").run.status is Status.QUEUED


def test_with_a_limit_of_keys_each_key_is_full_by_itself(store: Store, clock: Hands) -> None:
    declare(store, concurrency=1, per_key=2)
    policy = Policy(when_full="skip")
    for n in range(3):
        submit(store, clock, f"a{n}", policy, queue="q", key="a")
        submit(store, clock, f"b{n}", policy, queue="q", key="b")
    assert statuses(store, "a0", "a1", "a2", "b0", "b1", "b2") == ["QUEUED", "QUEUED", "CANCELLED"] * 2
    assert row(store, "a2").cancel == "skipped, because queue q for key 'a' was full"


def test_replace_cancels_as_many_of_the_oldest_as_needed(store: Store, clock: Hands) -> None:
    declare(store, concurrency=2)
    policy = Policy(when_full="replace")
    for name in "ab":
        submit(store, clock, name, policy, queue="q")
    assert take(store) == ["a", "b"]
    submit(store, clock, "c", policy, queue="q")
    # The driven run is asked to cancel, and cleans up before its slot is free.
    assert statuses(store, "a", "b", "c") == ["RUNNING", "RUNNING", "QUEUED"]
    assert row(store, "a").cancel == "replaced by run c, because queue q was full"
    assert row(store, "b").cancel is None
    submit(store, clock, "d", policy, queue="q")
    assert row(store, "b").cancel is not None
    submit(store, clock, "e", policy, queue="q")
    assert statuses(store, "c", "d", "e") == ["CANCELLED", "QUEUED", "QUEUED"]


def test_latest_keeps_the_newest_of_the_waiting_runs(store: Store, clock: Hands) -> None:
    declare(store, concurrency=1)
    policy = Policy(when_full="latest")
    submit(store, clock, "a", policy, queue="q")
    # A slot is free for a: b waits.
    submit(store, clock, "b", policy, queue="q")
    assert statuses(store, "a", "b") == ["QUEUED", "QUEUED"]
    submit(store, clock, "c", policy, queue="q")
    assert statuses(store, "a", "b", "c") == ["QUEUED", "CANCELLED", "QUEUED"]
    assert row(store, "b").cancel == "replaced by run c, the newest that waits in queue q"
    assert take(store) == ["a"]
    submit(store, clock, "d", policy, queue="q")
    assert statuses(store, "a", "c", "d") == ["RUNNING", "CANCELLED", "QUEUED"]
    finish(store, "a")
    assert take(store) == ["d"]


def test_the_settings_of_the_queue_count_where_the_submission_says_nothing(store: Store, clock: Hands) -> None:
    declare(store, concurrency=1, when_full="skip")
    submit(store, clock, "a", Policy(), queue="q")
    assert submit(store, clock, "b", Policy(), queue="q").run.status is Status.CANCELLED
    assert submit(store, clock, "c", Policy(when_full="wait"), queue="q").run.status is Status.QUEUED
    # An operator has taken the limit away: the queue is never full.
    assert store.override_queue("q", '{"concurrency": null}')
    assert submit(store, clock, "d", Policy(), queue="q").run.status is Status.QUEUED


def test_a_schedule_follows_the_policy_of_the_queue(store: Store, clock: Hands) -> None:
    """A firing while the run of the last firing goes on is skipped, and counts as fired."""
    declare(store, concurrency=1, when_full="skip")
    assert store.advance("s 1", 10, expect=None) is not None
    runs = [new(clock, "first", "q"), new(clock, "second", "q"), new(clock, "free")]
    answers = store.advance("s 1", 20, expect=10, runs=runs, fired=20)
    assert answers is not None
    assert [str(answer.run.status) for answer in answers] == ["QUEUED", "CANCELLED", "QUEUED"]
    assert all(answer.fresh for answer in answers)


# -- the time to begin -----------------------------------------------------------------------------------------


def test_a_run_that_has_not_begun_in_time_never_begins(store: Store, clock: Hands) -> None:
    """SP4. Family: waits for a slot, for its time, begins in time; also of a task that the worker does not serve."""
    declare(store, concurrency=1)
    soon = Policy(start_by=clock.wall() + 10 * US)
    submit(store, clock, "a", soon, queue="q")
    assert take(store, 1) == ["a"]
    submit(store, clock, "b", soon, queue="q")
    submit(store, clock, "later", soon, due=clock.after(20))
    submit(store, clock, "theirs", soon, task="etl.other")
    submit(store, clock, "patient", Policy(start_by=clock.wall() + 100 * US), queue="q")
    clock.wait(9)
    assert take(store) == []
    clock.wait(2)
    assert take(store) == []
    assert statuses(store, "a", "b", "later", "theirs", "patient") == ["RUNNING", *["CANCELLED"] * 3, "QUEUED"]
    assert (row(store, "b").cancel or "").startswith("not begun by 1970-01-01 00:16:50")
    finish(store, "a")
    assert take(store) == ["patient"]
    clock.wait(200)
    assert take(store) == []
    assert statuses(store, "patient") == ["RUNNING"]


def test_many_runs_expire_at_once(store: Store, clock: Hands) -> None:
    names = [f"r{n}" for n in range(450)]
    for name in names:
        submit(store, clock, name, Policy(start_by=clock.wall() + US))
    clock.wait(10)
    assert take(store) == []
    assert set(statuses(store, *names)) == {"CANCELLED"}


def test_a_removed_run_leaves_no_key_behind(store: Store, clock: Hands) -> None:
    submit(store, clock, "a", Policy("k", keep=100 * US))
    assert take(store) == ["a"]
    finish(store, "a")
    assert store.remove([row(store, "a").id], 1 << 60, {Status.SUCCEEDED}) == [True]
    assert submit(store, clock, "b", Policy("k")).run.name == "b"
    while store.purge(100):
        pass
    assert submit(store, clock, "c", Policy("k")).run.name == "b"


@pytest.mark.parametrize("policy", [Policy("k"), Policy("k", debounce=US), Policy("k", throttle=US)])
def test_submissions_at_the_same_moment_leave_one_run(store: Store, clock: Hands, policy: Policy) -> None:
    """SP1: the family is each policy of a key; eight threads."""

    def one(n: int) -> Created:
        return store.submit(CreateRun(new(clock, f"r{n}"), None), policy)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(one, range(24)))
    queued = [run for run in store.runs(limit=100) if run.status is Status.QUEUED]
    assert len(queued) == 1
    assert sum(answer.fresh for answer in answers) == (24 if policy.debounce or policy.throttle else 1)


def test_submissions_to_a_full_queue_at_the_same_moment_leave_no_more_than_its_slots(
    store: Store, clock: Hands
) -> None:
    """SP1."""
    declare(store, concurrency=3)
    policy = Policy(when_full="skip")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: store.submit(CreateRun(new(clock, f"r{n}", "q"), None), policy), range(24)))
    assert sum(answer.run.status is Status.QUEUED for answer in answers) == 3
