"""A limited number of places for bodies in other processes, given out in turn."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..core.ground.spec import TaskSpec
from ._session import BodySession

if TYPE_CHECKING:
    from ..core.ground.model import Action
    from ..core.run.remote_body import StandIn
    from . import _frames as frames

Find = Callable[[str, str, str], TaskSpec]
"""Gives a task by target, module name and variable name."""


class Places:
    """At most `width` bodies are at work in other processes. A body that waits for a durable outcome holds no place, so
    that tasks nested deeper than `width` do not deadlock."""

    def __init__(self, width: int, find: Find) -> None:
        self.width = width
        self.find = find
        self._wake = threading.Condition()
        self._queue: deque[BodySession] = deque()
        self._working = 0
        self._started = False

    def execution(
        self, body: StandIn, spec: TaskSpec, action: Action, inputs: bytes, attempt: int, floor: int, *, recorded: bool
    ) -> BodySession:
        """See `core.run.interfaces.Elsewhere`."""
        return BodySession(self, body, spec, action, inputs, attempt, floor, recorded)

    def refuse_call(self, caller: TaskSpec, call: frames.Delegate) -> None:
        """Raise `UsageError` where a process may not name that code. A child on this machine may: the child is the same
        user's, and could load the code without a question."""

    def give(self, session: BodySession) -> None:
        """The session has a place: find a process, without waiting for the process."""
        raise NotImplementedError

    def submit(self, session: BodySession) -> None:
        """Queue the session for a place."""
        with self._wake:
            self._queue.append(session)
            if not self._started:
                self._started = True
                # One thread for the life of the process: Linux kills a child when the *thread* that started the child
                # ends.
                threading.Thread(target=self._staff, name="perdure-places", daemon=True).start()
            self._wake.notify()

    def left(self, session: BodySession) -> None:
        """The session is over, or gave up waiting in the queue."""
        with self._wake:
            if session in self._queue:
                self._queue.remove(session)
            self._free(session)

    def waits(self, session: BodySession, waits: bool) -> None:
        """The process of the session begins to wait, or goes on. A process that goes on does not queue again."""
        with self._wake:
            if waits:
                self._free(session)
            elif not session.place and not session.over:
                session.place = True
                self._working += 1

    def again(self, session: BodySession) -> None:
        """The process died before its first answer: queue the session again, in front."""
        with self._wake:
            self._free(session)
            if not session.over:
                self._queue.appendleft(session)
                self._wake.notify()

    def _free(self, session: BodySession) -> None:
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
