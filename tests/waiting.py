"""Waiting, starting and killing processes, and judging time: the same way in every test.

A test waits for a condition, never for a length of time. How long a wait may take at most (`PATIENCE`) says nothing
about perdure: the limit only ends a test that would hang. Where a length of time is what perdure promises, `Stall`
measures beside the test how late this machine is, and the bound grows by that much.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE = 100.0
"""Seconds after which a test stops waiting: long, as a busy machine may need ten times as long as an idle one."""
POLL = 0.01
"""Seconds between two looks at a condition."""


def wait_for(condition: Callable[[], T], seconds: float = PATIENCE, story: Callable[[], object] = str) -> T:
    """Look at `condition` until it is true, and return its value.

    Args:
        condition: what is waited for; any true value ends the wait.
        seconds: when the wait fails.
        story: called when the wait fails; its text tells what the test saw.

    Raises:
        AssertionError: the condition was not true in time.
    """
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < end, f"not true within {seconds:g} s: {_name(condition)}\n{story()}"
        time.sleep(POLL)  # no event tells that any condition has become true


async def wait_for_async(condition: Callable[[], T], seconds: float = PATIENCE) -> T:
    """`wait_for` on an event loop, which goes on meanwhile."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"not true within {seconds:g} s: {_name(condition)}"
        await asyncio.sleep(POLL)
    return found


def wait_for_file(path: Path | str, text: str = "", seconds: float = PATIENCE) -> str:
    """Wait until the file is there and holds `text`; the file's content."""

    def look() -> list[str]:
        # A list, so that an empty file ends the wait as well.
        try:
            content = Path(path).read_text()
        except FileNotFoundError:
            return []
        return [content] if text in content else []

    return wait_for(look, seconds, lambda: f"{path}: {text!r}")[0]


def stays_true(condition: Callable[[], object], seconds: float, story: Callable[[], object] = str) -> None:
    """Fail as soon as `condition` is false within `seconds`: for what must not happen, which no event announces."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert condition(), f"no longer true: {_name(condition)}\n{story()}"
        time.sleep(POLL)  # as above


def _name(condition: Callable[[], object]) -> str:
    code = getattr(condition, "__code__", None)
    place = f" ({code.co_filename}:{code.co_firstlineno})" if code is not None else ""
    return getattr(condition, "__qualname__", repr(condition)) + place


# -- processes -------------------------------------------------------------------------------------------------


def kill(process: subprocess.Popen[Any]) -> None:
    """SIGKILL, and wait until the process is gone."""
    if process.poll() is None:
        process.kill()
    process.wait()


@contextmanager
def running(*command: object, **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A process in a process group of its own. The whole group is killed at the end, so that no test leaves a process
    behind, however the test ends."""
    process = subprocess.Popen([str(word) for word in command], start_new_session=True, **options)
    try:
        yield process
    finally:
        kill_group(process)


def kill_group(process: subprocess.Popen[Any]) -> None:
    """SIGKILL to a process that leads a process group (`start_new_session`) and to all that the process has started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    kill(process)


def is_stopped(pid: int) -> bool:
    """Whether SIGSTOP has taken effect on every thread of that process (Linux)."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return all((task / "stat").read_text().rpartition(")")[2].split()[0] in "Tt" for task in tasks)
    except FileNotFoundError:
        return False


def is_gone(pid: int) -> bool:
    """Whether that process has ended; a zombie has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        # Without /proc (macOS) a signal tells.
        return os.path.exists("/proc/self") or not _can_be_signalled(pid)


def _can_be_signalled(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# -- time ------------------------------------------------------------------------------------------------------


class Stall:
    """Measures, while it is open, how late this machine is: a thread sleeps for short times and notes the worst delay.

    `bound(promised)` is what a duration may take at most: what perdure promises, and some multiples of that delay. Work
    of known length on the processor is stretched by how many processes want the processors at once.
    """

    FACTOR = 4.0
    """How many delays in a row may meet one measured thing: a timer, a thread, a commit, another process."""
    NAP = 0.004

    def __init__(self) -> None:
        self.worst = 0.0
        """Seconds by which the latest of the short sleeps came late."""
        self.crowd = 1.0
        """The most runnable threads per processor, 1 at least."""
        self.took = 0.0
        """Seconds from its beginning to its end."""
        self._began = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._measure, name="stall", daemon=True)

    def __enter__(self) -> Stall:
        self._thread.start()
        self._began = time.monotonic()
        return self

    def __exit__(self, *error: object) -> None:
        self.took = time.monotonic() - self._began
        self._ended.set()
        self._thread.join()

    def _measure(self) -> None:
        processors = os.cpu_count() or 1
        while not self._ended.is_set():
            began = time.monotonic()
            time.sleep(self.NAP)
            self.worst = max(self.worst, time.monotonic() - began - self.NAP)
            self.crowd = max(self.crowd, _runnable() / processors)

    def bound(self, promised: float, work: float = 0.0) -> float:
        """The most seconds that something may take.

        Args:
            promised: the length of time that perdure promises.
            work: seconds of processor time on top, as on an idle machine: the start of an interpreter, for example.
        """
        return promised + work * self.crowd + self.FACTOR * self.worst


def _runnable() -> int:
    try:
        with open("/proc/loadavg") as file:
            return int(file.read().split()[3].partition("/")[0])
    except OSError:
        return int(os.getloadavg()[0])
