"""The replay decision, as a pure state machine: given a body's journal and a call, what now?

This module does no I/O, knows no event loop and reads no clock. `Replay` holds the entries of one action's body:

- *strict* entries, in the order in which their outcomes were delivered. Strict entries must be asked for, and are
  delivered in just that order. Between them stand the *events* that were noted: timers that ran out, jobs that ended.
- *loose* entries: recorded before an attempt failed or before the source changed. A loose entry is reused where a call
  asks for it, in any order, and need not be asked for at all: after a discarded failure, or in edited code, the path
  may rightly be another.

Invariants:
- R1 an entry is handed out at most once.
- R2 a strict entry is handed out only when every strict entry before it has been.
- R3 while strict entries remain, no call without an entry is told to execute (`HOLD`).
- R4 a call that finds another call's unconsumed entry at its own position is a mismatch, unless the source changed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from enum import Enum, IntEnum, auto
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from ..ground.model import Entry, Result

Key = tuple[int, bytes, int, int]
"""(branch, fingerprint, occurrence, item): what a call is found by."""
CallKey = tuple[int, bytes, int]
"""(branch, fingerprint, occurrence): a call, with all items of a generator."""


EventKey = tuple[int, int, int]
"""(kind, branch, number): what an event is found by."""


class EventKind(IntEnum):
    """What moves a body and has no entry of its own."""

    TIMER = 1
    """A plain timer ran out: that of `asyncio.sleep`, of `asyncio.timeout`, of `loop.call_later`. `number` counts the
    timers that the branch has armed."""
    JOB = 2
    """A job in a thread or another executor ended. `branch` is the job's own branch, `number` is 0."""
    LATE = 3
    """A timeout of asyncio's had run out by the time when it was armed: no event in the order, but a fact about the
    timer of that branch and number."""
    CALLER = 4
    """The code that called this body has cancelled it. `branch` is 0, `number` counts."""


class Event(NamedTuple):
    """An event as it is noted in the journal, beside the entry that was recorded next."""

    after: int
    """The number of the entry, of all that had been delivered to the body, with the last place in the order."""
    kind: int
    branch: int
    number: int

    @property
    def key(self) -> EventKey:
        """What the event is found by."""
        return (self.kind, self.branch, self.number)


class Verdict(Enum):
    """What a call may do now."""

    REPLAY = auto()
    """A strict entry is this call's; it is delivered in its turn."""
    REUSE = auto()
    """A loose entry is this call's."""
    EXECUTE = auto()
    """Nothing recorded and nothing left to replay: run it."""
    HOLD = auto()
    """Nothing recorded, but strict entries remain: run it once they have been delivered."""
    MISMATCH = auto()
    """Another call's entry stands at this position, written by the same source."""
    CHANGED = auto()
    """Another call's entry stands at this position, written by other source: the rest has become loose."""


class Decision(Struct, frozen=True):
    verdict: Verdict
    entry: Entry | None = None


# As constants of the module for hot paths: Python 3.11 finds a member of an enum through a hook of its class.
REPLAY = Verdict.REPLAY
REUSE = Verdict.REUSE
CHANGED = Verdict.CHANGED
MISMATCH = Verdict.MISMATCH

_EXECUTE = Decision(Verdict.EXECUTE)
_HOLD = Decision(Verdict.HOLD)

LAST = 1 << 62
"""Beyond the number of each entry."""

_MARK_FP = bytes(16)

PATCHED = msgspec.msgpack.encode(True)
"""The value of a `PATCH` row of a body that has the patch."""

_NOWHERE: Key = (0, b"", -1, -1)

_ABOUT_OTHERS = frozenset(
    {
        Result.CANCELLED,
        Result.CLOSED,
        Result.LOOSEN,
        Result.DISCARD,
        Result.REUSE,
        Result.NOTE,
        Result.FAILED,
        Result.PATCH,
    }
)


