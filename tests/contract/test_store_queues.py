"""The contract of `Store`, queues: which waiting run a worker may claim, and when a slot is free."""

from __future__ import annotations

import json
import random
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.contract._records import DONE, OTHER, entry, segment
from tests.contract.test_store_waiting import Handed, Hands, clock, store
from tests.postgres_server import server

from perdure.core.ground.clock import US
from perdure.core.ground.model import (
    Claim,
    Created,
    CreateRun,
    NewRun,
    Park,
    QueueLoad,
    RunRow,
    RunWrites,
    Status,
    Wake,
)
from perdure.core.ground.ports import Store
from perdure.store.sqlite import SQLiteStore

__all__ = ["clock", "store"]

TASKS = {"etl.main"}


def declare(store: Store, name: str = "q", **settings: Any) -> None:
    store.declare_queue(name, json.dumps(settings))


def queued(
    store: Store, clock: Hands, *names: str, queue: str | None = "q", key: str = "", priority: int = 0,
    task: str = "etl.main", due: Wake | None = None,
) -> None:  # fmt: skip
    for name in names:
        uid = name.encode().ljust(16, b"\0")
        new = NewRun(
            uid, name, task, "etl.py::etl::main", b"in", b"h" * 16, clock.wall(), None, None, queue, key, priority
        )  # fmt: skip
        [answer] = store.commit([CreateRun(new, None, due)])
        assert isinstance(answer, Created)
        assert (answer.run.queue, answer.run.key, answer.run.priority) == (queue, key, priority)
        assert store.run(name) == answer.run
        clock.wait(0.001)


def take(store: Store, count: int = 8, worker: str = "w9", tasks: set[str] = TASKS) -> list[str]:
    claims = [Claim(random.randbytes(16), worker) for _ in range(count)]
    return [found.run.name for found in store.take_due(tasks, claims)]


def finish(store: Store, *names: str) -> None:
    for name in names:
        run = row(store, name)
        assert run.token is not None
        assert store.commit([RunWrites(run.id, run.token, finish=DONE)]) == [True]


def row(store: Store, name: str) -> RunRow:
    found = store.run(name)
    assert found is not None
    return found


def test_a_queue_gives_as_many_runs_as_it_has_slots_in_the_order_of_submission(store: Store, clock: Hands) -> None:
    """FC1, FC2: a slot is in use from the claim to the end of the run."""
    declare(store, concurrency=2)
    queued(store, clock, *"abcde")
    assert store.next_due(TASKS, "w9") <= 0  # type: ignore[operator]
    assert take(store) == ["a", "b"]
    assert take(store) == []
    assert store.next_due(TASKS, "w9") is None
    assert store.queue_load("q") == QueueLoad(2, 3)
    finish(store, "b")
    assert store.next_due(TASKS, "w9") == 0
    assert take(store) == ["c"]
    finish(store, "a", "c")
    assert take(store) == ["d", "e"]
    assert store.queue_load("q") == QueueLoad(2, 0)


def test_a_run_without_a_queue_passes_full_queues(store: Store, clock: Hands) -> None:
    declare(store, concurrency=1)
    queued(store, clock, "a", "b")
    queued(store, clock, "free", queue=None)
    assert take(store) == ["free", "a"]
    queued(store, clock, "free2", queue=None)
    assert take(store) == ["free2"]


@pytest.mark.parametrize("end", ["finish", "park", "release", "abort", "end_claim"])
def test_every_end_of_a_claim_frees_the_slot(store: Store, clock: Hands, end: str) -> None:
    """FC1: the family is each way in which a claim ends."""
    declare(store, concurrency=1)
    queued(store, clock, "a", "b")
    assert take(store) == ["a"]
    run = row(store, "a")
    assert run.token is not None
    if end == "finish":
        finish(store, "a")
    elif end == "park":
        park = Park(clock.after(60), 1)
        assert store.commit([RunWrites(run.id, run.token, [segment(entry(1))], park=park)]) == [True]
    elif end == "release":
        assert store.release(run.id, run.token)
    elif end == "abort":
        assert store.abort(run.id, 7)
    else:
        assert store.end_claim(run.id, run.token, crashed=True)
    assert take(store) == ["b"]


