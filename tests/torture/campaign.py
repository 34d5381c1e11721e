"""Many histories: hands out seeds to processes, counts, shrinks what fails, prints how to repeat a failure."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.torture import hand, programs
from tests.torture.source import source

TARGETS = {"sqlite": 3000, "postgres": 600, "simulated": 20_000, "faults": 1500}
"""How many histories of each kind half an hour on two cores shall have."""
HALF_AN_HOUR = 1800.0
SIDE_BY_SIDE = 4
"""Histories for each processor, as real ones mostly wait: for sleeps, for leases, for the disk."""
FAMILIES = {"sqlite": "real", "postgres": "real"}
"""Kinds that are executed by the same processes. Others have processes of their own."""
SHRINKS_FOR = 60.0
OVERDUE = 300.0
"""Seconds behind the end of the campaign after which a history that still runs is a hang."""
TRIES = 3
"""How often a smaller program is tried before it counts as sound."""


class HandEnded(Exception):
    """A process that executes histories has ended."""


class Hand:
    """One process that executes histories (`hand`)."""

    def __init__(self, number: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.torture.hand", str(number)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
        )  # fmt: skip

    def ask(self, **request: Any) -> dict[str, Any]:
        """Have one history executed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            raise HandEnded(f"the process that executes histories ended with {code} at {request}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


class Given(NamedTuple):
    """A history that is handed out."""

    kind: str
    number: int
    """Among the histories of the kind."""


class Campaign:
    """The seeds that are left, and the counts."""

    def __init__(self, options: argparse.Namespace, kinds: list[str], dsn: str) -> None:
        self.options = options
        self.dsn = dsn
        self.began = time.monotonic()
        self.until = self.began + options.seconds
        self.done: Counter[str] = Counter(dict.fromkeys(kinds, 0))
        self.faults: dict[str, Counter[str]] = {kind: Counter() for kind in kinds}
        self.nodes: Counter[str] = Counter()
        self.lives = 0
        self.wrong: list[str] = []
        self._given: Counter[str] = Counter(dict.fromkeys(kinds, 0))
        self._at_work: Counter[str] = Counter()
        quarter = max(1, options.jobs // SIDE_BY_SIDE)
        self._most = {"sqlite": options.jobs, "postgres": 2 * quarter, "simulated": quarter, "faults": 1}
        """How many histories of each kind run side by side at most: simulated ones never wait, and the faults share
        one server."""
        if len(kinds) == 1 and kinds != ["faults"]:
            self._most[kinds[0]] = options.jobs
        self._hands: dict[str, list[Hand]] = {}
        """Processes that have nothing to do, by family."""
        self._hired = 0
        self._lock = threading.Lock()

    def _next(self) -> Given | None:
        """The next history: of the kind that is farthest behind its target, among those that may start one more."""
        with self._lock:
            left = [kind for kind, many in self._given.items() if many < self.options.histories * self.options.lives]
            if not left or time.monotonic() > self.until or (self.options.first and self.wrong):
                return None
            free = [kind for kind in left if self._at_work[kind] < self._most[kind]] or left
            kind = min(free, key=lambda each: self._given[each] / TARGETS[each])
            self._given[kind] += 1
            self._at_work[kind] += 1
            return Given(kind, self._given[kind] - 1)

    def work(self) -> None:
        """Execute histories until none are left."""
        while (given := self._next()) is not None:
            by = self._hand(FAMILIES.get(given.kind, given.kind))
            try:
                self._one(by, given)
            except HandEnded as error:
                self.wrong.append(str(error))
                return
            with self._lock:
                self._at_work[given.kind] -= 1
                self._hands[FAMILIES.get(given.kind, given.kind)].append(by)

    def _hand(self, family: str) -> Hand:
        with self._lock:
            free = self._hands.setdefault(family, [])
            if free:
                return free.pop()
            self._hired += 1
            return Hand(self._hired)

    def run(self) -> None:
        """Execute all histories. A history that does not end is a violation."""
        workers = [threading.Thread(target=self.work, daemon=True) for _ in range(self.options.jobs)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(max(0.0, self.until + OVERDUE - time.monotonic()) if self.options.seconds else None)
        if any(worker.is_alive() for worker in workers):
            self.wrong.append(f"hang: histories still run: {dict(self._at_work)}")
        for each in [each for free in self._hands.values() for each in free]:
            each.close()

    def _one(self, by: Hand, given: Given) -> None:
        kind, lives = given.kind, self.options.lives
        seed, attempt = self.options.seed + given.number // lives, given.number % lives
        answer = by.ask(kind=kind, seed=seed, attempt=attempt, dsn=self.dsn, program=self.options.program)
        story = ""
        if answer["violations"]:
            story = "\n".join(self._story(by, kind, seed, answer["violations"]))
        with self._lock:
            self.done[kind] += 1
            self.lives += answer["lives"]
            self.faults[kind].update(answer["faults"])
            self.nodes.update(answer["nodes"])
            if story:
                self.wrong.append(f"{kind} {seed}")
                print(story, flush=True)

    def _story(self, by: Hand, kind: str, seed: int, violations: list[str]) -> Iterator[str]:
        command = f"python -m tests.torture --only {kind} --seed {seed} --histories 1"
        yield f"\n== {kind}, seed {seed}: repeat with {command}" + (" --lives 20" if kind in FAMILIES else "")
        yield from (f"   {text[:2000]}" for text in violations[:5])
        if kind == "simulated":
            yield f"   smaller: python -m tests.torture.sim --shrink {seed}"
        if kind not in FAMILIES:
            return
        tree = programs.parse(self.options.program) if self.options.program else hand.the_program(seed)
        if not self.options.shrink:
            yield tree.show()
            return
        last: list[str] = []

        def fails(other: programs.Node) -> bool:
            nonlocal last
            for attempt in range(TRIES):
                found = by.ask(kind=kind, seed=seed, attempt=attempt, dsn=self.dsn, program=other.show())["violations"]
                if found:
                    last = found
                    return True
            return False

        small = programs.shrink(tree, fails, min(time.monotonic(), self.until) + SHRINKS_FOR)
        yield f"-- shrunk (save as FILE: python -m tests.torture --only {kind} --program FILE --lives 20)"
        yield small.show()
        yield source(small)
        yield from (f"   {text[:2000]}" for text in last[:3])

    def report(self) -> str:
        """The counts."""
        share = self.options.seconds / HALF_AN_HOUR
        took = time.monotonic() - self.began
        parts = [f"{took:.0f} s, first seed {self.options.seed}, {self.lives} lives"]
        for kind, many in self.done.items():
            parts.append(f"{many} histories: {kind} (goal {TARGETS[kind] * share:.0f})")
            parts += [f"{count:9} {fault}" for fault, count in sorted(self.faults[kind].items())]
        parts.append("nodes: " + ", ".join(f"{kind} {many}" for kind, many in sorted(self.nodes.items())))
        parts.append(f"wrong: {', '.join(self.wrong) or 'none'}")
        return "\n".join(parts)

    def figures(self) -> dict[str, Any]:
        """The counts for a program."""
        return {
            "seed": self.options.seed,
            "seconds": round(time.monotonic() - self.began, 1),
            "lives": self.lives,
            "histories": dict(self.done),
            "goals": {kind: TARGETS[kind] for kind in self.done},
            "faults": {kind: dict(sorted(faults.items())) for kind, faults in self.faults.items()},
            "nodes": dict(sorted(self.nodes.items())),
            "wrong": self.wrong,
        }


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1800.0, help="how long (30 minutes)")
    parser.add_argument("--histories", type=int, default=10**9, help="programs of each kind at most")
    parser.add_argument("--seed", type=int, default=None, help="the first seed (from the clock)")
    parser.add_argument("--lives", type=int, default=1, help="histories of each program")
    parser.add_argument("--only", choices=list(TARGETS), action="append", help="this kind of history (all)")
    parser.add_argument("--program", type=Path, default=None, help="a program as printed by a failure, in a file")
    parser.add_argument("--jobs", type=int, default=SIDE_BY_SIDE * (os.cpu_count() or 1), help="histories side by side")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the counts there, too")
    parser.add_argument("--no-shrink", dest="shrink", action="store_false", help="print failures as they are")
    parser.add_argument("--first", action="store_true", help="end with the first failure")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Run the campaign; the exit code."""
    options = _options(arguments)
    if options.seed is None:
        options.seed = int(time.time()) % 10**8
    if options.program is not None:
        options.program, options.histories = options.program.read_text(), 1
    kinds = options.only or [kind for kind in TARGETS if kind != "simulated" or hand.has_simulation()]
    dsn = ""
    if "postgres" in kinds:
        # Nothing cuts the power here, and what is written outlives any process: the server needs no fsync.
        os.environ["PERDURE_TEST_STORE"] = "postgres"
        from tests.postgres_server import server

        dsn = server().dsn()
        del os.environ["PERDURE_TEST_STORE"]
    campaign = Campaign(options, kinds, dsn)
    campaign.run()
    print(campaign.report())
    if options.json is not None:
        options.json.write_text(json.dumps(campaign.figures(), indent=1) + "\n")
    return 1 if campaign.wrong or not all(campaign.done.values()) else 0
