"""Measure perdure against its speed budget: `make bench`, or `make bench BENCH_ARGS=--quick`.

Everything is measured in one run on the disk of the project, and judged by ratios: against "raw" (Python's own
`sqlite3`: WAL, `synchronous=FULL`) and against the peers (`benchmarks/peers.py`). Every measurement is a process of its
own (`benchmarks/cases/`). The speed of a disk drifts, so raw, perdure and the peers take turns in every round, and a
ratio is the median of ratios between neighbours in time, never a ratio of two far-apart medians.

The rows of Postgres go to a private server, which the tests' helper starts and this program stops, and are judged
against single INSERTs through the same driver.

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
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from time import perf_counter
from types import ModuleType

from peers import ABSURD, DBOS, FLYTE, PEERS, RESTATE, Case, cases
from plan import FULL, QUICK, Plan
from postgres import measure_postgres, postgres_lines, postgres_peer_table
from table import Line, at_least, at_most, markdown, rate, times
from timeline import Timeline
from workers import measure_workers, worker_lines

PROJECT = Path(__file__).resolve().parent.parent
CASES = PROJECT / "benchmarks" / "cases"
RESULTS = PROJECT / "benchmarks" / "RESULTS.md"
NOTES = "## Notes"

# `import perdure` alone loads names lazily; this is what a program that declares and runs a task really loads.
NAMES = "perdure; perdure.TaskEnvironment, perdure.trace, perdure.run"

PATIENCE = 900.0  # seconds for one case
FAST_FSYNC = 150.0  # µs; on a disk faster than this the rows marked * are judged by what perdure adds per call
ON_TOP = {"sync": 35.0, "async": 45.0}  # µs per call
INSTRUCTIONS = {"sync": 90_000, "async": 130_000}  # per call
LATENCY, LATENCY_P99 = 5.0, 25.0  # ms

ENGINES = ("docker", "podman")
PARTS = ("journal", "postgres", "workers", "containers")


def run(command: Sequence[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Like `subprocess.run`, but what the case started ends with it, however it ends."""
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=PROJECT,
        start_new_session=True,
    ) as process:
        try:
            output, errors = process.communicate(timeout=PATIENCE)
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # nothing is left of it
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


class Bench:
    def __init__(self, plan: Plan, directory: Path) -> None:
        self.plan = plan
        self.directory = directory
        self.timeline = Timeline()
        self.timeline.absent |= {peer.name: why for peer in PEERS if (why := peer.absent()) is not None}
        if shutil.which("valgrind") is None:
            self.timeline.absent["valgrind"] = "not installed, so no instructions are counted"
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
            if not name.startswith(("PERDURE_", "DBOS_", "RESTATE_", "FLYTE_", "PYTHONDONTWRITE"))
        }
        print(f"  {key} ...", end="", file=sys.stderr, flush=True)
        try:
            done = run(command, environment)
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
            self.measure_peers("sequential")
            self.measure(*raw)
            self.measure("runs", "perdure_empty.py", "--mode", "sequential", "--count", plan.runs)
            self.measure(*raw)
            self.measure_peers("runs")
            self.measure("runs_at_once", "perdure_empty.py", "--mode", "at-once", "--count", plan.runs_at_once)
            self.measure_peers("runs_at_once")
            self.keep_the_better("dbos_runs_at_once", "dbos_at-once", "dbos_at-once-threads")
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
            self.measure("latency", "perdure_latency.py", "--count", plan.latencies)
            self.measure_peers("latency")
            if number == 0:
                self.measure("lengths", "perdure_lengths.py", "--count", plan.longest)
                self.measure_instructions()

    def measure_instructions(self) -> None:
        if "valgrind" not in self.timeline.absent:
            for mode in ("sync", "async"):
                case = ("perdure_instructions.py", "--mode", mode, "--count", self.plan.instructions)
                self.measure(f"instructions_{mode}", *case)

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

    def measure_peers(self, work: str) -> None:
        self.measure_cases(*cases(work, self.plan))

    def measure_cases(self, *those: Case) -> None:
        for case in those:
            if case.peer.name not in self.timeline.absent:
                self.measure(case.key, case.script, *case.arguments, python=case.peer.python)

    def keep_the_better(self, key: str, *ways: str) -> None:
        """Of several ways to do the same, the latest figure of the fastest is the one that counts."""
        t = self.timeline
        latest = [figures[-1] for way in ways if way not in t.failures and (figures := t.figures(way))]
        if latest:
            t.taken.append((key, max(latest)))

    # -------------------------------------------------------------------------------- Postgres, workers and containers

    def run_postgres(self) -> None:
        try:
            with private_postgres() as url:
                for number in range(self.plan.postgres_rounds):
                    print(f"postgres, round {number + 1} of {self.plan.postgres_rounds}", file=sys.stderr)
                    measure_postgres(self.measure, self.measure_cases, self.plan, url)
        except ServerMissingError as error:
            self.timeline.absent["postgres"] = str(error)

    def run_workers(self) -> None:
        for number in range(self.plan.worker_rounds):
            print(f"workers, round {number + 1} of {self.plan.worker_rounds}", file=sys.stderr)
            measure_workers(self.measure, self.plan)

    def run_containers(self) -> None:
        for kind in ENGINES:
            try:
                with private_engine(kind) as (url, image):
                    for number in range(self.plan.container_rounds):
                        print(f"{kind}, round {number + 1} of {self.plan.container_rounds}", file=sys.stderr)
                        self.measure_containers(kind, "--engine", url, "--image", image)
            except EngineMissingError as error:
                self.timeline.absent[kind] = str(error)

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


