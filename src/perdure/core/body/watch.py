"""The watch over one body: what to do, and what to tell people, when the body does not advance.

A body may wait for something that is not recorded, may never pause, or may starve an event that is to end its work.
None of this changes what is delivered in which order; that is decided in `delivery`.

Owners: `_starved` belongs to the thread of the loop. The other fields only decide when a message is logged, or how
long to wait before a mismatch: any thread writes them.
"""

from __future__ import annotations

import asyncio
import logging
import os
from types import CoroutineType
from typing import Any, Protocol

from ..ground.model import Entry
from .delivery import Delivery
from .interfaces import DriverPort, LoopPort
from .scope import unknown_threads, unscoped
from .wording import describe

log = logging.getLogger("perdure")

PATIENCE = 5.0
"""Seconds for which replay waits for threads that it does not know, before it calls a missing call a mismatch."""
PATIENCE_STEP = 0.1

RESTLESS_SECONDS = 5.0
"""How long an outcome waits for a body that is never quiet before that is said."""

_OWN = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))) + os.sep
"""Where perdure's code is."""

MENTION_SECONDS = 15.0
"""How often replay says what it waits for."""

STARVED_LOOKS = 5
"""How many looks in a row have to find an event waiting in a busy body before the event happens all the same."""
STARVED_SECONDS = 0.05
"""The pause between two looks."""
STARVED_ROUNDS = 8
"""How many rounds of the loop have to find the body busy at each look. Time alone says nothing: on a machine that
stalls, a few steps of a body take as long as a body that polls."""


class Watched(Protocol):
    """What the watch uses of its body."""

    @property
    def driver(self) -> DriverPort: ...

    @property
    def loop(self) -> LoopPort: ...

    @property
    def delivery(self) -> Delivery: ...

    @property
    def name(self) -> str: ...

    @property
    def stopped(self) -> bool: ...

    @property
    def active(self) -> int: ...

    @property
    def tasks(self) -> list[asyncio.Task[Any]]: ...

    def pump(self) -> None: ...

    def may_starve(self) -> bool:
        """Whether something waits for a quiet body."""

    def force_next(self) -> None:
        """Let the event or cancellation whose turn it is happen, though the body is busy."""


def _awaits_another_thread(task: asyncio.Task[Any]) -> bool:
    """Whether the task awaits what `asyncio.wrap_future` gives for a future of `concurrent.futures`, in a loop or pool
    that perdure does not know."""
    future: Any = getattr(task, "_fut_waiter", None)
    callbacks = getattr(future, "_callbacks", None) or ()
    if not any(getattr(callback, "__qualname__", "").startswith("_chain_future.") for callback, _ in callbacks):
        return False
    inner: Any = task.get_coro()
    while isinstance(further := getattr(inner, "cr_await", None), CoroutineType):
        inner = further
    code = getattr(inner, "cr_code", None)
    # A call of a task in a thread is awaited in this way as well, and is known.
    return code is not None and not code.co_filename.startswith(_OWN)


class BodyWatch:
    """See the module text."""

    def __init__(self, body: Watched) -> None:
        self._body = body
        self.patience = 0
        """Steps of waiting for unknown threads, since the last delivery."""
        self._mentioned = 0
        self._restless: tuple[int, float] | None = (-1, 0.0)
        """The last delivery when an outcome was last seen to wait, and since when; `None`: the warning was given."""
        self._starved = -1
        """Looks in a row that have found an event waiting in a busy body; -1: no look is due. On the loop's thread."""

    # -- events that starve ------------------------------------------------------------------------------------------

    def watch_starving(self) -> None:
        """Something waits for a quiet body; on the loop's thread."""
        if self._starved < 0:
            self._starved = 0
            self._look_later()

    def _look_later(self) -> None:
        self._body.loop.loop.call_later(STARVED_SECONDS, self._look_for_starving, context=unscoped())

    def _look_for_starving(self, rounds: int = 0) -> None:
        """A body that is never quiet, as it polls, would wait for ever for a timer, or a cancellation, that is to end
        its polling."""
        if self._body.stopped or not self._body.may_starve():
            self._starved = -1
            return
        if self._body.active and rounds < STARVED_ROUNDS:
            self._body.loop.loop.call_soon(self._look_for_starving, rounds + 1, context=unscoped())
            return
        self._starved = self._starved + 1 if self._body.active else 0
        if self._starved >= STARVED_LOOKS:
            self._starved = 0
            self._body.force_next()
        elif self._body.delivery.retraces:
            # A child that a cancellation of the run has let go first gives no sign of its arrival (B12).
            self._body.pump()
        self._look_later()

    # -- what is said to people --------------------------------------------------------------------------------------

    def look_for_rest(self, now: float) -> None:
        """Say it if an outcome has waited long because the body is never quiet (B1). Now and then, by any thread."""
        body, delivery = self._body, self._body.delivery
        if self._restless is None or body.stopped:
            return
        last, since = self._restless
        if not (delivery.due and body.active) or delivery.last != last:
            self._restless = delivery.last, now
        elif now - since > RESTLESS_SECONDS:
            self._restless = None
            log.warning(
                "run %s: an outcome waits for task %s, whose code never pauses: it blocks the event loop, or is always "
                "ready to go on (a loop around asyncio.sleep(0), say). Wait for what is to come, sleep for longer, or "
                "make blocking calls in asyncio.to_thread()",
                body.driver.run.name,
                body.name,
            )

    def mention(self, head: Entry) -> None:
        """Log after a while what replay waits for, invisible otherwise."""
        if self._mentioned != head.n:
            self._mentioned = head.n
            self._body.loop.later(MENTION_SECONDS, self._still_waiting, head)

    def _still_waiting(self, head: Entry) -> None:
        body, replay = self._body, self._body.delivery.replay
        if not body.stopped and replay is not None and replay.head() is head and not body.active:
            log.warning(
                "run %s: replay waits for the code to ask for %s; a timer, socket, thread or subprocess of the task is "
                "pending and may yet lead to it",
                body.driver.run.name,
                describe(head),
            )
            self._mentioned = 0
            self.mention(head)

    def be_patient(self) -> bool:
        """Before judging: threads that perdure does not know may be about to set an event that the body waits for, or
        work for a future of another thread that it awaits."""
        if not any(_awaits_another_thread(task) for task in self._body.tasks):
            if not unknown_threads():
                return False
            self.patience += 1
            if self.patience > PATIENCE / PATIENCE_STEP:
                return False
        self._body.loop.later(PATIENCE_STEP, self._body.pump)
        return True

    def asked_instead(self) -> str:
        """What the code asks for, where it should have asked for a recorded entry."""
        delivery = self._body.delivery
        calls = [waiter.call for waiter in (*delivery.held, *delivery.waiting.values())]
        if not calls:
            return "nothing more: the code waits for something that is not recorded, or has gone another way"
        shown = ", ".join(call.describe() for call in calls[:3])
        return shown + (f" and {len(calls) - 3} more" if len(calls) > 3 else "")
