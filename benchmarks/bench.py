"""Measure perdure against its speed budget: `make bench`, or `make bench BENCH_ARGS=--quick`.

Everything is measured in one run on the disk of the project, and judged by ratios: against "raw" (Python's own
`sqlite3`: WAL, `synchronous=FULL`) and against `dbos` on SQLite. Every measurement is a process of its own
(`benchmarks/cases/`). The speed of a disk drifts, so raw and perdure take turns, and a ratio is the median of ratios
between neighbours in time, never a ratio of two far-apart medians.

Containers are measured against the engine's own client on the same engine: a private Docker daemon, then a private
Podman, which the tests' helpers start and this program stops. Where one cannot be had, its rows say why.

Prints a table and writes it to `benchmarks/RESULTS.md`; what stands there below the notes' heading is kept.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import mean, median
from time import perf_counter

PROJECT = Path(__file__).resolve().parent.parent
CASES = PROJECT / "benchmarks" / "cases"
RESULTS = PROJECT / "benchmarks" / "RESULTS.md"
DBOS_PYTHON = PROJECT / ".venvs" / "dbos" / "bin" / "python"
NOTES = "## Notes"

# `import perdure` alone loads names lazily; this is what a program that declares and runs a task really loads.
NAMES = "perdure; perdure.TaskEnvironment, perdure.trace, perdure.run"

FAST_FSYNC = 150.0  # µs; on a disk faster than this the rows marked * are judged by what perdure adds per call
ON_TOP = 40.0  # µs per call


@dataclass(frozen=True)
class Plan:
    """How often and how much; every count is per measurement."""

    rounds: int
    dbos_rounds: int
    sequential: int
    gathered: int
    runs: int
    runs_at_once: int
    journal: int
    late: int
    imports: int
    dbos_sequential: int
    dbos_gathered: int
    dbos_runs: int
    dbos_runs_at_once: int
    container_rounds: int
    containers: int
    containers_at_once: int
    containers_one_by_one: int
    container_mib: int
    container_files: int


FULL = Plan(5, 3, 3000, 10_000, 1000, 1000, 100_000, 100_000, 7, 300, 10_000, 200, 1000, 3, 20, 50, 10, 1024, 10_000)
QUICK = Plan(1, 1, 1000, 10_000, 300, 1000, 20_000, 20_000, 5, 100, 300, 100, 200, 1, 5, 16, 2, 256, 1000)
ENGINES = ("docker", "podman")


@dataclass
class Timeline:
    """Every measurement in the order in which it was taken."""

    taken: list[tuple[str, float]] = field(default_factory=list)
    extra: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def figures(self, key: str) -> list[float]:
        return [figure for name, figure in self.taken if name == key]

    def median(self, key: str) -> float | None:
        figures = self.figures(key)
        return median(figures) if figures else None

    def pairs(self, key: str, against: str) -> list[tuple[float, float]]:
        """Each figure of `key` with the mean of the nearest `against` before and behind it."""
        result = []
        for index, (name, figure) in enumerate(self.taken):
            if name != key:
                continue
            before = next((f for n, f in reversed(self.taken[:index]) if n == against), None)
            behind = next((f for n, f in self.taken[index:] if n == against), None)
            neighbours = [f for f in (before, behind) if f is not None]
            if neighbours:
                result.append((figure, mean(neighbours)))
        return result

    def ratio(self, key: str, against: str) -> float | None:
        pairs = self.pairs(key, against)
        return median(figure / other for figure, other in pairs) if pairs else None

    def on_top(self, key: str, against: str) -> float | None:
        """Microseconds that one call takes longer; both figures are rates."""
        pairs = self.pairs(key, against)
        return median(1e6 / figure - 1e6 / other for figure, other in pairs) if pairs else None


class Bench:
    def __init__(self, plan: Plan, directory: Path) -> None:
        self.plan = plan
        self.directory = directory
        self.timeline = Timeline()
        self._serial = 0

    def fresh(self) -> Path:
        self._serial += 1
        return self.directory / str(self._serial)

    def measure(self, key: str, script: str, *arguments: object, python: Path | None = None) -> None:
        """Run one case and note its figure; a case that fails is named in the table, and the rest goes on."""
        if key in self.timeline.failures:
            return
        where = self.fresh()
        command = [str(python or sys.executable), str(CASES / script), *map(str, arguments)]
        if script not in ("import_time.py", "raw_scan.py") and "--db" not in arguments:
            command += ["--dir", str(where)]
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PERDURE_", "DBOS_", "PYTHONDONTWRITE"))
        }
        print(f"  {key} ...", end="", file=sys.stderr, flush=True)
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=900, env=environment, cwd=PROJECT, check=False
            )
            if done.returncode != 0:
                lines = [line for line in done.stderr.splitlines() if line.strip()]
                reason = lines[-1] if lines else f"exit status {done.returncode}"
                self.timeline.failures[key] = reason.replace(f"{PROJECT}{os.sep}", "")
            else:
                answer = json.loads(done.stdout.strip().splitlines()[-1])
                self.timeline.taken.append((key, float(answer["figure"])))
                numbers = {name: float(value) for name, value in answer.items() if isinstance(value, (int, float))}
                self.timeline.extra.setdefault(key, []).append(numbers)
        except subprocess.TimeoutExpired:
            self.timeline.failures[key] = "took longer than 15 minutes"
        except (ValueError, KeyError, IndexError):
            self.timeline.failures[key] = "printed no figure"
        shutil.rmtree(where, ignore_errors=True)
        outcome = self.timeline.failures.get(key) or f"{self.timeline.taken[-1][1]:,.1f}"
        print(f" {outcome}", file=sys.stderr, flush=True)

    # ------------------------------------------------------------------------------------------------------ the rounds

    def run(self) -> None:
        plan = self.plan
        journals = {mode: self.build_journal(mode) for mode in ("sync", "async")}
        for number in range(plan.rounds):
            print(f"round {number + 1} of {plan.rounds}", file=sys.stderr)
            self.measure("fsync", "fsync.py")
            raw = ("raw_insert", "raw_insert.py", "--count", plan.sequential)
            self.measure(*raw)
            self.measure("sync", "perdure_sequential.py", "--mode", "sync", "--count", plan.sequential)
            self.measure(*raw)
            self.measure("async", "perdure_sequential.py", "--mode", "async", "--count", plan.sequential)
            self.measure(*raw)
            self.measure("runs", "perdure_empty.py", "--mode", "sequential", "--count", plan.runs)
            self.measure(*raw)
            self.measure("runs_at_once", "perdure_empty.py", "--mode", "at-once", "--count", plan.runs_at_once)
            batch = ("raw_batch", "raw_batch.py", "--count", plan.gathered)
            self.measure(*batch)
            self.measure("gathered", "perdure_gather.py", "--count", plan.gathered)
            self.measure(*batch)
            for mode, journal in journals.items():
                self.measure_resume(mode, journal)
            self.measure("import_base", "import_time.py", "--count", plan.imports)
            self.measure("import_perdure", "import_time.py", "--count", plan.imports, "--modules", "perdure")
            self.measure("import_base", "import_time.py", "--count", plan.imports)
            self.measure("import_names", "import_time.py", "--count", plan.imports, "--modules", NAMES)
            self.measure("import_base", "import_time.py", "--count", plan.imports)
            if number < 3:
                self.measure("late", "perdure_late.py", "--count", plan.late)
            if number < plan.dbos_rounds:
                self.measure_dbos(heavy=number == 0)

    def build_journal(self, mode: str) -> Path | None:
        key = f"build_{mode}"
        print(f"building a run of {self.plan.journal:,} entries ({mode})", file=sys.stderr)
        path = self.fresh() / "perdure.db"
        self.measure(
            key,
            "perdure_resume.py",
            *("--stage", "build", "--mode", mode, "--count", self.plan.journal, "--db", path),
        )
        return None if key in self.timeline.failures else path

    def measure_resume(self, mode: str, journal: Path | None) -> None:
        key = f"resume_{mode}"
        if journal is None:
            self.timeline.failures[key] = self.timeline.failures[f"build_{mode}"]
            return
        for name, script, arguments in (
            (f"scan_{mode}", "raw_scan.py", ()),
            (key, "perdure_resume.py", ("--stage", "resume", "--mode", mode)),
            (f"scan_{mode}", "raw_scan.py", ()),
        ):
            copy = self.fresh()
            shutil.copytree(journal.parent, copy)
            self.measure(name, script, "--count", self.plan.journal, *arguments, "--db", copy / journal.name)
            shutil.rmtree(copy, ignore_errors=True)

    def measure_dbos(self, *, heavy: bool) -> None:
        plan = self.plan
        if not DBOS_PYTHON.exists():
            self.timeline.failures["dbos"] = "not installed (make bench installs it)"
            return
        for mode in ("sync", "async"):
            arguments = ("--mode", mode, "--count", plan.dbos_sequential)
            self.measure(f"dbos_{mode}", "dbos_sequential.py", *arguments, python=DBOS_PYTHON)
            self.measure(f"dbos_{mode}_wal", "dbos_sequential.py", "--wal", *arguments, python=DBOS_PYTHON)
        runs = ("--mode", "sequential", "--count", plan.dbos_runs)
        self.measure("dbos_runs", "dbos_empty.py", *runs, python=DBOS_PYTHON)
        if heavy:
            for mode in ("at-once", "at-once-threads"):
                at_once = ("--mode", mode, "--count", plan.dbos_runs_at_once)
                self.measure(f"dbos_{mode}", "dbos_empty.py", *at_once, python=DBOS_PYTHON)
            better = max(("dbos_at-once", "dbos_at-once-threads"), key=lambda name: self.timeline.median(name) or 0.0)
            figure = self.timeline.median(better)
            if figure is not None:
                self.timeline.taken.append(("dbos_runs_at_once", figure))
            self.measure("dbos_gathered", "dbos_gather.py", "--count", plan.dbos_gathered, python=DBOS_PYTHON)

    # ---------------------------------------------------------------------------------------------------- containers

    def run_containers(self) -> None:
        for kind in ENGINES:
            try:
                with private_engine(kind) as (url, image):
                    for number in range(self.plan.container_rounds):
                        print(f"{kind}, round {number + 1} of {self.plan.container_rounds}", file=sys.stderr)
                        self.measure_containers(kind, "--engine", url, "--image", image)
            except EngineMissingError as error:
                self.timeline.failures[kind] = str(error)

    def measure_containers(self, kind: str, *engine: str) -> None:
        plan = self.plan
        raw = ("--mode", "raw")
        for mode in ("raw", "call", "raw", "in-a-row", "raw"):
            key = f"{kind}_noop_{mode}"
            self.measure(key, "container_noop.py", *engine, "--mode", mode, "--count", plan.containers)
        overlap = "container_overlap.py"
        at_once = (*engine, "--count", plan.containers_at_once)
        self.measure(f"{kind}_at_once_raw", overlap, *at_once, *raw)
        self.measure(f"{kind}_at_once", overlap, *at_once)
        self.measure(f"{kind}_one_by_one", overlap, *engine, "--one-by-one", "--count", plan.containers_one_by_one)
        for what, size in (
            ("file", ("--bytes", plan.container_mib << 20)),
            ("dir", ("--files", plan.container_files)),
        ):
            case = (*engine, "--what", what, *size)
            self.measure(f"{kind}_{what}_raw", "container_input.py", *case, *raw)
            self.measure(f"{kind}_{what}", "container_input.py", *case)
        self.measure(f"{kind}_output", "container_output.py", *engine, "--bytes", plan.container_mib << 20)


class EngineMissingError(Exception):
    """There is no such engine here; says why."""


@contextmanager
def private_engine(kind: str) -> Iterator[tuple[str, str]]:
    """A private engine of the tests' kind for as long as the block lasts: its URL, and an image that it has."""
    sys.path.insert(0, str(PROJECT))
    try:
        engines = importlib.import_module("tests.containers.engines")
    except ImportError as error:
        raise EngineMissingError(f"the tests' helpers cannot be imported: {error}") from error
    finally:
        sys.path.remove(str(PROJECT))
    engine = engines.KINDS[kind]()
    try:
        try:
            engine.start()
        except (engines.NoEngineError, AssertionError, OSError, subprocess.SubprocessError) as error:
            raise EngineMissingError((str(error).strip() or type(error).__name__).splitlines()[0]) from error
        yield engine.url, engine.image
    finally:
        engine.stop()


