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
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import containers
import journal
import latencies
import postgres
import queues
import workers
from peers import PROJECT
from plan import FULL, QUICK
from report import Part, page
from runner import Runner

RESULTS = PROJECT / "benchmarks" / "RESULTS.md"
NOTES = "## Notes"

PARTS = (
    Part("journal", journal.measure, journal.lines, journal.peer_tables),
    Part("latencies", latencies.measure, latencies.lines, latencies.peer_tables),
    Part("postgres", postgres.measure, postgres.lines, postgres.peer_tables),
    Part("workers", workers.measure, workers.lines, lambda _timeline, _plan: []),
    Part("queues", queues.measure, queues.lines, lambda _timeline, _plan: []),
    Part("containers", containers.measure, containers.lines, lambda _timeline, _plan: []),
)


@contextmanager
def _scratch() -> Iterator[Path]:
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
    parser.add_argument(
        "--only", choices=[part.name for part in PARTS], help="only these rows; RESULTS.md stays as it is"
    )
    arguments = parser.parse_args()
    started = perf_counter()
    parts = [part for part in PARTS if arguments.only in (None, part.name)]
    with _scratch() as directory:
        runner = Runner(QUICK if arguments.quick else FULL, directory)
        for part in parts:
            part.measure(runner)
    text = page(runner, parts, perf_counter() - started, quick=arguments.quick)
    print(text)
    if not arguments.no_write and arguments.only is None:
        old = RESULTS.read_text() if RESULTS.exists() else ""
        notes = old[old.index(NOTES) :] if NOTES in old else f"{NOTES}\n\nNone yet.\n"
        RESULTS.write_text(f"{text}\n{notes}")
    return 1 if runner.timeline.failures else 0


if __name__ == "__main__":
    sys.exit(main())
