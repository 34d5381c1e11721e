"""The rows about the journal on SQLite: durable calls, empty runs, resuming, imports and instructions."""

from __future__ import annotations

import shutil
from pathlib import Path
from statistics import median

from peers import DBOS, FLYTE, RESTATE, cases
from plan import Plan
from runner import Runner
from table import Line, at_least, at_most, markdown, rate, times
from timeline import Timeline

# `import perdure` alone loads names lazily; this is what a program that declares and runs a task really loads.
NAMES = "perdure; perdure.TaskEnvironment, perdure.trace, perdure.run"

FAST_FSYNC = 150.0
"""µs; on a disk faster than this the rows marked * are judged by what perdure adds per call."""
ON_TOP = {"sync": 35.0, "async": 45.0}
"""µs per call."""
INSTRUCTIONS = {"sync": 90_000, "async": 130_000}
"""Per call."""


def measure(runner: Runner) -> None:
    """All rounds of the rows."""
    _Rounds(runner).run()


class _Rounds:
    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.plan = runner.plan
        self.measure = runner.measure

    def run(self) -> None:
        plan = self.plan
        journals = {mode: self.build_journal(mode) for mode in ("sync", "async")}
        for number in range(plan.rounds):
            self.runner.say(f"round {number + 1} of {plan.rounds}")
            self.measure("fsync", "fsync.py")
            raw = ("raw_insert", "raw_insert.py", "--count", plan.sequential)
            self.measure(*raw)
            self.measure("sync", "perdure_sequential.py", "--mode", "sync", "--count", plan.sequential)
            self.measure(*raw)
            self.measure("async", "perdure_sequential.py", "--mode", "async", "--count", plan.sequential)
            self.measure(*raw)
            self.measure_peers("sequential")
            self.measure(*raw)
            self.measure("runs", "perdure_empty.py", "--mode", "sequential", "--count", plan.runs)
            self.measure(*raw)
            self.measure_peers("runs")
            self.measure("runs_at_once", "perdure_empty.py", "--mode", "at-once", "--count", plan.runs_at_once)
            self.measure_peers("runs_at_once")
            self.runner.keep_the_better("dbos_runs_at_once", "dbos_at-once", "dbos_at-once-threads")
            batch = ("raw_batch", "raw_batch.py", "--count", plan.gathered)
            self.measure(*batch)
            self.measure("gathered", "perdure_gather.py", "--count", plan.gathered)
            self.measure(*batch)
            self.measure_peers("gathered")
            for mode, journal in journals.items():
                self.measure_resume(mode, journal)
            self.measure("import_base", "import_time.py", "--count", plan.imports)
            self.measure("import_perdure", "import_time.py", "--count", plan.imports, "--modules", "perdure")
            self.measure("import_base", "import_time.py", "--count", plan.imports)
            self.measure("import_names", "import_time.py", "--count", plan.imports, "--modules", NAMES)
            self.measure("import_base", "import_time.py", "--count", plan.imports)
            if number == 0:
                self.measure("lengths", "perdure_lengths.py", "--count", plan.longest)
                self.measure_instructions()

    def measure_instructions(self) -> None:
        if "valgrind" not in self.runner.timeline.absent:
            for mode in ("sync", "async"):
                case = ("perdure_instructions.py", "--mode", mode, "--count", self.plan.instructions)
                self.measure(f"instructions_{mode}", *case)

    def build_journal(self, mode: str) -> Path | None:
        key = f"build_{mode}"
        self.runner.say(f"building a run of {self.plan.journal:,} entries ({mode})")
        path = self.runner.fresh() / "perdure.db"
        self.measure(
            key,
            "perdure_resume.py",
            *("--stage", "build", "--mode", mode, "--count", self.plan.journal, "--db", path),
        )
        return None if key in self.runner.timeline.failures else path

    def measure_resume(self, mode: str, journal: Path | None) -> None:
        key = f"resume_{mode}"
        if journal is None:
            self.runner.timeline.failures[key] = self.runner.timeline.failures[f"build_{mode}"]
            return
        for name, script, arguments in (
            (f"scan_{mode}", "raw_scan.py", ()),
            (key, "perdure_resume.py", ("--stage", "resume", "--mode", mode)),
            (f"scan_{mode}", "raw_scan.py", ()),
        ):
            copy = self.runner.fresh()
            shutil.copytree(journal.parent, copy)
            self.measure(name, script, "--count", self.plan.journal, *arguments, "--db", copy / journal.name)
            shutil.rmtree(copy, ignore_errors=True)

    def measure_peers(self, work: str) -> None:
        self.runner.measure_cases(*cases(work, self.plan))


