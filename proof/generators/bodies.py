"""Random reactive bodies on the pure state machines `Delivery` and `Replay`, without threads and event loops.

A body has branches, each a list of operations: durable calls, sleeps, synchronous calls that block the loop, plain
timers, jobs, sockets (which leave no trace), entries into `durable.timeout`, and cancellations of another branch. The
first life meets everything from outside in an order by chance, and ends at a row by chance. The second life replays
these rows with other chances: arrivals in another order, a run that may not start calls yet. Some second lives have
edited code under the same source, some have edited code under changed source.

Judged: the order of all that was delivered as far as the journal reaches, the causes of each call, and each single
step (`_law`): B2 to B6, B9 to B11, R1, R3, P1, P5.
"""

from __future__ import annotations

import random
from collections import deque
from types import SimpleNamespace
from typing import Any, NamedTuple

from msgspec.structs import replace

from perdure.core.body.delivery import CancelVerdict, Delivery, Entrance, Move, Outcome
from perdure.core.ground.model import Entry, Result
from perdure.core.journal.replay import Event, EventKind, Replay, Verdict, decode_notes, encode_notes

from . import Violation
from .replays import OTHER, SAME, row

KINDS = ("call", "call", "call", "sleep", "sync", "timer", "job", "socket", "enter", "cancel")
CALLS = ("call", "sleep", "sync")
Log = list[tuple[str, int, int]]
"""What a body has been handed: the kind, the branch, the place of the operation in the branch."""


class Op(NamedTuple):
    """One operation of a branch."""

    kind: str
    name: str = ""
    other: int = 0
    """The branch that is cancelled."""


Program = list[list[Op]]


class Mismatch(Exception):
    """The code does not fit the journal."""


def history(seed: int) -> None:
    """Two lives of one body.

    Raises:
        Violation: the second life differs from the first, or a step breaks a rule of delivery.
    """
    dice = random.Random(seed)
    program = made(dice)
    first = Life(dice, program)
    first.run(dice.randrange(25))
    edit = dice.random()
    again = edited(dice, program, first) if edit < 0.3 else program
    second = Life(dice, again, first, changed=edit < 0.15)
    try:
        second.run()
    except Mismatch as error:
        if again is program or edit < 0.15:
            raise Violation(f"P5 a false mismatch: {error}") from error
        return
    if again is program:
        compare(first, second)
    elif edit >= 0.15:
        raise Violation("P5 edited code under the same source has met no mismatch")


def made(dice: random.Random) -> Program:
    """One to three branches of up to four operations."""
    count = dice.randrange(1, 4)
    # No row says how what a socket brings stands to an entry into a block, to a call that blocks the loop, or to a
    # cancellation by code that an event has moved.
    without = dice.choice((("enter", "sync", "cancel"), ("socket",)))
    kinds = [kind for kind in KINDS if kind not in without]
    return [
        [Op(dice.choice(kinds), dice.choice("abc"), dice.randrange(count)) for _ in range(dice.randrange(1, 5))]
        for _ in range(count)
    ]


def edited(dice: random.Random, program: Program, first: Life) -> Program:
    """The program with another name for one recorded call, or without that call and all behind it."""
    recorded = [each for each in first.rows if each.result == Result.VALUE]
    if not recorded:
        return program
    entry = dice.choice(recorded)
    branches = [list(branch) for branch in program]
    branch = branches[entry.branch]
    place = [place for place, op in enumerate(branch) if op.kind in CALLS][entry.seq]
    if dice.random() < 0.5:
        branch[place] = branch[place]._replace(name="edited")
    else:
        del branch[place:]
    return branches


