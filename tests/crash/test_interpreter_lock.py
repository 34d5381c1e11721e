"""P3: a process that computes for longer than its lease keeps its runs; a process that only looks alive does not.

C code that holds the interpreter's lock stops every thread of its process, the heartbeat too. The family: a regular
expression that backtracks, an extension module that never releases the lock, one long operation on a builtin, on a
thread and on the event loop. Real workers (`perdure serve`) on one store and one machine.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.crash.fleet import Fleet, Worker
from tests.postgres_server import server
from tests.stores import ON_POSTGRES
from tests.waiting import wait_for

from perdure.core.ground.model import Status

WHOLE = os.environ.get("PERDURE_TEST_WHOLE") == "1"
"""Every kind of work on a thread and on the event loop; otherwise in turn, because each takes a whole processor."""
LEASE = 1.0
HELD = 3.0
"""Seconds for which the interpreter's lock is held: several leases."""


@pytest.fixture
def fleet(place: Path) -> Iterator[Fleet]:
    found = Fleet(place / "fleet", env={"PERDURE_LEASE": str(LEASE)})
    yield found
    found.close()


def begun(fleet: Fleet) -> Counter[str]:
    return Counter(line.fields[0] for line in fleet.log("begins"))


def lease_of(worker: Worker) -> float:
    row = worker.row()
    return float("-inf") if row is None else row.lease


@pytest.mark.parametrize(
    ("task", "work"),
    [
        (task, work)
        for number, work in enumerate(["match", "usleep", "range", "pow"])
        for task in (["holding", "holding_async"] if WHOLE else [("holding", "holding_async")[number % 2]])
    ],
)
def test_work_that_holds_the_interpreter_past_the_lease_is_begun_once(fleet: Fleet, task: str, work: str) -> None:
    """P3: the lease of the busy worker runs out, and the worker holds its operating system lock: no other worker takes
    its run over, and the run is no crash loop."""
    workers = [fleet.serve(wait=False) for _ in range(2)]
    for worker in workers:
        worker.ready()
    fleet.submit(fleet.new(task, "busy", tag="busy", work=work, seconds=HELD))
    wait_for(lambda: begun(fleet)["busy"], story=fleet.story)
    busy = next(worker for worker in workers if worker.pid == fleet.log("begins")[0].pid)
    wait_for(lambda: lease_of(busy) < 0 or fleet.status("busy") is not Status.RUNNING, story=fleet.story)
    fleet.wait("busy")
    assert begun(fleet) == {"busy": 1}, fleet.story()
    assert fleet.steps() == ["busy"], fleet.story()
    for worker in workers:
        assert "no longer this process's" not in worker.errors(), fleet.story()
        assert "goes on here" not in worker.errors(), fleet.story()


def test_a_process_that_asks_is_told_who_computes(fleet: Fleet) -> None:
    """P3: `perdure resume` refuses the run of a worker that computes past its lease, and names the worker; `perdure ls`
    shows the run as running."""
    busy = fleet.serve()
    fleet.submit(fleet.new("holding", "busy", tag="busy", work="usleep", seconds=4 * HELD))
    wait_for(lambda: begun(fleet)["busy"], story=fleet.story)
    wait_for(lambda: lease_of(busy) < 0, story=fleet.story)
    asked = fleet.perdure("resume", "busy")
    shown = fleet.perdure("ls").stdout
    assert asked.returncode != 0
    assert str(busy.pid) in asked.stderr, asked.stderr
    assert "RUNNING" in shown, shown
    assert begun(fleet) == {"busy": 1}, fleet.story()


def test_a_run_that_computes_is_taken_over_when_its_process_dies(fleet: Fleet) -> None:
    """P2: the operating system lock dies with the process, so the next worker begins within a moment."""
    busy = fleet.serve()
    fleet.submit(fleet.new("holding", "busy", tag="busy", work="usleep", seconds=HELD))
    wait_for(lambda: begun(fleet)["busy"], story=fleet.story)
    other = fleet.serve()
    wait_for(lambda: lease_of(busy) < 0, story=fleet.story)
    assert begun(fleet) == {"busy": 1}, fleet.story()
    busy.kill()
    wait_for(lambda: begun(fleet)["busy"] == 2, story=fleet.story)
    fleet.wait("busy")
    assert fleet.steps(other.pid) == ["busy"]


def test_runs_that_change_hands_by_lost_leases_are_no_crash_loop(fleet: Fleet) -> None:
    """P3: a lost lease is no crash. Two workers are stopped in turn, and take the run from each other fourteen times
    without a new entry; the run ends well."""
    one, other = fleet.serve(), None
    fleet.submit(fleet.new("waits_for_file", "run", tag="run", path=str(fleet.directory / "go")))
    wait_for(lambda: begun(fleet)["run"], story=fleet.story)
    other = fleet.serve()
    for number in range(14):
        holder, taker = (one, other) if number % 2 == 0 else (other, one)
        with holder.frozen():
            wait_for(lambda seen=number: begun(fleet)["run"] == seen + 2, story=fleet.story)
        assert fleet.run("run").worker == taker.row().id
    (fleet.directory / "go").touch()
    fleet.wait("run")
    assert fleet.steps()[-1] == "run"


@pytest.mark.skipif(not ON_POSTGRES, reason="about sessions of Postgres")
def test_a_busy_worker_whose_session_was_ended_keeps_its_runs(fleet: Fleet) -> None:
    """P3: the server ends the session with the worker's advisory lock, for instance because it restarts. The process
    still holds its lock on this machine."""
    busy, other = fleet.serve(), fleet.serve()
    held = fleet.new("holding", "busy", tag="busy", work="usleep", seconds=2 * HELD)
    with other.frozen():
        fleet.submit(held)
        wait_for(lambda: begun(fleet)["busy"], story=fleet.story)
        server().execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted "
            "AND pid <> pg_backend_pid()"
        )
    wait_for(lambda: lease_of(busy) < 0, story=fleet.story)
    fleet.wait("busy")
    assert begun(fleet) == {"busy": 1}, fleet.story()


@pytest.mark.skipif(not ON_POSTGRES, reason="workers of two machines share no SQLite file")
@pytest.mark.parametrize("work", ["match", "pow"])
def test_two_machines_do_not_take_a_busy_run_from_each_other_for_ever(fleet: Fleet, work: str) -> None:
    """P3: two workers that see no lock file of each other, as on two machines. The lease alone decides, so the run is
    begun on both; a worker whose heartbeat came late asks for a longer lease, and its next attempt is left alone."""
    workers = []
    for name in ("one", "two"):
        (fleet.directory / name).mkdir()
        workers.append(fleet.serve(env={"TMPDIR": str(fleet.directory / name)}, wait=False))
    for worker in workers:
        worker.ready()
    fleet.submit(fleet.new("holding", "busy", tag="busy", work=work, seconds=HELD))
    fleet.wait("busy")
    lengthened = sum(worker.errors().count("no heartbeat for") for worker in workers)
    # How many attempts the growing lease needs depends on the speed of the machine. Each attempt that lost its lease
    # has lengthened the lease of its worker; the last two attempts may have ended at the same time.
    assert 2 <= begun(fleet)["busy"] <= 2 + lengthened, fleet.story()
    assert lengthened, fleet.story()
