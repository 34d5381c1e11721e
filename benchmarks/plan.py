"""How often and how much: the two sizes of a benchmark run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """Every count is per measurement. A round measures everything once, but for what is measured within one run or
    counted, and so does not drift with the machine: that is measured in the first round alone."""

    rounds: int
    container_rounds: int

    sequential: int
    gathered: int
    runs: int
    runs_at_once: int
    journal: int
    longest: int
    instructions: int
    latencies: int
    dbos_latencies: int
    imports: int

    dbos_sequential: int
    dbos_gathered: int
    dbos_runs: int
    dbos_at_once: int
    restate_sequential: int
    restate_gathered: int
    restate_runs: int
    restate_at_once: int
    restate_latencies: int
    flyte_sequential: int
    flyte_gathered: int
    flyte_runs: int

    postgres_rounds: int
    pg_dbos: int
    absurd: int
    absurd_gathered: int

    worker_rounds: int
    served: int
    queued: int
    dbos_queued: int
    waiting: int
    parked: int
    parked_driven: int
    wakes: int

    containers: int
    containers_at_once: int
    containers_one_by_one: int
    container_mib: int
    container_files: int


FULL = Plan(
    rounds=3,
    container_rounds=3,
    sequential=3000,
    gathered=10_000,
    runs=1000,
    runs_at_once=1000,
    journal=100_000,
    longest=1_000_000,
    instructions=1000,
    latencies=200,
    dbos_latencies=30,
    imports=7,
    dbos_sequential=300,
    dbos_gathered=1000,
    dbos_runs=200,
    dbos_at_once=1000,
    restate_sequential=500,
    restate_gathered=1000,
    restate_runs=500,
    restate_at_once=1000,
    restate_latencies=200,
    flyte_sequential=1000,
    flyte_gathered=10_000,
    flyte_runs=500,
    postgres_rounds=3,
    pg_dbos=500,
    absurd=1000,
    absurd_gathered=2000,
    worker_rounds=1,
    served=100_000,
    queued=5_000,
    dbos_queued=500,
    waiting=100_000,
    parked=1_000_000,
    parked_driven=5_000,
    wakes=10_000,
    containers=20,
    containers_at_once=50,
    containers_one_by_one=10,
    container_mib=1024,
    container_files=10_000,
)

QUICK = Plan(
    rounds=1,
    container_rounds=1,
    sequential=1000,
    gathered=10_000,
    runs=300,
    runs_at_once=1000,
    journal=20_000,
    longest=100_000,
    instructions=300,
    latencies=60,
    dbos_latencies=10,
    imports=5,
    dbos_sequential=100,
    dbos_gathered=300,
    dbos_runs=100,
    dbos_at_once=200,
    restate_sequential=100,
    restate_gathered=300,
    restate_runs=100,
    restate_at_once=1000,
    restate_latencies=60,
    flyte_sequential=300,
    flyte_gathered=1000,
    flyte_runs=200,
    postgres_rounds=1,
    pg_dbos=100,
    absurd=200,
    absurd_gathered=300,
    worker_rounds=1,
    served=2_000,
    queued=1_000,
    dbos_queued=300,
    waiting=100_000,
    parked=20_000,
    parked_driven=1_000,
    wakes=1_000,
    containers=5,
    containers_at_once=16,
    containers_one_by_one=2,
    container_mib=256,
    container_files=1000,
)