# ------------------------------------------------------------------------------------------------------------ the table


@dataclass(frozen=True)
class Line:
    work: str
    figure: str
    raw: str = ""
    dbos: str = ""
    target: str = ""
    verdict: str = ""


def at_least(value: float | None, target: float) -> str:
    if value is None:
        return "not measured"
    return "met" if value >= target else f"short by {(1 - value / target) * 100:.0f} %"


def at_most(value: float | None, target: float, unit: str = "x") -> str:
    if value is None:
        return "not measured"
    return "met" if value <= target else f"over by {value - target:.2f}{unit}"


def rate(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    digits = 0 if value >= 1000 else 1
    return f"{value:,.{digits}f} {unit}"


def times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}x" if value < 10 else f"{value:.0f}x"


def lines(timeline: Timeline, plan: Plan) -> list[Line]:
    t = timeline
    fsync = t.median("fsync")
    fast = fsync is not None and fsync < FAST_FSYNC
    result = [
        Line("one fsync of 4 KiB", rate(fsync, "µs")),
        Line("raw: INSERT + commit, one by one", rate(t.median("raw_insert"), "rows/s")),
        Line(f"raw: executemany of {plan.gathered:,} rows, one commit", rate(t.median("raw_batch"), "rows/s")),
    ]

    def against_raw(work: str, key: str, raw_key: str, target: float, dbos_key: str, dbos_target: float) -> None:
        ratio, top, dbos = t.ratio(key, raw_key), t.on_top(key, raw_key), t.ratio(key, dbos_key)
        by_ratio, by_top = at_least(ratio, target), at_most(top, ON_TOP, " µs")
        verdict = f"{by_top} (by ratio: {by_ratio})" if fast else by_ratio
        raw = "" if ratio is None or top is None else f"{times(ratio)}, {top:+.0f} µs per call"
        wanted = f"{target:g}x raw" + (f"; here: at most {ON_TOP:.0f} µs on top" if fast else "")
        result.append(Line(work, rate(t.median(key), "calls/s"), raw, times(dbos), wanted, verdict))
        result.append(
            Line(f"{work}: dbos", rate(t.median(dbos_key), "calls/s"), "", "", f"{dbos_target:g}x dbos",
                 at_least(dbos, dbos_target))
        )  # fmt: skip

    against_raw("sequential durable calls, sync *", "sync", "raw_insert", 0.8, "dbos_sync", 10)
    against_raw("sequential durable calls, async *", "async", "raw_insert", 0.7, "dbos_async", 10)
    gathered = f"{plan.gathered:,} gathered durable calls *"
    against_raw(gathered, "gathered", "raw_batch", 0.1, "dbos_gathered", 50)
    for mode in ("sync", "async"):
        figure = rate(t.median(f"dbos_{mode}_wal"), "calls/s")
        dbos = times(t.ratio(mode, f"dbos_{mode}_wal"))
        result.append(Line(f"sequential, {mode}: dbos with its file switched to WAL", figure, "", dbos))

    runs = t.ratio("runs", "raw_insert")
    result.append(
        Line("empty runs, one after the other", rate(t.median("runs"), "runs/s"), times(runs),
             times(t.ratio("runs", "dbos_runs")), "0.4x raw", at_least(runs, 0.4))
    )  # fmt: skip
    result.append(Line("empty runs, one after the other: dbos", rate(t.median("dbos_runs"), "runs/s")))
    at_once = t.ratio("runs_at_once", "dbos_runs_at_once")
    result.append(
        Line(f"empty runs, {plan.runs_at_once:,} at once", rate(t.median("runs_at_once"), "runs/s"), "",
             times(at_once), "30x dbos", at_least(at_once, 30))
    )  # fmt: skip
    result.append(
        Line(f"empty runs, {plan.dbos_runs_at_once:,} at once: dbos", rate(t.median("dbos_runs_at_once"), "runs/s"))
    )

    for mode in ("sync", "async"):
        ratio = t.ratio(f"resume_{mode}", f"scan_{mode}")
        result.append(
            Line(f"resume of a run with {plan.journal:,} entries, {mode}", rate(t.median(f"resume_{mode}"), "s"),
                 times(ratio), "", "10x raw's time", at_most(ratio, 10))
        )  # fmt: skip
    result.append(Line("raw: SELECT and decode of the same rows", rate(t.median("scan_sync"), "s")))

    late = t.median("late")
    result.append(
        Line(f"a call at entry {plan.late:,} / at entry 1,000", times(late), "", "", "1.2x", at_most(late, 1.2))
    )

    statement = t.ratio("import_perdure", "import_base")
    walls = [[entry["wall"] for entry in t.extra.get(key, [])] for key in ("import_perdure", "import_base")]
    wall = median(walls[0]) / median(walls[1]) if all(walls) else None
    result.append(
        Line("import perdure", rate(t.median("import_perdure"), "ms"), times(statement), "", "1.3x raw",
             at_most(statement, 1.3))
    )  # fmt: skip
    names = t.ratio("import_names", "import_base")
    result.append(
        Line(
            "import perdure; TaskEnvironment, trace, run",
            rate(t.median("import_names"), "ms"),
            times(names),
            "",
            "1.3x raw",
            at_most(names, 1.3),
        )
    )
    result.append(Line("raw: import asyncio, sqlite3, msgspec", rate(t.median("import_base"), "ms")))
    result.append(
        Line("python -c 'import perdure', the whole process", rate(median(walls[0]) if walls[0] else None, "ms"),
             times(wall), "", "1.3x raw", at_most(wall, 1.3))
    )  # fmt: skip
    return result


