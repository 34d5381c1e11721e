"""The rows about queues: runs per second through a queue whose limits never bind, and the cost of a claim."""

from __future__ import annotations

from statistics import median

from peers import DBOS, Case
from plan import Plan
from runner import Runner
from table import Line, at_least, at_most, rate, times
from timeline import Timeline

KEPT = 0.8
"""What a queue leaves of the throughput without one."""
PEER = 10.0
"""Target against dbos."""
GROWTH = 2.0
"""What many waiting runs may make of the cost of a claim."""
FEW, KEYS = 100, 1000


def measure(runner: Runner) -> None:
    """All rounds of the rows."""
    plan = runner.plan
    for number in range(plan.rounds):
        runner.say(f"queues, round {number + 1} of {plan.rounds}")
        runner.measure("queue_plain", "perdure_queue.py", "--plain", "--count", plan.queued)
        runner.measure("queue", "perdure_queue.py", "--count", plan.queued)
        runner.measure_cases(Case(DBOS, "queue_dbos", "dbos_queue.py", ("--count", plan.dbos_queued)))
        runner.measure("claim_few", "perdure_claims.py", "--count", FEW, "--keys", FEW)
        runner.measure("claim_many", "perdure_claims.py", "--count", plan.waiting, "--keys", KEYS)


def lines(t: Timeline, plan: Plan) -> list[Line]:
    """The rows of the table."""
    kept, faster = t.ratio("queue", "queue_plain"), t.ratio("queue", "queue_dbos")
    grown = t.ratio("claim_many", "claim_few")
    looks = [entry["first_look"] for entry in t.extra.get("claim_many", [])]
    beside = f"; the first look, which sorts them into the queue: {median(looks):.1f} s" if looks else ""
    return [
        Line("empty runs submitted to a worker, without a queue", rate(t.median("queue_plain"), "runs/s")),
        Line("the same through a queue whose limits never bind",
             f"{rate(t.median('queue'), 'runs/s')}, {times(kept)} of that without a queue",
             peers={DBOS.name: times(faster)}, target=f"{KEPT:g}x without a queue; {PEER:.0f}x {DBOS.name}",
             verdict=f"{at_least(kept, KEPT)}; {DBOS.name}: {at_least(faster, PEER)}"),
        Line(f"to find and claim one of {FEW} waiting runs", _micros(t.median("claim_few"))),
        Line(f"to find and claim one of {plan.waiting:,} waiting runs in {KEYS:,} keys",
             f"{_micros(t.median('claim_many'))}, {times(grown)} of one of {FEW}{beside}",
             target=f"{GROWTH:g}x one of {FEW}", verdict=at_most(grown, GROWTH)),
    ]  # fmt: skip


def _micros(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f} µs"
