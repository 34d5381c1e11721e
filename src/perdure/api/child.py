"""A pool child (`python -m perdure.api.child`): loads the code of one body after the other and executes the body.

The main thread loads code, since some modules insist on the main thread. A second thread listens to the parent process,
and ends the child when the parent is gone. See `executors.process`.
"""

from __future__ import annotations

import faulthandler
import functools
import logging
import os
import queue
import signal
import socket
import sys
import threading
from typing import Any

import msgspec

from .. import runtime
from ..core.ground.ports import Hold
from ..core.process.worker import Worker
from ..executors import _frames as frames
from ..executors._inner.driver import InnerDriver, failed_to_load, flush
from ..executors._inner.store import SAME_PLACE, Connection, InnerStore, PathMap
from ..executors._inner.threads import CountingThreads
from ..executors._inner.writer import InnerWriter
from .loading import load_body

PR_SET_PDEATHSIG = 1
_NOT_HEARD = frames.Free(-1, False)


class ChildProcess:
    """See the module text."""

    def __init__(self, channel: frames.Channel, hello: frames.Hello, moved: PathMap) -> None:
        self._channel = channel
        self._connection = Connection(channel, moved)
        self._work: queue.SimpleQueue[frames.Assign] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._driver: InnerDriver | None = None
        self._free = _NOT_HEARD
        """The last news of whether new calls may start, for a driver that does not exist yet."""
        self._cancel: str | None = None
        """The same of a request to cancel the run: the reason."""
        store = InnerStore(self._connection, hello.store_id, hello.store_url)
        writer = InnerWriter(self._connection)
        self._worker = Worker(store, _NoOtherWorkers(), CountingThreads(), writer=writer)  # type: ignore[arg-type]
        runtime.adopt(self._worker, hello.blobs)

    def main(self) -> None:
        """Execute bodies until the parent process is gone."""
        threading.Thread(target=self._listen, name="perdure-listener", daemon=True).start()
        while True:
            self._execute(self._work.get())

    def _execute(self, work: frames.Assign) -> None:
        try:
            spec = load_body(work.target, work.module)
        except Exception as error:
            flush()
            self._channel.send(failed_to_load(error))
            return
        loop = self._worker.loops.free_loop()
        driver = InnerDriver(self._worker, self._connection, work, spec, loop)
        with self._lock:
            self._driver = driver
            driver.heard(self._free)
            if self._cancel is not None:
                driver.cancel_run(self._cancel)
        loop.soon(driver.start)

    def _listen(self) -> None:
        try:
            while True:
                self._handle(self._channel.receive())
        except frames.Closed:
            os._exit(0 if self._connection.moved is SAME_PLACE else frames.HUNG_UP)
        except BaseException:
            logging.getLogger("perdure").exception("a pool process could not understand what it was told")
            os._exit(70)

    def _handle(self, frame: frames.ToChild) -> None:
        connection = self._connection
        if isinstance(frame, frames.Assign):
            connection.received = 0
            frame = arrived(frame, connection.moved)
            with self._lock:
                self._driver = None
                self._free = _NOT_HEARD
                self._cancel = None
            self._work.put(frame)
        elif isinstance(frame, frames.Answer):
            connection.answered(frame)
        elif isinstance(frame, frames.Free):
            with self._lock:
                self._free = frame
                if self._driver is not None:
                    self._driver.heard(frame)
        elif isinstance(frame, frames.CancelBody):
            with self._lock:
                self._cancel = frame.reason
                if self._driver is not None:
                    self._driver.cancel_run(frame.reason)
        elif isinstance(frame, frames.GiveUp) and self._driver is not None:
            self._driver.give_up(frame.action)
        # Last: a reader of the count has to see the effects of the frame (E5).
        connection.received += 1


def arrived(work: frames.Assign, moved: PathMap) -> frames.Assign:
    """The same work, with paths as this machine has them."""
    return msgspec.structs.replace(
        work, target=moved.inward(work.target), run=work.run._replace(target=moved.inward(work.run.target))
    )


class _NoOtherWorkers:
    """Liveness in a process that claims nothing."""

    def hold(self, worker: str) -> None: ...

    def drop(self, worker: str) -> None: ...

    def doubts(self, worker: str) -> bool:
        return False

    def is_dead(self, worker: str) -> bool:
        return False

    def hold_of(self, worker: str) -> Hold:
        return Hold.UNKNOWN


def main() -> None:
    """The command. Arguments: the number of the socket's descriptor, the pid of the parent. On another machine also the
    directory of the code in the driving process, and the directory here."""
    _end_with(int(sys.argv[2]))
    # The driving process decides what happens at Ctrl-C. Not SIG_IGN: programs of a body would inherit SIG_IGN.
    signal.signal(signal.SIGINT, lambda *_: None)
    _explain_signals()
    if not faulthandler.is_enabled():
        faulthandler.enable()
    channel = frames.Channel(socket.socket(fileno=int(sys.argv[1])), frames.ToChild)
    moved = PathMap(*sys.argv[3:5]) if len(sys.argv) > 3 else SAME_PLACE
    try:
        hello = channel.receive()
    except frames.Closed:
        sys.exit(0 if moved is SAME_PLACE else frames.HUNG_UP)
    assert isinstance(hello, frames.Hello)
    if moved is SAME_PLACE:
        sys.path[:] = hello.path
    else:
        # The packages installed here; from the driving process only the shipped code.
        shipped = [moved.inward(path) for path in hello.path if moved.inward(path) != path or path == moved.here]
        sys.path[:0] = [path for path in shipped if path not in sys.path]
    sys.argv[:] = hello.argv
    for stream in (sys.stdout, sys.stderr):
        # Whole lines, since other processes write to the same place; and no line is lost when this child is killed.
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    logging.getLogger("perdure").setLevel(hello.log_level)
    ChildProcess(channel, hello, moved).main()


def _explain_signals() -> None:
    """Let `signal.signal` say what to do in a body: Python allows the call in the main thread only, and bodies have
    other threads."""
    for name in ("signal", "set_wakeup_fd"):
        setattr(signal, name, _in_main_thread(getattr(signal, name)))


def _in_main_thread(function: Any) -> Any:
    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        if threading.current_thread() is threading.main_thread():
            return function(*args, **kwargs)
        raise ValueError(
            f"signal.{function.__name__}() works in the main thread only, and bodies with executor='process' or 'ray' "
            "run in other threads. For a time limit use the task's timeout=; code that needs signals can be a program "
            "of its own: subprocess.run([sys.executable, ...])"
        )

    return checked


def _end_with(parent: int) -> None:
    """End together with the parent process, however the parent ends, and even while native code runs."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


if __name__ == "__main__":
    main()
