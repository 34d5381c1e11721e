"""Random journals with rows about earlier rows, asked in any order, beside a naive reading of the same rows.

The reading below knows no index and no turn: it goes through the rows once for each question. A journal comes from
several lives: a life fails (`FAILED`, `DISCARD`), finds other source (`LOOSEN`), and reuses loose entries (`REUSE`).
"""

from __future__ import annotations

import random
from typing import Any

from msgspec.structs import replace

from perdure.core.ground.model import Entry, Result
from perdure.core.journal.replay import Event, EventKind, Replay, Verdict, encode_notes, key_of

from . import Violation

NAMES = "abc"
SAME, OTHER = 1, 2


def history(seed: int) -> None:
    """One journal, asked by the calls that it records, and by strangers, in any order."""
    dice = random.Random(seed)
    journal = Journal(dice)
    journal.fill()
    asked(dice, journal)


def row(n: int, branch: int, seq: int, name: str, occ: int, result: Result, **more: Any) -> Entry:
    """An entry of a call without arguments."""
    fields: dict[str, Any] = {
        "action": 0, "n": n, "branch": branch, "seq": seq, "occ": occ, "item": 0, "kind": 2, "result": int(result),
        "fp": name.encode().ljust(16, b"."), "name": name, "label": None, "value": b"", "inputs": None, "source": SAME,
        "child": None, "after": None, "at": 0, "took": 0,
    }  # fmt: skip
    return Entry(**(fields | more))


class Journal:
    """Rows, and what has to become of each by a naive reading."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.rows: list[Entry] = []
        self.strict: list[Entry] = []
        """In the order of delivery."""
        self.loose: list[Entry] = []
        self.gone: list[Entry] = []
        """Discarded, or cancelled on a path that was given up."""
        self.events: list[Event] = []
        self._calls: dict[int, int] = {}
        self._occurrences: dict[tuple[int, str], int] = {}

    def fill(self) -> None:
        """Rows of every kind. A journal that has been loosened gets no strict order from its first part."""
        for _ in range(self.dice.randrange(1, 10)):
            kind = self.dice.random()
            if kind < 0.72 or not self.rows:
                self._record()
            elif kind < 0.82:
                self._discard()
            elif kind < 0.92:
                self._loosen()
            else:
                self._reuse()

    def _record(self) -> None:
        dice, n = self.dice, len(self.rows) + 1
        branch, name = dice.randrange(3), dice.choice(NAMES)
        seq = self._calls.get(branch, 0)
        self._calls[branch] = seq + 1
        occ = self._occurrences.get((branch, name), 0)
        self._occurrences[branch, name] = occ + 1
        result = Result.CANCELLED if dice.random() < 0.25 else Result.VALUE
        notes = []
        if dice.random() < 0.3 and not self.loose:
            last = self.strict[-1].n if self.strict else 0
            notes = [Event(last, int(EventKind.TIMER), 50 + n, number) for number in range(dice.randrange(1, 4))]
            self.events += notes
        new = row(n, branch, seq, name, occ, result, notes=encode_notes(notes))
        self.rows.append(new)
        self.strict.append(new)

    def _mark(self, result: Result, seq: int, occ: int = 0) -> None:
        self.rows.append(row(len(self.rows) + 1, 0, seq, "", occ, result))

    def _discard(self) -> None:
        if self.strict and not self.events:
            gone = self.dice.choice(self.strict)
            self.strict.remove(gone)
            self.gone.append(gone)
            self._mark(Result.DISCARD, gone.n)

    def _loosen(self) -> None:
        if not self.strict:
            return
        low = self.dice.choice(self.strict).n
        moved = [each for each in self.strict if each.n >= low]
        self.strict = [each for each in self.strict if each.n < low]
        self.gone += [each for each in moved if each.result == Result.CANCELLED]
        self.loose += [each for each in moved if each.result != Result.CANCELLED]
        self._mark(Result.LOOSEN, low)
        end = max((each.n for each in self.strict), default=0)
        self.events = [event for event in self.events if event.after < end]

    def _reuse(self) -> None:
        if self.loose and not self.events:
            old = self.loose.pop(self.dice.randrange(len(self.loose)))
            self._mark(Result.REUSE, old.n, occ=old.seq)
            self.strict.append(replace(old, n=len(self.rows)))


def asked(dice: random.Random, journal: Journal) -> None:
    """Ask by every call that was ever recorded, twice, and by strangers; consume what has its turn.

    Raises:
        Violation: R1 to R4, or a row about an earlier row, is not kept.
    """
    machine = Replay(list(journal.rows), lambda source: False)
    order = [(each.branch, each.fp, each.occ) for each in journal.strict]
    left: list[Any] = list(journal.strict)
    given: dict[Any, Entry] = {}
    events: list[Event] = []
    questions = [each for each in (*journal.strict, *journal.loose, *journal.gone) for _ in range(2)]
    questions += [row(0, dice.randrange(3), dice.randrange(4), "stranger", 0, Result.VALUE) for _ in range(2)]
    dice.shuffle(questions)
    delivered = []
    for question in questions:
        _ask_one(machine, question, journal, left, given)
        while (head := machine.head()) is not None:
            if isinstance(head, Event):
                events.append(head)
                machine.consume_event(head)
            elif key_of(head) in given:
                machine.consume(head)
                delivered.append((head.branch, head.fp, head.occ))
                left.pop(0)
            else:
                break
    if delivered != order[: len(delivered)] or left:
        raise Violation(f"R2 delivered {delivered}, recorded {order}")
    if events != journal.events:
        raise Violation(f"B7 events {events}, noted {journal.events}")


def _ask_one(machine: Replay, question: Entry, journal: Journal, left: list[Any], given: dict[Any, Entry]) -> None:
    key = key_of(question)
    decision = machine.ask(question.branch, question.seq, question.fp, question.occ)
    entry = decision.entry
    strict = next((each for each in journal.strict if key_of(each) == key), None)
    loose = next((each for each in journal.loose if key_of(each) == key), None)
    if decision.verdict in (Verdict.REPLAY, Verdict.REUSE):
        assert entry is not None
        if key in given:
            raise Violation(f"R1 entry {entry.n} is handed out twice")
        if entry.n not in {each.n for each in (strict, loose) if each is not None}:
            raise Violation(f"P6 entry {entry.n} is handed out, though a later row has taken it back")
        if (strict is not None) != (decision.verdict is Verdict.REPLAY):
            raise Violation(f"P6 entry {entry.n} is {decision.verdict.name}, strict: {strict is not None}")
        given[key] = entry
    elif key not in given and (strict is not None or loose is not None):
        raise Violation(f"P1 a recorded call is told {decision.verdict.name}: {question}")
    elif decision.verdict is Verdict.EXECUTE and left:
        raise Violation(f"R3 a call executes while {len(left)} entries wait")
    elif decision.verdict is not Verdict.EXECUTE and not left and machine.drained:
        raise Violation(f"R3 a call is told {decision.verdict.name} though nothing is left")
    else:
        others = [each for each in left if each.branch == question.branch and each.seq == question.seq]
        foreign = [each for each in others if key_of(each) not in given]
        if (decision.verdict is Verdict.MISMATCH) != bool(foreign):
            raise Violation(f"R4 told {decision.verdict.name} at the position of {foreign}")
