"""The judge: the log of a trial against P1, P2 and P4, for every program alike.

The judge knows nothing of the system. Names of steps are unique within a program, so a line identifies a step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from .system import TrialLine

GIVEN = ("seen", "got")


class Violation(NamedTuple):
    """A broken promise, with the evidence."""

    promise: str
    text: str


def judged(log: Sequence[TrialLine], needed: Iterable[str]) -> Iterator[Violation]:
    """The violations in a log. `needed`: the steps that must have been executed at least once."""
    yield from _executed_again(log)
    yield from _seen_otherwise(log)
    yield from _seen_in_another_order(log)
    begun = {line.name for line in log if line.kind == "begin"}
    for name in needed:
        if name not in begun:
            yield Violation("P2", f"step {name} was never executed")


def _executed_again(log: Sequence[TrialLine]) -> Iterator[Violation]:
    """P1: a step whose outcome a body has seen is never executed again."""
    seen: dict[str, int] = {}
    for line in log:
        if line.kind in GIVEN:
            seen.setdefault(line.name, line.life)
        elif line.kind == "begin" and line.name in seen:
            yield Violation("P1", f"step {line.name}: seen in process {seen[line.name]}, executed in {line.life}")


def _seen_otherwise(log: Sequence[TrialLine]) -> Iterator[Violation]:
    """P1: a body sees the same outcome in every process."""
    first: dict[str, Any] = {}
    for line in log:
        if line.kind in GIVEN and first.setdefault(line.name, line.value) != line.value:
            yield Violation("P1", f"step {line.name}: {first[line.name]!r} became {line.value!r} in {line.life}")


def _seen_in_another_order(log: Sequence[TrialLine]) -> Iterator[Violation]:
    """P4: a body sees known outcomes in the order of the processes before, and before any new outcome."""
    orders: dict[int, list[str]] = {}
    for line in log:
        if line.kind == "seen" and line.name not in orders.setdefault(line.life, []):
            orders[line.life].append(line.name)
    known: list[str] = []
    for life, order in sorted(orders.items()):
        expected = [name for name in known if name in order]
        if order[: len(expected)] != expected:
            yield Violation("P4", f"process {life} saw {order}, the processes before {known}")
        known += [name for name in order if name not in known]
