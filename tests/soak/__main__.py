"""Soak: workers with thousands of runs, random kills, backups and collections, for hours; every figure must stay flat.

`python -m tests.soak --hours 8`. Two workers serve runs of every kind. The steady worker lives from the beginning to
the end, so that a leak shows. The other worker is killed by SIGKILL at random moments and replaced. Finished runs are
removed by `perdure gc`, and the store is backed up. Every hour, or every tenth of a shorter soak, a row tells what the
processes and the store take. At the end the robust slope of each figure is judged, and the runs are counted. The exit
code is 1 where a figure grows or a run was lost.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.fleet import Fleet, Worker
from tests.soak.flow import KINDS
from tests.soak.judgement import Tolerance, Verdict, judge
from tests.waiting import kill, wait_for

MIB = 1 << 20
FLOW = Path(__file__).with_name("flow.py")
WAITING = 200
"""Runs that wait or are driven at a time."""
BATCH = 20
"""Runs that are submitted at a time, ten times a second at most."""
KEPT = "20s"
"""How long `perdure gc` keeps a finished run."""
TOLERANCES = {
    "steady worker: RSS": Tolerance(0.10, 6 * MIB),
    "steady worker: descriptors": Tolerance(0.10, 4),
    # The pool of bodies has up to 64 threads, as many as were ever busy at once, while it is under load.
    "steady worker: threads": Tolerance(0.10, 40),
    "submitter: RSS": Tolerance(0.10, 6 * MIB),
    "submitter: descriptors": Tolerance(0.10, 4),
    "submitter: threads": Tolerance(0.10, 4),
    "WAL": Tolerance(0.25, 8 * MIB),
    "database": Tolerance(0.15, 4 * MIB),
    "blobs": Tolerance(0.0, 5),
    "files beside the database": Tolerance(0.10, 12),
}
"""Judged figures. RSS, WAL and database in bytes, all others are counts."""


@dataclass
class Soak:
    """One soak in a directory."""

    fleet: Fleet
    seconds: float
    chance: random.Random
    begun: float = field(default_factory=time.monotonic)
    steady: Worker | None = None
    victim: Worker | None = None
    submitted: int = 0
    removed: int = 0
    kills: int = 0
    backups: int = 0
    hours: list[float] = field(default_factory=list)
    rows: list[dict[str, float]] = field(default_factory=list)

    def run(self) -> None:
        """Everything until the time is over, and until every run has ended."""
        interval = min(3600.0, self.seconds / 10)
        self.steady, self.victim = self.serve(), self.serve()
        next_row, next_kill, next_care = interval, 5.0, interval / 2
        while (now := time.monotonic() - self.begun) < self.seconds:
            self.feed()
            if now >= next_kill:
                self.kill()
                next_kill = now + self.chance.uniform(4, 20)
            if now >= next_care:
                self.care()
                next_care = now + min(interval, 60.0) / 2
            if now >= next_row:
                self.row()
                next_row += interval
            time.sleep(0.1)
        self.row()
        wait_for(lambda: self.open_runs() == 0, seconds=600, story=self.fleet.story)

    def serve(self) -> Worker:
        return self.fleet.serve("--park-after", "1s", "--concurrency", "40")

    def open_runs(self) -> int:
        counts = self.fleet.counts()
        return sum(counts[status] for status in ("QUEUED", "RUNNING", "SLEEPING"))

    def feed(self) -> None:
        """Submit runs until enough wait."""
        wanted = min(BATCH, WAITING - self.open_runs())
        new = []
        for number in range(self.submitted, self.submitted + max(0, wanted)):
            new.append(self.fleet.new(self.chance.choice(KINDS), f"run-{number}", n=number))
        if new:
            self.fleet.submit(*new)
            self.submitted += len(new)

    def kill(self) -> None:
        """SIGKILL to the victim, and a new process in its place."""
        assert self.victim is not None
        kill(self.victim.process)
        self.fleet.workers.remove(self.victim)
        self.victim.errors_file.unlink()
        self.kills += 1
        self.victim = self.serve()

    def care(self) -> None:
        """A backup and a collection, by the command line."""
        copy = self.fleet.directory / "copy.db"
        done = self.fleet.perdure("store", "backup", str(copy))
        assert done.returncode == 0, done.stderr
        copy.unlink()
        self.backups += 1
        self.collect()

    def collect(self) -> None:
        done = self.fleet.perdure("gc", "--older-than", KEPT, "--json")
        assert done.returncode == 0, done.stderr
        self.removed += len(json.loads(done.stdout)["runs"])

    def row(self) -> None:
        """Take down the figures of this moment."""
        assert self.steady is not None
        database = self.fleet.database
        figures: dict[str, float] = {}
        for name, pid in (("steady worker", self.steady.pid), ("submitter", os.getpid())):
            figures[f"{name}: RSS"] = resident(pid)
            figures[f"{name}: descriptors"] = len(os.listdir(f"/proc/{pid}/fd"))
            figures[f"{name}: threads"] = len(os.listdir(f"/proc/{pid}/task"))
        figures["WAL"] = os.path.getsize(f"{database}-wal")
        figures["database"] = os.path.getsize(database)
        figures["blobs"] = sum(len(names) for _, _, names in os.walk(database.parent / "blobs"))
        figures["files beside the database"] = sum(
            len(names) for place, _, names in os.walk(database.parent) if "blobs" not in place
        )
        self.hours.append((time.monotonic() - self.begun) / 3600)
        self.rows.append(figures)
        done = self.submitted - self.open_runs()
        said = ", ".join(f"{name} {shown(name, value)}" for name, value in figures.items())
        print(f"{self.hours[-1]:.3f} h: {done:,} runs done, {self.kills} kills, {said}", flush=True)

    def verdicts(self) -> list[Verdict]:
        return [
            judge(name, self.hours, [row[name] for row in self.rows], tolerance)
            for name, tolerance in TOLERANCES.items()
        ]

    def lost(self) -> int:
        """Runs that were submitted, and are neither there nor were collected."""
        return self.submitted - self.removed - sum(self.fleet.counts().values())


def resident(pid: int) -> int:
    """The resident memory of a process, in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def shown(figure: str, value: float) -> str:
    """A figure for people."""
    is_bytes = figure.endswith("RSS") or figure in ("WAL", "database")
    return f"{value / MIB:,.1f} MiB" if is_bytes else f"{value:,.0f}"