def _ratios(t: Timeline, key: str, **against: str) -> dict[str, str]:
    """`key` in multiples of each peer's figure."""
    return {peer: times(t.ratio(key, other)) for peer, other in against.items()}


def lines(t: Timeline, plan: Plan) -> list[Line]:
    """The rows of the table."""
    fsync = t.median("fsync")
    fast = fsync is not None and fsync < FAST_FSYNC
    result = [
        Line("one fsync of 4 KiB", rate(fsync, "µs")),
        Line("raw: INSERT + commit, one by one", rate(t.median("raw_insert"), "rows/s")),
        Line(f"raw: executemany of {plan.gathered:,} rows, one commit", rate(t.median("raw_batch"), "rows/s")),
    ]

    def calls(work: str, key: str, raw_key: str, target: float, dbos_target: float, **against: str) -> None:
        ratio, top, most = t.ratio(key, raw_key), t.on_top(key, raw_key), ON_TOP.get(key)
        by_ratio = at_least(ratio, target)
        verdict = f"{at_most(top, most, ' µs')} (by ratio: {by_ratio})" if fast and most is not None else by_ratio
        verdict += f"; dbos: {at_least(t.ratio(key, against['dbos']), dbos_target)}"
        raw = "" if ratio is None or top is None else f"{times(ratio)}, {top:+.0f} µs per call"
        wanted = f"at most {most:.0f} µs on top of raw" if fast and most is not None else f"{target:g}x raw"
        peers = _ratios(t, key, **against)
        result.append(
            Line(work, rate(t.median(key), "calls/s"), raw, peers, f"{wanted}; {dbos_target:g}x dbos", verdict)
        )

    for mode, target in (("sync", 0.9), ("async", 0.8)):
        against = {"dbos": f"dbos_{mode}", "restate": "restate_async", "flyte": f"flyte_{mode}"}
        calls(f"sequential durable calls, {mode} *", mode, "raw_insert", target, 10, **against)
    against = {peer.name: f"{peer.name}_gathered" for peer in (DBOS, RESTATE, FLYTE)}
    calls(f"{plan.gathered:,} gathered durable calls", "gathered", "raw_batch", 0.2, 50, **against)

    runs = t.ratio("runs", "raw_insert")
    result.append(
        Line("empty runs, one after the other", rate(t.median("runs"), "runs/s"), times(runs),
             _ratios(t, "runs", dbos="dbos_runs", restate="restate_runs", flyte="flyte_runs"),
             "0.5x raw", at_least(runs, 0.5))
    )  # fmt: skip
    against = {"dbos": "dbos_runs_at_once", "restate": "restate_runs_at_once"}
    result.append(
        Line(f"empty runs, {plan.runs_at_once:,} at once", rate(t.median("runs_at_once"), "runs/s"), "",
             _ratios(t, "runs_at_once", **against), "30x dbos", at_least(t.ratio("runs_at_once", against["dbos"]), 30))
    )  # fmt: skip

    for mode in ("sync", "async"):
        ratio = t.ratio(f"resume_{mode}", f"scan_{mode}")
        result.append(
            Line(f"resume of a run with {plan.journal:,} entries, {mode}", rate(t.median(f"resume_{mode}"), "s"),
                 times(ratio), target="3x raw's time", verdict=at_most(ratio, 3))
        )  # fmt: skip
    result.append(Line("raw: SELECT and decode of the same rows", rate(t.median("scan_sync"), "s")))
    result += _length_lines(t)
    result += _instruction_lines(t)

    statement = t.ratio("import_perdure", "import_base")
    walls = [[entry["wall"] for entry in t.extra.get(key, [])] for key in ("import_perdure", "import_base")]
    wall = median(walls[0]) / median(walls[1]) if all(walls) else None
    names = t.ratio("import_names", "import_base")
    whole = rate(median(walls[0]) if walls[0] else None, "ms")
    for work, figure, ratio in (
        ("import perdure", rate(t.median("import_perdure"), "ms"), statement),
        ("import perdure; TaskEnvironment, trace, run", rate(t.median("import_names"), "ms"), names),
        ("python -c 'import perdure', the whole process", whole, wall),
    ):
        result.append(Line(work, figure, times(ratio), target="1.3x raw", verdict=at_most(ratio, 1.3)))
    result.append(Line("raw: import asyncio, sqlite3, msgspec", rate(t.median("import_base"), "ms")))
    return result