class ServerMissingError(Exception):
    """There is no Postgres here; says why."""


def tests_module(name: str) -> ModuleType:
    """A helper of the tests."""
    sys.path.insert(0, str(PROJECT))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(PROJECT))


@contextmanager
def private_postgres() -> Iterator[str]:
    """A private server with its usual durability for as long as the block lasts: the URL of a database in it."""
    try:
        helper = tests_module("tests.postgres_server")
    except ImportError as error:
        raise ServerMissingError(f"the tests' helpers cannot be imported: {error}") from error
    folder = helper.programs()
    if folder is None:
        raise ServerMissingError("the programs of a Postgres server (15 or later) are not installed")
    server = helper.Server(folder)
    try:
        yield server.dsn()
    finally:
        server.close()


@contextmanager
def private_engine(kind: str) -> Iterator[tuple[str, str]]:
    """A private engine of the tests' kind for as long as the block lasts: its URL, and an image that it has."""
    try:
        engines = tests_module("tests.containers.engines")
    except ImportError as error:
        raise EngineMissingError(f"the tests' helpers cannot be imported: {error}") from error
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


def ratios(t: Timeline, key: str, **against: str) -> dict[str, str]:
    """`key` in multiples of each peer's figure."""
    return {peer: times(t.ratio(key, other)) for peer, other in against.items()}


def lines(timeline: Timeline, plan: Plan) -> list[Line]:
    t = timeline
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
        peers = ratios(t, key, **against)
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
             ratios(t, "runs", dbos="dbos_runs", restate="restate_runs", flyte="flyte_runs"),
             "0.5x raw", at_least(runs, 0.5))
    )  # fmt: skip
    against = {"dbos": "dbos_runs_at_once", "restate": "restate_runs_at_once"}
    result.append(
        Line(f"empty runs, {plan.runs_at_once:,} at once", rate(t.median("runs_at_once"), "runs/s"), "",
             ratios(t, "runs_at_once", **against), "30x dbos", at_least(t.ratio("runs_at_once", against["dbos"]), 30))
    )  # fmt: skip

    for mode in ("sync", "async"):
        ratio = t.ratio(f"resume_{mode}", f"scan_{mode}")
        result.append(
            Line(f"resume of a run with {plan.journal:,} entries, {mode}", rate(t.median(f"resume_{mode}"), "s"),
                 times(ratio), target="3x raw's time", verdict=at_most(ratio, 3))
        )  # fmt: skip
    result.append(Line("raw: SELECT and decode of the same rows", rate(t.median("scan_sync"), "s")))
    result += length_lines(t)
    result += [latency_line(t), *instruction_lines(t)]

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


def length_lines(t: Timeline) -> list[Line]:
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


def latency_line(t: Timeline) -> Line:
    """From the submission by another process to the result there."""
    work = "a run of three steps, submitted by another process to a listening worker, until its result is there"
    median_ms, rounds = t.median("latency"), t.extra.get("latency", [])
    if median_ms is None or not rounds:
        return Line(work, "-", verdict="not measured")
    p99 = median(entry["p99"] for entry in rounds)
    return Line(
        work, f"{median_ms:.1f} ms, p99 {p99:.1f} ms", peers={"restate": times(t.ratio("restate_latency", "latency"))},
        target=f"{LATENCY:.0f} ms, p99 {LATENCY_P99:.0f} ms",
        verdict=f"{at_most(median_ms, LATENCY, ' ms')}; p99: {at_most(p99, LATENCY_P99, ' ms')}",
    )  # fmt: skip


def instruction_lines(t: Timeline) -> list[Line]:
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