def container_lines(timeline: Timeline, plan: Plan, kind: str) -> list[Line]:
    t = timeline
    if kind in t.failures:
        return [Line(f"{kind}: containers", "-", verdict=f"not measured: {t.failures[kind]}")]

    def seconds(key: str) -> str:
        figure = t.median(key)
        return "-" if figure is None else f"{figure * 1000:,.0f} ms" if figure < 2 else f"{figure:,.1f} s"

    call, in_a_row = (t.ratio(f"{kind}_noop_{mode}", f"{kind}_noop_raw") for mode in ("call", "in-a-row"))
    result = [
        Line(f"{kind}: raw: create + start + wait + remove of a no-op", seconds(f"{kind}_noop_raw")),
        Line(f"{kind}: a no-op container, from call to result", seconds(f"{kind}_noop_call"), times(call), "",
             "1.1x raw", at_most(call, 1.1)),
        Line(f"{kind}: no-op containers in a row, removals included, each", seconds(f"{kind}_noop_in-a-row"),
             times(in_a_row), "", "1.1x raw", at_most(in_a_row, 1.1)),
    ]  # fmt: skip

    many = plan.containers_at_once
    at_once, each = t.median(f"{kind}_at_once"), t.median(f"{kind}_one_by_one")
    faster = None if at_once is None or each is None else many * each / at_once
    against = t.ratio(f"{kind}_at_once", f"{kind}_at_once_raw")
    shown = "" if faster is None else f", {faster:.1f} times as fast as one by one ({each:.2f} s each)"
    result += [
        Line(f"{kind}: raw: {many} containers of `sleep 1` at once", seconds(f"{kind}_at_once_raw")),
        Line(f"{kind}: {many} containers of `sleep 1` at once", seconds(f"{kind}_at_once") + shown, times(against)),
    ]

    for what, name in (
        ("file", f"a File of {plan.container_mib:,} MiB"),
        ("dir", f"a Dir of {plan.container_files:,} files"),
    ):
        key = f"{kind}_{what}"
        entries = t.extra.get(key, [])
        copied = max((entry["copied"] for entry in entries), default=None)
        first = median(entry["first"] for entry in entries) if entries else None
        figure = seconds(key) if first is None else f"{seconds(key)}; the first time {first * 1000:,.0f} ms"
        ratio = t.ratio(key, f"{key}_raw")
        result += [
            Line(f"{kind}: raw: the same of {name}, bind-mounted", seconds(f"{key}_raw")),
            Line(f"{kind}: {name} as an input", figure, times(ratio), "", "no copy",
                 "not measured" if copied is None else f"{copied / (1 << 20):.1f} MiB copied" if copied else "met"),
        ]  # fmt: skip

    growth = t.median(f"{kind}_output")
    took = [entry["seconds"] for entry in t.extra.get(f"{kind}_output", [])]
    figure = "-" if growth is None else f"+{growth:.0f} MiB in {median(took):.1f} s"
    result.append(
        Line(f"{kind}: memory while an output of {plan.container_mib:,} MiB is collected", figure, "", "",
             "64 MiB growth", at_most(growth, 64, " MiB"))
    )  # fmt: skip
    return result


