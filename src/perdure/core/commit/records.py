"""Records on their way into the journal, and the pure turning of records into rows.

An *item* of an outbox is a record, a row, or a tuple of both that must not be parted (W4).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from msgspec import Struct
from msgspec.structs import replace

from ...errors import StoreError
from ..body.branch import Call
from ..body.delivery import Outcome
from ..body.interfaces import BodyPort
from ..body.scope import Slot, unscoped
from ..body.waits import HeldSlot, LoopWaiter, ThreadWaiter, Waiter
from ..ground.model import (
    CANCELLED,
    Action,
    ActionState,
    CachePut,
    Created,
    CreateRun,
    Entry,
    Finish,
    FreedSlot,
    Park,
    Publication,
    Result,
    RunWrites,
    Streamed,
    Take,
)
from ..journal.replay import mark_row
from .interfaces import Sink


class Record(Struct, eq=False):
    """An outcome on its way into the journal. A struct, because one is made for each recorded call."""

    call: Call
    result: int
    value: bytes | None
    at: int
    took: int
    item: int = 0
    child: int | None = None
    after: int | None = None
    waiter: Waiter | None = None
    slot: Slot | None = None
    """Set if a thread records and waits for its turn (B2)."""
    alone: bool = False
    """Set if the recording task goes on with its outcome at once (`Body.alone`)."""
    n: int = 0
    done: bool = False
    error: BaseException | None = None

    def __await__(self) -> Any:
        # Already on disk (`Writer.commit_now`): nothing to suspend for.
        yield from ()
        if self.error is not None:
            raise self.error
        return Outcome(self.n, self.result, self.value)

    def block(self) -> Outcome:
        """As an effect: commit from a thread, or from a loop that may block. No hop, the caller commits."""
        body = self.call.body
        body.driver.worker.writer.through(body.driver, self)
        if self.waiter is not None:
            # Other outcomes came before, and this outcome takes its turn behind them.
            outcome = self.waiter.block()
            assert isinstance(outcome, Outcome)
            return outcome
        if self.slot is None and self.n > body.delivery.last:
            body.passed(self.n, self.after)
        return Outcome(self.n, self.result, self.value)

    def announce(self) -> BodyPort | None:
        """The outcome is on disk: it takes its turn (W2). The body that is to be pumped, if any."""
        waiter, body = self.waiter, self.call.body
        if self.slot is not None and self.result != CANCELLED:
            if body.thread_committed(self.n):
                self.done = True
                return None
            waiter = self.waiter = ThreadWaiter(self.call, self.item, self.slot)
            body.delivery.in_flight += 1
        self.done = True
        if waiter is None:
            if self.alone:
                # Here, in the order of commits, and not when the task goes on: a thread may be faster.
                body.passed(self.n, None)
            return None
        body.committed(waiter, Outcome(self.n, self.result, self.value))
        return body


class Mark:
    """A row about other entries (`LOOSEN`, `FAILED`, `DISCARD`). The `FAILED` of an attempt that is tried again has the
    encoded error, for people alone, and the time of the failure (wall, microseconds)."""

    __slots__ = ("action", "at", "error", "result", "seq")

    def __init__(self, action: int, result: Result, seq: int, error: bytes | None = None, at: int = 0) -> None:
        self.action = action
        self.result = result
        self.seq = seq
        self.error = error
        self.at = at


class Noted:
    """A row (`NOTE`) for the events of a body that no earlier record of the outbox carries; no row if there are none.

    The events are taken as the row is numbered, like those of a `Record`, so notes keep their order."""

    __slots__ = ("body",)

    def __init__(self, body: BodyPort) -> None:
        self.body = body


class Reuse(Record, eq=False):
    """A loose entry handed out again; `original` is the entry's number."""

    original: int = 0

    @classmethod
    def of(cls, call: Call, entry: Entry, item: int, waiter: LoopWaiter | None) -> Reuse:
        """The record for a call that the loose entry belongs to."""
        return cls(call, entry.result, entry.value, entry.at, entry.took, item, waiter=waiter, original=entry.n)


class Foreign:
    """Rows of a body in another process, to be numbered and written in one transaction (`remote_body`)."""

    __slots__ = (
        "actions",
        "body",
        "cache",
        "done",
        "entries",
        "error",
        "n",
        "published",
        "states",
        "streamed",
        "takes",
    )

    def __init__(
        self,
        body: BodyPort,
        entries: list[Entry],
        actions: list[Action],
        states: list[ActionState],
        cache: list[CachePut],
        takes: list[Take],
        published: list[Publication],
        streamed: list[Streamed],
    ) -> None:
        self.body = body
        """The stand-in of the body."""
        self.entries = entries
        self.actions = actions
        self.states = states
        self.cache = cache
        self.takes = takes
        """Their entries are counted as those of `entries`, from 1."""
        self.published = published
        self.streamed = streamed
        self.n = 0
        """The number before that of the first entry."""
        self.done = False
        self.error: BaseException | None = None


