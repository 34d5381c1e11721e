"""SIGINT and SIGTERM end this process promptly, even in the middle of C code; its runs stay resumable.

The first signal raises `Interrupted` in the main thread, which then stops its runs in order. A main thread that blocks
inside C code does not get there, and user code may delay its own unwinding. So the signal also wakes a watchdog thread
(through a pipe that Python's C-level handler writes to), which ends the process after the grace time. A second signal
ends the process at once. Nothing is lost either way: recorded outcomes are on disk.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

from ..core.ground.clock import perf

INTERRUPTED = 130
"""The exit code."""
GRACE_SECONDS = 2.5
"""From the first signal to the end of the process at the latest."""
REPEATED_NS = 500_000_000
"""A second signal within this time repeats the first: `timeout` and process groups often deliver two."""

_HANDLED = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """A signal asks this process to end. Not a `KeyboardInterrupt`, so that handlers in user code do not apply."""


class Signals:
    """The signal handlers of this process."""

    def __init__(self) -> None:
        self.last_words = ""
        """Written to stderr when the watchdog ends the process."""
        self.code = INTERRUPTED
        """The exit code of an interrupted process."""
        self._first_ns: int | None = None
        self._replaced = False

    def install(self) -> None:
        """Handle both signals from now on, also where a shell ignores SIGINT for a background job: a sent signal is
        meant, and an ended run loses nothing. A signal that has waited since the start of the process is handled now.

        Raises:
            Interrupted: there was one.
        """
        for number in _HANDLED:
            signal.signal(number, self._handle)
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(reader,), name="perdure-signals", daemon=True).start()
        self.unblock()

    def unblock(self) -> None:
        """Let the signals arrive that `main` has blocked."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)

    def replace(self, handle: Callable[[int, Any], None]) -> None:
        """Hand both signals to `handle` from now on; nothing ends the process by itself."""
        self._replaced = True
        signal.set_wakeup_fd(-1)
        for number in _HANDLED:
            signal.signal(number, handle)

    def ignore(self) -> None:
        """The end has begun; only the watchdog may interrupt it."""
        for number in _HANDLED:
            signal.signal(number, signal.SIG_IGN)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = perf()
        if self._first_ns is None:
            self._first_ns = now
            raise Interrupted
        if now - self._first_ns > REPEATED_NS:
            self._end()

    def _watch(self, reader: int) -> None:
        while True:
            numbers = os.read(reader, 64)
            if any(number in numbers for number in _HANDLED):
                break
        threading.Event().wait(GRACE_SECONDS)
        if not self._replaced:
            self._end()

    def _end(self) -> NoReturn:
        try:
            os.write(2, self.last_words.encode("utf-8", "backslashreplace"))
        finally:
            os._exit(self.code)
