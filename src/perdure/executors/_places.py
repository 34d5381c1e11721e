"""Who may execute now: places of which there are only so many, given out in turn."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..core.ground.spec import TaskSpec
from ._session import Session

if TYPE_CHECKING:
    from ..core.ground.model import Action
    from ..core.run.elsewhere import StandIn

Find = Callable[[str, str, str], TaskSpec]
"""A task by its target, the name of its module and that of its variable."""


class Places:
    """At most `width` bodies are at work elsewhere, not counting those that wait for something durable, which hold no
    place. So tasks that are nested deeper than that do not deadlock."""

    def __init__(self, width: int, find: Find) -> None:
        self.width = width
        self.find = find
        self._wake = threading.Condition()
        self._queue: deque[Session] = deque()
        self._working = 0
        self._started = False

    def execution(
        self, body: StandIn, spec: TaskSpec, action: Action, inputs: bytes, attempt: int, floor: int, *, recorded: bool
    ) -> Session:
        """See `core.elsewhere.Elsewhere`."""
        return Session(self, body, spec, action, inputs, attempt, floor, recorded)

    def give(self, session: Session) -> None:
        """It has a place: find it a process, without waiting for it."""
        raise NotImplementedError

    def submit(self, session: Session) -> None:
        """Find a place for it, in turn."""
        with self._wake:
            self._queue.append(session)
            if not self._started:
                self._started = True
                # One thread for as long as the process lives: Linux kills a child when the *thread* that started it
                # ends.
                threading.Thread(target=self._staff, name="perdure-places", daemon=True).start()
            self._wake.notify()

    def left(self, session: Session) -> None:
        """It is over, or gave up waiting for its turn."""
        with self._wake:
            if session in self._queue:
                self._queue.remove(session)
            self._free(session)

    def waits(self, session: Session, waits: bool) -> None:
        """Whether its process has nothing to do but to wait. One that goes on does not queue for a place again."""
        with self._wake:
            if waits:
                self._free(session)
            elif not session.place and not session.over:
                session.place = True
                self._working += 1

    def again(self, session: Session) -> None:
        """Its process had died before it was asked for anything."""
        with self._wake:
            self._free(session)
            if not session.over:
                self._queue.appendleft(session)
                self._wake.notify()

    def _free(self, session: Session) -> None:
        # Called with the lock held.
        if session.place:
            session.place = False
            self._working -= 1
            self._wake.notify()

    def _staff(self) -> None:
        while True:
            with self._wake:
                while not (self._queue and self._working < self.width):
                    self._wake.wait()
                session = self._queue.popleft()
                session.place = True
                self._working += 1
            self.give(session)
