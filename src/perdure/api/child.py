"""A pool child (`python -m perdure.api.child`): loads the code of one body after the other and executes it.

Its main thread loads code, which some modules insist on; a thread of its own listens to the process that started it,
and ends this one when that is gone. See `executors.process`.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import queue
import signal
import socket
import sys
import threading

from .. import runtime
from ..core.worker import Worker
from ..executors import _frames as frames
from ..executors._inner import (
    Connection,
    CountingThreads,
    InnerDriver,
    InnerStore,
    InnerWriter,
    failed_to_load,
    flush,
)
from .loading import load_body

PR_SET_PDEATHSIG = 1
_NOT_HEARD = frames.Free(-1, False)


class ChildProcess:
    """See the module text."""

    def __init__(self, channel: frames.Channel, hello: frames.Hello) -> None:
        self._channel = channel
        self._connection = Connection(channel)
        self._work: queue.SimpleQueue[frames.Execute] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._driver: InnerDriver | None = None
        self._free = _NOT_HEARD
        """What was said last of whether new calls may start, for a driver that does not exist yet."""
        store = InnerStore(self._connection, hello.store_id, hello.store_url)
        self._worker = Worker(store, _NobodyElse(), CountingThreads())  # type: ignore[arg-type]
        self._worker.writer = InnerWriter(store, self._connection)
        runtime.adopt(self._worker, hello.blobs)

    def main(self) -> None:
        """Execute bodies until the process that started this one is gone."""
        threading.Thread(target=self._listen, name="perdure-listener", daemon=True).start()
        while True:
            self._execute(self._work.get())

    def _execute(self, work: frames.Execute) -> None:
        try:
            spec = load_body(work.target, work.module)
        except Exception as error:
            flush()
            self._channel.send(failed_to_load(error))
            return
        loop = self._worker.free_loop()
        driver = InnerDriver(self._worker, self._connection, work, spec, loop)
        with self._lock:
            self._driver = driver
            driver.heard(self._free)
        loop.soon(driver.start)

    def _listen(self) -> None:
        try:
            while True:
                self._handle(self._channel.receive())
        except frames.Closed:
            os._exit(0)
        except BaseException:
            logging.getLogger("perdure").exception("a pool process could not understand what it was told")
            os._exit(70)

    def _handle(self, frame: frames.ToChild) -> None:
        connection = self._connection
        if isinstance(frame, frames.Execute):
            connection.received = 0
            with self._lock:
                self._driver = None
                self._free = _NOT_HEARD
            self._work.put(frame)
        elif isinstance(frame, frames.Answer):
            connection.answered(frame)
        elif isinstance(frame, frames.Free):
            with self._lock:
                self._free = frame
                if self._driver is not None:
                    self._driver.heard(frame)
        elif isinstance(frame, frames.GiveUp) and self._driver is not None:
            self._driver.give_up(frame.action)
        # Afterwards: who reads the count has to see what the frame has brought about (E5).
        connection.received += 1


class _NobodyElse:
    """Liveness in a process that claims nothing."""

    def hold(self, worker: str) -> None: ...

    def drop(self, worker: str) -> None: ...

    def doubts(self, worker: str) -> bool:
        return False

    def is_dead(self, worker: str) -> bool:
        return False


def main() -> None:
    """The command: the number of the socket's descriptor, and the pid of the process that started this one."""
    _end_with(int(sys.argv[2]))
    # Ctrl-C in the terminal reaches the whole group: the process that drives the run decides what becomes of it. Not
    # SIG_IGN, which programs that a body starts would inherit.
    signal.signal(signal.SIGINT, lambda *_: None)
    if not faulthandler.is_enabled():
        faulthandler.enable()
    channel = frames.Channel(socket.socket(fileno=int(sys.argv[1])), frames.ToChild)
    try:
        hello = channel.receive()
    except frames.Closed:
        return
    assert isinstance(hello, frames.Hello)
    sys.path[:] = hello.path
    sys.argv[:] = hello.argv
    for stream in (sys.stdout, sys.stderr):
        # Whole lines, as other processes write to the same place; and none is lost when this one is killed.
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    logging.getLogger("perdure").setLevel(hello.log_level)
    ChildProcess(channel, hello).main()


def _end_with(parent: int) -> None:
    """End when the process that started this one ends, however it ends, even where native code never looks."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


if __name__ == "__main__":
    main()
