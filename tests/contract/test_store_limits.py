"""The contract of `Store`, limits of calls: which call holds a slot, and when a parked run is due."""

from __future__ import annotations

import json
import random
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from time import sleep
from typing import Any

import pytest
from tests.contract._records import DONE, created, entry, segment
from tests.contract.test_store_waiting import Hands, clock, store

from perdure.core.ground.clock import US
from perdure.core.ground.model import (
    NEVER,
    Ask,
    Claim,
    FreedSlot,
    LimitLoad,
    Park,
    Queued,
    RunRow,
    RunWrites,
    Status,
    Wake,
)
from perdure.core.ground.ports import Store
from perdure.store.sqlite import SQLiteStore

__all__ = ["clock", "store"]

TASKS = {"etl.main"}


def declare(store: Store, name: str = "api", **settings: Any) -> None:
    store.declare_limit(name, json.dumps(settings))


def running(store: Store, name: str) -> RunRow:
    """A claimed run."""
    return created(store, name, name.encode().ljust(16, b"#"))


def ask(run: RunRow, name: str = "api", place: bytes = b"call", cost: int = 1) -> Ask:
    assert run.token is not None
    return Ask(name, run.id, run.token, place, run.task, cost, 5)


def held(store: Store, run: RunRow, number: int, name: str = "api") -> bool:
    """Whether the ticket holds a slot, after everybody's turn."""
    assert run.token is not None
    return (name, number, run.token) in store.turn([name]).held


def end(store: Store, run: RunRow, how: str, clock: Hands) -> None:
    """End the claim of a run."""
    assert run.token is not None
    if how == "finish":
        assert store.commit([RunWrites(run.id, run.token, finish=DONE)]) == [True]
    elif how == "park":
        park = Park(clock.after(60), 1)
        assert store.commit([RunWrites(run.id, run.token, [segment(entry(1))], park=park)]) == [True]
    elif how == "release":
        assert store.release(run.id, run.token)
    elif how == "abort":
        assert store.abort(run.id, 7)
    elif how == "end_claim":
        assert store.end_claim(run.id, run.token, crashed=True)
    elif how == "claim":
        claim = Claim(random.randbytes(16), "w2")
        assert store.claim(run.id, claim, expect=run.token, entries=0, statuses=(Status.RUNNING,)) is not None
    else:
        store.give_back(run.id, run.token, [FreedSlot("api", 1)])


def test_calls_hold_as_many_slots_as_there_are_in_order_of_their_tickets(store: Store) -> None:
    """LM1, LM2, LM4."""
    declare(store, concurrency=2)
    runs = [running(store, f"r{n}") for n in range(4)]
    tickets = store.ask([ask(run) for run in runs])
    assert [tuple(one) for one in tickets] == [(1, True), (2, True), (3, False), (4, False)]
    assert store.limit_load("api") == LimitLoad(2, 2)
    assert [held(store, run, n) for n, run in enumerate(runs, 1)] == [True, True, False, False]
    assert runs[1].token is not None
    store.give_back(runs[1].id, runs[1].token, [FreedSlot("api", 2)])
    assert held(store, runs[3], 4) is False
    assert held(store, runs[2], 3) is True
    assert store.limit_load("api") == LimitLoad(2, 1)
    assert store.queued(runs[3].id) == [Queued("api", 5, 0)]
    assert store.queued(runs[0].id) == []


def test_two_calls_of_one_run_have_tickets_of_their_own(store: Store) -> None:
    declare(store, concurrency=1)
    run = running(store, "r")
    first, second = store.ask([ask(run, place=b"a"), ask(run, place=b"b")])
    assert (first.held, second.held) == (True, False)
    assert store.ask([ask(run, place=b"b")]) == [second]


@pytest.mark.parametrize("how", ["finish", "park", "release", "abort", "end_claim", "claim", "give back"])
def test_every_end_of_a_claim_frees_the_slot(store: Store, clock: Hands, how: str) -> None:
    """LM1: the family is each way in which a claim ends, and the call that gives the slot back."""
    declare(store, concurrency=1)
    first, second = running(store, "a"), running(store, "b")
    store.ask([ask(first), ask(second)])
    assert held(store, second, 2) is False
    end(store, first, how, clock)
    assert held(store, first, 1) is False
    assert held(store, second, 2) is True
    assert store.limit_load("api") == LimitLoad(1, 0)