class Replay:
    """One body's recorded past, being consumed. `changed(source_id)` tells whether that source differs from today's."""

    __slots__ = (
        "_by_begun",
        "_by_begun_turn",
        "_cancelled_behind",
        "_changed",
        "_consumed",
        "_index",
        "_late",
        "_positions",
        "_sources",
        "_strict",
        "_turn",
        "_unfinished",
        "children",
        "closed",
        "late_timers",
        "loose",
        "loosened",
        "patches",
    )

    def __init__(self, entries: Iterable[Entry], changed: Callable[[int], bool]) -> None:
        self._changed = changed
        self.loose: dict[Key, Entry] = {}
        self.closed: set[Key] = set()
        """Generators that their consumer closed early, and the index of the item that was never asked for."""
        self._cancelled_behind = LAST
        """The entry behind which the caller, or a cancellation of the run, had cancelled an attempt that failed."""
        self.loosened = False
        """An attempt has failed, or the source has changed, since the journal began."""
        self.late_timers: set[EventKey] = set()
        """The timeouts that had run out when they were armed (`EventKind.LATE`, by the key of their timer)."""
        self.children: set[int] = set()
        """The actions whose outcome counts; one whose outcome was discarded goes on where it is called again."""
        self.patches: dict[str, bool] = {}
        """The recorded answers to `perdure.patched`, by name."""
        self._unfinished: dict[CallKey, list[Key]] = {}
        """The generators that had not ended when an attempt failed, and their loose items."""
        self._strict: list[Entry | Event] = self._settle(entries)
        self._turn = 0
        self._consumed: set[int] = set()
        self._index: dict[Key, Entry] = {}
        self._positions: dict[tuple[int, int], Key] = {}
        self._by_begun: list[Entry] | None = None
        self._by_begun_turn = 0
        self._late: list[Key] = []
        self._sources: frozenset[int] | None = None
        index, positions = self._index, self._positions
        for entry in self._strict:
            if entry.__class__ is Event:
                continue
            assert isinstance(entry, Entry)
            key = (entry.branch, entry.fp, entry.occ, entry.item)
            index[key] = entry
            if not entry.item:
                positions[entry.branch, entry.seq] = key

    def _settle(self, entries: Iterable[Entry]) -> list[Any]:
        """Apply what later rows say of earlier ones; what remains, and the events between, in order of delivery."""
        rows = entries if isinstance(entries, list) else list(entries)
        self.children.update(row.child for row in rows if row.child is not None)
        if not any(row.result in _ABOUT_OTHERS or row.after is not None or row.notes is not None for row in rows):
            return rows
        events: list[Event] = []
        kept: dict[int, Entry] = {}
        by_key: dict[Key, int] = {}
        alias: dict[int, int] = {}
        loose_keys: dict[int, Key] = {}
        for entry in rows:
            result = entry.result
            key = key_of(entry)
            if entry.notes is not None:
                events.extend(decode_notes(entry.notes))
            if result == Result.DISCARD:
                gone = kept.pop(alias.get(entry.seq, entry.seq), None)
                if gone is not None:
                    by_key.pop(key_of(gone), None)
                else:
                    gone = self.loose.pop(loose_keys.pop(entry.seq, _NOWHERE), None)
                if gone is not None and gone.child is not None:
                    self.children.discard(gone.child)
            elif result in (Result.LOOSEN, Result.FAILED):
                self.loosened = True
                low = entry.seq if result == Result.LOOSEN else self._find_unfinished(kept, entry.seq)
                for n in [n for n in kept if n >= low]:
                    moved = kept.pop(n)
                    by_key.pop(key_of(moved), None)
                    # A cancelled call is not reused: nothing may ever cancel it again on the new path.
                    if moved.result != Result.CANCELLED:
                        self.loose[key_of(moved)] = moved
                        loose_keys[n] = key_of(moved)
                    elif moved.child is not None:
                        self.children.discard(moved.child)
                events = self._before(max(kept, default=0), events)
            elif result == Result.REUSE:
                old = self.loose.pop(loose_keys.pop(entry.seq, _NOWHERE), None)
                if old is not None:
                    kept[entry.n] = replace(old, n=entry.n, after=entry.after, seq=entry.occ, begun=entry.begun)
                    by_key[key_of(old)] = entry.n
                    alias[entry.seq] = entry.n
                    self._unfinished.pop(call_of(old), None)
            elif result == Result.CLOSED:
                self.closed.add(key)
            elif result == Result.PATCH:
                self.patches.setdefault(entry.name, entry.value == PATCHED)
            elif result == Result.NOTE:
                pass
            else:
                # A second row of one call: it was recorded, then cancelled before its outcome was delivered.
                earlier = by_key.get(key)
                if earlier is not None:
                    del kept[earlier]
                if not entry.item:
                    self.execute_again(call_of(entry))
                self.loose.pop(key, None)
                kept[entry.n] = entry
                by_key[key] = entry.n
        return self._merge(sorted(kept.values(), key=_delivery_order), events)

    def _before(self, end: int, events: list[Event]) -> list[Event]:
        """The events before the last entry that still binds. What happened behind that entry belongs to the path that
        is given up."""
        self._give_up(event for event in events if event.after >= end)
        return [event for event in events if event.after < end]

    def _give_up(self, events: Iterable[Entry | Event]) -> None:
        """Keep the place of a cancellation among events that no longer bind."""
        for event in events:
            if isinstance(event, Event) and event.kind == EventKind.CALLER:
                self._cancelled_behind = event.after

    @property
    def is_before_cancellation(self) -> bool:
        """Whether loose entries are left that were recorded before an earlier attempt was cancelled: not those of the
        cleanup, for which no call asks before the code is cancelled again."""
        return any(entry.n <= self._cancelled_behind for entry in self.loose.values())

    def _find_unfinished(self, kept: dict[int, Entry], low: int) -> int:
        """Find the generators that had not ended when the attempt failed. What came from their first item on binds the
        next attempt no longer: the number of the first such entry, or `low`."""
        items: dict[CallKey, list[Key]] = {}
        over = {key[:3] for key in self.closed}
        for entry in (*self.loose.values(), *kept.values()):
            if entry.result == Result.ITEM:
                items.setdefault(call_of(entry), []).append(key_of(entry))
            elif entry.result in (Result.END, Result.ERROR):
                over.add(call_of(entry))
        self._unfinished = {call: keys for call, keys in items.items() if call not in over}
        return min([low, *(entry.n for entry in kept.values() if call_of(entry) in self._unfinished)])

    def _merge(self, strict: list[Entry], events: list[Event]) -> list[Any]:
        """Put each event behind the entry that had been delivered last when the event happened."""
        self.late_timers = {
            (EventKind.TIMER, event.branch, event.number) for event in events if event.kind == EventKind.LATE
        }
        places = {entry.n: place for place, entry in enumerate(strict, 1)}
        orders = [_delivery_order(entry) for entry in strict]
        behind: dict[int, list[Event]] = {}
        for event in events:
            if event.kind != EventKind.LATE:
                place = places.get(event.after)
                if place is None:
                    place = bisect_right(orders, (event.after, event.after))
                behind.setdefault(place, []).append(event)
        if not behind:
            return strict
        merged: list[Any] = list(behind.get(0, ()))
        for place, entry in enumerate(strict, 1):
            merged.append(entry)
            merged += behind.get(place, ())
        return merged

    # -- asking ------------------------------------------------------------------------------------------------

    @property
    def drained(self) -> bool:
        """No strict entry, and no event, is left."""
        return self._turn >= len(self._strict)

    @property
    def done(self) -> bool:
        """Nothing recorded is left at all, so that replay cannot have an opinion any more."""
        return self._turn >= len(self._strict) and not self.loose

    def ask(self, branch: int, seq: int, fp: bytes, occ: int, item: int = 0) -> Decision:
        """What the call at this identity and position may do (docs/development/replay.md#look-up)."""
        key = (branch, fp, occ, item)
        entry = self._index.pop(key, None)
        if entry is not None:
            if not item:
                self._positions.pop((entry.branch, entry.seq), None)
            return Decision(REPLAY, entry)
        if self.loose:
            loose = self.loose.pop(key, None)
            if loose is not None:
                return Decision(Verdict.REUSE, loose)
        if self._turn >= len(self._strict):
            return _EXECUTE
        if not item:
            other = self._positions.get((branch, seq))
            if other is not None:
                found = self._index[other]
                if self._changed(found.source):
                    return Decision(Verdict.CHANGED, found)
                return Decision(Verdict.MISMATCH, found)
        return _HOLD

    def execute_again(self, call: CallKey) -> None:
        """A generator begins from its beginning, and not behind its recorded items: where it had not ended when an
        attempt failed, the items of that attempt are not handed out."""
        for key in self._unfinished.pop(call, ()):
            self.loose.pop(key, None)

    # -- handing out -------------------------------------------------------------------------------------------

    def head(self) -> Any:
        """The `Entry` or the `Event` whose turn it is; `None` if nothing is left."""
        strict, consumed = self._strict, self._consumed
        while self._turn < len(strict):
            entry = strict[self._turn]
            if consumed and isinstance(entry, Entry) and entry.n in consumed:
                consumed.discard(entry.n)
                self._turn += 1
                continue
            return entry
        return None

    def consume(self, entry: Entry) -> None:
        """That entry has been delivered (or its call was cancelled before its turn)."""
        if self._turn < len(self._strict) and self._strict[self._turn] is entry:
            self._turn += 1
            if self._consumed:
                self.head()
        else:
            self._consumed.add(entry.n)
            self.head()

    def consume_event(self, event: Event) -> None:
        """The event, whose turn it is, has happened again (or cannot)."""
        assert self._strict[self._turn] is event
        self._turn += 1
        self.head()

    def late(self, n: int) -> bool:
        """Whether a recorded call that was made before entry `n` was delivered has not been made yet.

        Something that is not recorded (a socket, say) led to that call, and as long as that may still come, entry `n`
        has to wait for the call.
        """
        if self._by_begun is None:
            self._by_begun = sorted(self._entries_left(), key=_begun)
        by_begun, index, late = self._by_begun, self._index, self._late
        while self._by_begun_turn < len(by_begun) and by_begun[self._by_begun_turn].begun < n:
            late.append(key_of(by_begun[self._by_begun_turn]))
            self._by_begun_turn += 1
        while late and late[-1] not in index:
            late.pop()
        return bool(late)

    def outcomes(self) -> list[Entry]:
        """The entries that are left, strict ones first."""
        return [*self._entries_left(), *self.loose.values()]

    def sources(self) -> frozenset[int]:
        """The source snapshots of the entries that were left when this was asked first. Found once, because each call
        of a function that has moved asks."""
        if self._sources is None:
            self._sources = frozenset(entry.source for entry in self.outcomes())
        return self._sources

    def is_changed(self, entry: Entry) -> bool:
        """Whether that entry was written by other source than today's."""
        return self._changed(entry.source)

    def expects(self, branch: int) -> bool:
        """Whether the first call of that branch is recorded and has not been made yet."""
        return (branch, 0) in self._positions

    def asked(self, entry: Entry) -> bool:
        """Whether some call has asked for that strict entry."""
        return key_of(entry) not in self._index

    def unasked(self, branch: int | None = None) -> Entry | None:
        """The first strict entry, of that branch or of any branch, that no call has asked for."""
        if not self._index:
            return None
        for entry in self._entries_left():
            if branch is not None and entry.branch != branch:
                continue
            if key_of(entry) in self._index and entry.n not in self._consumed:
                return entry
        return None

    def _entries_left(self) -> list[Entry]:
        return [entry for entry in self._strict[self._turn :] if isinstance(entry, Entry)]

    def loosen(self) -> tuple[int, list[Entry]]:
        """Make every remaining strict entry loose.

        Returns the entry number from which on that holds, and the entries that calls already wait for, in order.
        """
        rest = [entry for entry in self._entries_left() if entry.n not in self._consumed]
        self._give_up(self._strict[self._turn :])
        self._strict, self._turn = [], 0
        self._consumed.clear()
        waiting = []
        for entry in rest:
            key = key_of(entry)
            if key not in self._index:
                waiting.append(entry)
            elif entry.result != Result.CANCELLED:
                self.loose[key] = entry
        self._index.clear()
        self._positions.clear()
        return min((entry.n for entry in rest), default=0), waiting


