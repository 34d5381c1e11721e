"""The oracle: what the lives of one program may look like, by the meaning of the program alone.

`judge` takes the logs of all lives of one run and names each promise of docs/guarantees.md that the logs break. The
oracle knows nothing of the journal. A life is checked by itself against the meaning of the program (`meaning`). Two
lives are compared up to the last outcome that the earlier life was told of: what the body observed until then is in
the journal, and each later life has to observe the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.torture import exchange
from tests.torture.meaning import CANCELLED, Facts, broken_rules
from tests.torture.programs import LAST, SLOTS, Line, Node

KILLED, DONE, FAILED, HUNG = "killed", "done", "failed", "hung"
RUN_CANCELLED = "the run was cancelled"
"""The result of a life that ended so, where the code of the run did not catch the cancellation."""
OBSERVATIONS = ("enter", "leave", "told", "see")
EARLY = 0.002
"""Seconds by which a sleep may seem too short, as the log is written a little later than the deadline is read."""


class Violation(NamedTuple):
    """A promise that a history breaks, and how."""

    promise: str
    text: str

    def __str__(self) -> str:
        return f"{self.promise}: {self.text}"


@dataclass
class Life:
    """One process, or one worker's share of a run, from claim to end."""

    lines: list[Line]
    end: str
    """`KILLED`, `DONE`, `FAILED` or `HUNG`."""
    what: str = ""
    """The result, or the error."""
    whole: bool = False
    """The life was killed behind its last durable call, so that all that it saw is recorded."""
    late: list[Line] = field(default_factory=list)
    """What the process logged after another one had taken its run over. perdure cancels the body then (P3)."""


@dataclass
class History:
    """All lives of one run. The last one replays the whole journal where `replayed` is set."""

    program: Node
    lives: list[Life] = field(default_factory=list)
    replayed: bool = False
    cancelled: bool = False
    """The run was asked to cancel, at a moment that no meaning of the program says."""
    left: exchange.Kept | None = None
    """What the store holds at the end."""
    effects: list[str] = field(default_factory=list)
    """The rows in the user's database at the end."""


def judge(history: History) -> list[Violation]:
    """All violations that the logs show."""
    return list(_violations(history))


def _violations(history: History) -> Iterator[Violation]:
    for number, life in enumerate(history.lives):
        if life.end == HUNG:
            yield Violation("hang", f"life {number} hung: {life.what}")
        if life.end == FAILED:
            yield Violation("P5", f"life {number} failed: {life.what}")
    facts = [Facts(history.program, life.lines, cancelled=history.cancelled) for life in history.lives]
    for number, each in enumerate(() if history.cancelled else facts):
        for text in broken_rules(each):
            yield Violation("meaning", f"life {number}: {text}")
    yield from _executions(history, facts)
    yield from (Violation("P12", text) for text in exchange.judge(facts, history.left))
    for number, life in enumerate(history.lives):
        if history.cancelled and not life.lines:
            continue  # the run had ended as cancelled
        for earlier, before in enumerate(history.lives[:number]):
            for text in differences(before, life):
                yield Violation("P4", f"life {number} differs from life {earlier}: {text}")
    yield from _sleeps(history, facts)
    yield from _slots(history)
    yield from _effects(history, facts)
    yield from _ends(history)


# -- P1 and P2: how often steps are executed -----------------------------------------------------------------------


def told(lines: list[Line]) -> dict[str, str]:
    """The outcomes that bodies were told, by the name of the step. The outcome of a cancelled call may be missing in
    the journal, where the canceller's event is."""
    return {line.name: line.what for line in lines if line.kind == "told"}


def executed(lines: list[Line]) -> list[str]:
    """The steps whose function has begun."""
    return [line.name for line in lines if line.kind == "begin"]


def is_retried(name: str) -> bool:
    """Whether a step may fail in one attempt of its task and run again in the next one (P1 and failures)."""
    return name.endswith(".cf")


def _executions(history: History, facts: list[Facts]) -> Iterator[Violation]:
    known: dict[str, int] = {}
    begun: set[str] = set()
    for number, life in enumerate(history.lives):
        names = executed(life.lines)
        begun.update(names)
        for name in names:
            if not facts[number].is_step(name):
                yield Violation("meaning", f"life {number} executed {name}, which is no step of the program")
            if name in known and not is_retried(name):
                yield Violation("P1", f"life {number} executed {name}, which life {known[name]} was told of")
        for name, times in Counter(names).items():
            # A transaction may be repeated, as its database was busy: `_effects` counts what came of that.
            if (
                times > 1
                and not is_retried(name)
                and name not in facts[number].effects
                and not name.startswith("cached")
            ):
                yield Violation("P1", f"life {number} executed {name} {times} times")
        for name, what in told(life.lines).items():
            if what.startswith("ok") or not name.startswith("cached"):  # a cancelled task leaves nothing in the cache
                known.setdefault(name, number)
            if what.startswith("ok") and facts[number].is_step(name) and name not in begun:
                yield Violation("P2", f"life {number} was told of {name}, which no life has executed")
    yield from _fenced(history)
    if history.replayed:
        known = {name: number for name, number in known.items() if number < len(history.lives) - 1}
        # Behind its last call the body leaves work behind, which goes on until the end of the run is on disk.
        lines = history.lives[-1].lines
        ends = [place for place, line in enumerate(lines) if line.kind == "told" and line.name == LAST]
        again = executed(lines[: ends[0]] if ends else lines)
        left = facts[-1].left_behind()
        known = {name: number for name, number in known.items() if not is_retried(name)}
        if wrong := [name for name in again if name in known or (name not in left and not history.cancelled)]:
            yield Violation("P1", f"the replay of the whole journal executed {wrong}")