def test_an_outcome_frees_the_slot_in_its_own_transaction(store: Store) -> None:
    declare(store, concurrency=1)
    first, second = running(store, "a"), running(store, "b")
    store.ask([ask(first), ask(second)])
    assert first.token is not None
    fenced = RunWrites(first.id, b"x" * 16, [segment(entry(1))], frees=[FreedSlot("api", 1)])
    assert store.commit([fenced]) == [False]
    assert held(store, second, 2) is False
    assert store.commit([RunWrites(first.id, first.token, [segment(entry(1))], frees=[FreedSlot("api", 1)])]) == [True]
    assert held(store, second, 2) is True


def test_an_old_claim_gives_nothing_back(store: Store, clock: Hands) -> None:
    """LM1: a process that comes back too late frees no slot of the process that goes on with the run."""
    declare(store, concurrency=1)
    old = running(store, "a")
    store.ask([ask(old)])
    end(store, old, "claim", clock)
    new = store.run("a")
    assert new is not None
    assert new.token != old.token
    assert store.ask([ask(new)])[0] == (1, True)
    assert old.token is not None
    store.give_back(old.id, old.token, [FreedSlot("api", 1)])
    assert (held(store, old, 1), held(store, new, 1)) == (False, True)


def test_a_call_keeps_its_number_in_the_next_life_of_its_run(store: Store, clock: Hands) -> None:
    """LM4: also behind younger calls; until it asks again, the others are not held up."""
    declare(store, concurrency=1)
    first, second, third = (running(store, name) for name in "abc")
    store.ask([ask(first), ask(second), ask(third)])
    end(store, second, "claim", clock)
    end(store, first, "finish", clock)
    assert held(store, third, 3) is True
    again = store.run("b")
    assert again is not None
    assert store.ask([ask(again)])[0] == (2, False)
    fourth = running(store, "d")
    assert store.ask([ask(fourth)])[0] == (4, False)
    end(store, third, "finish", clock)
    assert held(store, fourth, 4) is False
    assert held(store, again, 2) is True


@pytest.mark.parametrize(("starts", "per"), [(1, 1.0), (3, 2.0), (5, 0.5)])
def test_no_window_holds_more_starts_than_the_rate(store: Store, clock: Hands, starts: int, per: float) -> None:
    """LM3: at every moment the window behind it; the clock moves in odd steps, and slots come back at random."""
    declare(store, starts=starts, per=int(per * US))
    rng = random.Random(starts)
    run = running(store, "r")
    assert run.token is not None
    waiting: list[tuple[str, int, bytes]] = []
    at: list[int] = []
    for step in range(60):
        if rng.random() < 0.7:
            [ticket] = store.ask([ask(run, place=b"%d" % step)])
            if ticket.held:
                at.append(clock.boot())
                store.give_back(run.id, run.token, [FreedSlot("api", ticket.number)])
            else:
                waiting.append(("api", ticket.number, run.token))
        turn = store.turn(["api"])
        for name, number, _ in turn.held:
            at.append(clock.boot())
            waiting.remove((name, number, run.token))
            store.give_back(run.id, run.token, [FreedSlot(name, number)])
        if waiting and "api" in turn.delays and rng.random() < 0.3:
            clock.since_boot += turn.delays["api"] - 1
            clock.now += turn.delays["api"] - 1
            assert not store.turn(["api"]).held
            clock.since_boot += 1
            assert store.turn(["api"]).held, "the delay was too short"
            continue
        clock.wait(rng.choice([0.0, 0.001, 0.1, per / 3, per]))
    for first, last in zip(at, at[starts:], strict=False):
        assert last - first > per * US
    assert len(at) > starts


def test_no_window_holds_more_cost_than_the_rate(store: Store, clock: Hands) -> None:
    """LM3: a dear call waits until enough cost has left the window, and no cheap call passes it."""
    declare(store, cost=100, cost_per=10 * US)
    runs = [running(store, f"r{n}") for n in range(5)]
    assert store.ask([ask(runs[0], cost=60)])[0].held
    clock.wait(4)
    assert store.ask([ask(runs[1], cost=30)])[0].held
    clock.wait(1)
    assert [one.held for one in store.ask([ask(runs[2], cost=50), ask(runs[3], cost=5)])] == [False, False]
    assert store.turn(["api"]).delays == {"api": 5 * US + 1}
    clock.wait(5)
    assert held(store, runs[2], 3) is False
    clock.since_boot += 1
    assert held(store, runs[2], 3) is True
    assert held(store, runs[3], 4) is True
    # More than the rate ever allows holds up no other call.
    assert store.ask([ask(runs[4], cost=101)])[0].held is False
    assert store.ask([ask(runs[4], place=b"other", cost=5)])[0].held is True


