"""The messages of a run, for the calls of a body in a pool child: the outer process has the mailbox."""

from __future__ import annotations

from concurrent.futures import Future

import msgspec

from ...core.body.interfaces import BodyPort
from ...core.body.waits import MessageWait
from ...core.commit.records import Taking
from ...core.ground.clock import Deadline
from ...core.ground.model import Action, Message
from ...core.run.mailbox import is_shared
from .. import _frames as frames
from .store import Connection


class RemoteMailbox:
    """See `core.run.interfaces.MailboxLike`. The outer process decides, and writes the rows of the messages."""

    def __init__(self, connection: Connection, turn: int) -> None:
        self._connection = connection
        self._turn = turn
        self._tickets: dict[MessageWait, int] = {}
        """The questions of the calls that wait."""

    def take_now(self, box: str) -> Message | None:
        """Nothing: a call asks the outer process with its action."""
        return None

    def wait(self, body: BodyPort, box: str, action: Action, deadline: Deadline | None) -> MessageWait:
        """See `MailboxLike`."""
        return MessageWait(body, self, box, action.action, deadline)

    def enter(self, wait: MessageWait) -> None:
        """See `MailboxPort`."""

        def answered(future: Future[msgspec.Raw]) -> None:
            wait.deliver(msgspec.msgpack.decode(future.result(), type=Message))

        ticket, future = self._connection.ask_soon(
            lambda ticket: frames.Await(ticket, wait.box, wait.action), self._turn
        )
        self._tickets[wait] = ticket
        future.add_done_callback(answered)

    def leave(self, wait: MessageWait) -> Message | None:
        """See `MailboxPort`."""
        ticket = self._tickets.pop(wait, None)
        if ticket is not None:
            self._connection.forget(ticket)
            # Read after the question is forgotten: no message comes from here on.
            self._connection.tell(frames.Left(ticket, wait.message is not None), self._turn)
        message: Message | None = wait.message
        return message

    def taking(self, message: Message) -> Taking:
        """See `MailboxLike`."""
        return Taking(self, message.box, message.number, shared=is_shared(message.box))

    def put_back(self, number: int) -> None:
        """See `MailboxPort`."""
        self._connection.tell(frames.PutBack(number), self._turn)

    def taken(self, number: int) -> None:
        """The outer process has written the row, and knows."""

    def returned(self, box: str, number: int) -> None:
        """The outer process has written the row, and knows."""
