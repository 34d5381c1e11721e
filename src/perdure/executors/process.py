"""A pool of child processes for the bodies of tasks with `executor="process"`.

A child is a fresh interpreter (`python -m perdure.api.child`), never a fork. Nothing is pickled: the child loads the
code by name, and only encoded values cross. A child never opens the store: all reads and writes go over a socket to the
driving process (`_session`). `core.run.remote_body` states the invariants of the two ends.

- C1 a child ends when the parent process does, however the parent ends: the socket is closed then, and on Linux the
  kernel kills the child. Nothing is recorded by a child: only the parent writes. A child that is killed or dies takes
  the programs along that its bodies have started: the child leads a process group of its own.
- C2 at most `width` children are at work, not counting children that wait for a durable outcome (`_places`).
- C3 a child executes one body at a time (with all calls of the body in the same process). The child is used again for a
  body with the same environment variables and directory, unless the last body has left threads at work.
"""

from __future__ import annotations

import logging
import os
import queue
import socket
import subprocess
import sys
import threading
from typing import NamedTuple

from ..errors import PerdureError
from . import _frames as frames
from ._groups import kill_group
from ._places import Find, Places
from ._session import BodySession

log = logging.getLogger("perdure")

IDLE_SECONDS = 30.0
"""How long a child without work stays."""

CLOSED_SECONDS = 5.0
"""How long a child may live after its connection has closed."""


class Surroundings(NamedTuple):
    """The settings at the start of a child, fixed for the life of the child."""

    environ: dict[str, str]
    directory: str


class ProcessPool(Places):
    """See the module text."""

    def __init__(
        self, width: int, *, store_id: str, store_url: str, blobs: str, find: Find, idle_seconds: float = IDLE_SECONDS
    ) -> None:
        super().__init__(width, find)
        self.idle_seconds = idle_seconds
        self._store = (store_id, store_url, blobs)
        self._idle: list[Child] = []
        self._closed = False

    def give(self, session: BodySession) -> None:
        """See `Places`."""
        try:
            child = self._child_for(Surroundings({**os.environ, **session.spec.env_vars}, os.getcwd()))
        except Exception as error:
            session.failed(PerdureError(f"no process could be started for the body of {session.spec.name}: {error}"))
        else:
            child.sessions.put(session)

    def _child_for(self, wanted: Surroundings) -> Child:
        with self._wake:
            # The most recently used child first, since its memory is warm.
            for child in reversed(self._idle):
                if child.surroundings == wanted:
                    self._idle.remove(child)
                    return child
        child = Child(self, wanted)
        child.begin(self._hello())
        return child

    def _hello(self) -> frames.Hello:
        return hello(*self._store)

    # -- children without work ---------------------------------------------------------------------------------

    def returned(self, child: Child) -> bool:
        """A child has ended its body and could execute another. Whether the pool keeps the child."""
        with self._wake:
            if self._closed:
                return False
            self._idle.append(child)
            if len(self._idle) > self.width:
                self._idle.pop(0).sessions.put(None)
            return True

    def retired(self, child: Child) -> bool:
        """A child has been without work for long. Whether the child may end: the pool may have assigned a body just
        now."""
        with self._wake:
            if child in self._idle:
                self._idle.remove(child)
                return True
            return False

    def close(self) -> None:
        """End the children without work; the others end with their runs."""
        with self._wake:
            self._closed = True
            idle, self._idle = self._idle, []
        for child in idle:
            child.sessions.put(None)


def hello(store_id: str, store_url: str, blobs: str) -> frames.Hello:
    """The first frame from the driving process to a process for bodies."""
    return frames.Hello(
        path=list(sys.path),
        argv=list(sys.argv),
        store_id=store_id,
        store_url=store_url,
        blobs=blobs,
        log_level=log.getEffectiveLevel(),
    )


class Child:
    """A child process, and the thread for the conversation."""

    def __init__(self, pool: ProcessPool, surroundings: Surroundings) -> None:
        self.surroundings = surroundings
        self.sessions: queue.SimpleQueue[BodySession | None] = queue.SimpleQueue()
        self._pool = pool
        self._kept = False
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [
                        sys.executable, *subprocess._args_from_interpreter_flags(),  # type: ignore[attr-defined]
                        "-P", "-m", "perdure.api.child", str(theirs.fileno()), str(os.getpid()),
                    ],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    env=surroundings.environ,
                    cwd=surroundings.directory,
                    start_new_session=True,
                )  # fmt: skip
            except BaseException:
                ours.close()
                raise
        self.pid = self._process.pid
        # On other systems than Linux, the closed socket alone reports the child's death.
        self._ended = os.pidfd_open(self.pid) if sys.platform == "linux" else None
        self.channel = frames.Channel(ours, frames.ToParent, self._ended)

    def begin(self, hello: frames.Hello) -> None:
        """Start the thread."""
        name = f"perdure-child-{self.pid}"
        threading.Thread(target=self._main, args=(hello,), name=name, daemon=True).start()

    def kill(self) -> None:
        """SIGKILL for the child and for the programs that the child has started; from any thread."""
        if self._process.poll() is None:
            kill_group(self.pid)

    def keep(self) -> None:
        """The body has ended well."""
        self._kept = self._pool.returned(self)

    def _main(self, hello: frames.Hello) -> None:
        self.channel.send(hello)
        fresh = True
        while (session := self._next()) is not None:
            if not self._serve(session, fresh):
                break
            fresh = False
        self.channel.close()
        self._process.wait()
        if self._ended is not None:
            os.close(self._ended)

    def _exit_code(self) -> int:
        try:
            code = self._process.wait(CLOSED_SECONDS)
        except subprocess.TimeoutExpired:
            # The body has closed the socket under the child.
            self.kill()
            code = self._process.wait()
        kill_group(self.pid)
        return code

    def _next(self) -> BodySession | None:
        while True:
            try:
                return self.sessions.get(timeout=self._pool.idle_seconds)
            except queue.Empty:
                if self._pool.retired(self):
                    return None

    def _serve(self, session: BodySession, fresh: bool) -> bool:
        """Have one body executed; whether the child can execute another."""
        heard = self._kept = False
        try:
            if not session.assigned(self):
                return self._pool.returned(self)
            while True:
                frame = self.channel.receive(session.seconds_left())
                heard = True
                if session.handle(frame):
                    return self._kept
        except TimeoutError:
            session.timed_out()
        except frames.Closed:
            code = self._exit_code()
            if heard or fresh:
                session.died(code)
            else:
                self._pool.again(session)
            return False
        except BaseException as error:
            log.exception("what a pool process has sent could not be handled")
            session.failed(PerdureError(f"a pool process could not be understood: {error}"))
        self.kill()
        return False