def test_a_reported_cost_counts_in_the_place_of_the_estimate(store: Store, clock: Hands) -> None:
    declare(store, cost=100, cost_per=10 * US)
    first, second = running(store, "a"), running(store, "b")
    assert first.token is not None
    assert store.ask([ask(first, cost=90)])[0].held
    assert store.ask([ask(second, cost=80)])[0].held is False
    store.give_back(first.id, first.token, [FreedSlot("api", 1, 20)])
    assert held(store, second, 2) is True


def test_an_operators_settings_count_at_once_and_the_code_again_after_a_reset(store: Store) -> None:
    declare(store, concurrency=1)
    runs = [running(store, f"r{n}") for n in range(3)]
    store.ask([ask(run) for run in runs])
    assert store.override_limit("api", '{"concurrency": 2}')
    assert [held(store, run, n) for n, run in enumerate(runs, 1)] == [True, True, False]
    declare(store, concurrency=1, starts=None)
    row = store.limit("api")
    assert row is not None
    assert row.override == '{"concurrency": 2}'
    assert store.override_limit("api", None)
    assert store.limit_load("api") == LimitLoad(2, 1)
    assert runs[0].token is not None
    store.give_back(runs[0].id, runs[0].token, [FreedSlot("api", 1)])
    assert held(store, runs[2], 3) is False
    assert store.override_limit("unknown", None) is False
    assert [one.name for one in store.limits()] == ["api"]


def park(store: Store, run: RunRow, number: int, clock: Hands) -> None:
    """The run leaves memory while its call waits."""
    assert run.token is not None
    far = Wake(clock.wall() + NEVER, clock.boot() + NEVER)
    left = Park(far, 0, waits=True, aware=True, tickets=(("api", number),))
    assert store.commit([RunWrites(run.id, run.token, park=left)]) == [True]


def rests(store: Store, task: str = "etl.main") -> bool:
    """Whether only a change of the store makes a run of the task due."""
    left = store.next_due({task}, "w9")
    return left is None or left > 1e9


def take(store: Store, count: int = 8) -> list[str]:
    claims = [Claim(random.randbytes(16), "w9") for _ in range(count)]
    return [one.run.name for one in store.take_due(TASKS, claims)]


def test_a_parked_run_is_due_when_a_slot_is_free(store: Store, clock: Hands) -> None:
    """LM5: one run for each free slot, the first first."""
    declare(store, concurrency=1)
    holder = running(store, "holder")
    waiting = [running(store, name) for name in "abc"]
    store.ask([ask(holder), *map(ask, waiting)])
    for number, run in enumerate(waiting, 2):
        park(store, run, number, clock)
    assert rests(store)
    assert take(store) == []
    assert store.limit_load("api") == LimitLoad(1, 3)
    end(store, holder, "finish", clock)
    assert store.next_due(TASKS, "w9") == 0
    assert rests(store, "other.task")
    assert take(store) == ["a"]
    # The run has not asked yet.
    assert 0 < store.next_due(TASKS, "w9") <= 1  # type: ignore[operator]
    assert take(store) == []
    first = store.run("a")
    assert first is not None
    assert store.ask([ask(first)])[0] == (2, True)
    assert rests(store)
    end(store, first, "finish", clock)
    assert take(store) == ["b"]
    # A run that does not ask again holds up no other run for long.
    clock.wait(1.1)
    assert take(store) == ["c"]


def test_a_parked_run_that_is_next_comes_back_before_a_slot_is_free(store: Store, clock: Hands) -> None:
    """LM5: calls that wait in memory do not starve it."""
    declare(store, concurrency=1)
    holder, parked, younger = running(store, "h"), running(store, "p"), running(store, "y")
    store.ask([ask(holder), ask(parked), ask(younger)])
    park(store, parked, 2, clock)
    assert store.next_due(TASKS, "w9") == 0
    assert take(store) == ["p"]
    again = store.run("p")
    assert again is not None
    assert store.ask([ask(again)])[0] == (2, False)
    end(store, holder, "finish", clock)
    assert held(store, younger, 3) is False
    assert held(store, again, 2) is True


def test_a_parked_run_is_due_when_the_rate_lets_it_start(store: Store, clock: Hands) -> None:
    """LM5."""
    declare(store, starts=1, per=10 * US)
    first, second = running(store, "a"), running(store, "b")
    store.ask([ask(first), ask(second)])
    park(store, second, 2, clock)
    assert store.next_due(TASKS, "w9") == pytest.approx(10, abs=1e-3)
    clock.wait(9)
    assert take(store) == []
    clock.wait(1.1)
    assert take(store) == ["b"]


