"""What a container writes: into a file, live to the terminal, and its last lines for error messages."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections import deque
from collections.abc import Iterable

from .engine import ContainerEngine, LogLine

log = logging.getLogger("perdure")

LOG_SECONDS = 5.0
"""How long the last log lines of a container that has ended may take."""
TAIL = 50
"""Lines that an error message shows at most."""
_LINE_SHOWN = 1000
"""Characters of a line that it shows at most."""


def log_path(root: str, uid: bytes, action: int, attempt: int) -> str:
    """The file that holds what the container of an attempt has written."""
    return os.path.join(root, uid.hex(), f"{action}.{attempt}.log")


class LogSink:
    """Takes the lines of one container. A process that joins it later goes on after the last whole line in the file."""

    def __init__(self, path: str, prefix: str | None, secrets: Iterable[str]) -> None:
        self.path = path
        self.tail: deque[str] = deque(maxlen=TAIL)
        self._prefix = prefix
        # The longest first, as one may be a part of another.
        hidden = {s.encode("utf-8", "surrogateescape") for s in secrets if len(s) >= 4}
        self._secrets = sorted(hidden, key=len, reverse=True)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self._file = open(path, "a+b", buffering=0)  # noqa: SIM115 - closed in `close`
        self.lines = self._read_back()

    def _read_back(self) -> int:
        """How many whole lines are there; what follows the last of them is cut off."""
        lines = whole = 0
        with open(self.path, "rb") as stream:  # buffered: an unbuffered file is read byte by byte
            for line in stream:
                if line.endswith(b"\n"):
                    lines += 1
                    whole += len(line)
                    self._remember(line[:-1])
        self._file.truncate(whole)
        return lines

    def take(self, line: LogLine) -> None:
        """One more line."""
        data = line.data
        for secret in self._secrets:
            data = data.replace(secret, b"***")
        self._file.write(data + b"\n")
        self._remember(data)
        if self._prefix is not None:
            text = data.decode("utf-8", "replace")
            try:
                sys.stderr.write(f"{self._prefix}{text}\n")
            except (OSError, ValueError, AttributeError):
                # Nobody looks at it any more (a closed pipe, say); the file goes on.
                self._prefix = None

    def _remember(self, data: bytes) -> None:
        self.tail.append(data[: 4 * _LINE_SHOWN].decode("utf-8", "replace")[:_LINE_SHOWN])

    def close(self) -> None:
        """No more lines."""
        self._file.close()


async def follow(engine: ContainerEngine, id: str, sink: LogSink) -> None:
    """Take what a container writes until it ends."""
    async for line in engine.logs(id, skip=sink.lines):
        sink.take(line)
        sink.lines += 1


async def last_lines(following: asyncio.Future[None], name: str) -> None:
    """Wait for what the container of that task has written last; it has ended."""
    try:
        await asyncio.wait_for(asyncio.shield(following), LOG_SECONDS)
    except TimeoutError:
        log.warning("%s: the last log lines did not come within %g s", name, LOG_SECONDS)
    except Exception as error:
        # Whatever it is, it is no fault of the program in the container.
        log.warning("%s: log lines may be missing: %s", name, error)