class Taker(Protocol):
    """The messages of a run, told what becomes of a `Taking`."""

    def taken(self, number: int) -> None:
        """The message is taken, on disk."""

    def put_back(self, number: int) -> None:
        """The message is not taken, because its record was refused."""

    def returned(self, box: str, number: int) -> None:
        """The message was taken and is given back, on disk."""


class Taking:
    """A row: the next record of the same item takes a message, or a cancellation gives the message back (MS1, MS3)."""

    __slots__ = ("_taker", "box", "entry", "gives_back", "number", "over", "shared")

    def __init__(self, taker: Taker, box: str, number: int, *, shared: bool, gives_back: bool = False) -> None:
        self._taker = taker
        self.box = box
        self.number = number
        self.shared = shared
        """Several calls may take the message, which is never given back."""
        self.gives_back = gives_back
        self.entry: int | None = None
        """The number of the entry that takes the message, once it has one."""
        self.over = False
        """The body was closed before its code heard of the message: where the entry has no number yet, the entry is not
        written."""

    def back(self) -> Taking:
        """The row that goes with the cancellation."""
        return Taking(self._taker, self.box, self.number, shared=self.shared, gives_back=True)

    def row(self, entry: int) -> Take | None:
        """The row for the store; `entry` is the number of the next record."""
        if self.gives_back:
            return None if self.shared else Take(self.number, None)
        self.entry = entry
        return Take(self.number, entry)

    def announce(self) -> None:
        """The row is on disk."""
        if not self.gives_back:
            self._taker.taken(self.number)
        elif not self.shared:
            self._taker.returned(self.box, self.number)

    def refuse(self) -> None:
        """The row will not be written."""
        if not self.gives_back:
            self._taker.put_back(self.number)


class Unheard:
    """Rows: a message that was taken in a body which was closed before its code heard of the message. The entry counts
    no longer, and the message is given back (MS3). No rows where the entry was not written."""

    __slots__ = ("action", "taking")

    def __init__(self, action: int, taking: Taking) -> None:
        self.action = action
        self.taking = taking

    def number(self, n: int, entries: list[Entry], takes: list[Take], source: int) -> int:
        """Add the rows behind entry `n`; the number of the last entry."""
        if self.taking.entry is None:
            return n
        entries.append(mark_row(self.action, n + 1, self.taking.entry, Result.DISCARD, source))
        takes.append(Take(self.taking.number, None))
        return n + 1

    def announce(self) -> None:
        """The rows are on disk."""
        if self.taking.entry is not None:
            self.taking.back().announce()


class Freeing:
    """A row: the slot of a call is given back with the next record of the same item."""

    __slots__ = ("slot",)

    def __init__(self, slot: HeldSlot) -> None:
        self.slot = slot

    def row(self) -> FreedSlot:
        """The row for the store."""
        return FreedSlot(self.slot.name, self.slot.number, self.slot.used)

    def announce(self) -> None:
        """The row is on disk."""
        self.slot.freed = True


class Synced:
    """Not a row: reports to a caller that the outbox before this item is on disk."""

    __slots__ = ("done", "error", "future")

    def __init__(self, future: asyncio.Future[None] | None) -> None:
        self.future = future
        self.done = False
        self.error: BaseException | None = None

    def announce(self) -> None:
        self.done = True
        if self.future is not None:
            self.future.get_loop().call_soon_threadsafe(self._wake, context=unscoped())

    def _wake(self) -> None:
        assert self.future is not None
        if not self.future.done():
            self.future.set_result(None)


class Submission:
    """A run on its way into the store."""

    __slots__ = ("create", "outcome", "tell")

    def __init__(self, create: CreateRun, tell: Callable[[Created | StoreError], None] | None = None) -> None:
        self.create = create
        self.tell = tell
        self.outcome: Created | StoreError | None = None

    def answer(self, outcome: Created | StoreError) -> None:
        self.outcome = outcome
        if self.tell is not None:
            self.tell(outcome)


Item = Any
"""A Record, Mark, Noted, Action, ActionState, CachePut, Taking, Unheard, Freeing, Publication, Streamed, Foreign,
Finish, Park, or an inseparable tuple of them."""


def without_abandoned(outbox: list[Item]) -> list[Item]:
    """Refuse, at the last moment, records of bodies whose attempt is over, and those that take a message of which their
    code will not hear."""
    kept = []
    for item in outbox:
        parts = item if item.__class__ is tuple else (item,)
        records = [part for part in parts if isinstance(part, (Record, Foreign))]
        unheard = any(part.__class__ is Taking and part.over for part in parts)
        dead = [record for record in records if unheard or _recorder(record).abandoned]
        if not dead:
            kept.append(item)
            continue
        for part in parts:
            if part.__class__ is Taking:
                part.refuse()
        for record in dead:
            record.done = True
            record.error = _recorder(record).driver.stopped_error()
    return kept


def _recorder(record: Record | Foreign) -> BodyPort:
    return record.body if isinstance(record, Foreign) else record.call.body


def cut(queue: list[Any]) -> list[Any]:
    taken = queue[:]
    del queue[: len(taken)]
    return taken


