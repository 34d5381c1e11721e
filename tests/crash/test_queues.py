"""Queues with limits, driven by real workers that are killed and frozen.

Triggers in the database write down every change of a claim in the order of the commits; `holders.py`, which knows
nothing of perdure, judges the history (P14)."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.crash.fleet import Fleet
from tests.crash.harness import WORKFLOWS
from tests.crash.holders import Change, Limits, judge
from tests.postgres_server import server
from tests.waiting import wait_for

from perdure.core.ground.model import NewRun, QueueLoad, Status
from perdure.store.sqlite import SQLiteStore

LIMITS = Limits(concurrency=3, per_worker=2, per_key=2, starts=12, per=1_999_000)
"""The clock of SQLite's triggers shows whole milliseconds."""
QUEUED, OTHER = WORKFLOWS / "queued.py", WORKFLOWS / "queued_other.py"

SQLITE = """
CREATE TABLE slots (at REAL, run INTEGER, key TEXT, before BLOB, after BLOB, worker TEXT, is_start INTEGER)
;;
CREATE TRIGGER slots_change AFTER UPDATE OF token ON runs WHEN OLD.token IS NOT NEW.token BEGIN
    INSERT INTO slots VALUES (
        (julianday('now') - 2440587.5) * 86400000000, NEW.id, NEW.key, OLD.token, NEW.token, NEW.worker,
        OLD.started_at IS NULL
    );
END
"""
POSTGRES = """
CREATE TABLE SCHEMA.slots (number bigserial, at bigint, run bigint, key text, before bytea, after bytea, worker text,
                           is_start boolean)
;;
CREATE FUNCTION SCHEMA.note_slot() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO SCHEMA.slots (at, run, key, before, after, worker, is_start) VALUES (
        SCHEMA.now_us(), NEW.id, NEW.key, OLD.token, NEW.token, NEW.worker, OLD.started_at IS NULL
    );
    RETURN NEW;
END $$
;;
CREATE TRIGGER slots_change AFTER UPDATE OF token ON SCHEMA.runs FOR EACH ROW
WHEN (OLD.token IS DISTINCT FROM NEW.token) EXECUTE FUNCTION SCHEMA.note_slot()
"""


@pytest.fixture
def fleet(place: Path) -> Iterator[Fleet]:
    found = Fleet(place / "fleet", QUEUED, env={"PERDURE_LEASE": "1"})
    watch(found)
    yield found
    found.close()


def watch(fleet: Fleet) -> None:
    """Let the database write down every change of a claim."""
    if fleet.remote is not None:
        for statement in POSTGRES.replace("SCHEMA", schema(fleet)).split(";;"):
            server().execute(statement)
        return
    assert isinstance(fleet.store, SQLiteStore)
    for statement in SQLITE.split(";;"):
        fleet.store._writer.change(statement, ())


def schema(fleet: Fleet) -> str:
    assert fleet.remote is not None
    return fleet.remote.rpartition("=")[2]


def history(fleet: Fleet) -> list[Change]:
    columns = "at, run, key, before, after, worker, is_start"
    if fleet.remote is not None:
        rows = server().execute(f"SELECT {columns} FROM {schema(fleet)}.slots ORDER BY number")
    else:
        rows = fleet.query(f"SELECT {columns} FROM slots ORDER BY rowid")
    return [
        Change(int(at), run, key, before and bytes(before).hex(), after and bytes(after).hex(), worker, bool(start))
        for at, run, key, before, after, worker, start in rows
    ]


def crawled(fleet: Fleet, number: int, site: str, seconds: float = 0.05, pause: float = 0.0) -> NewRun:
    new = fleet.new("crawled", f"r{number}", site=site, tag=f"r{number}", seconds=seconds, pause=pause)
    return new._replace(queue="crawl", key=site)


