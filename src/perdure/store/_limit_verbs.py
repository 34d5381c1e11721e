"""The verbs of the port `Limits`: the same in every SQL dialect."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

from perdure.core.ground.model import Ask, FreedSlot, LimitLoad, LimitRow, Queued, Ticket, Turn

from . import _limits
from ._queues import Execute, Row

T = TypeVar("T")


class Change(Protocol):
    """A change of a limit under its lock."""

    def __call__(self, limit: LimitRow, rows: _limits.SqlLimitRows, *, now: int) -> LimitRow:
        """Gives the limit after the change."""


class LimitVerbs:
    """See the module text."""

    def _rows(self, name: str, row: Sequence[Any] = ()) -> list[Row]:
        """All rows of the named statement, on the connection for reading."""
        raise NotImplementedError

    def _list(self, values: Collection[int]) -> Any:
        """Numbers as one parameter of a statement."""
        raise NotImplementedError

    def _names(self, values: Collection[str]) -> Any:
        """Names as one parameter of a statement."""
        raise NotImplementedError

    def _giving(self, work: Callable[[Execute], T]) -> T:
        """Do the work in a transaction that need only be visible; its argument executes named statements."""
        raise NotImplementedError

    def _limit_rows(self, name: str, execute: Execute) -> _limits.SqlLimitRows:
        """The rows of a limit."""
        raise NotImplementedError

    def _time(self, execute: Execute) -> int:
        """This moment on the store's clock."""
        raise NotImplementedError

    def _ring_slots(self) -> None:
        """A slot may be free: ring the bells."""
        raise NotImplementedError

    def limits(self) -> list[LimitRow]:
        return list(map(LimitRow._make, self._rows("limits")))

    def limit(self, name: str) -> LimitRow | None:
        rows = self._rows("limit", (name,))
        return LimitRow._make(rows[0]) if rows else None

    def limit_load(self, name: str) -> LimitLoad:
        [(held,)] = self._rows("limit_held", (name,))
        [(waiting,)] = self._rows("limit_waiting", (name,))
        return LimitLoad(held, waiting)

    def queued(self, run: int) -> list[Queued]:
        return list(map(Queued._make, self._rows("queued_tickets", (run,))))

    def ask(self, asks: Sequence[Ask]) -> list[Ticket]:
        def work(execute: Execute) -> list[Ticket]:
            # Sorted by name: a fixed lock order avoids deadlocks.
            for name in sorted({one.name for one in asks}):
                mine = [one for one in asks if one.name == name]
                self._change_limit(execute, name, partial(_limits.ask, asks=mine))
            return _limits.tickets(execute("tickets_of", (self._list({one.run for one in asks}),)), asks)

        return self._giving(work)

    def turn(self, names: Collection[str]) -> Turn:
        delays = {}
        for name in sorted(names):
            left = self._look(name)
            if left == 0:
                left = self._giving(lambda execute: self._grant(execute, name))  # noqa: B023
            if left is not None:
                delays[name] = left
        held = self._rows("held_tickets", (self._names(names),))
        return Turn({(name, number, bytes(token)) for name, number, token in held}, delays)

    def _look(self, name: str) -> int | None:
        """In how many microseconds a call may take a slot, without the lock of the limit."""
        limit = self.limit(name)
        if limit is None:
            return 0
        room = _limits.CallRoom(limit, self._limit_rows(name, self._rows), self._time(self._rows))
        return room.delay(0) if room.total > 0 else None

    def _grant(self, execute: Execute, name: str) -> int | None:
        later: list[int | None] = []

        def grant(limit: LimitRow, rows: _limits.SqlLimitRows, *, now: int) -> LimitRow:
            limit, left = _limits.grant(limit, rows, now)
            later.append(left)
            return limit

        self._change_limit(execute, name, grant)
        return later[0]

    def _change_limit(self, execute: Execute, name: str, change: Change) -> None:
        """Change a limit under its lock."""
        found = execute("lock_limit", (name,))
        if not found:
            execute("ensure_limit", (name,))
            found = execute("lock_limit", (name,))
        limit = LimitRow._make(found[0])
        rows = self._limit_rows(name, execute)
        # After the lock: uses are recorded in the order of their times.
        changed = change(limit, rows, now=self._time(execute))
        if changed != limit:
            rows.note(changed)

    def give_back(self, run: int, token: bytes, frees: Sequence[FreedSlot]) -> None:
        if self._giving(lambda execute: _limits.free(execute, run, token, frees)):
            self._ring_slots()

    def _call_parked(self, tasks: Collection[str]) -> None:
        """Make parked runs of these tasks due, whose calls may take a slot (LM5)."""
        for name, *_ in self._rows("limits_of", (self._names(tasks),)):
            limit = self.limit(name)
            assert limit is not None
            rows = self._limit_rows(name, self._rows)
            if _limits.delay(limit, rows, tasks, self._time(self._rows)) == 0:
                change = partial(_limits.call, tasks=tasks)
                self._giving(lambda execute: self._change_limit(execute, name, change))  # noqa: B023

    def _limit_delays(self, tasks: Collection[str]) -> Iterable[int]:
        """In how many microseconds parked runs of these tasks are to be made due, for each limit."""
        for row in map(LimitRow._make, self._rows("limits_of", (self._names(tasks),))):
            left = _limits.delay(row, self._limit_rows(row.name, self._rows), tasks, self._time(self._rows))
            if left is not None:
                yield left