def test_a_parked_run_that_is_due_leaves_before_runs_that_have_not_begun(store: Store, clock: Hands) -> None:
    declare(store, concurrency=1)
    queued(store, clock, "a", "b", "c")
    assert take(store) == ["a"]
    run = row(store, "a")
    assert run.token is not None
    store.commit([RunWrites(run.id, run.token, [segment(entry(1))], park=Park(clock.after(60), 1))])
    assert take(store) == ["b"]
    clock.wait(61)
    assert take(store) == []
    assert row(store, "a").status is Status.SLEEPING
    finish(store, "b")
    assert take(store) == ["a"]
    finish(store, "a")
    assert take(store) == ["c"]


def test_the_run_of_a_dead_worker_keeps_its_slot_for_the_next_worker(store: Store, clock: Hands) -> None:
    """FC1, FC2: a claim that takes over needs no second slot, and the ended claim needs one."""
    declare(store, concurrency=1)
    queued(store, clock, "a", "b")
    assert take(store, worker="w1") == ["a"]
    run = row(store, "a")
    assert [found.name for found in store.slots_of_others({"w2"})] == ["a"]
    assert store.slots_of_others({"w1"}) == []
    taken = store.claim(run.id, Claim(OTHER, "w2"), expect=run.token, entries=0, statuses={Status.RUNNING})
    assert taken is not None
    assert store.end_claim(run.id, OTHER, crashed=False)
    assert row(store, "a").crashes == taken.crashes - 1
    assert take(store, worker="w2") == ["b"]
    again = store.claim(run.id, Claim(OTHER, "w2"), expect=None, entries=0, statuses={Status.RUNNING})
    assert again is None
    assert not store.commit([RunWrites(run.id, OTHER, finish=DONE)])[0]
    finish(store, "b")
    assert store.claim(run.id, Claim(OTHER, "w2"), expect=None, entries=0, statuses={Status.RUNNING}) is not None


def test_one_worker_holds_no_more_than_its_share(store: Store, clock: Hands) -> None:
    """FC2: by taking over the runs of another worker as well."""
    declare(store, concurrency=4, per_worker=2)
    queued(store, clock, *"abcdef")
    assert take(store, worker="w1") == ["a", "b"]
    assert take(store, worker="w1") == []
    assert store.next_due(TASKS, "w1") is None
    assert store.next_due(TASKS, "w2") == 0
    assert take(store, worker="w2") == ["c", "d"]
    run = row(store, "a")
    assert store.claim(run.id, Claim(OTHER, "w2"), expect=run.token, entries=0, statuses={Status.RUNNING}) is None
    finish(store, "c")
    assert store.claim(run.id, Claim(OTHER, "w2"), expect=run.token, entries=0, statuses={Status.RUNNING}) is not None


def test_a_full_key_does_not_hold_up_other_keys(store: Store, clock: Hands) -> None:
    """FC5."""
    declare(store, per_key=1)
    queued(store, clock, *(f"a{n}" for n in range(5)), key="a")
    queued(store, clock, "b0", "b1", key="b")
    assert take(store) == ["a0", "b0"]
    assert store.next_due(TASKS, "w9") is None
    finish(store, "b0")
    assert take(store) == ["b1"]


def test_cancelled_and_aborted_runs_do_not_hold_up_others(store: Store, clock: Hands) -> None:
    """FC5: whether the run was alone in its lane, at the beginning or in the middle."""
    declare(store, concurrency=1)
    queued(store, clock, "a", "b", "c", key="x")
    queued(store, clock, "d", key="y")
    queued(store, clock, "e", key="z")
    assert take(store) == ["a"]
    assert store.cancel(row(store, "b").id, "why", None, 7) is not None
    assert store.abort(row(store, "d").id, 7)
    finish(store, "a")
    assert take(store) == ["c"]
    finish(store, "c")
    assert take(store) == ["e"]
    assert store.next_due(TASKS, "w9") is None


def test_a_run_that_was_paused_in_the_queue_leaves_after_the_pause(store: Store, clock: Hands) -> None:
    """FC5: also where the run was alone in its lane, which was removed meanwhile."""
    declare(store, concurrency=1)
    queued(store, clock, "a", "b", key="x")
    queued(store, clock, "c", key="y")
    assert take(store) == ["a"]
    assert store.pause(row(store, "b").id, clock.wall())
    finish(store, "a")
    assert take(store) == ["c"]
    finish(store, "c")
    assert take(store) == []
    assert store.next_due(TASKS, "w9") is None
    assert store.unpause(row(store, "b").id)
    assert take(store) == ["b"]