def table(soak: Soak) -> str:
    """The judgement as a table of Markdown."""
    rows = [
        "| figure | median | slope per hour | growth | allowed | verdict |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for each in soak.verdicts():
        name = each.figure
        numbers = " | ".join(shown(name, value) for value in (each.middle, each.slope, each.growth, each.allowed))
        rows.append(f"| {name} | {numbers} | {'flat' if each.flat else 'GROWS'} |")
    return "\n".join(rows)


def main() -> int:
    """Soak, print the judgement, and remove the directory; 1 where a figure grows or a run was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Workers under load for hours.")
    parser.add_argument("--hours", type=float, default=8.0, help="how long (8); fractions are allowed")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), help="decides runs and kills")
    options = parser.parse_args()
    if not Path("/proc/self/statm").exists():
        parser.error("the figures come from /proc, which this system does not have")
    print(f"seed {options.seed}, {options.hours:g} h")
    with tempfile.TemporaryDirectory(prefix="perdure-soak-", ignore_cleanup_errors=True) as folder:
        fleet = Fleet(Path(folder), file=FLOW)
        try:
            soak = Soak(fleet, options.hours * 3600, random.Random(options.seed))
            soak.run()
            soak.collect()
            lost, statuses = soak.lost(), Counter(fleet.counts())
            print(table(soak))
            print(
                f"{soak.submitted:,} runs, {soak.kills} kills, {soak.backups} backups, {soak.removed:,} runs collected"
            )
            print(f"{lost} runs lost; left in the store: {dict(statuses)}")
            return 0 if lost == 0 and all(verdict.flat for verdict in soak.verdicts()) else 1
        finally:
            fleet.close()


if __name__ == "__main__":
    sys.exit(main())