def test_paused_and_ended_runs_are_not_called(store: Store, clock: Hands) -> None:
    declare(store, concurrency=1)
    holder = running(store, "h")
    waiting = [running(store, name) for name in "abc"]
    store.ask([ask(holder), *map(ask, waiting)])
    for number, run in enumerate(waiting, 2):
        park(store, run, number, clock)
    assert store.pause(waiting[0].id, 7)
    assert store.abort(waiting[1].id, 7)
    end(store, holder, "finish", clock)
    assert take(store) == ["c"]
    assert store.unpause(waiting[0].id)
    clock.wait(1.1)
    assert take(store) == ["a"]


def test_holders_of_other_workers_are_found(store: Store, clock: Hands) -> None:
    """LM1: so that the slots of dead workers come back, with any task."""
    declare(store, concurrency=1)
    first, second = running(store, "a"), running(store, "b")
    store.ask([ask(first), ask(second)])
    assert [run.name for run in store.slots_of_others(["w9"])] == ["a"]
    assert store.slots_of_others(["worker-1"]) == []
    end(store, first, "end_claim", clock)
    assert held(store, second, 2) is True
    assert [run.name for run in store.slots_of_others([])] == ["b"]


def test_a_removed_run_leaves_no_ticket(store: Store, clock: Hands) -> None:
    declare(store, concurrency=1)
    run = running(store, "a")
    store.ask([ask(run)])
    end(store, run, "finish", clock)
    assert store.remove([run.id], 1 << 60, (Status.SUCCEEDED,)) == [True]
    while store.purge(100):
        pass
    other = running(store, "b")
    assert store.ask([ask(other)])[0].held


def test_a_run_that_moves_away_is_due_in_the_other_store(store: Store, clock: Hands) -> None:
    """The tickets stay behind, so nothing there would make the run due."""
    declare(store, concurrency=1)
    holder, parked = running(store, "h"), running(store, "p")
    store.ask([ask(holder), ask(parked)])
    park(store, parked, 2, clock)
    [moved] = store.move([parked.id], "sqlite:///other.db")
    assert moved is not None
    assert moved.wake_at is not None
    assert moved.wake_at <= clock.wall()


def test_many_threads_never_hold_more_than_the_limit(store: Store) -> None:
    """LM1, LM2, and no call waits for ever: 6 threads take and give back 20 slots each, out of two."""
    declare(store, concurrency=2)
    inside, most, lock = [0], [0], threading.Lock()

    def work(number: int) -> int:
        run = running(store, f"r{number}")
        assert run.token is not None
        for round in range(20):
            [ticket] = store.ask([ask(run, place=b"%d" % round)])
            while not ticket.held and not held(store, run, ticket.number):
                pass
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            sleep(0.002)
            with lock:
                inside[0] -= 1
            store.give_back(run.id, run.token, [FreedSlot("api", ticket.number)])
        return 20

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(work, range(6))) == 120
    assert most[0] == 2
    assert store.limit_load("api") == LimitLoad(0, 0)


STATEMENTS = (
    "limit_held", "waiting_tickets", "parked_tickets", "called_tickets", "known_ticket", "someone_waits", "first_use",
    "spent", "uses", "held_tickets", "limits_of", "slots_of_others", "sweep_tickets", "report_cost", "queued_tickets",
)  # fmt: skip


def test_no_statement_of_limits_reads_a_whole_table(tmp_path: Path) -> None:
    """LM5: seen in the plans of the queries."""
    from perdure.store._sql import queries

    sql = queries("sqlite")
    with closing(SQLiteStore(tmp_path / "store.db")) as store:
        for name in STATEMENTS:
            text = sql[name]
            count = max([text.count("?"), *(int(n) for n in re.findall(r"\?(\d)", text))])
            plan = store._reader.rows(f"EXPLAIN QUERY PLAN {text}", ("[]",) * count)
            scans = [row[3] for row in plan if row[3].startswith("SCAN") and "json_each" not in row[3]]
            allowed = {"limits_of": ["SCAN wanted"], "slots_of_others": ["SCAN tickets USING INDEX tickets_held"]}
            assert [scan for scan in scans if scan not in allowed.get(name, []) and "CONSTANT" not in scan
                    and "wanted" not in scan] == [], name  # fmt: skip


def test_a_batch_frees_and_takes_nothing_for_others(store: Store) -> None:
    declare(store, concurrency=1)
    run = running(store, "a")
    store.ask([ask(run)])
    other = running(store, "b")
    assert other.token is not None
    assert store.commit([RunWrites(other.id, other.token, [segment(entry(1))])]) == [True]
    assert store.limit_load("api") == LimitLoad(1, 0)