def test_limits_hold_while_workers_are_killed(fleet: Fleet, tmp_path: Path) -> None:
    """P14, FC1, FC2, FC3, FC5: kills at any moment, with runs that park; every slot comes back, and every run ends."""
    rng = random.Random(5)
    fleet.store.declare_queue("crawl", "{}")
    sites = ["a"] * 16 + ["b"] * 4 + ["c"] * 2 + ["d"]
    fleet.submit(*(crawled(fleet, n, site, pause=rng.choice([0, 0, 0.4])) for n, site in enumerate(sites)))
    workers = [fleet.serve("--park-after", 0.1, wait=False) for _ in range(3)]
    for worker in workers:
        worker.ready()
    for victim, steps in zip(workers, (8, 20), strict=False):
        wait_for(lambda: len(fleet.steps()) >= steps, story=fleet.story)  # noqa: B023
        victim.kill()
    fleet.wait()
    assert {name.partition(".")[0] for name in fleet.steps()} == {f"r{n}" for n in range(len(sites))}
    found = history(fleet)
    assert judge(found, LIMITS) == []
    assert fleet.store.queue_load("crawl") == QueueLoad(0, 0)
    # The same as a program of its own, and a history with one claim more.
    file = tmp_path / "history"
    file.write_text("".join(json.dumps(change) + "\n" for change in found))
    command = [sys.executable, "-m", "tests.crash.holders", str(file), json.dumps(LIMITS._asdict())]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "every limit was kept\n"


def test_a_frozen_workers_slots_go_to_others_when_its_lease_is_over(fleet: Fleet) -> None:
    """P14, FC1: the frozen worker is fenced by the same change that frees the slot, and its runs go on elsewhere."""
    first = fleet.serve()
    fleet.submit(*(crawled(fleet, n, f"site-{n % 3}", seconds=0.4) for n in range(6)))
    wait_for(lambda: len(fleet.log("begins")) >= 2, story=fleet.story)
    with first.frozen():
        fleet.serve()
        fleet.wait()
    assert judge(history(fleet), LIMITS) == []
    wait_for(lambda: first.row() is not None and first.row().lease > 0, story=fleet.story)
    fleet.submit(crawled(fleet, 7, "site-7"))
    fleet.wait()
    assert judge(history(fleet), LIMITS) == []
    assert all(run.crashes == 0 for run in fleet.store.runs())


def test_a_dead_workers_slots_are_freed_by_workers_of_other_tasks(fleet: Fleet) -> None:
    """P14, FC1: where no living worker can go on with the run, so that the slot could not be passed on."""
    fleet.store.declare_queue("crawl", "{}")
    worker = fleet.serve()
    fleet.submit(*(crawled(fleet, n, f"site-{n}", seconds=30) for n in range(2)))
    wait_for(lambda: len(fleet.log("begins")) == 2, story=fleet.story)
    worker.kill()
    assert fleet.store.override_queue("crawl", '{"concurrency": 1, "per_worker": null, "starts": null}')
    other = fleet.new("scanned", "theirs", file=OTHER, site="x", tag="theirs")._replace(queue="crawl", key="x")
    fleet.submit(other)
    fleet.serve(files=[OTHER])
    fleet.wait("theirs")
    left = [fleet.run("r0"), fleet.run("r1")]
    assert [(run.status, run.token) for run in left] == [(Status.RUNNING, None)] * 2
    assert fleet.store.queue_load("crawl") == QueueLoad(0, 0)


def changes(*steps: tuple[int, str | None, str | None], worker: str = "w", key: str = "") -> list[Change]:
    """Changes a second apart: run, token before, token after."""
    return [
        Change(number * 1_000_000, run, key, before, after, worker, before is None)
        for number, (run, before, after) in enumerate(steps)
    ]


@pytest.mark.parametrize(
    ("found", "limits", "says"),
    [
        (changes((1, None, "a"), (2, None, "b")), Limits(concurrency=1), "2 slots in all"),
        (changes((1, None, "a"), (2, None, "b")), Limits(per_worker=1), "2 slots of one worker"),
        (changes((1, None, "a"), (2, None, "b")), Limits(per_key=1), "2 slots of one key"),
        (changes((1, None, "a"), (1, "a", None), (2, None, "b")), Limits(starts=1, per=2_000_001), "2 starts within"),
        (changes((1, None, "a"), (1, "b", None)), Limits(), "gave up a claim that it did not have"),
        (changes((1, None, "a")), Limits(), "never given back"),
    ],
)
def test_the_judge_finds_each_kind_of_fault(found: list[Change], limits: Limits, says: str) -> None:
    assert any(says in fault for fault in judge(found, limits))


def test_the_judge_finds_nothing_in_a_good_history() -> None:
    found = changes((1, None, "a"), (1, "a", "b"), (1, "b", None), (2, None, "c"), (2, "c", None))
    assert judge(found, Limits(1, 1, 1, 1, 2_000_000)) == []
