"""The log of a container: to a file, live to the terminal, and the last lines for error messages."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections import deque
from contextvars import Context

from ..core.ground.harmless import harmless_log
from ..core.ground.private import make_private
from .engine import ContainerEngine, LogLine
from .redaction import Redactor

log = logging.getLogger("perdure")

LOG_SECONDS = 5.0
"""How long the last log lines of a container that has ended may take."""
TAIL = 50
"""Lines that an error message shows at most."""
LIMIT = 256 * 1024 * 1024
"""Bytes of a log file at most; later lines are counted, and dropped."""
_LINE_SHOWN = 1000
"""Characters of a line that an error message shows at most."""
_CUT = b"... the log is cut here: it has reached its limit of %d bytes"


def log_path(root: str, uid: bytes, action: int, attempt: int) -> str:
    """The log file of an attempt's container."""
    return os.path.join(root, uid.hex(), f"{action}.{attempt}.log")


class LogSink:
    """Takes the lines of one container. A process that joins the container later goes on after the last whole line in
    the file. The file is the owner's alone, as a program may log anything."""

    def __init__(self, path: str, prefix: str | None, redactor: Redactor, *, limit: int = LIMIT) -> None:
        self.path = path
        self.tail: deque[str] = deque(maxlen=TAIL)
        self._prefix = prefix
        self._redactor = redactor
        make_private(os.path.dirname(path))
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = open(os.open(path, flags, 0o600), "ab", buffering=0)  # noqa: SIM115 - closed in `close`
        self._room = limit
        self._full = False
        self._limit = limit
        self.lines = self._read_back()

    def _read_back(self) -> int:
        """The number of whole lines in the file; the rest after the last whole line is cut off."""
        lines = whole = 0
        with open(self.path, "rb") as stream:  # buffered: an unbuffered file is read byte by byte
            for line in stream:
                self._full = self._full or line.startswith(_CUT[:24])
                if line.endswith(b"\n"):
                    lines += 1
                    whole += len(line)
                    self._remember(line[:-1])
        self._file.truncate(whole)
        self._room -= whole
        return lines

    def take(self, line: LogLine) -> None:
        """Write one more line, without the secrets."""
        data = self._redactor.data(line.data, opens=line.opens, closes=line.closes)
        self._write(data + b"\n")
        self._remember(data)
        if self._prefix is not None:
            text = harmless_log(data).decode("utf-8", "replace")
            try:
                # In a context without a task: the file has the line already, and the task's own output needs no second.
                Context().run(sys.stderr.write, f"{self._prefix}{text}\n")
            except (OSError, ValueError, AttributeError):
                # The terminal is gone (a closed pipe, say); the file goes on.
                self._prefix = None

    def _write(self, data: bytes) -> None:
        if self._full:
            return
        if len(data) > self._room:
            data, self._full = _CUT % self._limit + b"\n", True
        self._room -= len(data)
        self._file.write(data)

    def _remember(self, data: bytes) -> None:
        self.tail.append(data[: 4 * _LINE_SHOWN].decode("utf-8", "replace")[:_LINE_SHOWN])

    def close(self) -> None:
        """No more lines."""
        self._file.close()


async def follow(engine: ContainerEngine, id: str, sink: LogSink) -> None:
    """Take the lines of a container until the container ends."""
    async for line in engine.logs(id, skip=sink.lines):
        sink.take(line)
        sink.lines += 1


async def last_lines(following: asyncio.Future[None], name: str) -> None:
    """Wait for the last lines of an ended container; `name` is the task's."""
    try:
        async with asyncio.timeout(LOG_SECONDS):
            await asyncio.shield(following)
    except TimeoutError:
        log.warning("%s: the last log lines did not come within %g s", name, LOG_SECONDS)
    except Exception as error:
        # Never a fault of the program in the container.
        log.warning("%s: log lines may be missing: %s", name, error)