HEADINGS = ("work", "figure", "to raw", "to dbos", "target", "verdict")


def table(rows: Sequence[Line]) -> str:
    cells = [HEADINGS, *((r.work, r.figure, r.raw, r.dbos, r.target, r.verdict) for r in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEADINGS))]
    text = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    text.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(text)


def installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def dbos_version() -> str:
    if not DBOS_PYTHON.exists():
        return "not installed"
    program = "from importlib.metadata import version; print(version('dbos'))"
    done = subprocess.run([str(DBOS_PYTHON), "-c", program], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "not installed"


def processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def filesystem(path: Path) -> str:
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "unknown"
    inside = [mount for mount in mounts if path.is_relative_to(mount[1])]
    return max(inside, key=lambda mount: len(mount[1]))[2] if inside else "unknown"


def report(bench: Bench, arguments: argparse.Namespace, seconds: float) -> str:
    plan = bench.plan
    facts = [
        f"- {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {seconds / 60:.1f} minutes, "
        + (
            "**quick: one round with small counts, for orientation only**"
            if arguments.quick
            else f"{plan.rounds} rounds (dbos: {plan.dbos_rounds} rounds; its gathered calls and its "
            "workflows at once: 1 round)"
        ),
        f"- {os.cpu_count()} x {processor()}, {platform.system()} {platform.release()}, {filesystem(PROJECT)}",
        f"- Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, perdure {installed('perdure')}, "
        f"msgspec {installed('msgspec')}, dbos {dbos_version()}",
    ]
    explanations = [
        "- Figures are medians over the rounds; ratios are medians of ratios between neighbours in time.",
        "- raw: Python's `sqlite3` on the same disk, WAL, `synchronous=FULL`, rows alike to journal entries.",
        f"- *: where an fsync takes less than {FAST_FSYNC:.0f} µs, the target reads: at most {ON_TOP:.0f} µs per call "
        "on top of raw. Both are shown.",
        "- dbos runs as its documentation sets it up (rollback journal, `synchronous=FULL`); the WAL lines show what "
        f"switching its file by hand would give. It gathers {plan.dbos_gathered:,} calls and starts "
        f"{plan.dbos_runs_at_once:,} workflows at once (the better of one gather and its threads).",
        "- `import perdure` is the statement alone in a fresh interpreter; as it loads names lazily, the line below it "
        "shows what a program really loads. The last line holds Python's start as well.",
        "- Containers run on private engines. raw is perdure's own client of the engine without perdure above it: "
        "containers without mounts, their outcome recorded nowhere. Inputs are bind-mounted there as they lie; "
        "whether perdure copied any, the container tells by the inodes that it sees.",
        '- The late calls are measured without fsync (`durability="process"`), which shows growth undiluted.',
    ]
    rows = [] if arguments.only == "containers" else lines(bench.timeline, plan)
    if arguments.only != "journal":
        for kind in ENGINES:
            rows += container_lines(bench.timeline, plan, kind)
    failed = [f"- {key}: {reason}" for key, reason in bench.timeline.failures.items()]
    parts = [
        "# Benchmark results",
        "Written by `make bench`; see `benchmarks/bench.py` for how.",
        "\n".join(facts),
        table(rows),
        "\n".join(explanations),
    ]
    if failed:
        parts.append("Could not be measured:\n\n" + "\n".join(failed))
    return "\n\n".join(parts) + "\n"


@contextmanager
def scratch() -> Iterator[Path]:
    base = PROJECT / ".bench"
    base.mkdir(exist_ok=True)
    path = Path(tempfile.mkdtemp(prefix="bench-", dir=base))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        try:
            base.rmdir()
        except OSError:
            pass  # something else is at work in it


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure perdure against its speed budget.")
    parser.add_argument("--quick", action="store_true", help="one round with small counts: a minute or two")
    parser.add_argument("--no-write", action="store_true", help="print only, leave RESULTS.md as it is")
    parser.add_argument("--only", choices=("journal", "containers"), help="only these rows; RESULTS.md stays as it is")
    arguments = parser.parse_args()
    started = perf_counter()
    with scratch() as directory:
        bench = Bench(QUICK if arguments.quick else FULL, directory)
        if arguments.only != "containers":
            bench.run()
        if arguments.only != "journal":
            bench.run_containers()
    text = report(bench, arguments, perf_counter() - started)
    print(text)
    if not arguments.no_write and arguments.only is None:
        old = RESULTS.read_text() if RESULTS.exists() else ""
        notes = old[old.index(NOTES) :] if NOTES in old else f"{NOTES}\n\nNone yet.\n"
        RESULTS.write_text(f"{text}\n{notes}")
    return 1 if bench.timeline.failures else 0


if __name__ == "__main__":
    sys.exit(main())
