"""The port to a system under attack: start a program, kill its process, continue the run, show log and result.

`ProcessTrial` is the whole port for systems with scripts as programs. An adapter then names the command of a process,
and the files in the directory of a trial.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

OUTSIDE = Path(__file__).with_name("outside.py")
PATIENCE = 60.0
"""Seconds until a process counts as hung."""


class Unsupported(Exception):
    """The attack cannot be tried here; the message says why."""


class TrialLine(NamedTuple):
    """A line of the log of a trial; `outside` explains the kinds."""

    pid: int
    life: int
    at: float
    kind: str
    name: str
    value: Any


class Live(Protocol):
    """A process, or group of processes, with the task of driving a run."""

    life: int

    def wait(self, timeout: float = PATIENCE) -> int:
        """The exit status, negative for a signal. Kills the process and raises `TimeoutError` after the timeout."""

    def kill(self) -> None:
        """SIGKILL to every process of the group."""

    def freeze(self) -> None:
        """SIGSTOP to every process of the group."""

    def thaw(self) -> None:
        """SIGCONT to every process of the group."""


class Trial(Protocol):
    """A run of a program, in a separate directory, over all processes of the run."""

    folder: Path

    def start(self, kill_at: str | None = None, **environment: str) -> Live:
        """Begin the run in a new process. `kill_at`: the process dies by SIGKILL right behind this line of the log."""

    def again(self, kill_at: str | None = None, **environment: str) -> Live:
        """Continue the same run in another process, also while an earlier process still lives."""

    def log(self) -> list[TrialLine]:
        """The lines of the steps and of the body so far."""

    def result(self) -> Any:
        """`{"value": ...}` or `{"error": "Type: message"}`; `None` where the run has not ended."""

    def close(self) -> None:
        """End every process and remove the directory."""


class System(Protocol):
    """A system under attack."""

    name: str
    claims: frozenset[str]
    """The ids of the promises of the system. Others are reported as "not claimed"."""
    programs: frozenset[str]
    """The programs of the adapter. Attacks on other programs are reported as "not tried"."""
    outlives: bool
    """Whether a run outlives its process. With a store in memory no attack with a kill is tried."""
    lease: float
    """Seconds after which another process may continue the run of a frozen process."""

    def trial(self, program: str, folder: Path) -> Trial:
        """A new run of the program."""


class ProcessGroup:
    """A process group of this machine (see `Live`)."""

    def __init__(self, life: int, process: subprocess.Popen[bytes]) -> None:
        self.life = life
        self._process = process

    def wait(self, timeout: float = PATIENCE) -> int:
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise TimeoutError(f"process {self.life} of the run had not ended after {timeout:.0f} s") from None

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        self._process.wait()

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


class ProcessTrial:
    """A trial with scripts as processes, which import `outside` (see `Trial`)."""

    def __init__(
        self, folder: Path, command: Sequence[str], files: Mapping[str, Path], environment: Mapping[str, str]
    ) -> None:
        """Make the directory of the trial.

        Args:
            folder: the directory.
            command: the command of each process, first and later.
            files: the files to copy into the directory, by name, beside `outside.py`.
            environment: variables of each process, beside the variables of the caller.
        """
        self.folder = folder
        self.command = list(command)
        self._environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment}
        self._lives: list[ProcessGroup] = []
        folder.mkdir(parents=True)
        for name, source in {"outside.py": OUTSIDE, **files}.items():
            shutil.copyfile(source, folder / name)

    def start(self, kill_at: str | None = None, **environment: str) -> ProcessGroup:
        more = {"CONFORMANCE_LIFE": str(len(self._lives) + 1), "CONFORMANCE_KILL": kill_at or "", **environment}
        with (self.folder / "errors").open("ab") as errors:
            process = subprocess.Popen(
                self.command, cwd=self.folder, env={**self._environment, **more}, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=errors, stderr=errors,
            )  # fmt: skip
        self._lives.append(ProcessGroup(len(self._lives) + 1, process))
        return self._lives[-1]

    def again(self, kill_at: str | None = None, **environment: str) -> ProcessGroup:
        return self.start(kill_at, **environment)

    def log(self) -> list[TrialLine]:
        try:
            text = (self.folder / "log").read_text()
        except FileNotFoundError:
            return []
        return [TrialLine(*json.loads(line)) for line in text.splitlines()]

    def result(self) -> Any:
        try:
            return json.loads((self.folder / "result").read_text())
        except FileNotFoundError:
            return None

    def errors(self) -> str:
        """The end of the output of the processes."""
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / "errors").read_text(errors="replace")[-2000:]
        return ""

    def close(self) -> None:
        for live in self._lives:
            live.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def wait_for_line(
    trial: Trial, kind: str, name: str, *, life: int | None = None, timeout: float = PATIENCE
) -> TrialLine:
    """The first such line, as soon as the log holds the line.

    Raises:
        TimeoutError: no such line was written in time.
    """
    end = time.monotonic() + timeout
    while True:
        for line in trial.log():
            if (line.kind, line.name) == (kind, name) and life in (None, line.life):
                return line
        if time.monotonic() > end:
            raise TimeoutError(f"the log has no line {kind}:{name} after {timeout:.0f} s")
        time.sleep(0.01)


PYTHON = sys.executable
