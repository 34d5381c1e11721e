"""The messages of a run that this process drives: which call takes which message.

- MS1 a message is taken by the entry that holds the message as its outcome: entry and mark of the message are one
  commit under the token of the claim (`Taking`). So replay delivers the same message, and no other entry takes it.
- MS2 the messages of a mailbox are given to calls in the order of their numbers, and of the calls that wait, the call
  that began to wait first gets the first message. After a crash the numbers of the actions keep that order.
- MS3 a call that is cancelled or times out takes nothing: a message that was given to the call, and not recorded, is
  given to the next call. A cancellation that is recorded behind the outcome gives the message back in its own commit.
  So does a body that ends before its code hears of the message: the entry counts no longer, because nothing that the
  code did can depend on the message.
- MS4 no message waits for a call that waits: the call is registered before the store is read, and a message that is
  committed after the reading rings the bell of this process, or meets a park that sees the message.

A condition is a box of which the first message counts, for all calls that wait for the condition.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from typing import Any, Protocol

from ..body.interfaces import BodyPort, LoopPort
from ..body.waits import MessageWait
from ..commit.records import Taking
from ..ground.clock import Deadline
from ..ground.model import WAITS, Action, Awaited, Kind, Message
from ..ground.ports import Store
from .interfaces import PostPort

CONDITION = "condition:"
"""Prefix of the boxes of conditions."""
MAILBOX = "mailbox:"
"""Prefix of the boxes of mailboxes."""
ONLY = ""
"""The key of the only message of a condition."""
ELDER_SECONDS = 0.005
"""How often to look whether an earlier call that waited before a crash is made again."""


def is_shared(box: str) -> bool:
    """Whether several calls may take the message of the box."""
    return box.startswith(CONDITION)


def box_of(kind: Kind, name: str) -> str:
    """The box of a condition or mailbox."""
    return (CONDITION if kind is Kind.CONDITION else MAILBOX) + name


class AwaitingCall(Protocol):
    """A call that waits: a `MessageWait`, or its counterpart for a call in another process."""

    box: str
    action: int
    """The number of the action, which orders the calls that wait for a box."""
    message: Message | None

    def deliver(self, message: Message) -> None:
        """The message is the call's."""


