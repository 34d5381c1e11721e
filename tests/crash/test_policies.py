"""SP1 to SP4: programs that submit with policies, and workers, are killed at any moment."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from tests.crash.fleet import Fleet
from tests.crash.harness import WORKFLOWS
from tests.waiting import kill, wait_for

from perdure.core.ground.clock import US
from perdure.core.ground.model import FINISHED, RunRow, Status

PROGRAM = WORKFLOWS / "policed.py"
EVERY = 0.3


@pytest.fixture
def fleet(place: Path) -> Iterator[Fleet]:
    found = Fleet(place / "fleet", PROGRAM, env={"PERDURE_LEASE": "1"})
    yield found
    found.close()


def submitter(fleet: Fleet, number: int) -> tuple[subprocess.Popen[bytes], Path]:
    out = fleet.directory / f"submitted-{number}"
    with out.open("wb") as file:
        env = {**os.environ, **fleet.env}
        return subprocess.Popen([sys.executable, str(PROGRAM)], cwd=fleet.directory, env=env, stdout=file), out


def of_key(fleet: Fleet, key: str) -> list[RunRow]:
    rows = fleet.query(f"SELECT run FROM submissions WHERE key = '{key}'")
    found = [fleet.store.run_by_id(run) for (run,) in rows]
    return [run for run in found if run is not None]


def test_policies_hold_while_submitters_and_workers_are_killed(fleet: Fleet) -> None:
    """SP1, SP2, SP3, SP4. What a killed program was told of is there; the beginnings of a key are apart; no key has two
    runs that wait; the runs of a queue for one never overlap; no run is left over."""
    rng = random.Random(11)
    fleet.serve(), fleet.serve()
    told: list[Path] = []
    for number in range(4):
        pairs = [submitter(fleet, 2 * number + n) for n in range(2)]
        told += [out for _, out in pairs]
        wait_for(lambda: all(out.stat().st_size for out in told), story=fleet.story)  # noqa: B023
        time.sleep(rng.uniform(0.1, 0.6))  # the moment of the kill
        for process, _ in pairs:
            kill(process)
        if number < 3:
            fleet.workers[-2].kill()
            fleet.serve()
        for kind in ("throttled", "late", "once"):
            assert sum(run.status is Status.QUEUED for run in of_key(fleet, kind)) <= 1
    wait_for(lambda: set(fleet.counts()) <= {str(status) for status in FINISHED}, story=fleet.story)
    for out in told:
        assert all(fleet.store.run(name) is not None for name in out.read_text().split("\n")[:-1])
    for kind in ("throttled", "late"):
        began = sorted(run.started_at for run in of_key(fleet, kind) if run.started_at is not None)
        assert len(began) >= 2
        if kind == "throttled":
            assert all(later - earlier >= EVERY * US for earlier, later in pairwise(began))
    spans = sorted(
        (run.started_at, run.ended_at)
        for run in fleet.store.runs(limit=100_000)
        if run.queue == "single" and run.started_at is not None and run.ended_at is not None
    )
    assert len(spans) >= 2
    assert all(ended <= began for (_, ended), (began, _) in pairwise(spans))
    for (name,) in fleet.query("SELECT name FROM runs WHERE cancel LIKE 'not begun by%'"):
        assert fleet.run(name).started_at is None
