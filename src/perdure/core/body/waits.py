"""What a durable call waits for: its outcome (in an asyncio task or in a thread), or a deadline.

These are effects: an asyncio task awaits them, a thread calls `block()`. Who may be handed what, and when, is decided
in `body`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from typing import Any, Protocol

from msgspec import Struct

from ..ground.clock import US, Deadline, seconds
from ..ground.model import Ask, Entry, Message
from .branch import Call
from .delivery import Outcome
from .interfaces import BodyPort, MailboxPort, SlotsPort
from .scope import THREAD, Slot, unscoped


class LoopWaiter(asyncio.Future[Any]):
    """A durable wait of an asyncio task. A request to cancel it takes its turn among the outcomes of the body (B11), so
    the future is not cancelled at once."""

    __slots__ = ("arrives", "call", "cancelling", "child", "entry", "item", "said", "taking")
    on_loop = True
    handed = False

    def __init__(self, call: Call, item: int, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.call = call
        self.item = item
        self.entry: Entry | None = None
        """The recorded entry that the call waits for, on replay."""
        self.cancelling = False
        """User code has asked to cancel the call, and that is recorded or on its way to disk (B11)."""
        self.said: Any = None
        """What the canceller has said. anyio knows its own cancellations by that."""
        self.child: int | None = None
        """The action that the call has started, once its outcome is on the way to disk."""
        self.taking: Any = None
        """The `commit.records.Taking` of the message that is the outcome, once the outcome is on the way to disk."""
        self.arrives = False
        """The call was cancelled while its work was going on, and waits until it may say so (B11)."""

    def cancel(self, msg: Any = None) -> bool:
        if not self.done() and self.call.body.cancel_asked(self):
            if self.said is None:
                self.said = msg
            return True
        return super().cancel(msg)

    def cancel_now(self) -> None:
        """The turn of the cancellation has come."""
        super().cancel(self.said)

    def block(self) -> Any:
        raise AssertionError("an event-loop wait cannot block a thread")


PATIENCE_SECONDS = 0.1
"""How long an outcome for a thread waits for its turn while the body's loop is in one single step: that step may wait
for something that only this thread can bring about (a lock, say). What a thread is handed out of turn changes nothing
that the loop's code can see."""
MOST_PATIENCE_SECONDS = 2.0
"""The pause between two looks grows up to this."""


class ThreadWaiter:
    """A durable wait of a thread: the thread blocks, holding no place in the pool."""

    __slots__ = ("call", "cancelling", "entry", "handed", "item", "lock", "outcome", "reuse", "slot")
    on_loop = False

    def __init__(self, call: Call, item: int, slot: Slot) -> None:
        self.call = call
        self.item = item
        self.entry: Entry | None = None
        self.slot = slot
        self.handed = False
        """The thread has been told to go on."""
        self.cancelling = False
        self.outcome: Outcome | None = None
        self.reuse: Entry | None = None
        """A loose entry that the thread is to hand out again."""
        self.lock = threading.Lock()
        self.lock.acquire()

    def block(self) -> Outcome | None:
        """Wait for the outcome; `None` tells the call to execute now."""
        body = self.call.body
        threads = body.driver.worker.threads
        body.thread_waits_for(self)
        threads.parked()
        try:
            patience = PATIENCE_SECONDS
            while not self.lock.acquire(timeout=patience):
                body.overtake(self)
                patience = min(2 * patience, MOST_PATIENCE_SECONDS)
        finally:
            threads.resumed()
        if body.stopped:
            raise body.driver.stopped_error()
        if self.reuse is not None:
            outcome = body.driver.reuse(self.call, self.item, self.reuse)
            assert isinstance(outcome, Outcome)
            return outcome
        return self.outcome if self.outcome is not None else body.may_execute(self.call, self.item)

    def __await__(self) -> Any:
        raise AssertionError("a thread's wait cannot suspend a task")


Waiter = LoopWaiter | ThreadWaiter


