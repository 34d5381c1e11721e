"""The connection of a pool child to the outer process, and the store that asks over the connection."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar

import msgspec

from ...core.ground.model import Action, Addressee, Entry, NewMessage, Publication, RunRow, SendAnswer, Source, Streamed
from ...errors import RunStopped, UsageError
from .. import _frames as frames

T = TypeVar("T")


class PathMap(NamedTuple):
    """The place of the driving process's files on this machine."""

    root: str
    here: str

    def inward(self, path: str) -> str:
        """A path, or a target, of the driving process, as a path here."""
        return self.here + path[len(self.root) :] if _is_under(path, self.root) else path

    def outward(self, path: str) -> str:
        """A path here, as a path of the driving process."""
        return self.root + path[len(self.here) :] if _is_under(path, self.here) else path


def _is_under(path: str, folder: str) -> bool:
    return bool(folder) and (path == folder or path.startswith(os.path.join(folder, "")))


SAME_PLACE = PathMap("", "")


class Connection:
    """The child's end of the socket: questions and their answers. From any thread.

    A frame counts for the body that is being executed. So a thread that an earlier body has left behind must not send
    in the time of the next body (`turn`).
    """

    def __init__(self, channel: frames.Channel, moved: PathMap = SAME_PLACE) -> None:
        self._channel = channel
        self.moved = moved
        self._tickets = itertools.count(1)
        self._asked: dict[int, Future[msgspec.Raw]] = {}
        self._turns = threading.Lock()
        self.turn = 0
        """How many bodies have begun or ended here."""
        self.received = 0
        """Frames acted on since the present body was assigned, the assignment included."""

    def next_turn(self, last: Any = None) -> int:
        """A body begins, or ends with `last`: from now on no frame is sent for the body before."""
        with self._turns:
            self.turn += 1
            if last is not None:
                self._channel.send(last)
            return self.turn

    def ask(self, make: Callable[[int], Any], kind: type[T] | Any, turn: int | None = None) -> T:
        """Ask, and wait for the answer. No answer comes if the run is driven no longer: the process ends.

        Raises:
            RunStopped: the turn is over.
        """
        _, future = self.ask_soon(make, turn)
        answer: T = msgspec.msgpack.decode(future.result(), type=kind)
        return answer

    def ask_soon(self, make: Callable[[int], Any], turn: int | None = None) -> tuple[int, Future[msgspec.Raw]]:
        """Ask without waiting: the ticket, and the future answer. Raises the same errors as `ask`."""
        ticket = next(self._tickets)
        future: Future[msgspec.Raw] = Future()
        future.set_running_or_notify_cancel()
        self._asked[ticket] = future
        if not self.tell(make(ticket), turn):
            raise RunStopped("the body that this belongs to is over")
        return ticket, future

    def tell(self, frame: Any, turn: int | None = None) -> bool:
        """Send a frame without an answer; `False`, and nothing is sent, if the turn is over."""
        with self._turns:
            if turn is not None and turn != self.turn:
                return False
            self._channel.send(frame)
            return True

    def answered(self, answer: frames.Answer) -> None:
        """An answer has come."""
        future = self._asked.pop(answer.ticket, None)
        if future is not None:
            future.set_result(answer.value)

    def awaits(self, ticket: int) -> bool:
        """Whether the answer to that ticket is still to come."""
        return ticket in self._asked

    def forget(self, ticket: int) -> Future[msgspec.Raw] | None:
        """Drop the question with that ticket."""
        return self._asked.pop(ticket, None)


class InnerStore:
    """The part of a store that bodies need, by questions to the outer process."""

    def __init__(self, connection: Connection, id: str, url: str) -> None:
        self.id = id
        self.url = url
        self._connection = connection

    def entries(self, run: int, action: int) -> list[Entry]:
        """See `Store`."""
        return self._connection.ask(lambda ticket: frames.Entries(ticket, action), list[Entry])

    def actions(self, run: int, parent: int) -> list[Action]:
        """See `Store`."""
        return self._connection.ask(lambda ticket: frames.Actions(ticket, parent), list[Action])

    def cache_get(self, key: bytes) -> bytes | None:
        """See `Store`."""
        return self._connection.ask(lambda ticket: frames.CacheGet(ticket, key), bytes | None)

    def source_id(self, source: Source) -> int:
        """See `Store`."""
        return self._connection.ask(lambda ticket: frames.SourceId(ticket, source), int)

    def source(self, id: int) -> Source | None:
        """See `Store`."""
        return self._connection.ask(lambda ticket: frames.SourceOf(ticket, id), Source | None)

    def run(self, name: str) -> RunRow | None:
        """See `Store`."""
        return self._connection.ask(lambda ticket: frames.FindRun(ticket, name), RunRow | None)

    def addressee(self, name: str, box: str) -> Addressee | None:
        """See `Store`."""
        return self._connection.ask(lambda ticket: frames.FindAddressee(ticket, name, box), Addressee | None)

    def send(self, run: int, message: NewMessage) -> SendAnswer:
        """See `Store`."""
        return self._connection.ask(lambda ticket: frames.Send(ticket, run, message), SendAnswer)

    def publish(
        self, run: int, token: bytes, published: Sequence[Publication], streamed: Sequence[Streamed] = ()
    ) -> bool:
        """See `Store`. The outer process has the token."""
        return self._connection.ask(lambda ticket: frames.Publish(ticket, list(published), list(streamed)), bool)

    def last_streamed(self, run: int, name: str) -> Streamed | None:
        """See `Store`."""
        return self._connection.ask(lambda ticket: frames.LastStreamed(ticket, name), Streamed | None)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise UsageError(
            "the store cannot be used in the body of a task that executes in another process (executor=...): only the "
            "process that drives the run has it open. Look at runs from outside of it."
        )