def test_a_run_of_a_task_that_is_not_served_does_not_hold_up_others(store: Store, clock: Hands) -> None:
    """FC5."""
    declare(store, concurrency=1)
    queued(store, clock, "other", task="etl.other")
    queued(store, clock, "mine")
    assert take(store) == ["mine"]
    assert take(store, tasks={"etl.other"}) == []
    finish(store, "mine")
    assert take(store, tasks={"etl.other", "etl.main"}) == ["other"]


def test_no_window_holds_more_starts_than_the_rate(store: Store, clock: Hands) -> None:
    """FC3: at the edges of windows as well, over many random steps of time."""
    declare(store, starts=3, per=10 * US)
    queued(store, clock, *(f"r{n}" for n in range(60)))
    random.seed(7)
    starts: list[float] = []
    while len(starts) < 60:
        left = store.next_due(TASKS, "w9")
        assert left is not None
        taken = take(store)
        assert bool(taken) == (left <= 0)
        starts += [clock.boot() / US] * len(taken)
        finish(store, *taken)
        if not taken:
            clock.wait(random.choice([left, left, left / 2, left + 1]))
    for at in starts:
        assert sum(at <= other <= at + 10 for other in starts) <= 3
    # No slower than the rate: three in each ten seconds, but for the steps of a second.
    assert starts[-1] - starts[0] < 10 * 60 / 3 * 1.15


def test_a_run_that_goes_on_is_no_start(store: Store, clock: Hands) -> None:
    """FC3: neither after a pause nor after a crash."""
    declare(store, starts=1, per=100 * US)
    queued(store, clock, "a", "b")
    assert take(store) == ["a"]
    run = row(store, "a")
    assert run.token is not None
    store.commit([RunWrites(run.id, run.token, [segment(entry(1))], park=Park(clock.after(10), 1))])
    clock.wait(11)
    assert take(store) == ["a"]
    run = row(store, "a")
    assert store.claim(run.id, Claim(OTHER, "w2"), expect=run.token, entries=1, statuses={Status.RUNNING}) is not None
    clock.wait(90)
    assert take(store) == ["b"]


def test_higher_priorities_leave_first_and_waiting_counts_as_priority(store: Store, clock: Hands) -> None:
    declare(store, concurrency=1, order="priority", aging=60 * US)
    queued(store, clock, "low", priority=0)
    queued(store, clock, "high", priority=5)
    queued(store, clock, "middle", priority=2)
    queued(store, clock, "middle2", priority=2)
    assert take(store) == ["high"]
    clock.wait(301)
    queued(store, clock, "late", priority=5)
    for name, following in [("high", "middle"), ("middle", "middle2"), ("middle2", "low"), ("low", "late")]:
        finish(store, name)
        assert take(store) == [following]


def test_in_fair_order_keys_take_turns(store: Store, clock: Hands) -> None:
    """A key with many runs delays the single run of another key by one slot at most."""
    declare(store, concurrency=1, order="fair")
    queued(store, clock, *(f"a{n}" for n in range(40)), key="a")
    assert take(store) == ["a0"]
    queued(store, clock, "b0", key="b")
    queued(store, clock, "c0", "c1", key="c")
    order = []
    for _ in range(6):
        [running] = [run.name for run in store.runs(statuses={Status.RUNNING})]
        finish(store, running)
        order += take(store)
    assert order == ["a1", "b0", "c0", "a2", "c1", "a3"]


def test_a_paused_queue_gives_nothing_and_settings_of_an_operator_count_at_once(store: Store, clock: Hands) -> None:
    declare(store, concurrency=1)
    queued(store, clock, *"abcde")
    assert not store.pause_queue("unknown", 1)
    assert store.pause_queue("q", clock.wall())
    assert not store.pause_queue("q", clock.wall())
    assert take(store) == []
    assert store.next_due(TASKS, "w9") is None
    assert store.resume_queue("q")
    assert not store.resume_queue("q")
    assert take(store) == ["a"]
    assert store.override_queue("q", '{"concurrency": 3}')
    assert not store.override_queue("unknown", None)
    assert take(store) == ["b", "c"]
    declare(store, concurrency=2)
    assert [queue.override for queue in store.queues()] == ['{"concurrency": 3}']
    finish(store, "a")
    assert take(store) == ["d"]
    assert store.override_queue("q", None)
    finish(store, "b")
    assert take(store) == []
    finish(store, "c")
    assert take(store) == ["e"]
    found = store.queue("q")
    assert found is not None
    assert json.loads(found.declared) == {"concurrency": 2}


def test_a_queue_that_no_code_has_declared_has_no_limits(store: Store, clock: Hands) -> None:
    queued(store, clock, "a", "b", queue="unknown")
    assert take(store) == ["a", "b"]
    assert store.queue("unknown") is not None


