"""What the workflows under test are made of: steps that leave a mark outside of perdure, and a log of what bodies see.

Every line is one `write` to a file opened with O_APPEND, so that the line survives any later kill.
"""

from __future__ import annotations

import _thread
import asyncio
import json
import os
import random
import sys
import time
from collections.abc import Callable
from typing import Any

import perdure

env = perdure.TaskEnvironment(name="lab", executor=os.environ.get("LAB_EXECUTOR", "local"))  # type: ignore[arg-type]

NAP = 0.005
_fd = -1

_sights: dict[str, list[str]] = {}
"""What each line has shown in this process."""
_places: dict[str, int] = {}
"""How much of it the line has shown since the run was started or resumed last."""

waiting: list[Any] | None = None
"""A list while a warm host imports a script that its children will run: `main` leaves its arguments there."""


def boot() -> float:
    """Seconds since boot: the same clock in every process."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def log(kind: str, *fields: Any) -> None:
    """One line of the outside log."""
    global _fd
    if _fd < 0:
        _fd = os.open(os.environ["LAB_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(_fd, json.dumps([os.getpid(), boot(), kind, *fields]).encode() + b"\n")


def see(line: str, what: Any) -> None:
    """What a body observes on one of its lines of control flow: replay must show the same, in the same order. Where
    this process resumes a paused run, what a line shows again is not logged a second time."""
    known, text = _sights.setdefault(line, []), json.dumps(what)
    place = _places[line] = _places.get(line, 0) + 1
    if place > len(known):
        known.append(text)
        log("see", line, what)
    elif known[place - 1] != text:
        log("see", line, ["differs after a resume", what])


class LabError(Exception):
    """A step's own failure."""


def _really(seconds: float) -> float:
    return seconds if seconds >= 0 else random.random() * -seconds


def _end(name: str, fail: bool) -> str:
    if fail:
        raise LabError(name)
    return name


@perdure.trace
async def step(name: str, seconds: float = 0.0, fail: bool = False) -> str:
    """An async step. Negative seconds: a random time up to that many, another one each time."""
    log("executed", name)
    if seconds:
        await asyncio.sleep(_really(seconds))
    return _end(name, fail)


@perdure.trace
def sync_step(name: str, seconds: float = 0.0, fail: bool = False) -> str:
    """A sync step."""
    log("executed", name)
    if seconds:
        time.sleep(_really(seconds))
    return _end(name, fail)


@perdure.trace
def items(name: str, count: int, fail_at: int = -1) -> Any:
    """A generator of steps."""
    log("opened", name)
    try:
        for number in range(count):
            if number == fail_at:
                raise LabError(f"{name}{number}")
            log("yields", f"{name}{number}")
            yield f"{name}{number}"
    finally:
        log("closed", name)


@perdure.trace
async def async_items(name: str, count: int, fail_at: int = -1, seconds: float = 0.0) -> Any:
    """An async generator of steps."""
    log("opened", name)
    try:
        for number in range(count):
            if number == fail_at:
                raise LabError(f"{name}{number}")
            log("yields", f"{name}{number}")
            if seconds:
                await asyncio.sleep(_really(seconds))
            yield f"{name}{number}"
    finally:
        log("closed", name)


def tries(name: str) -> int:
    """How often a step of that name has been executed before, in any process: for steps that fail at first."""
    with open(os.environ["LAB_LOG"]) as stream:
        return sum(1 for line in stream if json.loads(line)[2:4] == ["executed", name])


@perdure.trace
async def flaky(name: str, failures: int) -> str:
    """A step that fails the first times it is executed."""
    before = tries(name)
    log("executed", name)
    return _end(name, before < failures)


@perdure.trace
def sync_flaky(name: str, failures: int) -> str:
    """The same, sync."""
    before = tries(name)
    log("executed", name)
    return _end(name, before < failures)


def _yardstick() -> None:
    """Note where a bare timer of this process comes late: then the machine is busy, and so may perdure's timers be."""
    while True:
        before = boot()
        time.sleep(NAP)  # how late a sleep of this length ends is what is measured
        over = boot() - before - NAP
        if over > 0.02:
            log("stall", over)


def _unpaused(task: Any) -> perdure.Run:
    """The run, resumed as often as the run or its task is paused."""
    try:
        return perdure.with_runcontext(name="r").run(task)
    except perdure.errors.RunPausedError:
        while True:
            _places.clear()
            for paused in perdure.paused_tasks():
                perdure.resume_task(paused)
            try:
                return perdure.Run.get("r").resume()
            except perdure.errors.RunPausedError:
                pass


def main(tasks: dict[str, Any], plain: Callable[[Any], Any] = lambda value: value) -> None:
    """Run the task named on the command line as run "r", and print how it ended."""
    if waiting is not None:
        waiting[:] = [tasks, plain]
        return
    log("alive")
    # Not one of `threading`'s, which perdure would count among the body's own.
    _thread.start_new_thread(_yardstick, ())
    name = sys.argv[1]
    try:
        run = _unpaused(tasks[name])
    except perdure.errors.RunCancelledError as error:
        print(json.dumps({"value": str(error)}))
    except Exception as error:
        print(json.dumps({"error": type(error).__name__, "text": str(error)}))
    else:
        print(json.dumps({"value": plain(run.result)}))
