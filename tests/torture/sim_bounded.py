"""Every interleaving of two short bodies, up to a bound.

Two bodies run side by side in one run. All orders in which their steps can end are gone through, and for each order all
calls of the store at which the process can be killed, before the call and after. With `preemptions`, all points at
which another thread can go on are gone through as well.

    python -m tests.torture.sim_bounded [--kills 1] [--preemptions 1] [NAME ...]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

from . import programs
from .sim import Report, Settings, Simulation, history
from .sim_store import Fault
from .sim_threads import US, Enumerated, following

PAIRS = {
    "steps beside steps": "seq[step step] seq[step step]",
    "steps beside a failing step": "seq[step step] attempt[group[fail step]]",
    "a race beside a step": "first[step step] step",
    "a timeout beside a step": "timeout:0.5[step] step",
    "a durable timeout beside a step": "dtimeout:0.5[step] step",
    "a cancellation beside a step": "cancel[step step] step",
    "a cleanup that is cancelled beside a step": "timeout:0.5[cleanup] step",
    "a sleep beside steps": "dsleep:0.5 seq[step step]",
    "a child task beside a step": "child[seq[step step]] step",
    "a generator beside a step": "items step",
    "a thread beside steps": "thread:1.0 seq[step step]",
    "threads side by side": "thread:1.0 thread:1.0",
    "a queue beside a step": "queue:2.0[step step] step",
    "a shielded step beside a cancellation": "shield[step] snipe",
}


def pair(text: str) -> programs.Node:
    """The program of a line of `PAIRS`: both bodies side by side. `kind:amount[kids]`."""
    words = text.replace("[", " [ ").replace("]", " ] ").split()
    stack = [programs.Node("gather", 0.0, 1)]
    node = stack[0]
    for word in words:
        if word == "[":
            stack.append(node)
        elif word == "]":
            stack.pop()
        else:
            kind, _, amount = word.partition(":")
            node = programs.Node(kind, float(amount or 1.0), 5)
            stack[-1].kids.append(node)
    return stack[0]


class Bounded(Simulation):
    """A history whose choices are enumerated."""

    def __init__(self, seed: int, *, kills: int, **options: Any) -> None:
        super().__init__(seed, **options)
        self._kills = kills
        self._ends: list[int] = []
        """When the steps under way will end."""

    def seconds_of_a_step(self, drawn: float) -> float:
        """The step ends between any two others: the place is a choice."""
        now = self.scheduler.now
        self._ends = sorted(end for end in self._ends if end > now)
        place = self.choices.among(len(self._ends) + 1)
        low = self._ends[place - 1] if place else now
        high = self._ends[place] if place < len(self._ends) else low + 2 * US
        end = (low + high) // 2
        self._ends.append(end)
        return (end - now) / US

    def fault_of(self, verb: str, writes: bool) -> Fault | None:
        self.report.calls += 1
        if not writes or verb == "renew" or not self._kills:
            return None
        choice = self.choices.among(3)
        if not choice:
            return None
        self._kills -= 1
        fault = Fault.KILLED_BEFORE if choice == 1 else Fault.KILLED_AFTER
        self.count(fault.value)
        return fault


def every(tree: programs.Node, *, kills: int = 1, preemptions: int = 0) -> Iterator[Report]:
    """All histories of a program, depth first."""
    given: list[int] | None = []
    settings = Settings(restless=1.0, replay_at_end=True)
    while given is not None:
        choices = Enumerated(given, preemptions=preemptions)
        report = history(0, kind=Bounded, kills=kills, trees=[tree], settings=settings, choices=choices)
        yield report
        given = following(report.made)


def main(kills: int, preemptions: int, names: list[str]) -> int:
    wrong = 0
    for name in names or PAIRS:
        count = 0
        for report in every(pair(PAIRS[name]), kills=kills, preemptions=preemptions):
            count += 1
            if report.violations:
                wrong += 1
                print(f"{name}, choices {[decision.made for decision in report.made]}:", *report.violations, sep="\n  ")
        print(f"{count:6} interleavings: {name}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--preemptions", type=int, default=0)
    parser.add_argument("names", nargs="*", help="pairs; by default all")
    given = parser.parse_args()
    sys.exit(main(given.kills, given.preemptions, given.names))
