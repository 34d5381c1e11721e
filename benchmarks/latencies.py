"""The rows about latencies between processes: messages to a body that waits, starts of runs, and their results."""

from __future__ import annotations

from statistics import median

from peers import DBOS, RESTATE, Case, cases, restate_server
from plan import Plan
from runner import Runner
from servers import MissingError, private_postgres
from table import Line, at_most, markdown, times
from timeline import Timeline

STORES = {"sqlite": "", "pg": "postgres: "}
"""The prefix of the keys of a store, and the prefix of its rows."""
WORKS = {
    "": "from a signal in another process to the next line of the body that waits for the signal",
    "_start": "from a submission in another process to the first line of the run",
    "_end": "from the last line of a run to the result at another process that waits",
}
"""By the ending of the key: the rows of one case. The case measures them one after the other."""
SUBMITTED = "a run of three steps, submitted by another process to a listening worker, until its result is there"

LATENCY = 5.0
"""Target of the medians, in milliseconds."""
SUBMITTED_P99, P99 = 25.0, 50.0
"""Targets of the 99th percentiles, in milliseconds."""


def measure(runner: Runner) -> None:
    """All rounds of the rows."""
    plan = runner.plan
    for number in range(plan.rounds):
        runner.say(f"latencies, round {number + 1} of {plan.rounds}")
        runner.measure("latency", "perdure_latency.py", "--count", plan.latencies)
        runner.measure_cases(*cases("latency", plan))
        _measure_messages(runner, "sqlite")
    try:
        with private_postgres() as url:
            for number in range(plan.postgres_rounds):
                runner.say(f"latencies on Postgres, round {number + 1} of {plan.postgres_rounds}")
                _measure_messages(runner, "pg", "--postgres", url)
    except MissingError as error:
        runner.timeline.absent["postgres"] = str(error)


def _measure_messages(runner: Runner, store: str, *server: str) -> None:
    plan, key = runner.plan, f"{store}_messages"
    runner.measure("fsync_of_latencies", "fsync.py")
    counts = ("--count", plan.latencies, "--runs", plan.latencies)
    runner.measure(key, "perdure_messages.py", *server, *counts)
    # What polls is slow, and needs fewer rounds. dbos polls for messages on SQLite alone.
    messages = plan.latencies if server else plan.dbos_latencies
    dbos = (*server, "--count", messages, "--runs", plan.dbos_latencies)
    peers = [Case(DBOS, f"{key}_dbos", "dbos_messages.py", dbos)]
    if not server:
        restate = ("--server", restate_server() or "absent", *counts)
        peers.append(Case(RESTATE, f"{key}_restate", "restate_messages.py", restate))
    runner.measure_cases(*peers)
    for case in (key, *(peer.key for peer in peers)):
        runner.note_parts(case, "start", "end")


def lines(t: Timeline, plan: Plan) -> list[Line]:
    """The rows of the table."""
    fsync = t.median("fsync_of_latencies")
    result = [] if fsync is None else [Line("one fsync of 4 KiB, beside the latencies", f"{fsync:,.1f} µs")]
    against = {RESTATE.name: times(t.ratio("restate_latency", "latency"))}
    result.append(_line(t, SUBMITTED, "latency", SUBMITTED_P99, against))
    for store, prefix in STORES.items():
        for ending, work in WORKS.items():
            key = f"{store}_messages"
            against = {
                peer.name: times(t.ratio(f"{key}_{peer.name}{ending}", key + ending)) for peer in (DBOS, RESTATE)
            }
            result.append(_line(t, prefix + work, key + ending, P99, against))
    return result


def _line(t: Timeline, work: str, key: str, most: float, against: dict[str, str]) -> Line:
    middle, p99 = t.median(key), _p99(t, key)
    if middle is None or p99 is None:
        return Line(work, "-", verdict="not measured")
    return Line(
        work, _shown(t, key), peers=against, target=f"{LATENCY:.0f} ms, p99 {most:.0f} ms",
        verdict=f"{at_most(middle, LATENCY, ' ms')}; p99: {at_most(p99, most, ' ms')}",
    )  # fmt: skip


def _p99(t: Timeline, key: str) -> float | None:
    rounds = t.extra.get(key, [])
    return median(one["p99"] for one in rounds) if rounds else None


def _shown(t: Timeline, key: str) -> str:
    middle, p99 = t.median(key), _p99(t, key)
    return "" if middle is None or p99 is None else f"{middle:,.1f} ms, p99 {p99:,.1f} ms"


def peer_tables(t: Timeline, plan: Plan) -> list[str]:
    """What the peers do by themselves, perdure beside them."""
    rows: list[tuple[str, ...]] = [("latency", "perdure", DBOS.heading, RESTATE.heading)]
    rows.append((SUBMITTED, _shown(t, "latency"), "", _shown(t, "restate_latency")))
    for store, prefix in STORES.items():
        for ending, work in WORKS.items():
            keys = (f"{store}_messages{peer}{ending}" for peer in ("", f"_{DBOS.name}", f"_{RESTATE.name}"))
            rows.append((prefix + work, *(_shown(t, key) for key in keys)))
    return ["Latencies between processes:", markdown(rows)]
