"""P3, P7, P8 for workers whose wall clock is set by an hour or a year, either way, while they sleep and hold leases."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.crash.fleet import Fleet
from tests.crash.test_clocks import HOUR, YEAR
from tests.stores import sqlite_only
from tests.waiting import Stall, stays_true

from perdure.core.ground.model import Status

WHOLE = os.environ.get("PERDURE_TEST_WHOLE") == "1"
LEASE = 1.0
SLEEP = 2.5

pytestmark = sqlite_only


class SteppedClock:
    """The wall clock of a worker, some seconds off, in one step. It is Python's clock that is moved, as `time.sleep`
    fails now and then under libfaketime, and a worker sleeps."""

    def __init__(self, place: Path) -> None:
        self._file = place / "offset"
        tools = place / "tools"
        tools.mkdir()
        (tools / "sitecustomize.py").write_text(
            "import time\nreal = time.time_ns\n"
            f"time.time_ns = lambda: real() + int(open({str(self._file)!r}).read()) * 10**9\n"
        )
        paths = [str(tools), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.env = {"PYTHONPATH": os.pathsep.join(paths)}
        self.set(0)

    def set(self, seconds: int) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(self._file)


@pytest.fixture
def clock(tmp_path: Path) -> SteppedClock:
    return SteppedClock(tmp_path)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    found = Fleet(tmp_path / "fleet")
    yield found
    found.close()


@pytest.mark.parametrize(
    "steps",
    [(YEAR, -YEAR), *([(HOUR, -HOUR), (-HOUR, HOUR), (-YEAR, YEAR)] if WHOLE else [])],
    ids=lambda steps: f"{steps[0] // HOUR:+d} h first",
)
def test_no_step_of_the_wall_clock_takes_a_lease_or_moves_the_end_of_a_sleep(
    fleet: Fleet, clock: SteppedClock, steps: tuple[int, int]
) -> None:
    """Two workers, on the same stepping clock: no run goes to the other worker, and each sleep takes its length."""
    env = {**clock.env, "PERDURE_LEASE": str(LEASE)}
    workers = [fleet.serve("--park-after", "60s", env=env, wait=False) for _ in range(2)]
    for worker in workers:
        worker.ready()
    began = time.clock_gettime(time.CLOCK_BOOTTIME)
    fleet.submit(*(fleet.new("waking", f"w{n}", tag=f"w{n}", seconds=SLEEP) for n in range(4)))
    fleet.submit(*(fleet.new("ticking", f"t{n}", tag=f"t{n}", count=40, seconds=0.05) for n in range(2)))
    fleet.wait("w0", status=Status.RUNNING)
    with Stall() as stall:
        for step in steps:
            clock.set(step)
            # Longer than a third of the lease: the lease is renewed on the stepped clock.
            stays_true(lambda: all(worker.process.poll() is None for worker in workers), LEASE / 2)
        clock.set(0)
        fleet.wait()
    for worker in workers:
        assert "no longer this process's" not in worker.errors(), worker.errors()
        assert "Error" not in worker.errors(), worker.errors()
    steps_done = fleet.steps()
    assert len(steps_done) == len(set(steps_done)), "a step was executed twice"
    woken = [line for line in fleet.log() if line.fields[0].startswith("w")]
    assert woken
    for line in woken:
        assert SLEEP - 0.1 < line.boot - began < stall.bound(SLEEP + 1.5, work=1.0), line
    assert all(run.crashes <= 1 for run in fleet.store.runs())