class Rows(NamedTuple):
    """The writes of one driver in one transaction, its entries numbered but not encoded yet."""

    entries: list[Entry]
    actions: list[Action]
    states: list[ActionState]
    cache: list[CachePut]
    takes: list[Take]
    published: list[Publication]
    streamed: list[Streamed]
    frees: list[FreedSlot]
    finish: Finish | None
    park: Park | None

    def sealed(self, driver: Sink) -> RunWrites:
        """With the entries as the next segments of the run's journal."""
        entries, actions, states, cache, takes, published, streamed, frees, finish, park = self
        segments, ends, sources = driver.journal.append(entries)
        return RunWrites(
            driver.run_id, driver.token, segments, actions, states, cache, finish, park, ends, sources, takes,
            published, streamed, frees,
        )  # fmt: skip


def rows(driver: Sink, outbox: list[Item]) -> Rows:
    """Number the records of one driver and turn them into rows."""
    n, source = driver.n, driver.source_id
    entries: list[Entry] = []
    actions: list[Action] = []
    states: list[ActionState] = []
    cache: list[CachePut] = []
    takes: list[Take] = []
    published: list[Publication] = []
    streamed: list[Streamed] = []
    frees: list[FreedSlot] = []
    finish: Finish | None = None
    park: Park | None = None
    plain: dict[type, Callable[[Any], None]] = {
        Action: actions.append, ActionState: states.append, CachePut: cache.append,
        Publication: published.append, Streamed: streamed.append,
    }  # fmt: skip
    for item in _parts(outbox):
        kind = item.__class__
        if kind is Record:
            n += 1
            item.n = n
            entries.append(entry_row(item, n, source))
        elif kind is Mark:
            n += 1
            row = mark_row(item.action, n, item.seq, item.result, source)
            entries.append(row if item.error is None else replace(row, value=item.error, at=item.at))
        elif kind is Noted:
            if (notes := item.body.take_notes()) is not None:
                n += 1
                entries.append(replace(mark_row(item.body.action, n, 0, Result.NOTE, source), notes=notes))
        elif kind is Reuse:
            n += 1
            item.n = n
            entries.append(_reuse_row(item, n, source))
        elif (add := plain.get(kind)) is not None:
            add(item)
        elif kind is Foreign:
            n = _number(item, n, entries, takes)
            actions.extend(item.actions)
            states.extend(item.states)
            cache.extend(item.cache)
            published.extend(item.published)
            streamed.extend(item.streamed)
        elif kind is Taking:
            if (take := item.row(n + 1)) is not None:
                takes.append(take)
        elif kind is Unheard:
            n = item.number(n, entries, takes, source)
        elif kind is Freeing:
            frees.append(item.row())
        elif kind is Finish:
            finish = item
        elif kind is Park:
            park = item._replace(mark=n)
        else:
            assert kind is Synced, kind
    driver.n = n
    return Rows(entries, actions, states, cache, takes, published, streamed, frees, finish, park)


def _reuse_row(reuse: Reuse, n: int, source: int) -> Entry:
    call = reuse.call
    row = mark_row(call.body.action, n, reuse.original, Result.REUSE, source)
    # `seq` names the entry; where the call stands now, and when it was made, go along for the next replay.
    return replace(row, item=reuse.item, after=reuse.after, occ=call.seq, begun=call.begun)


def _number(item: Foreign, n: int, entries: list[Entry], takes: list[Take]) -> int:
    """Number the entries of a body in another process after `n`; the number of the last entry."""
    item.n = n
    for row in item.entries:
        n += 1
        entries.append(replace(row, n=n))
    takes.extend(one if one.entry is None else Take(one.number, item.n + one.entry) for one in item.takes)
    return n


def _parts(outbox: list[Item]) -> list[Item]:
    """The items, with tuples in parts."""
    if not any(item.__class__ is tuple for item in outbox):
        return outbox
    parts: list[Item] = []
    for item in outbox:
        if item.__class__ is tuple:
            parts.extend(item)
        else:
            parts.append(item)
    return parts


def entry_row(record: Record, n: int, source: int) -> Entry:
    # Positional, because that is the fastest way to build a struct, and this runs for every recorded call.
    call = record.call
    body = call.body
    return Entry(
        body.action, n, call.branch.id, call.seq, call.occ, record.item, int(call.kind), int(record.result),
        call.fp, call.name, call.label, record.value, call.inputs, source, record.child, record.after,
        record.at, record.took, call.begun, body.take_notes() if body.delivery.notes else None,
    )  # fmt: skip


def takings_in(outbox: list[Item]) -> list[Taking]:
    """The messages that are taken."""
    return [part for part in _parts(outbox) if part.__class__ is Taking and not part.gives_back]


def records_in(outbox: list[Item]) -> list[Record | Foreign | Synced]:
    """The parts with a waiting caller."""
    found: list[Record | Foreign | Synced] = []
    for item in outbox:
        for part in item if item.__class__ is tuple else (item,):
            if isinstance(part, (Record, Foreign, Synced)):
                found.append(part)
    return found