def _length_lines(t: Timeline) -> list[Line]:
    """What a call costs by the length of its run: each in multiples of the one at the 1,000th entry of the same run."""
    rounds = t.extra.get("lengths", [])
    if not rounds:
        return [Line("cost of a call by run length", "-", verdict="not measured")]
    result = []
    for key in (key for key in rounds[0] if key.startswith("at_")):
        cost = median(each[key] for each in rounds)
        ratio = median(each[key] / each["at_1000"] for each in rounds)
        work = f"cost of a call at entry {int(key.removeprefix('at_')):,} of a run"
        if key == "at_1000":
            result.append(Line(work, f"{cost:.1f} µs"))
        else:
            shown = f"{cost:.1f} µs, {times(ratio)}"
            result.append(Line(work, shown, target="1.2x that at entry 1,000", verdict=at_most(ratio, 1.2)))
    return result


def _instruction_lines(t: Timeline) -> list[Line]:
    """What a call costs the processor, whatever else the machine does."""
    why = t.absent.get("valgrind")
    result = []
    for mode, most in INSTRUCTIONS.items():
        figure = t.median(f"instructions_{mode}")
        over = "not measured" if why is None else f"not measured: valgrind is {why}"
        if figure is not None:
            over = "met" if figure <= most else f"over by {figure - most:,.0f} ({figure / most:.2f}x)"
        shown = "-" if figure is None else f"{figure:,.0f}"
        result.append(Line(f"instructions of a durable call, {mode}", shown, target=f"{most:,}", verdict=over))
    return result


def peer_tables(t: Timeline, plan: Plan) -> list[str]:
    """What the peers do by themselves, perdure beside them."""

    def cell(key: str, unit: str, note: str = "") -> str:
        figure = t.median(key)
        return "" if figure is None else rate(figure, unit) + note

    def nearest(count: int) -> str:
        return "" if count == plan.gathered else f" ({count:,})"

    steps, runs = "calls/s", "runs/s"
    rows = [
        ("work", "perdure", "dbos", "dbos, WAL by hand", RESTATE.heading, FLYTE.heading),
        ("sequential durable calls, sync", cell("sync", steps), cell("dbos_sync", steps), cell("dbos_sync_wal", steps),
         "", cell("flyte_sync", steps)),
        ("sequential durable calls, async", cell("async", steps), cell("dbos_async", steps),
         cell("dbos_async_wal", steps), cell("restate_async", steps), cell("flyte_async", steps)),
        ("sequential calls of tasks", "", "", "", "", cell("flyte_tasks", steps)),
        (f"{plan.gathered:,} gathered durable calls", cell("gathered", steps),
         cell("dbos_gathered", steps, nearest(plan.dbos_gathered)), "",
         cell("restate_gathered", steps, nearest(plan.restate_gathered)),
         cell("flyte_gathered", steps, nearest(plan.flyte_gathered))),
        ("empty runs, one after the other", cell("runs", runs), cell("dbos_runs", runs), "",
         cell("restate_runs", runs), cell("flyte_runs", runs)),
        (f"empty runs, {plan.runs_at_once:,} at once", cell("runs_at_once", runs), cell("dbos_runs_at_once", runs), "",
         cell("restate_runs_at_once", runs), ""),
    ]  # fmt: skip
    return ["The peers by themselves:", markdown(rows)]