class Interruptible(Protocol):
    """A wait that is interrupted when its body is closed, or when the run is cancelled."""

    def interrupt(self) -> None:
        """From any thread."""

    def cancel(self) -> None:
        """The run is being cancelled, and the body has to hear of that. From any thread."""


REARM = 30.0
"""Seconds after which a timer is set again at the latest: the loop's monotonic clock stops while a machine sleeps."""


class Sleeper:
    """An effect: wait until a deadline. A thread is woken early only when the body is closed."""

    def __init__(self, body: BodyPort, deadline: Deadline) -> None:
        self._body = body
        self._deadline = deadline
        self._future: asyncio.Future[None] | None = None
        self._lock: threading.Lock | None = None

    def moves_in(self) -> int:
        """Microseconds until the wait may end by itself."""
        return self.left()

    def left(self) -> int:
        """Microseconds until the deadline."""
        return self._deadline.remaining(self._body.driver.worker.clock)

    def _seconds(self) -> float:
        return self.left() / US

    def __await__(self) -> Any:
        return self._sleep().__await__()

    def _enter(self) -> None:
        """The wait begins: the body knows of it, and a wake is heard."""
        self._body.driver.slept(self._seconds())

    def _is_over(self) -> bool:
        """Whether the wait ends before its deadline."""
        return self._body.stopped or self._body.cancel_due

    def _leave(self, *, failed: bool) -> Any:
        """The wait has ended, with an exception perhaps; its value."""
        self._body.sleeper(self, False)
        if not failed:
            self._body.check_open()

    async def _sleep(self) -> Any:
        loop = asyncio.get_running_loop()
        self._body.sleeper(self, True)
        try:
            self._enter()
            while (left := self._seconds()) > 0 and not self._is_over():
                self._future = loop.create_future()
                # In a context without a scope: this is no timer of the body's.
                timer = loop.call_later(min(left, REARM), self.wake, context=unscoped())
                try:
                    await self._future
                finally:
                    timer.cancel()
        except BaseException:
            self._leave(failed=True)
            raise
        return self._leave(failed=False)

    def block(self) -> Any:
        body = self._body
        self._lock = threading.Lock()
        self._lock.acquire()
        body.sleeper(self, True)
        slot = THREAD.slot if asyncio._get_running_loop() is None else None
        if slot is not None:
            slot.branch.body.thread_waits(slot)
            body.driver.worker.threads.parked()
        try:
            self._enter()
            while (left := self._seconds()) > 0 and not self._is_over():
                self._lock.acquire(timeout=min(left, REARM))
        except BaseException:
            self._goes_on(slot)
            self._leave(failed=True)
            raise
        # At work again before the deadline is gone: in between the run would seem to wait for later ones only (D5).
        self._goes_on(slot)
        return self._leave(failed=False)

    def _goes_on(self, slot: Slot | None) -> None:
        if slot is not None:
            slot.branch.body.thread_runs(slot)
            self._body.driver.worker.threads.resumed()

    def wake(self) -> None:
        """From the loop's timer."""
        future = self._future
        if future is not None and not future.done():
            future.set_result(None)

    def cancel(self) -> None:
        """See `Interruptible`."""
        self.interrupt()
        self._body.loop.soon(self.wake)

    def interrupt(self) -> None:
        """The body is closed. From any thread. A task is not woken, as it is about to be cancelled: what its code then
        sees is what it sees of any cancellation."""
        if self._lock is not None and self._lock.locked():
            try:
                self._lock.release()
            except RuntimeError:
                pass  # another thread was faster


def sleep_until(body: BodyPort, deadline: Deadline) -> Generator[Sleeper, Any, bool]:
    """Effects: wait until the deadline. Gives `False` where the run is cancelled before."""
    clock = body.driver.worker.clock
    # More than once where another thread of the body hears of the cancellation first (P7).
    while deadline.remaining(clock) > 0:
        yield Sleeper(body, deadline)
        if body.cancel_due and deadline.remaining(clock) > 0:
            return False
    return True


FOREVER = 1 << 60
"""Microseconds that count as the time left of a wait without a deadline."""


