"""A directory with scripts that say `import flyte`, and the commands that execute the scripts there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

from tests.waiting import PATIENCE

HEAD = """
import os, signal, sys
import flyte

env = flyte.TaskEnvironment(name="script")

def mark(text):
    with open("marks", "a") as marks:
        marks.write(text + "\\n")
    count = len(open("marks").read().split())
    if str(count) == os.environ.get("KILL_AT"):
        os.kill(os.getpid(), signal.SIGKILL)
"""
"""Begins a script: `mark(text)` notes that code was executed, and kills the process at the KILL_AT-th mark."""


class Scripts:
    """See the module text."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def write(self, body: str, name: str = "script.py") -> None:
        (self.directory / name).write_text(HEAD + textwrap.dedent(body), encoding="utf-8")

    def start(self, *words: str, kill_at: int = 0, **settings: str) -> subprocess.Popen[str]:
        """Begin `python -m WORDS`."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PERDURE")}
        return subprocess.Popen(
            [sys.executable, "-m", *words], cwd=self.directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, env={**environment, "KILL_AT": str(kill_at), **settings},
        )  # fmt: skip

    def run(self, *words: str, kill_at: int = 0, code: int = 0) -> str:
        """`python -m perdure.flyte WORDS` to its end; returns stdout, and stderr where the command fails."""
        process = self.start("perdure.flyte", *words, kill_at=kill_at)
        out, err = process.communicate(timeout=PATIENCE)
        expected = -signal.SIGKILL if kill_at else code
        assert process.returncode == expected, (process.returncode, out, err)
        return err if code else out

    def perdure(self, *words: str) -> str:
        """`perdure WORDS`; returns stdout."""
        process = self.start("perdure", *words)
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
        return out

    def marks(self) -> list[str]:
        """The marks since the last call."""
        path = self.directory / "marks"
        found = path.read_text(encoding="utf-8").split() if path.exists() else []
        path.unlink(missing_ok=True)
        return found