def _fenced(history: History) -> Iterator[Violation]:
    """P3: what a process was told of after it had lost its run is in the journal, so that another life knows it."""
    for number, life in enumerate(history.lives):
        for name, what in told(life.late).items():
            if what != CANCELLED and what != _told_at_last(history, name):
                yield Violation("P3", f"life {number} lost the run, and was then told of {name}: {what}")


def _told_at_last(history: History, name: str) -> str | None:
    """What the last life that was told of a call was told."""
    found = [told(life.lines)[name] for life in history.lives if name in told(life.lines)]
    return found[-1] if found else None


# -- P4: a later life sees what earlier lives have seen ------------------------------------------------------------


def binding(life: Life) -> list[Line]:
    """The lines that later lives have to repeat: in each body, those before the end of the last call that the body was
    told of. What a body saw of plain timers and threads is in the journal as soon as the next entry is."""
    handed = {(line.body, line.name) for line in life.lines if line.kind == "told"}
    if life.whole:
        handed.add(("root", LAST))
    last: dict[str, int] = {}
    for place, line in enumerate(life.lines):
        if line.kind == "end" and (line.body, line.name) in handed:
            last[line.body] = place
    return [line for place, line in enumerate(life.lines) if place < last.get(line.body, -1)]


def _seen(lines: list[Line]) -> dict[tuple[str, str], list[tuple[str, str, str]]]:
    found: dict[tuple[str, str], list[tuple[str, str, str]]] = {}
    for line in lines:
        if line.kind in OBSERVATIONS:
            found.setdefault((line.body, line.thread), []).append((line.kind, line.name, line.what))
    return found


def differences(before: Life, after: Life) -> Iterator[str]:
    """Where a later life saw something else than an earlier life."""
    now = _seen(after.lines)
    bodies = {body for body, _ in now}
    for (body, thread), lines in _seen(binding(before)).items():
        if body != "root" and body not in bodies:
            continue  # the outcome of the child task is recorded, or this attempt is over: the body is not executed
        again = now.get((body, thread), [])
        if after.end == KILLED or thread:
            # A killed life may not have come so far; where a body ends before its threads, their last lines may miss.
            lines = lines[: len(again)]
        if lines != again[: len(lines)]:
            place = next((n for n, (a, b) in enumerate(zip(lines, again, strict=False)) if a != b), len(again))
            yield f"{body} {thread} at {place}: {lines[max(0, place - 2) : place + 3]} then {again[place : place + 3]}"


# -- P7: sleeps ----------------------------------------------------------------------------------------------------


def _sleeps(history: History, facts: list[Facts]) -> Iterator[Violation]:
    first: dict[str, float] = {}
    for life in history.lives:  # a life that was frozen may come later than the lives that follow
        for line in life.lines:
            if line.kind == "enter":
                first[line.name] = min(line.at, first.get(line.name, line.at))
    for number, life in enumerate(history.lives):
        paths = facts[number].nodes
        for line in life.lines:
            node = paths.get(line.name)
            if node is None or node.kind != "dsleep":
                continue
            took = line.at - first.get(line.name, line.at)
            if line.kind == "leave" and line.what.startswith("ok") and took < node.amount - EARLY:
                yield Violation("P7", f"life {number}: the sleep {line.name} of {node.amount} s took {took:.4f} s")


# -- P13 and P14: effects in the user's database, and slots of the limit -------------------------------------------


def _slots(history: History) -> Iterator[Violation]:
    for number, life in enumerate(history.lives):
        holders: set[str] = set()
        for line in life.lines:
            if line.kind == "holds":
                holders.add(line.name)
                if len(holders) > (SLOTS.concurrency or 0):
                    yield Violation("P14", f"life {number}: {sorted(holders)} held a slot at once")
            elif line.kind == "frees":
                holders.discard(line.name)


def _effects(history: History, facts: list[Facts]) -> Iterator[Violation]:
    for name, times in Counter(history.effects).items():
        if times > 1:
            yield Violation("P13", f"{name} has had its effect {times} times")
    for number, life in enumerate(history.lives):
        for name, what in told(life.lines).items():
            if name in facts[number].effects and what.startswith("ok") and name not in history.effects:
                yield Violation("P13", f"life {number} was told of {name}, which has had no effect")


# -- the end -------------------------------------------------------------------------------------------------------


def _ends(history: History) -> Iterator[Violation]:
    results = [life.what for life in history.lives if life.end == DONE]
    if len(set(results)) > 1:
        yield Violation("P4", f"results differ: {results}")
    for number, life in enumerate(history.lives):
        found = [line.what for line in life.lines if line.kind == "see" and line.what.startswith("found ")]
        if life.end == DONE and life.what != RUN_CANCELLED and found and found[-1] != f"found {life.what}":
            yield Violation("P1", f"life {number} ended with {life.what!r}, but its body with {found[-1]!r}")
