"""The log of a trial: a program under attack writes the executed steps and the outcomes given to its body to a file.

The module needs nothing but the standard library. The kit copies the file into the directory of each trial, so a
program of any system can say `from outside import executed, note, result`. The log lies outside of the system under
attack. Each line is a single `write` to a file opened for appending, so lines of several processes never mix, and no
kill loses a written line.

A line is a JSON list: process, life, time, kind, name, value. The kinds:

- `begin` NAME: the step begins to execute; `end` NAME: the step has had its effect, and returns next;
- `seen` NAME VALUE: the body has been given the outcome of the step;
- `got` NAME VALUE: the same in a thread of the body, where the system promises no order;
- `at` NAME VALUE: the body has reached a place.

`CONFORMANCE_KILL=KIND:NAME` makes the process send SIGKILL to its own group right behind the named line. A kill from
the outside would come some milliseconds later, at another place in each trial.
"""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

LIFE = int(os.environ.get("CONFORMANCE_LIFE", "1"))
"""The number of this process among the processes of the run, counted from 1."""
FOLDER = os.path.dirname(os.path.abspath(__file__))
_kill = os.environ.get("CONFORMANCE_KILL", "")
_log = os.path.join(FOLDER, "log")


def note(kind: str, name: str = "", value: Any = None) -> None:
    """Write a line, and die where the trial has named the line for a kill."""
    line = json.dumps([os.getpid(), LIFE, time.monotonic(), kind, name, value]) + "\n"
    descriptor = os.open(_log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)
    if _kill == f"{kind}:{name}":
        os.killpg(0, signal.SIGKILL)
        while True:
            signal.pause()


def executed(name: str, value: Any = None, seconds: float = 0.0) -> Any:
    """The inside of a step: begin, work for `seconds`, end, and return `value`."""
    note("begin", name)
    if seconds:
        time.sleep(seconds)
    note("end", name)
    return value


def result(value: Any) -> None:
    """Keep the result of the run for the judge."""
    _kept({"value": value})


def failure(error: BaseException) -> None:
    """Keep the failure of the run for the judge."""
    _kept({"error": f"{type(error).__name__}: {error}"})


def _kept(data: dict[str, Any]) -> None:
    part = os.path.join(FOLDER, f"result-{os.getpid()}")
    with open(part, "w") as stream:
        json.dump(data, stream)
    os.replace(part, os.path.join(FOLDER, "result"))
