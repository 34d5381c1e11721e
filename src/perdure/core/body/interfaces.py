"""What the parts of a body ask of each other, and what a body asks of the run that it belongs to.

A body belongs to a driver, which drives one run; the driver is built on bodies, and not the other way round. So a body
knows its driver by `DriverPort` alone. In the same way branches, threads' slots and waiting calls know their body by
`BodyPort`, and a body knows its event loop by `LoopPort`.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from logging import LogRecord
from typing import Any, Protocol

from ...errors import RunStopped
from ..ground.clock import Clock
from ..ground.model import Entry, Message, RunRow
from ..journal.moved import Moves
from .delivery import Delivery, Entrance, Outcome


class Threads(Protocol):
    """Where sync bodies run: an executor whose jobs can say that they wait, so that they hold no place meanwhile."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]: ...

    def parked(self) -> None:
        """The calling job begins to wait."""

    def resumed(self) -> None:
        """The calling job goes on."""


class ProcessPort(Protocol):
    """What a body uses of its process."""

    @property
    def clock(self) -> Clock: ...

    @property
    def threads(self) -> Any:
        """`Threads`."""


class GatePort(Protocol):
    """What a body asks before it lets a call start."""

    free: bool
    """Calls without an entry may start (D2)."""


class MailboxPort(Protocol):
    """What a call that waits for a message asks of its run."""

    def enter(self, wait: Any) -> None:
        """A `waits.MessageWait` begins."""

    def leave(self, wait: Any) -> Message | None:
        """A `waits.MessageWait` ends; the message that came."""
        ...

    def put_back(self, number: int) -> None:
        """The call takes nothing after all."""


class SlotsPort(Protocol):
    """What a call that waits for a slot of a limit asks of its process."""

    def enter(self, wait: Any) -> None:
        """A `waits.SlotWait` begins."""

    def leave(self, wait: Any, *, keeps: bool) -> Any:
        """A `waits.SlotWait` ends; the slot that came. `keeps`: its place among the waiting calls stays."""
        ...

    def give_back(self, slot: Any) -> None:
        """A call needs its slot no longer."""


class DriverPort(Protocol):
    """What a body asks of the run that it is part of."""

    run: RunRow
    abandoning: bool
    """Some body was abandoned: records have to be looked at before they are written."""
    cancel: str | None
    """The reason of the request to cancel the run."""

    @property
    def stopping(self) -> bool:
        """Whether driving has been told to end."""

    @property
    def strict(self) -> bool:
        """Whether the run's environment is strict: a changed source is no excuse for a difference."""

    @property
    def worker(self) -> ProcessPort: ...

    @property
    def gate(self) -> GatePort:
        """Whether anything new may start in the run."""

    def stop(self, reason: BaseException) -> None:
        """Drive no further, for that reason. From any thread."""

    def stopped_error(self) -> RunStopped:
        """What durable calls raise once driving has ended."""

    @property
    def moves(self) -> Moves:
        """The former modules of traced functions."""
        ...

    @property
    def difference(self) -> str:
        """See `Driver`."""
        ...

    def is_changed(self, source_id: int) -> bool:
        """Whether that source snapshot differs from today's code."""

    def is_of_other_code(self, source_id: int) -> bool:
        """The same, also where differences are accepted or refused."""

    def drained(self, action: int) -> None:
        """The body of that action has been handed all that it had recorded."""

    def loosened(self, body: Any, low: int, why: str) -> None:
        """The journal of that body no longer binds from entry `low` on."""

    def loop_blocked(self, body: Any, blocked: bool) -> None:
        """A synchronous call blocks that body's loop, or has ended."""

    def check_stuck(self) -> None:
        """A body holds back: make sure that what it waits for can still come."""

    def slept(self, seconds: float) -> None:
        """Something in the run begins to wait for a recorded deadline."""

    def reuse(self, call: Any, item: int, entry: Entry) -> Any:
        """A loose entry is this call's: hand it out in live order."""

    def reuse_for(self, waiter: Any, entry: Entry) -> None:
        """The same for a call that waits for that entry."""

    def cancelled_call(self, call: Any, item: int) -> Any:
        """Record the cancellation of the run as the outcome of a call of a thread (B12)."""

    def record_cancellation(self, waiter: Any) -> None:
        """User code has asked to cancel a call that waits (B11)."""

    def give_back(self, body: Any, unheard: list[Any]) -> None:
        """That body is closed, and its code will not hear of these messages (MS3)."""

    def note(self, body: Any) -> None:
        """Many events have been noted in that body, and no entry has come to carry them along."""