def peer_table(t: Timeline, plan: Plan) -> str:
    """What the peers do by themselves, perdure beside them."""

    def cell(key: str, unit: str, note: str = "") -> str:
        figure = t.median(key)
        return "" if figure is None else rate(figure, unit) + note

    def latency(key: str) -> str:
        rounds = t.extra.get(key, [])
        if not rounds:
            return ""
        return f"{median(entry['figure'] for entry in rounds):.1f} ms, p99 {median(e['p99'] for e in rounds):.1f} ms"

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
        ("three steps, submitted by another process", latency("latency"), "", "", latency("restate_latency"), ""),
    ]  # fmt: skip
    return markdown(rows)


def container_lines(timeline: Timeline, plan: Plan, kind: str) -> list[Line]:
    t = timeline
    if kind in t.absent:
        return [Line(f"{kind}: containers", "-", verdict=f"not measured: {t.absent[kind]}")]

    def seconds(key: str) -> str:
        figure = t.median(key)
        return "-" if figure is None else f"{figure * 1000:,.0f} ms" if figure < 2 else f"{figure:,.1f} s"

    call, in_a_row = (t.ratio(f"{kind}_noop_{mode}", f"{kind}_noop_raw") for mode in ("call", "in-a-row"))
    result = [
        Line(f"{kind}: raw: create + start + wait + remove of a no-op", seconds(f"{kind}_noop_raw")),
        Line(f"{kind}: a no-op container, from call to result", seconds(f"{kind}_noop_call"), times(call),
             target="1.1x raw", verdict=at_most(call, 1.1)),
        Line(f"{kind}: no-op containers in a row, removals included, each", seconds(f"{kind}_noop_in-a-row"),
             times(in_a_row), target="1.1x raw", verdict=at_most(in_a_row, 1.1)),
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
            Line(f"{kind}: {name} as an input", figure, times(ratio), target="no copy", verdict=
                 "not measured" if copied is None else f"{copied / (1 << 20):.1f} MiB copied" if copied else "met"),
        ]  # fmt: skip

    growth = t.median(f"{kind}_output")
    took = [entry["seconds"] for entry in t.extra.get(f"{kind}_output", [])]
    figure = "-" if growth is None else f"+{growth:.0f} MiB in {median(took):.1f} s"
    result.append(
        Line(f"{kind}: memory while an output of {plan.container_mib:,} MiB is collected", figure,
             target="64 MiB growth", verdict=at_most(growth, 64, " MiB"))
    )  # fmt: skip
    return result


def table(rows: Sequence[Line]) -> str:
    headings = ("work", "figure", "to raw", *(f"to {peer.heading}" for peer in PEERS), "target", "verdict")
    cells = [
        (r.work, r.figure, r.raw, *(r.peers.get(peer.name, "") for peer in PEERS), r.target, r.verdict) for r in rows
    ]
    return markdown([headings, *cells])


def installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


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


def explanations(plan: Plan) -> list[str]:
    return [
        f"Every figure is the median of {plan.rounds} rounds (Postgres: {plan.postgres_rounds}, containers: "
        f"{plan.container_rounds}, workers, which take minutes: {plan.worker_rounds}) that each measure everything "
        "once; ratios are medians of ratios between neighbours in time."
        if plan.rounds > 1
        else "Everything was measured once; ratios are those between neighbours in time.",
        "raw: Python's `sqlite3` on the same disk, WAL, `synchronous=FULL`, rows alike to journal entries. Raw's "
        "read of a journal decodes every segment and every value as plain MessagePack.",
        f"*: where an fsync takes less than {FAST_FSYNC:.0f} µs, the target reads: at most {ON_TOP['sync']:.0f} µs "
        f"(sync) or {ON_TOP['async']:.0f} µs (async) per call on top of raw. Both are shown.",
        f"{DBOS.name} runs as its documentation sets it up (rollback journal, `synchronous=FULL`); the WAL column "
        "shows what switching its file by hand would give. Its workflows at once are the better of one gather and its "
        "threads.",
        f"{RESTATE.name} is its own server with what it comes with (its log fsynced), and a Python service behind "
        f"hypercorn, both on the loopback. It has async steps only. It gathers {plan.restate_gathered:,} steps: what "
        "one costs grows with their number there, and of 10,000 it lost the connection after a minute. Its invocations "
        "come over kept HTTP connections from a caller without an HTTP library.",
        f"{FLYTE.name} is Flyte 2 in its local mode, which is **not durable**: after a kill nothing of a run is left "
        "to carry on with. Its calls are traced ones, a row shows those of tasks; it is there to show the price of the "
        "same declarations.",
        "On Postgres all share one private server on a Unix socket, its durability as it comes (fsync, "
        "`synchronous_commit`), each case in a new database; raw is psycopg in autocommit mode, the statement "
        f"prepared, rows alike to SQLite's. {DBOS.name} and {ABSURD.name} are as their documentation sets them up; "
        f"the schema of {ABSURD.name} is the one in the package of its command, and its one task runs on one "
        "connection.",
        "`import perdure` is the statement alone in a fresh interpreter; as it loads names lazily, the line below it "
        "shows what a program really loads. The last line holds Python's start as well.",
        "The cost of a call by run length is measured at places of one and the same run, without fsync "
        '(`durability="process"`), which shows growth undiluted.',
        "Instructions are counted by valgrind's callgrind, without fsync: two runs of different length, subtracted. "
        "Their figure and the cost by run length are measured in the first round alone, as neither drifts with the "
        "machine.",
        "The latency of a submitted run goes from `submit` to the result at the submitter, with a `perdure serve` "
        f"beside; 20 ms lie between two submissions, and half a second before every twentieth. {RESTATE.name} "
        "is called over one kept connection.",
        f"Of the parked runs {plan.parked_driven:,} are really driven; the rest is written through the store's port as "
        "the rows that a driven one has left. How late a wake-up is goes from the recorded deadline to the body's next "
        "line, on one worker that holds all of them.",
        "Containers run on private engines. raw is perdure's own client of the engine without perdure above it: "
        "containers without mounts, their outcome recorded nowhere. Inputs are bind-mounted there as they lie; "
        "whether perdure copied any, the container tells by the inodes that it sees.",
    ]


