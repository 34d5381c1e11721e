"""Limits of calls: which call takes a slot now. The same steps in every store.

- LM1 a call holds a slot exactly while its ticket is `HOLDS` and the run has the claim under which the ticket was
  given. No counter is kept: the end of a claim, by a crash too, frees the slot by the change that fences the worker.
- LM2 slots are given under the lock of the limit's row, by a transaction that counts the holders first.
- LM3 what a rate counts is a row that is written by the transaction that gives the slot, on the store's clock. No
  window of the rate's length, both ends included, holds more.
- LM4 of the calls that wait in memory the lowest number is served first. A call without a living claim is passed over;
  it keeps its number, and comes back in front.
- LM5 a parked run that waits is a row. A worker that serves its task makes the run due when a slot is free, or when the
  run is the next in line; nothing is reserved for the run, so that no slot is idle while it comes back.

A *ticket* belongs to a call of a run, and is in one of five states, see below.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple, Protocol

import msgspec

from perdure.core.ground.clock import US
from perdure.core.ground.model import PARKED as PARKED_RUNS
from perdure.core.ground.model import (
    UNFINISHED,
    Ask,
    Created,
    CreateRun,
    FreedSlot,
    LimitRow,
    LimitSettings,
    RunWrites,
    Ticket,
)

from ._queues import Execute, Row

WAITS: Final = 0
"""The call waits in the memory of the process that drives the run."""
PARKED: Final = 1
"""The run was parked while the call waited."""
HOLDS: Final = 2
"""The call holds a slot, while the run has the claim of the ticket."""
CALLED: Final = 3
"""The run was parked, and was made due because of this call."""
LOST: Final = 4
"""The call held a slot under a claim that has ended, and has not asked again."""
CALL: Final = US
"""For how long a run that was made due is expected to ask again, before the next run is made due in its place."""
_PAGE: Final = 50
_MANY: Final = 1 << 31


class WaitingCall(NamedTuple):
    """A ticket that waits, and the run behind the ticket."""

    number: int
    run: int
    cost: int
    claimed: bool
    """Whether the run has the claim of the ticket."""
    status: str | None
    """The stored status of the run; `None`: the run was removed."""
    paused: int | None

    @property
    def over(self) -> bool:
        """Whether the run has ended."""
        return self.status not in _UNFINISHED

    @property
    def sleeps(self) -> bool:
        """Whether a worker may claim the run as soon as the run is due."""
        return self.status in _PARKED and self.paused is None


_UNFINISHED: Final = frozenset(map(str, UNFINISHED))
_PARKED: Final = frozenset(map(str, PARKED_RUNS))


class Use(NamedTuple):
    """What the rates of a limit count."""

    number: int
    at: int
    cost: int


class LimitRows(Protocol):
    """The rows of one limit, in a transaction that holds the lock of the limit's row, or for a look."""

    def holding(self) -> int:
        """How many calls hold a slot."""

    def waiting(self, above: int, count: int) -> list[WaitingCall]:
        """The tickets that wait in memory, of higher numbers than `above`, in order."""

    def parked(self, task: str, above: int, count: int) -> list[WaitingCall]:
        """The tickets of parked runs of the task, of higher numbers than `above`, in order."""

    def called(self, since: int) -> int:
        """How many runs were made due since a time and have not asked again."""

    def known(self, run: int, place: bytes) -> int | None:
        """The number of the ticket of that call."""

    def add(self, number: int, ask: Ask) -> None:
        """A new ticket, which waits."""

    def again(self, number: int, ask: Ask) -> None:
        """The call of the ticket asks again, and waits."""

    def hold(self, number: int, used: int | None) -> None:
        """The ticket takes a slot. `used`: the number of its use."""

    def call(self, number: int, run: int, now: int) -> None:
        """Make the run of a ticket due."""

    def drop(self, number: int) -> None:
        """Remove a ticket."""

    def sweep(self) -> None:
        """Let the tickets be `LOST` that hold no slot any more, because the claim has ended."""

    def first_use(self, since: int) -> Use | None:
        """The first use at that time or later."""

    def spent(self, since: int) -> int:
        """The sum of the costs at that time and later."""

    def uses(self, since: int) -> Iterator[Use]:
        """The uses at that time and later, in order."""

    def record(self, number: int, cost: int) -> None:
        """Record a use at this moment."""

    def prune(self, since: int) -> None:
        """Remove the uses before that time."""

    def note(self, limit: LimitRow) -> None:
        """Store the numbers of the newest ticket and use."""


def settings_of(row: LimitRow) -> LimitSettings:
    """The settings in force: those of the code, and an operator's in their place."""
    values = msgspec.json.decode(row.declared)
    if row.override is not None:
        values |= msgspec.json.decode(row.override)
    return msgspec.convert(values, LimitSettings)


