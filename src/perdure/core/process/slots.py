"""Slots of limits for the calls that this process drives: asks the store, and hears when slots are free.

- LS1 the tickets of a process reach the store in the order of the calls: what a call gives back is given back before a
  later call asks.
- LS2 no slot is lost between the store and a call: a slot that comes when the call has left is given back.
- LS3 a call waits without a thread of its own and without polling: the bell of the store rings when a slot is free, and
  the store says when a rate lets the next call go on. A look now and then covers lost rings, and frees the slots of
  workers that are gone.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import json

from ...errors import StoreError, UsageError
from ..body.waits import HeldSlot
from ..ground.clock import US, seconds
from ..ground.model import FreedSlot, LimitSettings

if TYPE_CHECKING:
    from ..ground.ports import Store
    from ..ground.spec import LimitSpec

log = logging.getLogger("perdure")

LOOK_SECONDS = 0.5
"""Seconds between two looks where the bell rings: a ring may be lost, and dead workers ring no bell."""
DEAF_SECONDS = 0.1
"""The same where no bell rings."""


class Slots:
    """See the module text. From any thread."""

    def __init__(self, store: Store, free_dead: Callable[[], None]) -> None:
        """`free_dead` ends the claims of workers that are gone."""
        self._store = store
        self._free_dead = free_dead
        self._lock = threading.Lock()
        self._order = threading.RLock()
        """Held while asks and what is given back are on their way to the store (LS1)."""
        self._asking: list[Any] = []
        self._giving: list[HeldSlot] = []
        self._waits: dict[tuple[str, int, bytes], Any] = {}
        """The calls that wait, by their tickets."""
        self._declared: dict[str, LimitSettings] = {}
        self._rung = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way to the store. Late by a moment."""
        return not (self._asking or self._giving or self._rung.is_set())

    def declare(self, limit: LimitSpec) -> None:
        """Bring the settings of a limit into the store. Blocks on the store."""
        if self._declared.get(limit.name) != limit.settings:
            self._store.declare_limit(limit.name, json.encode(limit.settings).decode())
            self._declared[limit.name] = limit.settings

    # -- calls -----------------------------------------------------------------------------------------------------

    def enter(self, wait: Any) -> None:
        """A call asks for a slot. In a thread without an event loop the call asks the store itself."""
        self._start()
        if asyncio._get_running_loop() is None:
            with self._order:
                self._ask([wait])
            return
        with self._lock:
            self._asking.append(wait)
        self._rung.set()

    def leave(self, wait: Any, *, keeps: bool) -> HeldSlot | None:
        """A call waits no longer. The slot that it was given. `keeps`: its place among the waiting calls stays."""
        with self._lock:
            wait.gone = True
            wait.keeps = keeps
            if wait in self._asking:
                self._asking.remove(wait)
            known = self._waits.pop((wait.ask.name, wait.number, wait.ask.token), None)
        slot = wait.message if isinstance(wait.message, HeldSlot) else None
        if known is not None and slot is None and not keeps:
            self.give_back(HeldSlot(wait.ask.name, wait.number, wait.ask.run, wait.ask.token))
        return slot

    def give_back(self, slot: HeldSlot) -> None:
        """A call needs its slot, or its place, no longer. Soon on its way to the store."""
        if not slot.freed:
            slot.freed = True
            self._start()
            with self._lock:
                self._giving.append(slot)
            self._rung.set()

    # -- the store -------------------------------------------------------------------------------------------------

    def _give(self) -> None:
        with self._lock:
            giving = self._giving[:]
            del self._giving[: len(giving)]
        by_run: dict[tuple[int, bytes], list[FreedSlot]] = {}
        for slot in giving:
            by_run.setdefault((slot.run, slot.token), []).append(FreedSlot(slot.name, slot.number, slot.used))
        for (run, token), frees in by_run.items():
            self._store.give_back(run, token, frees)

    def _ask(self, waits: Sequence[Any]) -> None:
        self._give()
        for wait in waits:
            self.declare(wait.limit)
        tickets = self._store.ask([wait.ask for wait in waits])
        for wait, ticket in zip(waits, tickets, strict=True):
            ask = wait.ask
            slot = HeldSlot(ask.name, ticket.number, ask.run, ask.token)
            if not ticket.held and ask.cost > 1 and self._never(ask.name, ask.cost):
                self.give_back(slot)
                wait.refuse(
                    UsageError(
                        f"a call costs {ask.cost}, and limit {ask.name} never allows as much within its window: lower "
                        f"the cost, or raise the limit with `perdure limit set {ask.name} cost=COST/SECONDS`"
                    )
                )
                continue
            with self._lock:
                gone = wait.gone
                if not gone:
                    if ticket.held:
                        wait.deliver(slot)
                    else:
                        self._waits[ask.name, ticket.number, ask.token] = wait
                    wait.number = ticket.number
            if gone and not wait.keeps:
                self.give_back(slot)
        # Slots may have come free between the answer and the entry in `_waits`.
        self._rung.set()

    def _never(self, name: str, cost: int) -> bool:
        row = self._store.limit(name)
        if row is None:
            return False
        values = json.decode(row.declared) | ({} if row.override is None else json.decode(row.override))
        return values.get("cost") is not None and cost > values["cost"]

    def look(self) -> float | None:
        """Give the slots that have come to the calls that wait. Gives the seconds until the next call may go on."""
        with self._lock:
            names = {name for name, _, _ in self._waits}
        if not names:
            return None
        turn = self._store.turn(names)
        now = seconds()
        with self._lock:
            for ticket in turn.held:
                wait = self._waits.pop(ticket, None)
                if wait is not None:
                    wait.deliver(HeldSlot(ticket[0], ticket[1], wait.ask.run, ticket[2]))
            for (name, _, _), wait in self._waits.items():
                left = turn.delays.get(name)
                wait.due = None if left is None else now + left / US
        return min(turn.delays.values()) / US if turn.delays else None

    def look_at_clock(self) -> None:
        """The clock has jumped: a rate may let calls go on."""
        if self._waits:
            self._rung.set()

    # -- the thread ------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._work, name="perdure-slots", daemon=True)
                    self._thread.start()

    def close(self) -> None:
        """End the thread. What was to be given back is free with the claims of the runs."""
        self._closed = True
        self._rung.set()

    def _work(self) -> None:
        try:
            pause = LOOK_SECONDS if self._store.hear(self._rung.set) else DEAF_SECONDS
        except StoreError as error:
            log.debug("no bell rings for slots: %s", error)
            pause = DEAF_SECONDS
        swept, due = seconds(), None
        while not self._closed:
            timeout = None if not self._waits else pause if due is None else min(pause, due)
            self._rung.wait(timeout)
            self._rung.clear()
            with self._lock:
                asking = self._asking[:]
                del self._asking[: len(asking)]
            try:
                with self._order:
                    if asking:
                        self._ask(asking)
                    else:
                        self._give()
                if self._waits and seconds() - swept >= LOOK_SECONDS:
                    swept = seconds()
                    self._free_dead()
                due = self.look()
            except Exception as error:
                for wait in asking:
                    if not wait.number:
                        wait.refuse(error)
                # Calls that hold a slot notice by themselves, with their next write.
                log.debug("slots cannot be looked for now: %s", error)
                due = None
