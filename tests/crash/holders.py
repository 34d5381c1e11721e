"""The judge of P14: reads a history of slots that were taken and given back, and says where a limit was exceeded.

Imports nothing of perdure, and knows only the history: one line for each change of a claim, in the order of the
commits, as triggers in the database wrote it. `python -m tests.crash.holders FILE LIMITS` judges a file.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import NamedTuple


class Change(NamedTuple):
    """A change of one run's claim, as committed."""

    at: int
    """When (microseconds, on the store's clock)."""
    run: int
    key: str
    before: str | None
    """The token before; `None`: no claim."""
    after: str | None
    worker: str | None
    is_start: bool
    """Whether the run was claimed for the first time."""


class Limits(NamedTuple):
    """What is allowed; `None`: anything."""

    concurrency: int | None = None
    per_worker: int | None = None
    per_key: int | None = None
    starts: int | None = None
    per: int = 0


def judge(history: list[Change], limits: Limits) -> list[str]:
    """Everything that contradicts P14."""
    faults: list[str] = []
    held: dict[int, Change] = {}
    starts: list[int] = []
    for number, change in enumerate(history):
        holder = held.pop(change.run, None)
        if (None if holder is None else holder.after) != change.before:
            faults.append(f"change {number}: run {change.run} gave up a claim that it did not have")
        if change.after is not None:
            held[change.run] = change
        if change.is_start:
            starts.append(change.at)
        for what, most, counts in (
            ("in all", limits.concurrency, Counter("" for _ in held)),
            ("of one worker", limits.per_worker, Counter(str(one.worker) for one in held.values())),
            ("of one key", limits.per_key, Counter(one.key for one in held.values())),
        ):
            worst = max(counts.values(), default=0)
            if most is not None and worst > most:
                faults.append(f"change {number}: {worst} slots {what}, {most} are allowed")
    if limits.starts is not None:
        for first, last in zip(starts, starts[limits.starts :], strict=False):
            if last - first < limits.per:
                faults.append(f"{limits.starts + 1} starts within {last - first} us, from {first}")
    if held:
        faults.append(f"{len(held)} slots were never given back")
    return faults


class CallChange(NamedTuple):
    """A change of a claim (`ticket` is `None`) or of the ticket of a call, as committed."""

    at: int
    """When (microseconds, on the store's clock)."""
    run: int
    token: str | None
    """The token of the claim after the change, or of the ticket."""
    ticket: int | None
    holds: bool
    """Whether the ticket says that the call holds a slot."""


def judge_calls(history: list[CallChange], limits: Limits) -> list[str]:
    """Everything that contradicts P14 for a limit of calls."""
    faults: list[str] = []
    claims: dict[int, str | None] = {}
    tickets: dict[int, CallChange] = {}
    starts: list[int] = []
    for number, change in enumerate(history):
        if change.ticket is None:
            claims[change.run] = change.token
        else:
            before = tickets.get(change.ticket)
            if change.holds and not (before is not None and before.holds and before.token == change.token):
                starts.append(change.at)
                if claims.get(change.run) != change.token:
                    faults.append(f"change {number}: ticket {change.ticket} was given a slot without a claim")
            tickets[change.ticket] = change
        held = sum(one.holds and claims.get(one.run) == one.token for one in tickets.values())
        if limits.concurrency is not None and held > limits.concurrency:
            faults.append(f"change {number}: {held} calls hold a slot, {limits.concurrency} are allowed")
    if limits.starts is not None:
        for first, last in zip(starts, starts[limits.starts :], strict=False):
            if last - first < limits.per:
                faults.append(f"{limits.starts + 1} starts within {last - first} us, from {first}")
    left = [one.ticket for one in tickets.values() if one.holds and claims.get(one.run) == one.token]
    if left:
        faults.append(f"the slots of tickets {left} were never given back")
    return faults


def main(history: str, limits: str) -> int:
    with open(history) as file:
        found = judge([Change(*json.loads(line)) for line in file], Limits(**json.loads(limits)))
    print("\n".join(found) or "every limit was kept")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
