"""What a driver asks of its process, and the ports behind which bodies execute in other processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol

from ...errors import PerdureError
from ..body.delivery import Outcome
from ..body.interfaces import BodyPort, LoopPort
from ..body.loop import LoopThread
from ..body.scope import Slot
from ..body.waits import MessageWait
from ..commit.records import Taking
from ..commit.writer import Leaders
from ..ground.clock import Clock, Deadline
from ..ground.model import Action, Message, RunRow
from ..ground.ports import Store
from ..ground.spec import TaskSpec
from ..ground.values import Codec


class MailboxLike(Protocol):
    """The messages of a run, for the calls of its bodies: `mailbox.Mailbox`, or its counterpart in an inner process."""

    def take_now(self, box: str) -> Message | None:
        """The first message of the box, if there is one and no earlier call waits."""

    def wait(self, body: BodyPort, box: str, action: Action, deadline: Deadline | None) -> MessageWait:
        """An effect: the next message of the box, or `None` at the deadline."""
        ...

    def taking(self, message: Message) -> Taking:
        """The row that goes with the entry of the message."""
        ...

    def put_back(self, number: int) -> None:
        """The call takes nothing after all."""


class PostPort(Protocol):
    """Hears of messages to the runs that this process drives."""

    def attend(self, mailbox: Any) -> None:
        """Calls of the mailbox's run wait: from now on, have the mailbox look when messages come."""

    def forget(self, mailbox: Any) -> None:
        """No call waits any more."""


class WorkerPort(Protocol):
    """The process that drives a run, as the run's driver sees it. From any thread."""

    store: Store
    clock: Clock
    writer: Leaders
    threads: Any
    """`body.interfaces.Threads`."""
    doubt: bool
    """Set when the store has failed, so that a run may be claimed here and driven by no thread."""
    elsewhere: Callable[[str], Elsewhere] | None
    """What executes bodies in other processes, by the name of the executor."""
    on_end: Callable[[RunRow, bool], None] | None
    """Called when a run has ended or was aborted here, with whether this process began the run."""
    root: Callable[[Any], Any]
    """The run's own task, as a coroutine (`calls.root`)."""

    slots: Any
    """`body.interfaces.SlotsPort`."""

    @property
    def post(self) -> PostPort:
        """Tells the driver's mailbox of messages."""
        ...

    def loop_for(self, driver: Any) -> LoopThread:
        """A loop whose thread is not blocked by a synchronous durable call: the driver's own if possible."""

    def call_on_loop(self, loop: LoopPort, make_task: Callable[[], asyncio.Task[Any]]) -> Future[Any]:
        """Make a task on that loop and have its outcome as a thread-safe future."""

    def join(self, future: Future[Any], slot: Slot | None, timeout: float | None = None, *, shown: bool = False) -> Any:
        """Wait in a body's thread for work of the body elsewhere."""

    def source_id(self, target: str) -> int:
        """The number of today's snapshot of the code that `target` belongs to."""

    def source_changed(self, source_id: int, target: str) -> bool:
        """Whether the code of that snapshot differs from today's."""

    def flush_lazily(self, driver: Any) -> None:
        """Commit that driver's outbox soon, unless something else does first."""

    def left(self, driver: Any) -> None:
        """That run is no longer driven here."""

    def why_fenced(self, driver: Any) -> PerdureError:
        """The store refused a write of `driver`: why."""


EXHAUSTED: Any = object()
"""The answer of a `ItemSource`, and of `calls.trace`, where the generator has no further item."""


class ItemSource(Protocol):
    """A traced generator as an effect: gives the next item, or `EXHAUSTED`."""

    item: int
    """The index of the next item."""
    numbers: list[int]
    """The entries of earlier items that a failure of the generator discards, too."""
    codec: Codec[Any]
    """The codec of the items."""

    def passed(self, outcome: Outcome, *, live: bool) -> None:
        """The next item is delivered, from the generator (`live`) or from the journal."""

    def block(self) -> Any:
        """The next item, for a thread."""

    def __await__(self) -> Generator[Any, Any, Any]: ...


class Origin(NamedTuple):
    """The entries that an exception comes from; carried by the exception."""

    run: bytes
    """The `uid` of the run."""
    action: int
    entries: tuple[int, ...]


class Failure(NamedTuple):
    """The failure of an attempt in another process; carried by the exception here."""

    data: bytes
    """The encoded exception, with the traceback of the process in which it was raised."""
    final: bool
    """Whether retrying is pointless."""
    discards: list[int]
    """The entries of that body whose exceptions are in its tree."""
    pause: float = 0.0
    """The seconds that the exception asks for before the next attempt."""


def failed_elsewhere(error: BaseException, failure: Failure) -> BaseException:
    """`error`, with the facts from the process of its origin (read by `attempts`)."""
    error.__dict__["__perdure_failure__"] = failure
    return error


class Report(NamedTuple):
    """The report of an inner process on its bodies, sent while none of them can move by itself."""

    open: list[int]
    """Their actions."""
    replaying: int
    """How many of them still have something to be handed."""
    awaiting: list[int]
    """Bodies that wait for a cancellation by user code of another body."""
    uncalled: list[Action]
    """What was under way when the last driver ended, and has not been called again."""
    still: bool
    """Whether no call of the bodies executes, and no outcome is on its way to disk."""


class Elsewhere(Protocol):
    """The port behind which bodies execute in other processes."""

    def execution(
        self, body: Any, spec: TaskSpec, action: Action, inputs: bytes, attempt: int, floor: int, *, recorded: bool
    ) -> Any:
        """An effect: execute the body of `action` once. Gives `(Result.VALUE, encoded value)` or `(Result.ERROR,
        exception)`, the latter with its `Failure` if the body itself raised it. Ends at once, with nothing written any
        more, when `body` is closed (E3)."""


class Outer(Protocol):
    """The outer process, as a driver in an inner one sees it."""

    def takes(self, spec: TaskSpec) -> bool:
        """Whether such a task is carried out there."""

    def attempts(
        self, spec: TaskSpec, action: Action, inputs: bytes, *, parent: Any, floor: int, recorded: bool
    ) -> Generator[Any, Any, Any]:
        """As `attempts.attempts`."""
