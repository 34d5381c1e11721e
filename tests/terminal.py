"""A command on a terminal of its own, for tests of what a person sees."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
from pathlib import Path

from tests.waiting import wait_for


class Terminal:
    """`perdure WORDS...` with standard input, output and error on a pseudo-terminal."""

    def __init__(self, path: Path, env: dict[str, str], *words: str, rows: int = 30, columns: int = 120) -> None:
        self._leader, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "perdure", *words], cwd=path,
            env=env | {"TERM": "xterm-256color", "LINES": str(rows), "COLUMNS": str(columns)},
            stdin=follower, stdout=follower, stderr=follower, start_new_session=True,
        )  # fmt: skip
        os.close(follower)
        self.seen = b""

    def read(self, patience: float = 0.1) -> bytes:
        """What has come since the last call."""
        if not select.select([self._leader], [], [], patience)[0]:
            return b""
        try:
            part = os.read(self._leader, 65536)
        except OSError:  # the other end is closed
            return b""
        self.seen += part
        return part

    def until(self, text: str) -> None:
        """Wait until the text has been shown."""

        def shows() -> bool:
            self.read()
            return text.encode() in self.seen

        wait_for(shows, story=lambda: f"{text!r} is not in {self.seen.decode(errors='replace')[-3000:]}")

    def type(self, keys: str) -> None:
        os.write(self._leader, keys.encode())

    def close(self) -> None:
        """End the process, if it has not ended."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._leader)
