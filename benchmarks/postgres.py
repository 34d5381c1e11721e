"""The rows about Postgres: perdure's calls, single INSERTs through the same driver, and peers on the same server."""

from __future__ import annotations

from peers import ABSURD, DBOS, Case
from plan import Plan
from runner import Runner
from servers import MissingError, private_postgres
from table import Line, at_least, markdown, rate, times
from timeline import Timeline


def measure(runner: Runner) -> None:
    """All rounds of the rows."""
    try:
        with private_postgres() as url:
            for number in range(runner.plan.postgres_rounds):
                runner.say(f"postgres, round {number + 1} of {runner.plan.postgres_rounds}")
                _round(runner, "--postgres", url)
    except MissingError as error:
        runner.timeline.absent["postgres"] = str(error)


def _round(runner: Runner, *server: str) -> None:
    plan = runner.plan

    def raw() -> None:
        runner.measure("pg_raw", "postgres_insert.py", *server, "--count", plan.sequential)

    raw()
    for mode in ("sync", "async"):
        runner.measure(f"pg_{mode}", "perdure_sequential.py", *server, "--mode", mode, "--count", plan.sequential)
        raw()
    for mode in ("sync", "async"):
        runner.measure_cases(
            Case(DBOS, f"pg_dbos_{mode}", "dbos_sequential.py", (*server, "--mode", mode, "--count", plan.pg_dbos)),
            Case(
                ABSURD, f"pg_absurd_{mode}", "absurd_sequential.py", (*server, "--mode", mode, "--count", plan.absurd)
            ),
        )
    raw()
    runner.measure("pg_gathered", "perdure_gather.py", *server, "--count", plan.gathered)
    runner.measure_cases(
        Case(DBOS, "pg_dbos_gathered", "dbos_gather.py", (*server, "--count", plan.dbos_gathered)),
        Case(ABSURD, "pg_absurd_gathered", "absurd_gather.py", (*server, "--count", plan.absurd_gathered)),
    )


def lines(t: Timeline, plan: Plan) -> list[Line]:
    """The rows of the table."""
    result = [Line("postgres: raw: INSERT + commit, one by one", rate(t.median("pg_raw"), "rows/s"))]
    for mode in ("sync", "async"):
        key, ratio = f"pg_{mode}", t.ratio(f"pg_{mode}", "pg_raw")
        result.append(
            Line(f"postgres: sequential durable calls, {mode}", rate(t.median(key), "calls/s"), times(ratio),
                 _ratios(t, key, mode), "0.7x raw", at_least(ratio, 0.7))
        )  # fmt: skip
    ratio = t.ratio("pg_gathered", "pg_dbos_gathered")
    result.append(
        Line(f"postgres: {plan.gathered:,} gathered durable calls", rate(t.median("pg_gathered"), "calls/s"),
             times(t.ratio("pg_gathered", "pg_raw")), _ratios(t, "pg_gathered", "gathered"), "10x dbos",
             at_least(ratio, 10))
    )  # fmt: skip
    return result


def _ratios(t: Timeline, key: str, work: str) -> dict[str, str]:
    return {peer.name: times(t.ratio(key, f"pg_{peer.name}_{work}")) for peer in (DBOS, ABSURD)}


def peer_tables(t: Timeline, plan: Plan) -> list[str]:
    """What the peers do on Postgres by themselves, perdure beside them."""

    def cell(key: str, count: int = 0) -> str:
        figure = t.median(key)
        note = f" ({count:,})" if count not in (0, plan.gathered) else ""
        return "" if figure is None else rate(figure, "calls/s") + note

    rows = [("work, on Postgres", "perdure", DBOS.heading, ABSURD.heading)]
    for mode in ("sync", "async"):
        rows.append(
            (
                f"sequential durable calls, {mode}",
                cell(f"pg_{mode}"),
                cell(f"pg_dbos_{mode}"),
                cell(f"pg_absurd_{mode}"),
            )
        )
    rows.append(
        (f"{plan.gathered:,} gathered durable calls", cell("pg_gathered"),
         cell("pg_dbos_gathered", plan.dbos_gathered), cell("pg_absurd_gathered", plan.absurd_gathered))
    )  # fmt: skip
    return ["On Postgres:", markdown(rows)]
