"""Limits of calls, taken by real workers that are killed, frozen, and parked by.

Triggers in the database write down every change of a claim and of a ticket, in the order of the commits; `holders.py`,
which knows nothing of perdure, judges the history (P14)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.crash.fleet import Fleet
from tests.crash.harness import WORKFLOWS
from tests.crash.holders import CallChange, Limits, judge_calls
from tests.crash.test_queues import schema
from tests.postgres_server import server
from tests.waiting import wait_for

from perdure.core.ground.model import LimitLoad, NewRun
from perdure.store.sqlite import SQLiteStore

LIMITS = Limits(concurrency=3, starts=20, per=900_000)
"""The triggers read the clock later than the store does, which read it before the transaction: by as much as a busy
machine takes for all grants of one transaction. SQLite's triggers show whole milliseconds."""

NOW = "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)"
SQLITE = f"""
CREATE TABLE calls (at INTEGER, run INTEGER, token BLOB, ticket INTEGER, holds INTEGER)
;;
CREATE TRIGGER calls_claim AFTER UPDATE OF token ON runs WHEN OLD.token IS NOT NEW.token BEGIN
    INSERT INTO calls VALUES ({NOW}, NEW.id, NEW.token, NULL, 0);
END
;;
CREATE TRIGGER calls_ticket AFTER UPDATE OF state, token ON tickets BEGIN
    INSERT INTO calls VALUES ({NOW}, NEW.run, NEW.token, NEW.number, NEW.state = 2);
END
;;
CREATE TRIGGER calls_free AFTER DELETE ON tickets BEGIN
    INSERT INTO calls VALUES ({NOW}, OLD.run, OLD.token, OLD.number, 0);
END
"""
POSTGRES = """
CREATE TABLE SCHEMA.calls (number bigserial, at bigint, run bigint, token bytea, ticket bigint, holds boolean)
;;
CREATE FUNCTION SCHEMA.note_claim() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO SCHEMA.calls (at, run, token, ticket, holds) VALUES (SCHEMA.now_us(), NEW.id, NEW.token, NULL, false);
    RETURN NEW;
END $$
;;
CREATE TRIGGER calls_claim AFTER UPDATE OF token ON SCHEMA.runs FOR EACH ROW
WHEN (OLD.token IS DISTINCT FROM NEW.token) EXECUTE FUNCTION SCHEMA.note_claim()
;;
CREATE FUNCTION SCHEMA.note_ticket() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO SCHEMA.calls (at, run, token, ticket, holds)
        VALUES (SCHEMA.now_us(), OLD.run, OLD.token, OLD.number, false);
        RETURN OLD;
    END IF;
    INSERT INTO SCHEMA.calls (at, run, token, ticket, holds)
    VALUES (SCHEMA.now_us(), NEW.run, NEW.token, NEW.number, NEW.state = 2);
    RETURN NEW;
END $$
;;
CREATE TRIGGER calls_ticket AFTER UPDATE OR DELETE ON SCHEMA.tickets FOR EACH ROW EXECUTE FUNCTION SCHEMA.note_ticket()
"""


@pytest.fixture
def fleet(place: Path) -> Iterator[Fleet]:
    found = Fleet(place / "fleet", WORKFLOWS / "limited.py", env={"PERDURE_LEASE": "1"})
    if found.remote is not None:
        for statement in POSTGRES.replace("SCHEMA", schema(found)).split(";;"):
            server().execute(statement)
    else:
        assert isinstance(found.store, SQLiteStore)
        for statement in SQLITE.split(";;"):
            found.store._writer.change(statement, ())
    yield found
    found.close()


def history(fleet: Fleet) -> list[CallChange]:
    columns = "at, run, token, ticket, holds"
    if fleet.remote is not None:
        rows = server().execute(f"SELECT {columns} FROM {schema(fleet)}.calls ORDER BY number")
    else:
        rows = fleet.query(f"SELECT {columns} FROM calls ORDER BY rowid")
    return [
        CallChange(int(at), run, None if token is None else bytes(token).hex(), ticket, bool(holds))
        for at, run, token, ticket, holds in rows
    ]


def called(fleet: Fleet, number: int, seconds: float = 0.05, pause: float = 0.0) -> NewRun:
    return fleet.new("called", f"r{number}", tag=f"r{number}", seconds=seconds, pause=pause)


def all_is_well(fleet: Fleet, runs: int) -> None:
    """Every call was made, the limit was kept, and no slot is in use."""
    assert set(fleet.steps()) == {f"r{n}.{call}" for n in range(runs) for call in (0, 1)}
    assert judge_calls(history(fleet), LIMITS) == []
    assert fleet.store.limit_load("api") == LimitLoad(0, 0)


def test_limits_of_calls_hold_while_workers_are_killed(fleet: Fleet) -> None:
    """P14, LM1, LM2, LM3, LM5: kills at any moment, with runs that park while they sleep and while they wait."""
    rng = random.Random(7)
    fleet.submit(*(called(fleet, n, pause=rng.choice([0, 0, 0.4])) for n in range(16)))
    workers = [fleet.serve("--park-after", 0.1, wait=False) for _ in range(3)]
    for worker in workers:
        worker.ready()
    for victim, steps in zip(workers, (6, 16), strict=False):
        wait_for(lambda: len(fleet.steps()) >= steps, story=fleet.story)  # noqa: B023
        victim.kill()
    fleet.wait()
    all_is_well(fleet, 16)


def test_a_frozen_workers_calls_hold_no_slot_when_its_lease_is_over(fleet: Fleet) -> None:
    """P14, LM1: the calls of others go on; the frozen worker comes back, is fenced, and frees no foreign slot."""
    first = fleet.serve()
    fleet.submit(*(called(fleet, n, seconds=0.4) for n in range(6)))
    wait_for(lambda: len(fleet.log("begins")) >= 3, story=fleet.story)
    with first.frozen():
        fleet.serve()
        fleet.wait()
    all_is_well(fleet, 6)


def changes(*steps: tuple[int, str | None, int | None, bool]) -> list[CallChange]:
    return [CallChange(number * 1_000_000, *step) for number, step in enumerate(steps)]


GOOD = changes(
    (1, "a", None, False),
    (1, "a", 1, True),
    (2, "b", None, False),
    (1, None, None, False),
    (2, "b", 2, True),
    (2, "b", 2, False),
)


@pytest.mark.parametrize(
    ("found", "limits", "says"),
    [
        (GOOD[:3] + GOOD[4:], Limits(concurrency=1), "2 calls hold a slot"),
        (GOOD[:-1], Limits(concurrency=1), "never given back"),
        (GOOD, Limits(starts=1, per=3_000_001), "2 starts within"),
        (GOOD[:2] + GOOD[4:], Limits(), "without a claim"),
    ],
)
def test_the_judge_finds_each_kind_of_fault(found: list[CallChange], limits: Limits, says: str) -> None:
    assert any(says in fault for fault in judge_calls(found, limits))


def test_the_judge_finds_nothing_in_a_good_history() -> None:
    assert judge_calls(GOOD, Limits(concurrency=1, starts=1, per=2_999_999)) == []