def mark_row(action: int, n: int, seq: int, result: Result, source: int) -> Entry:
    """A row that records no outcome: a row about entry `seq` (`LOOSEN`, `FAILED`, `DISCARD`, `REUSE`), or a `NOTE`."""
    return Entry(action, n, 0, seq, 0, 0, 0, int(result), _MARK_FP, "", None, None, None, source, None, None, 0, 0)


def key_of(entry: Entry) -> Key:
    """What an entry is found by."""
    return (entry.branch, entry.fp, entry.occ, entry.item)


def call_of(entry: Entry) -> CallKey:
    """The call of an entry."""
    return (entry.branch, entry.fp, entry.occ)


def encode_notes(events: list[Event]) -> bytes | None:
    """Events as `Entry.notes` holds them; `None` for none."""
    return msgspec.msgpack.encode(events) if events else None


def decode_notes(data: bytes) -> list[Event]:
    """The reverse. Notes that cannot be read are left out: replay then follows the entries alone."""
    if not data:
        return []
    try:
        return msgspec.msgpack.decode(data, type=list[Event])
    except (ValueError, RecursionError):
        return []


def _begun(entry: Entry) -> int:
    return entry.begun


def _delivery_order(entry: Entry) -> tuple[int, int]:
    return delivery_order(entry.n, entry.after)


def delivery_order(n: int, after: int | None) -> tuple[int, int]:
    """The place of an entry in the order of delivery: by `n`, unless the entry was delivered out of turn (`after`)."""
    return (n if after is None else after, n)