def test_a_delayed_run_enters_the_queue_when_it_is_due(store: Store, clock: Hands) -> None:
    declare(store, concurrency=1)
    queued(store, clock, "later", due=clock.after(10))
    assert store.next_due(TASKS, "w9") == pytest.approx(9.999)
    queued(store, clock, "now")
    assert take(store) == ["now"]
    clock.wait(10)
    assert take(store) == []
    finish(store, "now")
    assert take(store) == ["later"]


def test_a_run_that_leaves_for_another_store_and_comes_back_waits_again(store: Store, clock: Hands) -> None:
    declare(store, concurrency=1)
    queued(store, clock, "a", "b", key="k")
    assert take(store) == ["a"]
    moved = row(store, "b")
    assert store.move([moved.id], "elsewhere") == [moved]
    finish(store, "a")
    assert take(store) == []
    assert store.take_back(moved.id)
    assert row(store, "b").key == "k"
    assert take(store) == ["b"]


def test_random_histories_never_exceed_a_limit_and_starve_nothing(store: Store, clock: Hands) -> None:
    """P14, FC1, FC2, FC5: claims, ends, parks and lost claims in any order; in the end every run has left."""
    random.seed(11)
    declare(store, concurrency=4, per_worker=3, per_key=2, order="fair")
    names = [f"r{n}" for n in range(40)]
    for name in names:
        queued(store, clock, name, key=random.choice("xyz"))
    for _ in range(400):
        held = [run for run in store.runs(statuses={Status.RUNNING}) if run.token is not None]
        assert len(held) <= 4
        assert all(sum(run.worker == worker for run in held) <= 3 for worker in ("w1", "w2"))
        assert all(sum(run.key == key for run in held) <= 2 for key in "xyz")
        assert store.queue_load("q").held == len(held)
        what, run = random.random(), random.choice(held) if held else None
        if run is None or what < 0.5:
            took = take(store, random.randint(1, 4), random.choice(["w1", "w2"]))
            if not took and not held and all(r.status is not Status.QUEUED for r in store.runs()):
                break
        elif what < 0.7:
            finish(store, run.name)
        elif what < 0.8:
            assert run.token is not None
            store.commit([RunWrites(run.id, run.token, park=Park(clock.after(random.choice([1, 30])), 0))])
        else:
            worker = random.choice(["w1", "w2"])
            store.claim(run.id, Claim(random.randbytes(16), worker), expect=run.token, entries=0,
                        statuses={Status.RUNNING})  # fmt: skip
        clock.wait(random.choice([0, 1, 10]))
    for _ in range(80):
        clock.wait(60)
        finish(store, *(run.name for run in store.runs(statuses={Status.RUNNING})))
        take(store)
    assert {run.status for run in store.runs()} == {Status.SUCCEEDED}


def test_two_claimers_at_the_same_moment_share_the_slots(store: Store, clock: Hands) -> None:
    """FC2: threads that claim at once take no more runs together than there are slots, and no run twice."""
    declare(store, concurrency=5)
    queued(store, clock, *(f"r{n}" for n in range(20)))
    barrier = threading.Barrier(4)

    def claim(worker: str) -> list[str]:
        barrier.wait()
        return take(store, 3, worker)

    with ThreadPoolExecutor(4) as pool:
        taken = [name for names in pool.map(claim, ["w1", "w2", "w3", "w4"]) for name in names]
    assert len(taken) == len(set(taken)) == 5


def many(store: Store, keys: int, runs: int) -> None:
    news = [
        NewRun(random.randbytes(16), f"r{n}", "etl.main", "::", b"", b"h" * 16, n, None, None, "q", f"k{n % keys}")
        for n in range(runs)
    ]
    store.commit([CreateRun(new, None) for new in news])