def compare(first: Life, second: Life) -> None:
    """The second life is handed what the first life was handed, as far as the journal reaches."""
    recorded = len(second.replayed)
    noted = {(event.branch, event.number, event.kind) for each in first.rows for event in _notes(each)}
    # No row holds an event that has happened behind the last row: a crash may change its place.
    unnoted = (place for place, one in enumerate(first.log) if one[0] == "event" and first.keys[one] not in noted)
    log = first.log[: next(unnoted, None)]
    end = max((place for place, one in enumerate(log) if one in recorded_in(second)), default=-1) + 1
    if second.log[:end] != log[:end]:
        raise Violation(f"P4 handed {second.log[:end]}, in the first life {log[:end]}, {recorded} rows")
    plain = not any(op.kind == "socket" for branch in first.program for op in branch)
    for call, begun in first.begun.items():
        again = second.begun.get(call)
        if call in second.replayed and again is not None and (again > begun or (plain and again != begun)):
            raise Violation(f"B6 call {call} was made behind entry {begun}, on replay behind entry {again}")


def recorded_in(life: Life) -> set[tuple[str, int, int]]:
    """What the recorded rows hold, in the words of the log."""
    return {(kind, branch, place) for (branch, place) in life.replayed for kind in ("told", "cancelled")}


def _notes(entry: Entry) -> list[Event]:
    return decode_notes(entry.notes or b"")


class Waiter:
    """A call that waits."""

    def __init__(self, branch: int, place: int, call: Entry) -> None:
        self.branch = branch
        self.place = place
        self.call = call
        self.on_loop = True
        self.entry: Entry | None = None
        self.cancelling = False
        self.handed = False
        self.over = False


class Source:
    """A timer or a job. A timer is ripe at once."""

    def __init__(self, kind: EventKind, branch: int, number: int, place: int) -> None:
        self.key = (int(kind), branch, number)
        self.yields = False
        self.ripe = kind == EventKind.TIMER
        self.over = False
        self.place = place