class LoopPort(Protocol):
    """What a body uses of the event loop that its tasks run on. `soon` and `later` may be called from any thread."""

    @property
    def loop(self) -> Any:
        """The asyncio event loop itself."""

    blocked: int

    def here(self) -> bool:
        """Whether the calling thread is the loop's."""

    def soon(self, callback: Callable[..., Any], *args: Any) -> None: ...

    def later(self, seconds: float, callback: Callable[..., Any], *args: Any) -> None: ...

    def keep(self, tasks: list[Any]) -> None:
        """Tasks that were cancelled and have not ended stay as they are."""

    def flush_soon(self, writer: Flushes) -> None:
        """Have `writer` commit at the end of this iteration. On the loop's thread only."""


class Flushes(Protocol):
    """What the loop does at the end of an iteration in which something was recorded."""

    def flush(self) -> None: ...


class ParentPort(Protocol):
    """The body that has called another one, or stands for it here."""

    action: int
    parent: Any
    """A `ParentPort`, or `None` for the root task's body."""
    children: set[Any]
    """The open bodies that calls of this one execute."""
    path: bytes
    """See `branch.path_below`."""
    cancel_delivered: bool
    """The code has heard of the cancellation of the run."""

    @property
    def stopped(self) -> bool: ...


class OutputPort(Protocol):
    """Takes what a body prints and logs."""

    def take(self, source: str, text: str, trace: str) -> None:
        """Text for a stream, which may end within a line."""

    def add(self, record: LogRecord, trace: str) -> None:
        """A logged record."""

    def end(self) -> None:
        """The body has ended."""


class BodyPort(Protocol):
    """A body, as its branches, its waiting calls and the protocols of durable calls see it."""

    driver: Any
    """The driver, whose own room knows more of it than `DriverPort`."""
    action: int
    loop: LoopPort
    delivery: Delivery
    parent: Any
    """A `ParentPort`, or `None` for the root task's body."""
    children: set[Any]
    path: bytes
    """See `branch.path_below`."""
    name: str
    attempt: int
    root: Any
    """The body's root `Branch`."""
    stopped: bool
    returned: bool
    """The body's code has ended."""
    leaving: bool
    abandoned: bool
    executing: int
    """Traces that are being executed on the loop's thread."""
    cancel_delivered: bool
    """The code has heard of the cancellation of the run."""
    output: OutputPort | None
    """Takes what the body prints, once the body has printed something."""

    @property
    def over(self) -> bool:
        """Whether nothing more may be recorded."""

    @property
    def idle_replaying(self) -> bool: ...

    @property
    def cancel_due(self) -> bool: ...

    def may_execute(self, call: Any, item: int) -> Outcome | None: ...

    def check_open(self) -> None: ...

    def takes(self, taking: Any) -> None: ...

    def heard(self, taking: Any) -> bool: ...

    def begin(self, call: Any, item: int = 0) -> Any: ...

    def asked_action(self, call: Any) -> bool: ...

    def take_notes(self) -> bytes | None: ...

    def patch(self, name: str, note: Callable[[bool], None]) -> bool: ...

    def enter(self, future: Any) -> Entrance: ...

    def committed(self, waiter: Any, outcome: Outcome) -> None: ...

    def thread_committed(self, n: int) -> bool: ...

    def passed(self, n: int, after: int | None) -> None: ...

    def alone(self, loop: Any) -> bool: ...

    def pump(self, *, leading: bool = False) -> None: ...

    def thread_begins(self, slot: Any) -> None: ...

    def thread_waits(self, slot: Any) -> None: ...

    def thread_runs(self, slot: Any, joined: Future[Any] | None = None) -> None: ...

    def joins_unseen(self, change: int) -> None: ...

    def thread_joins(self, future: Future[Any], slot: Any) -> None: ...

    def thread_joined(self, future: Future[Any], ended: Any = None) -> None: ...

    def thread_waits_for(self, waiter: Any) -> None: ...

    def wake_thread(self, waiter: Any) -> None: ...

    def overtake(self, waiter: Any) -> None: ...

    def block_loop(self) -> None: ...

    def unblock_loop(self) -> None: ...

    def cancel_asked(self, waiter: Any) -> bool: ...

    def forget(self, waiter: Any) -> None: ...

    def sleeper(self, sleeper: Any, begins: bool) -> None: ...