def test_no_statement_of_a_claim_reads_a_whole_table(tmp_path: Path, clock: Hands) -> None:
    """FC4: the plan of each statement that a claim executes, as SQLite tells it, searches an index."""
    with closing(SQLiteStore(tmp_path / "store.db", clock=clock)) as store:
        declare(store, concurrency=3, per_key=1, per_worker=3, starts=100, per=US, order="fair")
        many(store, 5, 20)
        statements: list[str] = []
        for link in (store._aside, store._reader):
            link.run(lambda cursor: cursor.connection.set_trace_callback(statements.append))
        assert len(take(store)) == 3
        store.next_due(TASKS, "w9")
        plans = {
            statement: [row[3] for row in store._reader.rows(f"EXPLAIN QUERY PLAN {statement}", ())]
            for statement in set(statements)
            if statement.startswith(("SELECT", "UPDATE", "DELETE", "INSERT"))
        }
        assert len(plans) > 10
        scans = {s: step for s, plan in plans.items() for step in plan if step.startswith("SCAN")}
        # The tables of queues and of paused tasks are small, and the others are values in memory.
        small = re.compile(r"SCAN (queues|paused_tasks|json_each|new|CONSTANT|\()")
        assert {s: step for s, step in scans.items() if not small.match(step)} == {}


class Steps:
    """Counts steps of SQLite's virtual machine, which no other load on the machine changes."""

    def __init__(self, store: SQLiteStore) -> None:
        self.count = 0
        for link in (store._aside, store._reader):
            link.run(lambda cursor: cursor.connection.set_progress_handler(self._step, 10))

    def _step(self) -> int:
        self.count += 1
        return 0


@pytest.mark.parametrize("most", [1, 16])
@pytest.mark.parametrize("order", ["fifo", "priority", "fair"])
def test_a_claim_costs_the_same_with_many_waiting_runs(tmp_path: Path, clock: Hands, order: str, most: int) -> None:
    """FC4: a hundred times as many keys, and a hundred times as many runs; one claim at a time, and many at once."""
    steps: dict[int, int] = {}
    for runs in (100, 10_000):
        with closing(SQLiteStore(tmp_path / f"{runs}.db", clock=clock)) as store:
            declare(store, concurrency=1000, per_key=20, order=order, starts=1000, per=US, aging=US)
            many(store, runs // 10, runs)
            take(store, 1)
            steps_here = Steps(store)
            for _ in range(3 if most == 16 else 20):
                assert store.next_due(TASKS, "w9") == 0
                assert len(take(store, most)) == most
            steps[runs] = steps_here.count
    assert steps[10_000] <= 2 * steps[100], steps


def test_the_first_look_costs_a_few_statements_for_many_runs(tmp_path: Path, clock: Hands) -> None:
    """FC4: runs enter their lanes by the thousand, so a worker that finds many waiting runs begins soon."""
    with closing(SQLiteStore(tmp_path / "store.db", clock=clock)) as store:
        declare(store, order="fair")
        many(store, 100, 5000)
        statements: list[str] = []
        store._aside.run(lambda cursor: cursor.connection.set_trace_callback(statements.append))
        assert take(store, 1) == ["r0"]
        assert len(statements) < 200


def test_no_statement_of_a_claim_reads_a_whole_table_on_postgres(clock: Hands) -> None:
    """FC4: the plans of the server, with 20,000 waiting runs in 1,000 keys."""
    handed = Handed(clock)
    with closing(handed):
        store: Any = handed
        declare(store, order="fair", concurrency=100, per_key=2, starts=10_000, per=US)
        many(store, 1000, 20_000)
        assert len(take(store, 8)) == 8
        # A server reads a small table as a whole.
        schema = handed._schema
        server().execute(f"INSERT INTO {schema}.starts SELECT 'q', n, n FROM generate_series(100000, 120000) AS n")
        for table in ("runs", "lanes", "starts"):
            server().execute(f"ANALYZE {schema}.{table}")
        lane = ("q", "etl.main", "k9", 0)
        parameters: dict[str, tuple[Any, ...]] = {
            "take_due": (["etl.main"], 8, 8), "held_slots": ("q",), "lanes": ("q", "etl.main", 0, 0, "", 4),
            "heads": (*lane, 2), "set_lane_turn": (1, *lane), "drop_lane": lane, "first_start": ("q", 119_000),
            "last_start": ("q",), "insert_start": ("q", 1, "q"), "prune_starts": ("q", 1),
            "enter_lane": (0, 1, "[1, 2, 3]"), "add_lanes": ("[[1, 1], [2, 2]]",), "waiting_runs": ([1, 2, 3],),
            "queues_of": (["etl.main"],), "next_due": (["etl.main"], ["etl.main"]),
        }  # fmt: skip
        scans = {}
        for name, values in parameters.items():
            plan = [line for (line,) in store._reader.rows(f"EXPLAIN {store._sql[name]}", values)]
            scans[name] = [line for line in plan if re.search(r"Seq Scan on (perdure\.)?(runs|lanes|starts)", line)]
        assert {name: lines for name, lines in scans.items() if lines} == {}