class Life:
    """One life of a body: the shell around `Delivery`, with dice for the world outside."""

    here = True
    is_child = child_retraces = False

    def __init__(
        self, dice: random.Random, program: Program, before: Life | None = None, changed: bool = False
    ) -> None:
        self.dice = dice
        self.program = program
        self.delivery = Delivery()
        self.rows: list[Entry] = [] if before is None else list(before.rows)
        self.replayed = {} if before is None else {place: n for n, place in before.places.items()}
        self.places: dict[int, tuple[int, int]] = {}
        """The operation of each new row, by its number."""
        self.log: Log = []
        self.keys: dict[tuple[str, int, int], tuple[int, int, int]] = {}
        """The branch, number and kind of each event in the log."""
        self.begun: dict[tuple[int, int], int] = {}
        self.blocked = 0
        self.may_start = before is None or dice.random() < 0.5
        self.changed = changed
        self.executing: list[Waiter] = []
        self.recording: list[tuple[Waiter, Result]] = []
        """Given to the writer, by order of entry numbers to come."""
        self.sockets: list[int] = []
        self.armed: list[Source] = []
        """Timers and jobs under way."""
        self.entering: dict[int, Entrance] = {}
        self.ready: deque[int] = deque(range(len(program)))
        self.at = [0] * len(program)
        self.calls = [0] * len(program)
        self.timers_armed = [0] * len(program)
        self.occurrences: dict[tuple[int, str], int] = {}
        self.waits: dict[int, Waiter] = {}
        self.given: set[int] = set()
        self.reused: set[tuple[int, bytes, int]] = set()
        self.settling = before is not None and not changed
        """No moment has come yet at which all is replayed and no timer is pending (B9)."""
        if before is not None:
            source = (lambda _: True) if changed else (lambda _: False)
            self.delivery.load(Replay(list(self.rows), source), before.under_way(), same_source=not changed)

    def under_way(self) -> dict[Any, Any]:
        """The sleeps that the end of this life has cut off."""
        sleeps = [waiter for waiter in self.executing if self.program[waiter.branch][waiter.place].kind == "sleep"]
        return {key(waiter.call): SimpleNamespace(begun=waiter.call.begun) for waiter in sleeps}

    # -- facts for `Delivery` ------------------------------------------------------------------------------------------

    @property
    def returned(self) -> bool:
        ended = all(at >= len(branch) for at, branch in zip(self.at, self.program, strict=True))
        return ended and not (self.ready or self.waits or self.armed or self.entering or self.sockets)

    @property
    def computes(self) -> bool:
        """See `Facts`."""
        return any(source.key[0] == EventKind.JOB and not source.ripe for source in self.armed)

    @property
    def unrecorded(self) -> bool:
        return bool(self.sockets) or any(not source.ripe for source in self.armed)

    @property
    def timers(self) -> int:
        return sum(source.key[0] == EventKind.TIMER for source in self.armed)

    # -- one life ------------------------------------------------------------------------------------------------------

    def run(self, steps: int = 1 << 30) -> None:
        """Until nothing moves, or so many things have come from outside."""
        for _ in range(steps):
            while self.ready and not self.blocked:
                self._go_on(self.ready.popleft())
            self._pump()
            if (self.blocked or not self.ready) and not self._outside():
                self._end()
                return

    def _end(self) -> None:
        if not self.may_start:
            self.may_start = True
            self.run()
        elif self.returned and self.delivery.replaying:
            # The run looks for such entries when its code has ended (`Body.unasked`).
            if not self.changed:
                raise Mismatch("the code has ended amid its journal")
        elif self.waits or self.sockets or self.armed or self.entering or self.delivery.replaying:
            raise Violation(f"D4 the body hangs: {self.waits}, {self.armed}, {self.entering}, {self.log}")

    def _outside(self) -> bool:
        """Something comes from outside, by chance; whether anything was left."""
        choices: list[tuple[Any, Any]] = [(self._end_work, each) for each in self.executing]
        choices += [(self._commit, None)] * bool(self.recording)
        if not self.blocked:
            choices += [(self._hear, branch) for branch in self.sockets]
            choices += [(self._open, each) for each in self.entering.values() if not each.open]
        due = self.delivery.due
        choices += [(self._ripen, source) for source in self.armed if source not in due]
        if not self.may_start:
            choices.append((self._allow, None))
        if not choices:
            return False
        act, subject = self.dice.choice(choices)
        act(subject)
        return True

    def _allow(self, _: Any) -> None:
        self.may_start = True

    def _end_work(self, waiter: Waiter) -> None:
        self.executing.remove(waiter)
        self._record(waiter, Result.VALUE)

    def _record(self, waiter: Waiter, result: Result) -> None:
        if self.program[waiter.branch][waiter.place].kind != "sync":
            self.delivery.in_flight += 1
        elif self.delivery.in_flight or self.delivery.replaying:
            waiter.call = replace(waiter.call, after=self.delivery.place[0])
        self.recording.append((waiter, result))

    def _commit(self, _: Any) -> None:
        """The next record is on disk."""
        waiter, result = self.recording.pop(0)
        call = waiter.call
        n = len(self.rows) + 1
        self.rows.append(
            row(n, call.branch, call.seq, call.name, call.occ, result, begun=call.begun, after=call.after,
                notes=encode_notes(self.delivery.take_notes()), source=OTHER if self.changed else SAME)
        )  # fmt: skip
        self.places[n] = (waiter.branch, waiter.place)
        if self.program[waiter.branch][waiter.place].kind != "sync":
            self.delivery.committed(waiter, Outcome(n, int(result), b""))
            return
        if n > self.delivery.last:
            self.delivery.passed(n, call.after)
        self.blocked -= 1
        self._told(waiter, "told")

    def _hear(self, branch: int) -> None:
        self.sockets.remove(branch)
        self.ready.append(branch)

    def _ripen(self, source: Source) -> None:
        source.ripe = True
        self.delivery.arrived(source)

    def _open(self, entrance: Entrance) -> None:
        entrance.open = True

    # -- what the body does --------------------------------------------------------------------------------------------

    def _go_on(self, branch: int) -> None:
        """The operations of a branch up to one that waits."""
        while self.at[branch] < len(self.program[branch]) and not self.blocked:
            place = self.at[branch]
            self.at[branch] += 1
            op = self.program[branch][place]
            if op.kind in CALLS:
                if not self._call(branch, place, op):
                    return
            elif op.kind == "cancel":
                self._cancel(op.other)
            else:
                self._wait_outside(branch, place, op.kind)
                return

    def _wait_outside(self, branch: int, place: int, kind: str) -> None:
        if kind == "socket":
            self.sockets.append(branch)
        elif kind == "enter":
            self.entering[branch] = entrance = Entrance(SimpleNamespace(done=lambda: False, branch=branch, place=place))
            entrance.open = self.delivery.replaying
            self.delivery.entrances.append(entrance)
        else:
            number = self.timers_armed[branch]
            self.timers_armed[branch] += 1
            of = EventKind.TIMER if kind == "timer" else EventKind.JOB
            source = Source(of, branch, number, place)
            self.delivery.began(source)
            self.armed.append(source)

    def _call(self, branch: int, place: int, op: Op) -> bool:
        """A durable call; whether the branch goes on at once."""
        delivery = self.delivery
        occ = self.occurrences.get((branch, op.name), 0)
        self.occurrences[branch, op.name] = occ + 1
        call = row(0, branch, self.calls[branch], op.name, occ, Result.VALUE, begun=delivery.last)
        self.calls[branch] += 1
        self.begun[branch, place] = delivery.last
        waiter = Waiter(branch, place, call)
        delivery.unasked_actions.pop(key(call), None)
        verdict, entry = self._ask(call)
        if verdict is Verdict.MISMATCH:
            raise Mismatch(f"{op} at the position of {entry}")
        if verdict is Verdict.REPLAY:
            assert entry is not None
            if entry.n in self.given:
                raise Violation(f"R1 entry {entry.n} is handed out twice")
            self.given.add(entry.n)
            return self._replayed(waiter, entry, op.kind == "sync")
        if verdict is Verdict.REUSE:
            self._reuse(call)
            verdict = Verdict.EXECUTE
        if op.kind == "sync":
            self.waits[branch] = waiter
            self.blocked += 1
            self.executing.append(waiter)
        else:
            self.waits[branch] = waiter
            if verdict is Verdict.HOLD or not self.may_start:
                delivery.held.append(waiter)
            else:
                self._execute(waiter)
        return False

    def _ask(self, call: Entry) -> tuple[Verdict, Entry | None]:
        replay = self.delivery.replay
        if replay is None:
            return Verdict.EXECUTE, None
        decision = replay.ask(call.branch, call.seq, call.fp, call.occ)
        if decision.verdict is Verdict.CHANGED:
            if not self.changed:
                raise Violation("P5 the journal is given up under the same source")
            self._loosen()
            decision = replay.ask(call.branch, call.seq, call.fp, call.occ)
        return decision.verdict, decision.entry

    def _reuse(self, call: Entry) -> None:
        if key(call) in self.reused:
            raise Violation(f"R1 {key(call)} is handed out twice")
        self.reused.add(key(call))

    def _replayed(self, waiter: Waiter, entry: Entry, blocking: bool) -> bool:
        delivery = self.delivery
        if blocking or (entry.result != Result.CANCELLED and delivery.may_return_at_once(entry, quiet=not self.ready)):
            delivery.take(entry)
            delivery.drains()
            self.log.append(("told", waiter.branch, waiter.place))
            return True
        delivery.wait(waiter, entry)
        self.waits[waiter.branch] = waiter
        return False

    def _execute(self, waiter: Waiter) -> None:
        if self.delivery.replaying:
            raise Violation(f"R3 call {waiter.branch}, {waiter.place} executes before all is replayed")
        self.executing.append(waiter)

    def _cancel(self, branch: int) -> None:
        waiter = self.waits.get(branch)
        if waiter is None or self.program[branch][waiter.place].kind == "sync":
            return
        if self.delivery.cancel(waiter) is CancelVerdict.RECORD:
            if waiter in self.executing:
                self.executing.remove(waiter)
            self._record(waiter, Result.CANCELLED)

    def _told(self, waiter: Waiter, kind: str) -> None:
        if waiter.over:
            raise Violation(f"R1 call {waiter.branch}, {waiter.place} is answered twice")
        waiter.over = True
        self.waits.pop(waiter.branch, None)
        self.log.append((kind, waiter.branch, waiter.place))
        if self.program[waiter.branch][waiter.place].kind == "sync":
            self.ready.appendleft(waiter.branch)  # the code that has blocked the loop goes on before all else
        else:
            self.ready.append(waiter.branch)

    # -- steps ---------------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """All steps that may be made now. The body becomes quiet in between (B1)."""
        while not self.ready:
            facts = self._facts()
            step = self.delivery.next(self)
            self._law(step, facts)
            self.delivery.drains()
            move, subject = step.move, step.subject
            if move is Move.HAND:
                self._told(subject, "told")
            elif move is Move.CANCEL:
                self._told(subject, "cancelled")
            elif move is Move.START:
                for waiter in subject:
                    self._execute(waiter)
                return
            elif move is Move.HAPPEN:
                self.armed.remove(subject)
                kind, branch, number = subject.key
                self.log.append(("event", branch, subject.place))
                self.keys["event", branch, subject.place] = (branch, number, kind)
                self.ready.append(branch)
            elif move is Move.ENTER:
                branch = subject.future.branch
                del self.entering[branch]
                self.log.append(("entered", branch, subject.future.place))
                self.ready.append(branch)
            elif move is Move.LOOSEN:
                self._loosen()
            elif move is Move.MISMATCH:
                raise Mismatch(f"{subject} is not asked for")
            elif move is not Move.DRAINED:
                return

    def _facts(self) -> Any:
        delivery = self.delivery
        head = delivery.replay.head() if delivery.replay is not None else None
        unasked = set(delivery.unasked_actions) & set(delivery.open_actions)
        first = delivery.entrances[0] if delivery.entrances else None
        return SimpleNamespace(head=head, unasked=unasked, first=first)

    def _law(self, step: Any, facts: Any) -> None:
        """What must hold for one step, for all histories."""
        move = step.move
        hands = move in (Move.HAND, Move.CANCEL, Move.HAPPEN, Move.ENTER)
        if hands and self.blocked:
            raise Violation(f"B5 {move.name} while the loop is blocked")
        if (
            facts.first is not None
            and (hands or move is Move.START)
            and (move is not Move.ENTER or step.subject is not facts.first or not facts.first.open)
        ):
            raise Violation(f"B10 {move.name} while a block waits to be entered")
        if move is Move.START and (not self.may_start or facts.head is not None):
            raise Violation("B4 calls start while the run may not start calls")
        if move is Move.LOOSEN and not self.changed:
            raise Violation("P5 the journal is given up under the same source")
        self.settling = self.settling and not (facts.head is None and not self.timers)
        if move is Move.HAND and facts.head is None and self.settling and facts.unasked:
            raise Violation("B9 a live outcome is handed over before all that was under way is called again")
        if move is Move.CANCEL and not step.subject.cancelling:
            raise Violation("B11 a call is cancelled that no code cancels")

    def _loosen(self) -> None:
        _, asked = self.delivery.loosen()
        for waiter, entry in asked:
            if waiter.cancelling:
                self._record(waiter, Result.CANCELLED)
            else:
                self._reuse(entry)
                self.executing.append(waiter)


def key(entry: Entry) -> tuple[int, bytes, int]:
    """What the action of a call is found by."""
    return (entry.branch, entry.fp, entry.occ)
