"""The rows about workers: runs per second by their number, and runs that sleep on one of them."""

from __future__ import annotations

from statistics import median

from plan import Plan
from runner import Runner
from table import Line, at_least, at_most, rate, times
from timeline import Timeline

WORKERS = (1, 2, 4)
MEMORY = 200.0  # MB that a million parked runs may add to a worker
LATE = 50.0  # ms, p99
GROWTH = 1.7  # what more workers make of one worker's rate on two cores


def measure(runner: Runner) -> None:
    """All rounds of the rows."""
    plan = runner.plan
    parked = ("--count", plan.parked, "--driven", plan.parked_driven, "--wakes", plan.wakes)
    for round_number in range(plan.worker_rounds):
        runner.say(f"workers, round {round_number + 1} of {plan.worker_rounds}")
        for number in WORKERS:
            runner.measure(f"workers_{number}", "perdure_workers.py", "--count", plan.served, "--workers", number)
        runner.measure("parked", "perdure_parked.py", *parked)


def lines(t: Timeline, plan: Plan) -> list[Line]:
    """The rows of the table."""
    result = []
    one = t.median("workers_1")
    for number in WORKERS:
        figure = t.median(f"workers_{number}")
        growth = None if figure is None or one is None or number == 1 else figure / one
        shown = "" if growth is None else f", {times(growth)} of one worker"
        submitted = [entry["submitted"] for entry in t.extra.get(f"workers_{number}", [])]
        beside = f"; submitted at {rate(median(submitted), 'runs/s')}" if submitted else ""
        work = f"{plan.served:,} empty runs submitted to {number} worker{'s' if number > 1 else ''} and finished"
        target, verdict = ("", "") if number == 1 else (f"{GROWTH:g}x one worker", at_least(growth, GROWTH))
        result.append(Line(work, rate(figure, "runs/s") + shown + beside, target=target, verdict=verdict))
    rounds = t.extra.get("parked", [])
    if not rounds:
        return [*result, Line(f"{plan.parked:,} parked runs", "-", verdict="not measured")]

    def middle(key: str) -> float:
        return median(entry[key] for entry in rounds)

    late, more = middle("figure"), (middle("full_bytes") - middle("idle_bytes")) / 1e6
    result += [
        Line("runs that record three traces and are parked", rate(middle("driven_per_second"), "runs/s")),
        Line("their rows written alone", rate(middle("filled_per_second"), "runs/s")),
        Line(f"{plan.parked:,} parked runs: on disk, each", f"{middle('bytes_per_run'):,.0f} bytes"),
        Line(f"{plan.parked:,} parked runs: memory of the idle worker", f"{more:+.1f} MB", target=f"+{MEMORY:.0f} MB",
             verdict=at_most(more, MEMORY, " MB")),
        Line(f"wake-ups of {plan.wakes:,} of them spread over 10 s: how late", f"p50 {middle('p50'):.1f} ms, "
             f"p99 {late:.1f} ms, worst {middle('worst'):.1f} ms", target=f"p99 {LATE:.0f} ms",
             verdict=at_most(late, LATE, " ms")),
    ]  # fmt: skip
    return result