class Mailbox:
    """See the module text. One per driver; from any thread."""

    def __init__(self, run_id: int, store: Store, post: PostPort, loop: LoopPort, bodies: dict[int, Any]) -> None:
        self.run_id = run_id
        self._store = store
        self._post = post
        self._loop = loop
        self._bodies = bodies
        self._lock = threading.Lock()
        self._waits: defaultdict[str, list[AwaitingCall]] = defaultdict(list)
        """The calls that wait, by box, each list in the order of MS2."""
        self._given: dict[int, str] = {}
        """The boxes of messages that calls have, and whose commits are not known to be on disk."""
        self._floor: defaultdict[str, int] = defaultdict(int)
        """By box: the highest number of a message that a call has, or had."""
        self._moves = 0
        """How often a message was given, or given back: what was read from the store before is out of date."""

    # -- calls -----------------------------------------------------------------------------------------------------

    def take_now(self, box: str) -> Message | None:
        """The first message of the box, if there is one and no earlier call waits."""
        with self._lock:
            if self._waits.get(box) or self._elder(box, None):
                return None
            if is_shared(box):
                return self._store.message(self.run_id, box, ONLY)
            found = self._untaken(box, 1)
            for message in found:
                self._give(message)
            return found[0] if found else None

    def wait(self, body: BodyPort, box: str, action: Action, deadline: Deadline | None) -> MessageWait:
        """An effect: wait for a message of the box until the deadline. `None` at the deadline."""
        return MessageWait(body, self, box, action.action, deadline)

    def enter(self, wait: AwaitingCall) -> None:
        """The call begins to wait."""
        with self._lock:
            waits = self._waits[wait.box]
            waits.append(wait)
            waits.sort(key=lambda one: one.action)
        # First, so that every later message rings the bell (MS4).
        self._post.attend(self)
        self.look([wait.box])

    def leave(self, wait: AwaitingCall) -> Message | None:
        """The call no longer waits. The message that the call was given."""
        with self._lock:
            waits = self._waits[wait.box]
            if wait in waits:
                waits.remove(wait)
            if not waits:
                del self._waits[wait.box]
            message = wait.message
            idle = not self._waits
        if idle:
            self._post.forget(self)
        return message

    def taking(self, message: Message) -> Taking:
        """The row that goes with the entry of the message."""
        return Taking(self, message.box, message.number, shared=is_shared(message.box))

    def taken(self, number: int) -> None:
        """The entry of the message is on disk."""
        with self._lock:
            self._given.pop(number, None)

    def put_back(self, number: int) -> None:
        """The call takes nothing after all (MS3)."""
        with self._lock:
            box = self._given.pop(number, None)
            if box is None:
                return
            self._lower(box, number)
        self.look([box])

    def returned(self, box: str, number: int) -> None:
        """A message that was taken is on disk as given back (MS3)."""
        with self._lock:
            self._lower(box, number)
        self.look([box])

    # -- messages --------------------------------------------------------------------------------------------------

    def wanted(self) -> tuple[int, list[Awaited]]:
        """What calls wait for now; `arrived` takes the number along with a message."""
        with self._lock:
            return self._moves, [Awaited(self.run_id, box, self._floor[box]) for box in self._waits]

    def arrived(self, message: Message, moves: int) -> None:
        """The message was the first that `wanted` asked for. Spares the first call a look into the store."""
        box = message.box
        with self._lock:
            waits = self._waits.get(box)
            if not waits:
                return
            if moves == self._moves and message.number not in self._given and not self._elder(box, waits[0].action):
                if is_shared(box):
                    self._deliver_all(message, waits)
                else:
                    self._give(message)
                    waits.pop(0).deliver(message)
        self.look([box])

    def look(self, boxes: list[str]) -> None:
        """Give the messages of these boxes to the calls that wait."""
        again = False
        with self._lock:
            for box in boxes:
                waits = self._waits.get(box)
                if not waits:
                    continue
                if self._elder(box, waits[0].action):
                    again = True
                elif is_shared(box):
                    self._tell_all(box, waits)
                else:
                    self._hand_out(box, waits)
        if again:
            self._loop.later(ELDER_SECONDS, self.look, boxes)

    def _tell_all(self, box: str, waits: list[AwaitingCall]) -> None:
        message = self._store.message(self.run_id, box, ONLY)
        if message is not None:
            self._deliver_all(message, waits)

    @staticmethod
    def _deliver_all(message: Message, waits: list[AwaitingCall]) -> None:
        for wait in waits[:]:
            wait.deliver(message)
        waits.clear()

    def _hand_out(self, box: str, waits: list[AwaitingCall]) -> None:
        for message in self._untaken(box, len(waits)):
            self._give(message)
            waits.pop(0).deliver(message)

    def _untaken(self, box: str, count: int) -> list[Message]:
        limit = count + len(self._given)
        found = self._store.messages(self.run_id, box, above=self._floor[box], limit=limit)
        return [message for message in found if message.number not in self._given][:count]

    def _lower(self, box: str, number: int) -> None:
        self._floor[box] = min(self._floor[box], number - 1)
        self._moves += 1

    def _give(self, message: Message) -> None:
        self._moves += 1
        self._given[message.number] = message.box
        self._floor[message.box] = max(self._floor[message.box], message.number)

    def _elder(self, box: str, action: int | None) -> bool:
        """Whether a call that waited for the box before a crash, and before the given action, may still be made
        again."""
        return any(
            open_action.name == box and open_action.kind in WAITS and (action is None or open_action.action < action)
            for body in list(self._bodies.values())
            if not body.quiet()
            for open_action in list(body.delivery.open_actions.values())
        )