class CallRoom:
    """How many calls may take a slot of a limit at this moment."""

    def __init__(self, limit: LimitRow, rows: LimitRows, now: int) -> None:
        settings = self.settings = settings_of(limit)
        self._rows = rows
        self._now = now
        self._newest = limit.uses
        self.total = _MANY if settings.concurrency is None else settings.concurrency - rows.holding()
        self._starts = _MANY
        self._left = _MANY
        if self.total > 0:
            self._look()

    def _look(self) -> None:
        settings = self.settings
        if settings.starts is not None:
            first = self._rows.first_use(self._now - settings.per)
            self._starts = settings.starts - (0 if first is None else self._newest - first.number + 1)
        if settings.cost is not None:
            self._left = settings.cost - self._rows.spent(self._now - settings.cost_per)

    @property
    def counts(self) -> bool:
        """Whether a rate counts uses."""
        return self.settings.starts is not None or self.settings.cost is not None

    @property
    def oldest(self) -> int:
        """The time before which uses count no more."""
        return self._now - max(self.settings.per, self.settings.cost_per)

    def never(self, cost: int) -> bool:
        """Whether a call of this cost is more than the rate ever allows."""
        return self.settings.cost is not None and cost > self.settings.cost

    def delay(self, cost: int) -> int:
        """In how many microseconds the rates let a call of this cost take a slot; 0: now."""
        settings, until = self.settings, self._now
        if self._starts <= 0:
            first = self._rows.first_use(self._now - settings.per)
            # The moment itself still belongs to the window.
            until = max(until, (self._now if first is None else first.at) + settings.per + 1)
        missing = cost - self._left
        if settings.cost is not None and missing > 0:
            for use in self._rows.uses(self._now - settings.cost_per):
                missing -= use.cost
                if missing <= 0:
                    until = max(until, use.at + settings.cost_per + 1)
                    break
        return until - self._now

    def expect(self, count: int) -> None:
        """Calls of runs that were made due are about to take slots."""
        self.total -= count
        self._starts -= count

    def take(self, cost: int) -> None:
        """A call has taken a slot."""
        self.total -= 1
        self._newest += 1
        self._starts -= 1
        self._left -= cost


def grant(limit: LimitRow, rows: LimitRows, now: int) -> tuple[LimitRow, int | None]:
    """Give slots to the calls whose turn it is (LM4). Gives the limit after the change, and in how many microseconds
    the rates let the next call take a slot; `None`: only after a change of the store."""
    room, above, later = CallRoom(limit, rows, now), 0, None
    while room.total > 0 and later is None:
        page = rows.waiting(above, _PAGE)
        for one in page:
            if room.total <= 0:
                break
            if one.over:
                rows.drop(one.number)
            if not one.claimed or room.never(one.cost):
                continue
            if (left := room.delay(one.cost)) > 0:
                later = left
                break
            limit = _take(limit, rows, room, one.number, one.cost)
        if len(page) < _PAGE:
            break
        above = page[-1].number
    return limit, later


def _take(limit: LimitRow, rows: LimitRows, room: CallRoom, number: int, cost: int) -> LimitRow:
    if not room.counts:
        rows.hold(number, None)
    else:
        limit = limit._replace(uses=limit.uses + 1)
        rows.record(limit.uses, cost)
        rows.hold(number, limit.uses)
    room.take(cost)
    return limit


def ask(limit: LimitRow, rows: LimitRows, asks: Sequence[Ask], now: int) -> LimitRow:
    """Give calls their tickets, and slots to the calls whose turn it is. Gives the limit after the change."""
    rows.sweep()
    room = CallRoom(limit, rows, now)
    if room.counts:
        rows.prune(room.oldest)
    for one in asks:
        number = rows.known(one.run, one.place)
        if number is None:
            limit = limit._replace(ticket=limit.ticket + 1)
            rows.add(limit.ticket, one)
        else:
            rows.again(number, one)
    return grant(limit, rows, now)[0]


def _heads(rows: LimitRows, tasks: Collection[str], *, drop: bool) -> Iterator[WaitingCall]:
    """The tickets of parked runs of these tasks that may be made due, in order."""

    def of(task: str) -> Iterator[WaitingCall]:
        above = 0
        while page := rows.parked(task, above, _PAGE):
            for one in page:
                if one.sleeps:
                    yield one
                elif one.over and drop:
                    rows.drop(one.number)
            if len(page) < _PAGE:
                return
            above = page[-1].number

    return heapq.merge(*(of(task) for task in set(tasks)))


def _oldest(rows: LimitRows) -> int | None:
    """The first ticket that waits in memory and may take a slot."""
    above = 0
    while page := rows.waiting(above, _PAGE):
        for one in page:
            if one.claimed:
                return one.number
        if len(page) < _PAGE:
            return None
        above = page[-1].number
    return None


def delay(limit: LimitRow, rows: LimitRows, tasks: Collection[str], now: int) -> int | None:
    """In how many microseconds a parked run of these tasks is to be made due (LM5); `None`: only after a change of the
    store."""
    room, called = CallRoom(limit, rows, now), rows.called(now - CALL)
    head = next((one for one in _heads(rows, tasks, drop=False) if not room.never(one.cost)), None)
    if head is None:
        return None
    free = room.total > 0
    room.expect(called)
    left = room.delay(head.cost) if room.total > 0 else CALL
    if room.total > 0 and left <= 0:
        return 0
    oldest = _oldest(rows)
    if oldest is not None and head.number < oldest:
        return CALL if called else 0
    if not free:
        return None
    return min(left, CALL) if called else left


