"""P3 over a network: three workers on three machines, one Postgres; one is cut off, and comes back."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.crash.fleet import CLOCK, Fleet
from tests.crash.networks import Network, why_not
from tests.journals import recorded
from tests.postgres_server import DATABASE, PASSWORD, USER, Server, programs
from tests.waiting import wait_for

from perdure.core.ground.model import Kind, Status
from perdure.core.ground.values import ANY

LEASE = 2.0
STEP = 3.0
"""Seconds, longer than the lease: a step's outcome that was sent into the cut cable can still arrive before the step,
done again elsewhere, has ended there. Were it not refused, it would be taken."""
SLEEP: float = 6.0
"""Longer still, so that what is sent in those moments is a step's outcome."""


@pytest.fixture
def network() -> Iterator[Network]:
    if reason := why_not():
        pytest.skip(reason)
    found = Network()
    yield found
    found.close()


@pytest.fixture
def server(network: Network) -> Iterator[Server]:
    folder = programs()
    if folder is None:
        pytest.skip("needs a Postgres server (apt-get install postgresql)")
    found = Server(folder, listen=network.address, subnet=network.subnet)
    yield found
    found.close()


def test_a_partitioned_worker_is_fenced_when_it_returns(network: Network, server: Server, place: Path) -> None:
    """P3: its runs go on elsewhere after the lease. What it had sent, or still sends, for them is refused."""
    local = server.url()
    schema = local.rpartition("=")[2]
    remote = f"postgresql://{USER}:{PASSWORD}@{network.address}/{DATABASE}?schema={schema}"
    fleet = Fleet(place / "fleet", env={"PERDURE_LEASE": str(LEASE)}, remote=local)
    fleet.env["PERDURE_STORE"] = remote
    try:
        machines = [network.machine() for _ in range(3)]
        ticking = {f"t{number}": 5 for number in range(18)}
        stepwise = {f"s{number}": 2 for number in range(18)}
        runs = [fleet.new("ticking", name, tag=name, count=count, seconds=STEP) for name, count in ticking.items()]
        runs += [fleet.new("stepwise", name, tag=name, count=count, seconds=SLEEP) for name, count in stepwise.items()]
        # The victim is full with its twelve. Either of the others cannot hold the rest alone, both can hold all.
        victim, cut = fleet.serve("--concurrency", 12, within=machines[0].within), machines[0]
        fleet.submit(*runs[::3])
        others = [fleet.serve("--concurrency", 20, within=machine.within, wait=False) for machine in machines[1:]]
        for other in others:
            other.ready()
        fleet.submit(*runs[1::3], *runs[2::3])
        wait_for(lambda: all(len(fleet.steps(worker.pid)) > 3 for worker in fleet.workers), story=fleet.story)
        mine = [run for run in fleet.store.runs() if run.worker == victim.row().id]
        assert {run.name[0] for run in mine} == {"t", "s"}, fleet.story()
        began = min([line.boot for line in fleet.log("begins") if line.pid == victim.pid][-6:])
        time.sleep(max(0.0, began + STEP - 1.0 - time.clock_gettime(time.CLOCK_BOOTTIME)))

        cut.cut()
        parted = CLOCK.wall()
        severed = time.clock_gettime(time.CLOCK_BOOTTIME)
        elsewhere = {other.row().id for other in others}

        def moved() -> bool:
            now = {run.name: run for run in fleet.store.runs()}
            return all(now[run.name].worker in elsewhere or now[run.name].status is Status.SUCCEEDED for run in mine)

        wait_for(moved, story=fleet.story)
        assert time.clock_gettime(time.CLOCK_BOOTTIME) - severed > LEASE / 2, "no other worker could know before"
        mended = time.clock_gettime(time.CLOCK_BOOTTIME)
        cut.mend()
        victim.says("is no longer this process's")
        fleet.wait()

        # What it did while it was cut off has happened, but nothing of it was recorded: each was done again elsewhere.
        # (Once it is back, it may take runs up again.)
        late = {line.fields[0] for line in fleet.log() if line.pid == victim.pid and severed < line.boot < mended}
        lost = {run.name for run in mine}
        late = {step for step in late if step.partition(".")[0] in lost}
        assert late, "it was in the middle of something"
        again = {step for other in others for step in fleet.steps(other.pid)}
        assert late <= again, late - again

        results = {run.name: ANY.decode(run.value or b"") for run in fleet.store.runs()}
        assert results == {**ticking, **stepwise}
        for name, count in (ticking | stepwise).items():
            traces = [entry for entry in recorded(fleet.store, fleet.run(name)) if entry.kind == Kind.TRACE]
            steps = Counter(ANY.decode(entry.value) for entry in traces)
            assert steps == Counter(f"{name}.{number}" for number in range(count)), (name, steps)
            for entry in traces:
                if ANY.decode(entry.value) in late:
                    assert entry.at > parted, "this is what the worker that was cut off has sent"
        assert set(re.findall(r"run '(\w+)' is no longer", victim.errors())) <= lost
        for other in others:
            assert "Error" not in other.errors(), other.errors()
    finally:
        fleet.close()
