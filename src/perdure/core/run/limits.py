"""Calls under limits: what a call asks for, and how the call gives its slot back.

A slot belongs to the claim of the run (LM1). Calls with recorded outcomes take no slot. A trace gives its slot back in
the commit of its outcome; an attempt of a task when its code has ended.
"""

from __future__ import annotations

import asyncio
import math
import os
import threading
from collections.abc import Generator, Mapping
from typing import Any, Final

from ...errors import StoreError, UsageError
from ..body.branch import Call
from ..body.interfaces import BodyPort, SlotsPort
from ..body.scope import TraceScope, unscoped
from ..body.waits import HeldSlot, SlotWait
from ..commit.records import Freeing
from ..ground.digest import blake2b
from ..ground.model import Ask
from ..ground.spec import Function, LimitSpec, LimitUse

LOOK_SECONDS: Final = 0.5
"""How often a trace that waits in a thread looks whether its run is still driven here."""


def place_of(call: Call) -> bytes:
    """Identifies a call in every life of its run."""
    place = b"%d\0%d\0%d\0%b" % (call.body.action, call.branch.id, call.occ, call.fp)
    return blake2b(place, digest_size=16).digest()


def place_of_task(action: int) -> bytes:
    """Identifies the attempts of an action in every life of its run."""
    return b"task %d" % action


def slot_wait(body: BodyPort, use: LimitUse, place: bytes, cost: Any) -> SlotWait:
    """An effect: wait for a slot of the limit.

    Raises:
        UsageError: the cost is no number, or the caller holds a slot of the limit.
    """
    cost = checked_cost(cost, f"limit {use.limit.name}: cost")
    driver = body.driver
    _refuse_elsewhere(driver, use.limit.name)
    refuse_nested(body, use.limit.name)
    clock = driver.worker.clock
    ask = Ask(use.limit.name, driver.run_id, driver.token, place, driver.run.task, cost, clock.wall())
    return SlotWait(body, driver.worker.slots, use.limit, ask)


def cost_of(function: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """What a call of the function costs."""
    assert function.limit is not None
    cost = function.limit.cost
    return 1 if cost is None else function.signature.applied(cost, args, kwargs)


def checked_cost(cost: Any, what: str) -> int:
    """A cost, rounded up.

    Raises:
        UsageError: it is no number from 0 up.
    """
    if isinstance(cost, bool) or not isinstance(cost, (int, float)) or not 0 <= cost < 1 << 53:
        raise UsageError(f"{what} must be a number from 0 up, not {cost!r}")
    return math.ceil(cost)


def refuse_nested(body: Any, name: str) -> None:
    """Raise `UsageError` where the calling code holds a slot of the limit itself: it might wait for itself for ever."""
    holder = body
    while holder is not None:
        slot = getattr(holder, "slot", None)
        if slot is not None and slot.name == name:
            raise _nested(name)
        holder = holder.parent


def _refuse_elsewhere(driver: Any, name: str) -> None:
    if driver.outer is not None:
        raise UsageError(
            f"limit {name}: calls in bodies of executor='process' or 'ray' cannot take slots by themselves. Give the "
            "task limit=, or make the call from a task with the local executor"
        )


def _nested(name: str) -> UsageError:
    return UsageError(
        f"limit {name}: the caller holds a slot itself, and would wait for its own slot for ever when the limit is "
        "full. Limit the outer call or the inner calls, or give them different limits."
    )


class LimitedCall:
    """The slot of one call of a trace with a limit."""

    def __init__(self, call: Call, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._call = call
        self._function = function
        self._args = args
        self._kwargs = kwargs
        self.slot: HeldSlot | None = None

    def take(self) -> Generator[Any, Any, bool]:
        """Wait for a slot. Gives `False` where the run is being cancelled."""
        use = self._function.limit
        assert use is not None
        cost = cost_of(self._function, self._args, self._kwargs)
        try:
            self.slot = yield slot_wait(self._call.body, use, place_of(self._call), cost)
        except StoreError as error:
            driver = self._call.body.driver
            driver.stop(error)
            raise driver.stopped_error() from error
        return self.slot is not None

    @property
    def rows(self) -> tuple[Freeing, ...]:
        """The row that gives the slot back with the outcome of the call."""
        return () if self.slot is None else (Freeing(self.slot),)

    def give_back(self) -> None:
        """The call needs the slot no longer."""
        if self.slot is not None:
            self._call.body.driver.worker.slots.give_back(self.slot)
            self.slot = None


class BlockWait:
    """An effect: wait for a slot of a limit inside a trace, which is executed meanwhile. Gives the `HeldSlot`."""

    def __init__(self, scope: TraceScope, limit: LimitSpec, cost: int) -> None:
        body = self._body = scope.body
        if scope.slot is not None and scope.slot.name == limit.name:
            raise _nested(limit.name)
        refuse_nested(body, limit.name)
        driver = body.driver
        _refuse_elsewhere(driver, limit.name)
        place = os.urandom(16)  # a trace that is executed again is another call
        self.limit = limit
        self.ask = Ask(
            limit.name, driver.run_id, driver.token, place, driver.run.task, cost, driver.worker.clock.wall()
        )
        self.number = 0
        self.due: float | None = None
        self.gone = self.keeps = False
        self.message: Any = None
        self._slots: SlotsPort = driver.worker.slots
        self._come = threading.Event()
        self._future: asyncio.Future[None] | None = None

    def deliver(self, slot: Any) -> None:
        """The slot is the call's. From any thread."""
        self.message = slot
        self._come.set()
        if self._future is not None:
            self._future.get_loop().call_soon_threadsafe(self._wake, context=unscoped())

    def refuse(self, error: Exception) -> None:
        """The call gets no slot. From any thread."""
        self.deliver(error)

    def _wake(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    def block(self) -> HeldSlot:
        """Wait in a thread."""
        try:
            self._slots.enter(self)
            while not self._come.wait(LOOK_SECONDS):
                self._body.check_open()
        except BaseException:
            self._withdraw()
            raise
        return self._got()

    def __await__(self) -> Any:
        self._future = asyncio.get_running_loop().create_future()
        try:
            self._slots.enter(self)
            yield from self._future.__await__()
        except BaseException:
            self._withdraw()
            raise
        return self._got()

    def _withdraw(self) -> None:
        slot = self._slots.leave(self, keeps=False)
        if slot is not None:
            self._slots.give_back(slot)

    def _got(self) -> HeldSlot:
        found = self.message
        if isinstance(found, BaseException):
            raise found
        assert isinstance(found, HeldSlot)
        return found
