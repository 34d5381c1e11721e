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
from typing import Any

from tests.torture import hand, programs
from tests.torture.source import source

TARGETS = {"sqlite": 3000, "postgres": 600, "simulated": 20_000}
"""How many histories of each kind half an hour on two cores shall have."""
SHRINKS_FOR = 60.0
TRIES = 3
"""How often a smaller program is tried before it counts as sound."""


class HandEnded(Exception):
    """A process that executes histories has ended."""


class Hand:
    """One process that executes histories (`hand`)."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.torture.hand"],
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


class Campaign:
    """The seeds that are left, and the counts."""

    def __init__(self, options: argparse.Namespace, kinds: list[str], dsn: str) -> None:
        self.options = options
        self.dsn = dsn
        self.until = time.monotonic() + options.seconds
        self.done: Counter[str] = Counter(dict.fromkeys(kinds, 0))
        self.faults: Counter[str] = Counter()
        self.nodes: Counter[str] = Counter()
        self.lives = 0
        self.wrong: list[str] = []
        self._given: Counter[str] = Counter(dict.fromkeys(kinds, 0))
        self._lock = threading.Lock()

    def _next(self) -> tuple[str, int] | None:
        """The kind and number of the next history: of the kind that is farthest behind its target."""
        with self._lock:
            left = [kind for kind, many in self._given.items() if many < self.options.histories * self.options.lives]
            if not left or time.monotonic() > self.until or (self.options.first and self.wrong):
                return None
            kind = min(left, key=lambda each: self._given[each] / TARGETS[each])
            self._given[kind] += 1
            return kind, self._given[kind] - 1

    def work(self) -> None:
        """Execute histories until none are left; real and simulated ones in two processes."""
        hands: dict[bool, Hand] = {}
        try:
            while (given := self._next()) is not None:
                kind, number = given
                hands.setdefault(kind == "simulated", Hand())
                self._one(hands[kind == "simulated"], kind, number)
        except HandEnded as error:
            self.wrong.append(str(error))
        for each in hands.values():
            each.close()

    def _one(self, by: Hand, kind: str, number: int) -> None:
        seed, attempt = self.options.seed + number // self.options.lives, number % self.options.lives
        answer = by.ask(kind=kind, seed=seed, attempt=attempt, dsn=self.dsn, program=self.options.program)
        story = ""
        if answer["violations"]:
            story = "\n".join(self._story(by, kind, seed, answer["violations"]))
        with self._lock:
            self.done[kind] += 1
            self.lives += answer["lives"]
            self.faults.update(answer["faults"])
            self.nodes.update(answer["nodes"])
            if story:
                self.wrong.append(f"{kind} {seed}")
                print(story, flush=True)

    def _story(self, by: Hand, kind: str, seed: int, violations: list[str]) -> Iterator[str]:
        command = f"python -m tests.torture --only {kind} --seed {seed} --histories 1"
        yield f"\n== {kind}, seed {seed}: repeat with {command}" + (" --lives 20" if kind != "simulated" else "")
        yield from (f"   {text[:2000]}" for text in violations[:5])
        if kind == "simulated":
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

        small = programs.shrink(tree, fails, time.monotonic() + SHRINKS_FOR)
        yield f"-- shrunk (save as FILE: python -m tests.torture --only {kind} --program FILE --lives 20)"
        yield small.show()
        yield source(small)
        yield from (f"   {text[:2000]}" for text in last[:3])

    def report(self) -> str:
        """The counts."""
        parts = [f"{many} histories: {kind}" for kind, many in self.done.items()]
        parts.append(f"{self.lives} lives; first seed {self.options.seed}")
        parts += [f"{many:7} {fault}" for fault, many in sorted(self.faults.items())]
        parts.append("nodes: " + ", ".join(f"{kind} {many}" for kind, many in sorted(self.nodes.items())))
        parts.append(f"wrong: {', '.join(self.wrong) or 'none'}")
        return "\n".join(parts)


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1800.0, help="how long (30 minutes)")
    parser.add_argument("--histories", type=int, default=10**9, help="programs of each kind at most")
    parser.add_argument("--seed", type=int, default=None, help="the first seed (from the clock)")
    parser.add_argument("--lives", type=int, default=1, help="histories of each program")
    parser.add_argument("--only", choices=list(TARGETS), action="append", help="this kind of history (all)")
    parser.add_argument("--program", type=Path, default=None, help="a program as printed by a failure, in a file")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes side by side")
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
    campaign = Campaign(options, kinds, dsn)
    workers = [threading.Thread(target=campaign.work) for _ in range(options.jobs)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(campaign.report())
    return 1 if campaign.wrong or not all(campaign.done.values()) else 0
