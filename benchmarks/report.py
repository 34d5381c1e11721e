"""The results as a page: facts about the machine, the tables, and how everything was measured."""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from journal import FAST_FSYNC, ON_TOP
from peers import ABSURD, DBOS, FLYTE, PEERS, PROJECT, RESTATE
from plan import Plan
from runner import Runner
from table import Line, markdown
from timeline import Timeline


@dataclass(frozen=True)
class Part:
    """Rows that belong together: how they are measured, and how they are shown."""

    name: str
    measure: Callable[[Runner], None]
    lines: Callable[[Timeline, Plan], list[Line]]
    peer_tables: Callable[[Timeline, Plan], list[str]]
    """What the peers do by themselves, as paragraphs."""


def _table(rows: Sequence[Line]) -> str:
    headings = ("work", "figure", "to raw", *(f"to {peer.heading}" for peer in PEERS), "target", "verdict")
    cells = [
        (r.work, r.figure, r.raw, *(r.peers.get(peer.name, "") for peer in PEERS), r.target, r.verdict) for r in rows
    ]
    return markdown([headings, *cells])


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _filesystem(path: Path) -> str:
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "unknown"
    inside = [mount for mount in mounts if path.is_relative_to(mount[1])]
    return max(inside, key=lambda mount: len(mount[1]))[2] if inside else "unknown"


def _explanations(plan: Plan) -> list[str]:
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
        "The latency of a message goes from the call that sends to the next line of the body, in two processes with "
        "one clock; that of a start from the call that submits; that of an end to the return of the call that waits. "
        f"A program of {DBOS.name} receives with `recv` what a client sends, and its workflows come over a queue. It "
        "polls once a second for queues and results, and on SQLite for messages, so its rounds begin at random "
        f"moments of a second. A handler of {RESTATE.name} waits for an awakeable, which is resolved over HTTP.",
        "Runs through a queue go from the first submission to the last outcome; they are submitted, driven and waited "
        f"for in one process, one submission after the other. {DBOS.name} polls its queues once a second, as it "
        "comes. The cost of a claim is that of perdure's store alone, on SQLite.",
        f"Of the parked runs {plan.parked_driven:,} are really driven; the rest is written through the store's port as "
        "the rows that a driven one has left. How late a wake-up is goes from the recorded deadline to the body's next "
        "line, on one worker that holds all of them.",
        "Containers run on private engines. raw is perdure's own client of the engine without perdure above it: "
        "containers without mounts, their outcome recorded nowhere. Inputs are bind-mounted there as they lie; "
        "whether perdure copied any, the container tells by the inodes that it sees.",
    ]


def page(runner: Runner, parts: Sequence[Part], seconds: float, *, quick: bool) -> str:
    """The whole page, without the notes."""
    plan, timeline = runner.plan, runner.timeline
    peers = ", ".join(f"{peer.package} {peer.version()}" for peer in PEERS)
    facts = [
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {seconds / 60:.1f} minutes, "
        + ("**quick: one round with small counts, for orientation only**" if quick else f"{plan.rounds} rounds"),
        f"{os.cpu_count()} x {_processor()}, {platform.system()} {platform.release()}, {_filesystem(PROJECT)}",
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, perdure {_installed('perdure')}, "
        f"msgspec {_installed('msgspec')}",
        f"peers: {peers}",
    ]
    paragraphs = [
        "# Benchmark results",
        "Written by `make bench`; see `benchmarks/bench.py` for how.",
        _bullets(facts),
        _table([line for part in parts for line in part.lines(timeline, plan)]),
        *(text for part in parts for text in part.peer_tables(timeline, plan)),
        _bullets(_explanations(plan)),
    ]
    for heading, found in (
        ("Not here, their cells are empty:", timeline.absent),
        ("Could not be measured:", timeline.failures),
    ):
        if found:
            paragraphs.append(f"{heading}\n\n" + _bullets(f"{key}: {why}" for key, why in found.items()))
    return "\n\n".join(paragraphs) + "\n"


def _bullets(texts: Iterable[str]) -> str:
    return "\n".join(f"- {text}" for text in texts)
