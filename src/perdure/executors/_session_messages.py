"""The calls of a body in a pool child that wait for messages, in the process that has the mailbox."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ..core.ground.model import Message, Take
from ..core.run.mailbox import Mailbox
from ..errors import RunStopped
from . import _frames as frames


class _Wait:
    """A call in the child, as the mailbox sees a `MessageWait`."""

    def __init__(self, box: str, action: int, answer: Callable[[Message], None]) -> None:
        self.box = box
        self.action = action
        self.message: Message | None = None
        self._answer = answer

    def deliver(self, message: Message) -> None:
        """The message is the call's. From any thread."""
        self.message = message
        self._answer(message)


class WaitsElsewhere:
    """See the module text. One per session; `close` may be called from any thread, the rest by the thread that handles
    the frames of the child."""

    def __init__(self, mailbox: Mailbox, answer: Callable[[int, Message], None]) -> None:
        self._mailbox = mailbox
        self._answer = answer
        self._lock = threading.Lock()
        self._closed = False
        self._waits: dict[int, _Wait] = {}
        self._held: set[int] = set()
        """Messages that the child has, and whose rows have not come."""
        self._boxes: dict[int, str] = {}

    def begin(self, frame: frames.Await) -> None:
        """A call of the child waits."""
        wait = _Wait(frame.box, frame.action, lambda message: self._answer(frame.ticket, message))
        with self._lock:
            if self._closed:
                return
            self._waits[frame.ticket] = wait
        self._mailbox.enter(wait)
        if self._is_closed():
            self._leave(wait)

    def left(self, frame: frames.Left) -> None:
        """A call of the child waits no longer."""
        with self._lock:
            wait = self._waits.pop(frame.ticket, None)
        if wait is None:
            return
        message = self._mailbox.leave(wait)
        if message is None:
            return
        if not frame.got:
            self._mailbox.put_back(message.number)
            return
        self._boxes[message.number] = message.box
        with self._lock:
            # Until the row comes, the child may die.
            self._held.add(message.number)

    def put_back(self, frame: frames.PutBack) -> None:
        """The child takes nothing after all."""
        with self._lock:
            held = frame.number in self._held
            self._held.discard(frame.number)
        if held:
            self._mailbox.put_back(frame.number)

    @contextmanager
    def writing(self, takes: Sequence[Take]) -> Iterator[None]:
        """The rows are on their way to disk, within the block."""
        with self._lock:
            self._held.difference_update(take.number for take in takes)
        try:
            yield
        except RunStopped:
            for take in takes:
                if take.entry is not None:
                    self._mailbox.put_back(take.number)
            raise
        for take in takes:
            if take.entry is not None:
                self._mailbox.taken(take.number)
            elif take.number in self._boxes:
                self._mailbox.returned(self._boxes[take.number], take.number)

    def close(self) -> None:
        """The session is over: other calls may have the messages."""
        with self._lock:
            self._closed = True
            waits, held = list(self._waits.values()), list(self._held)
            self._waits.clear()
            self._held.clear()
        for wait in waits:
            self._leave(wait)
        for number in held:
            self._mailbox.put_back(number)

    def _is_closed(self) -> bool:
        return self._closed

    def _leave(self, wait: _Wait) -> None:
        message = self._mailbox.leave(wait)
        if message is not None:
            self._mailbox.put_back(message.number)