def report(bench: Bench, arguments: argparse.Namespace, seconds: float) -> str:
    plan, timeline = bench.plan, bench.timeline
    peers = ", ".join(f"{peer.package} {peer.version()}" for peer in PEERS)
    facts = [
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {seconds / 60:.1f} minutes, "
        + ("**quick: one round with small counts, for orientation only**" if arguments.quick
           else f"{plan.rounds} rounds"),
        f"{os.cpu_count()} x {processor()}, {platform.system()} {platform.release()}, {filesystem(PROJECT)}",
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, perdure {installed('perdure')}, "
        f"msgspec {installed('msgspec')}",
        f"peers: {peers}",
    ]  # fmt: skip
    journal, postgres, workers, containers = (arguments.only in (None, part) for part in PARTS)
    rows = lines(timeline, plan) if journal else []
    if postgres:
        rows += postgres_lines(timeline, plan)
    if workers:
        rows += worker_lines(timeline, plan)
    for kind in ENGINES if containers else ():
        rows += container_lines(timeline, plan, kind)
    parts = [
        "# Benchmark results",
        "Written by `make bench`; see `benchmarks/bench.py` for how.",
        bullets(facts),
        table(rows),
    ]
    if journal:
        parts += ["The peers by themselves:", peer_table(timeline, plan)]
    if postgres:
        parts += ["On Postgres:", postgres_peer_table(timeline, plan)]
    parts.append(bullets(explanations(plan)))
    if timeline.absent:
        parts.append("Not here, their cells are empty:\n\n" + bullets(f"{k}: {v}" for k, v in timeline.absent.items()))
    if timeline.failures:
        parts.append("Could not be measured:\n\n" + bullets(f"{k}: {v}" for k, v in timeline.failures.items()))
    return "\n\n".join(parts) + "\n"


def bullets(texts: Iterable[str]) -> str:
    return "\n".join(f"- {text}" for text in texts)


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
    parser.add_argument("--quick", action="store_true", help="one round with small counts: some minutes")
    parser.add_argument("--no-write", action="store_true", help="print only, leave RESULTS.md as it is")
    parser.add_argument("--only", choices=PARTS, help="only these rows; RESULTS.md stays as it is")
    arguments = parser.parse_args()
    started = perf_counter()
    with scratch() as directory:
        bench = Bench(QUICK if arguments.quick else FULL, directory)
        for part, measure in zip(
            PARTS, (bench.run, bench.run_postgres, bench.run_workers, bench.run_containers), strict=True
        ):
            if arguments.only in (None, part):
                measure()
    text = report(bench, arguments, perf_counter() - started)
    print(text)
    if not arguments.no_write and arguments.only is None:
        old = RESULTS.read_text() if RESULTS.exists() else ""
        notes = old[old.index(NOTES) :] if NOTES in old else f"{NOTES}\n\nNone yet.\n"
        RESULTS.write_text(f"{text}\n{notes}")
    return 1 if bench.timeline.failures else 0


if __name__ == "__main__":
    sys.exit(main())