class MessageWait(Sleeper):
    """An effect: wait for a message of a box, or for a deadline. Gives the message, or `None` at the deadline."""

    def __init__(self, body: BodyPort, mailbox: MailboxPort, box: str, action: int, deadline: Deadline | None) -> None:
        super().__init__(body, deadline if deadline is not None else Deadline(0, None, None))
        self.box = box
        self.action = action
        """The number of the action, which orders the calls that wait for one box."""
        self.message: Any = None
        """The `Message`, once the call has it."""
        self._mailbox = mailbox
        self._endless = deadline is None
        self._begun = seconds()

    def left(self) -> int:
        """See `Sleeper`."""
        return FOREVER if self._endless else super().left()

    @property
    def settled(self) -> bool:
        """Whether nothing has come, and nothing is on its way."""
        return self.message is None

    def rests(self, patience: float) -> bool:
        """Whether no message has come, for at least `patience` seconds."""
        return self.message is None and seconds() - self._begun >= patience

    def deliver(self, message: Any) -> None:
        """The message is the call's. From any thread."""
        self.message = message
        if self._lock is not None:
            self.interrupt()
        else:
            self._body.loop.soon(self.wake)

    def _enter(self) -> None:
        self._mailbox.enter(self)

    def _is_over(self) -> bool:
        return self.message is not None or super()._is_over()

    def _leave(self, *, failed: bool) -> Message | None:
        message = self._mailbox.leave(self)
        self._body.sleeper(self, False)
        if message is not None and (failed or self._body.stopped):
            self._mailbox.put_back(message.number)
        if not failed:
            self._body.check_open()
        return message


class HeldSlot(Struct, eq=False):
    """A slot of a limit that a call holds, or its place among the calls that wait."""

    name: str
    number: int
    run: int
    token: bytes
    """The claim under which the slot is held."""
    used: int | None = None
    """What the call has really cost, as reported by the code; `None`: what was asked for."""
    freed: bool = False
    """The slot was given back, on disk."""


class SlotWait(MessageWait):
    """An effect: wait for a slot of a limit. Gives the `HeldSlot`, or `None` where the run is being cancelled.

    The wait is no recorded deadline: the place among the calls that wait is a row, so that the run may leave memory.
    """

    def __init__(self, body: BodyPort, slots: Any, limit: Any, ask: Ask) -> None:
        """`slots`: a `SlotsPort`. `limit`: the `LimitSpec`."""
        super().__init__(body, slots, ask.name, 0, None)
        self.limit = limit
        self.ask = ask
        self.number = 0
        """The number of the ticket; 0: not known yet."""
        self.due: float | None = None
        """When the rates let the next call take a slot (`seconds()`); `None`: not known."""
        self.gone = self.keeps = False
        """The call waits no longer; and its place stays."""
        self.error: Exception | None = None
        self._slots: SlotsPort = slots

    @property
    def settled(self) -> bool:
        """See `MessageWait`."""
        return self.number > 0 and self.message is None

    def rests(self, patience: float) -> bool:
        """See `MessageWait`."""
        return self.number > 0 and super().rests(patience)

    def moves_in(self) -> int:
        """See `Sleeper`."""
        return FOREVER if self.due is None else max(0, int((self.due - seconds()) * US))

    def refuse(self, error: Exception) -> None:
        """The call gets no slot. From any thread."""
        self.error = error
        self.deliver(error)

    def _leave(self, *, failed: bool) -> Any:
        body = self._body
        # A run that leaves memory, or is driven no further, keeps its place: the row says so.
        keeps = body.stopped and not body.abandoned
        slot = self._slots.leave(self, keeps=keeps)
        body.sleeper(self, False)
        if slot is not None and not keeps and (failed or body.stopped):
            self._slots.give_back(slot)
        if not failed:
            body.check_open()
            if self.error is not None:
                raise self.error
        return slot


class _Blocking(threading.local):
    depth = 0


BLOCKING = _Blocking()
"""`depth` > 0 while this thread, an event loop's, executes a synchronous durable call."""