def call(limit: LimitRow, rows: LimitRows, tasks: Collection[str], now: int) -> LimitRow:
    """Make parked runs of these tasks due, as many as may take a slot (LM5). Gives the limit after the change."""
    limit, _ = grant(limit, rows, now)
    room, called, oldest = CallRoom(limit, rows, now), rows.called(now - CALL), _oldest(rows)
    room.expect(called)
    for head in islice(_heads(rows, tasks, drop=True), _PAGE):
        if room.never(head.cost):
            continue
        is_next = oldest is not None and head.number < oldest and not called
        if not is_next and (room.total <= 0 or room.delay(head.cost) > 0):
            break
        rows.call(head.number, head.run, now)
        room.take(head.cost)
        called += 1
    return limit


class SqlLimitRows:
    """The rows of one limit in a SQL store."""

    def __init__(self, execute: Execute, name: str, wake: Row, wall: Row) -> None:
        """`wake`: the parameters of `wake` that say when a run is due; `wall`: the last parameters of `insert_use`."""
        self._execute = execute
        self._name = name
        self._wake = wake
        self._wall = wall

    def holding(self) -> int:
        [(count,)] = self._execute("limit_held", (self._name,))
        return int(count)

    def waiting(self, above: int, count: int) -> list[WaitingCall]:
        return list(map(WaitingCall._make, self._execute("waiting_tickets", (self._name, above, count))))

    def parked(self, task: str, above: int, count: int) -> list[WaitingCall]:
        return list(map(WaitingCall._make, self._execute("parked_tickets", (self._name, task, above, count))))

    def called(self, since: int) -> int:
        [(count,)] = self._execute("called_tickets", (self._name, since))
        return int(count)

    def known(self, run: int, place: bytes) -> int | None:
        found = self._execute("known_ticket", (run, self._name, place))
        return found[0][0] if found else None

    def add(self, number: int, ask: Ask) -> None:
        name, run, token, place, task, cost, since = ask
        self._execute("insert_ticket", (name, number, run, token, place, task, cost, since))

    def again(self, number: int, ask: Ask) -> None:
        self._execute("repeat_ticket", (ask.token, ask.cost, self._name, number))

    def hold(self, number: int, used: int | None) -> None:
        self._execute("hold_ticket", (used, self._name, number))

    def call(self, number: int, run: int, now: int) -> None:
        self._execute("call_ticket", (now, self._name, number))
        self._execute("wake", (*self._wake, run))

    def drop(self, number: int) -> None:
        self._execute("drop_ticket", (self._name, number))

    def sweep(self) -> None:
        self._execute("sweep_tickets", (self._name,))

    def first_use(self, since: int) -> Use | None:
        found = self._execute("first_use", (self._name, since))
        return Use._make(found[0]) if found else None

    def spent(self, since: int) -> int:
        [(total,)] = self._execute("spent", (self._name, since))
        return int(total)

    def uses(self, since: int) -> Iterator[Use]:
        after = (since, 0)
        while page := list(map(Use._make, self._execute("uses", (self._name, *after, _PAGE)))):
            yield from page
            after = (page[-1].at, page[-1].number)
            if len(page) < _PAGE:
                return

    def record(self, number: int, cost: int) -> None:
        self._execute("insert_use", (self._name, number, cost, *self._wall))

    def prune(self, since: int) -> None:
        self._execute("prune_uses", (self._name, since))

    def note(self, limit: LimitRow) -> None:
        self._execute("note_limit", (limit.ticket, limit.uses, limit.name))


def free(execute: Execute, run: int, token: bytes, frees: Sequence[FreedSlot]) -> bool:
    """Remove tickets of a run that were given under the token; whether other calls wait."""
    waits = False
    for one in frees:
        if one.used is not None:
            execute("report_cost", (one.used, one.name, one.name, one.number, token))
        execute("free_ticket", (one.name, one.number, run, token))
        waits = waits or bool(execute("someone_waits", (one.name,)))
    return waits


def settle(execute: Execute, writes: Sequence[RunWrites | CreateRun], answers: Sequence[Created | bool]) -> bool:
    """In the transaction of a commit: free the slots of calls with outcomes, and note which tickets belong to parked
    runs. Gives whether other calls wait for the freed slots."""
    waits = False
    for write, answer in zip(writes, answers, strict=True):
        if not isinstance(write, RunWrites) or answer is not True:
            continue
        if write.park is not None:
            for ticket in write.park.tickets:
                execute("park_ticket", (*ticket, write.run, write.token))
        if write.frees:
            waits = free(execute, write.run, write.token, write.frees) or waits
    return waits


def tickets(found: Sequence[Row], asks: Sequence[Ask]) -> list[Ticket]:
    """The answers to asks, from the rows of `tickets_of`: run, name, place, number, state."""
    known = {(run, name, bytes(place)): Ticket(number, state == HOLDS) for run, name, place, number, state in found}
    return [known[one.run, one.name, one.place] for one in asks]
