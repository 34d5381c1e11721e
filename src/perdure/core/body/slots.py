"""The threads that execute code of one body: which compute, which wait, and for what.

They share nothing but memory with the body's asyncio tasks, so a live outcome does not wait for a thread that computes.
It does wait, briefly, for one that has just been handed an outcome and may be about to finish.
"""

from __future__ import annotations

from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from .scope import Slot

if TYPE_CHECKING:
    from .body import Body
    from .waits import ThreadWaiter

REPLAY_GRACE = 0.1
"""Seconds for which replay waits for a thread of the body to make its next call before it stops counting on it."""
LIVE_GRACE = 0.02
"""The same, live, for a thread that has just been handed an outcome."""


class Slots:
    """Kept under the body's lock, which is held briefly by any thread."""

    def __init__(self, body: Body, lock: AbstractContextManager[Any]) -> None:
        self.inside: set[Slot] = set()
        """The threads that execute code of the body, or will."""
        self.running: set[Slot] = set()
        """Those of them that do not wait for anything durable."""
        self.jobs = 0
        """Jobs in executors that perdure cannot look into."""
        self._body = body
        self._lock = lock
        self._joins: dict[Future[Any], Slot] = {}
        """Threads that wait for a future of the body's own."""
        self._grace_armed = False

    def started(self, slot: Slot | None) -> None:
        """A job goes to an executor: one of perdure's threads (with a slot), or one it cannot see."""
        with self._lock:
            if slot is None:
                self.jobs += 1
            else:
                self.inside.add(slot)
                self.running.add(slot)

    def ended(self, slot: Slot | None) -> None:
        """The job is done and whoever awaits it has been made ready."""
        with self._lock:
            if slot is None:
                self.jobs -= 1
            else:
                self.inside.discard(slot)
                self.running.discard(slot)
        body = self._body
        if body.stirred:
            body.loop.soon(body.pump)

    def waits(self, slot: Slot, waiter: ThreadWaiter | None = None) -> None:
        """That thread is about to wait for something durable."""
        with self._lock:
            if waiter is not None and waiter.handed:
                return
            self.running.discard(slot)
            slot.hot = slot.cold = False
        if self._body.stirred:
            self._body.pump()

    def runs(self, slot: Slot, joined: Future[Any] | None = None) -> None:
        """That thread goes on by itself; it no longer waits for `joined`."""
        with self._lock:
            if joined is not None:
                self._joins.pop(joined, None)
            self.running.add(slot)

    def wake(self, waiter: ThreadWaiter) -> None:
        """That thread goes on with what it has been handed."""
        with self._lock:
            waiter.handed = True
            self.running.add(waiter.slot)
            waiter.slot.hot = True
            waiter.slot.cold = False
        waiter.lock.release()

    def join(self, future: Future[Any], slot: Slot) -> None:
        """That thread is about to wait for `future`."""
        with self._lock:
            if future.done():
                return
            self.running.discard(slot)
            slot.hot = slot.cold = False
            self._joins[future] = slot
        future.add_done_callback(self.joined)
        if self._body.stirred:
            self._body.pump()

    def joined(self, future: Future[Any], ended: Slot | None = None) -> None:
        """`future` is done: whoever waits for it runs again, and only then has the thread of `ended` left."""
        with self._lock:
            waiting = self._joins.pop(future, None)
            if waiting is not None:
                self.running.add(waiting)
            if ended is not None:
                self.inside.discard(ended)
                self.running.discard(ended)
        body = self._body
        if ended is not None and body.stirred:
            body.loop.soon(body.pump)

    # -- with the lock held ----------------------------------------------------------------------------------------

    def hot(self, *, live: bool) -> bool:
        """Whether one may be about to make its next call; `live`: because it has just been handed an outcome."""
        if not self.running:
            return False
        if live:
            return any(slot.hot and not slot.cold for slot in self.running)
        return any(not slot.cold for slot in self.running)

    def arm_grace(self, seconds: float) -> None:
        """Count on none of those that are at work after that time, and look again then."""
        if not self._grace_armed:
            self._grace_armed = True
            self._body.loop.later(seconds, self._grace_over)

    def _grace_over(self) -> None:
        self._grace_armed = False
        with self._lock:
            for slot in self.running:
                slot.cold = True
        self._body.pump()
