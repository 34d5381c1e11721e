"""Tasks that workers serve. What a step does outside of perdure is a line in the file LAB_LOG."""

from __future__ import annotations

import ctypes
import json
import os
import re
import threading
import time
from pathlib import Path

import perdure
from perdure.extras import durable_sleep

env = perdure.TaskEnvironment(name="served")


def boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def log(kind: str, *fields: object) -> None:
    fd = os.open(os.environ["LAB_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, json.dumps([os.getpid(), boot(), kind, *fields]).encode() + b"\n")
    os.close(fd)


@perdure.trace
def step(name: str, seconds: float = 0.0) -> str:
    """A step of so long; it is begun and has happened."""
    if seconds:
        log("begins", name)
        time.sleep(seconds)
    log("step", name)
    return name


@env.task
def ticking(tag: str, count: int = 5, seconds: float = 0.02) -> int:
    """A step now and then."""
    for number in range(count):
        step(f"{tag}.{number}", seconds)
    return count


def hold_interpreter(work: str, seconds: float) -> None:
    """Hold the interpreter's lock for at least so long, in one call of C code."""
    if work == "usleep":
        # PyDLL keeps the lock, unlike CDLL: so does an extension module that never releases the lock.
        ctypes.PyDLL(None).usleep(int(seconds * 1_000_000))
        return
    size, took = 1, 0.0
    while took < seconds:
        began = time.monotonic()
        if work == "match":
            re.match("(a+)+$", "a" * (18 + size) + "b")
        elif work == "range":
            sum(range(10_000_000 << size))
        else:
            pow(3, 3_000_000 << size)
        took = time.monotonic() - began
        size += 1


@env.task
def holding(tag: str, work: str, seconds: float) -> str:
    """A step that holds the interpreter's lock, so that no other thread of the process runs."""
    log("begins", tag)
    hold_interpreter(work, seconds)
    return step(tag)


@env.task
async def holding_async(tag: str, work: str, seconds: float) -> str:
    """The same on the event loop."""
    log("begins", tag)
    hold_interpreter(work, seconds)
    return await step.aio(tag)


@env.task
def waits_for_file(tag: str, path: str) -> str:
    """Records nothing until the file is there."""
    log("begins", tag)
    while not os.path.exists(path):
        time.sleep(0.01)
    return step(tag)


@env.task
async def waking(tag: str, seconds: float) -> float:
    """A sleep, and a step behind it."""
    await durable_sleep.aio(seconds)
    await step.aio(tag)
    return boot()


@env.task
def sync_waking(tag: str, seconds: float) -> float:
    """The same, sync."""
    durable_sleep(seconds)
    step(tag)
    return boot()


@env.task
async def stepwise(tag: str, count: int, seconds: float) -> int:
    """Steps between sleeps."""
    for number in range(count):
        await step.aio(f"{tag}.{number}")
        await durable_sleep.aio(seconds)
    return count


@env.task
def nested(depth: int) -> int:
    """Sync tasks within each other, each in a thread of its own where `deep` calls them."""
    return depth if depth == 0 else nested(depth - 1)


@env.task
async def deep(depth: int) -> int:
    """A task in another kind of body than its caller's, again and again."""
    return depth if depth == 0 else await sync_deep.aio(depth - 1)


@env.task
def sync_deep(depth: int) -> int:
    """See `deep`."""
    return depth if depth == 0 else deep(depth - 1)


@env.task
async def blocks(path: str) -> None:
    """A body that blocks its event loop until a process has opened and closed the named pipe."""
    Path(path).read_bytes()


@env.task
def computes(tag: str) -> None:
    """A body that comes to no end, and calls nothing durable any more."""
    step(tag)
    threading.Event().wait()


@env.task
async def spins(tag: str) -> None:
    """The same on the event loop."""
    await step.aio(tag)
    while True:
        pass


@env.task
def fickle(tag: str) -> str:
    """Asks for something else in each process."""
    step(f"{tag}.{os.getpid()}")
    return step(f"{tag}.end", 30.0)


@env.task
def reading() -> str:
    """Which file this is."""
    return __file__
