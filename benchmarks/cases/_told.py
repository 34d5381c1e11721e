"""How soon another process hears: the protocol that the cases of perdure, dbos and restate share.

A body in another process tells the times of its lines through a datagram socket or in its result, beside the durable
path. `perf_counter` is the monotonic clock of the machine, so the readings of two processes can be subtracted.
"""

from __future__ import annotations

import random
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles
from time import perf_counter, sleep
from typing import Protocol

from _common import PAUSE, PAUSES, emit

WARM = 5
"""Rounds before the first round that counts."""
WORK = 0.02
"""Seconds between the first and the last line of a run, so that the caller waits when the run ends."""
PATIENCE = 60.0


class System(Protocol):
    """What a case does with its own program."""

    def listen(self, count: int, address: str) -> None:
        """Start a body that receives so many messages, and tells the address the time of the line behind each. The
        body tells a first time when it listens."""

    def send(self, number: int, word: str) -> None:
        """Send the message of that number. `word` is the last word that the body has told."""

    def submit(self) -> Callable[[], Sequence[float]]:
        """Submit a run that takes `WORK` seconds. The function waits for its result, the times of the first and the
        last line."""


@contextmanager
def reporter(address: str) -> Iterator[Callable[[float, str], None]]:
    """For a body: tells the case a time, and a word with the time."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:

        def tell(now: float, word: str) -> None:
            sender.sendto(f"{now!r} {word}".encode(), address)

        yield tell


@contextmanager
def _hearing() -> Iterator[tuple[str, Callable[[], tuple[float, str]]]]:
    """For a case: the address for its body, and a function that waits for the next time and its word."""
    with (
        # The address of a socket has about 100 bytes at most, so the directory of the case may be too deep.
        tempfile.TemporaryDirectory(prefix="bench-") as directory,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as hears,
    ):
        address = str(Path(directory) / "told")
        hears.bind(address)
        hears.settimeout(PATIENCE)

        def told() -> tuple[float, str]:
            now, _, word = hears.recv(4096).decode().partition(" ")
            return float(now), word

        yield address, told


def _rests(count: int, polling: float) -> Iterator[int]:
    """Rounds with pauses before them: short, and now and then longer, so that a worker that has gone to rest is met
    too. A system that polls is met at any moment of its interval."""
    chance = random.Random(1)
    for number in range(WARM + count):
        sleep((PAUSES if number % 20 == 0 else PAUSE) + chance.uniform(0, polling))
        yield number


def _messages(system: System, count: int, polling: float) -> list[float]:
    """Milliseconds from the call that sends a message to the line behind the message."""
    times = []
    with _hearing() as (address, told):
        system.listen(WARM + count, address)
        _, word = told()
        for number in _rests(count, polling):
            sent = perf_counter()
            system.send(number, word)
            heard, word = told()
            times.append((heard - sent) * 1000)
    return times[WARM:]


def _runs(system: System, count: int, polling: float) -> tuple[list[float], list[float]]:
    """Milliseconds from the submission of a run to its first line, and from its last line to the result here."""
    starts, ends = [], []
    for _ in _rests(count, polling):
        submitted = perf_counter()
        first, last = system.submit()()
        ends.append((perf_counter() - last) * 1000)
        starts.append((first - submitted) * 1000)
    return starts[WARM:], ends[WARM:]


def measure(system: System, messages: int, runs: int, polling: float = 0.0) -> None:
    """Measure both, and print the figures: the median of the messages, and the others beside it. `polling` is the
    interval in seconds at which the system polls, if it does."""
    times = _messages(system, messages, polling)
    starts, ends = _runs(system, runs, polling)
    figures: dict[str, float] = {}
    for name, taken in (("message", times), ("start", starts), ("end", ends)):
        cuts = quantiles(taken, n=100, method="inclusive")
        figures |= {name: cuts[49], f"{name}_p99": cuts[98]}
    emit(figures.pop("message"), "ms", p99=figures.pop("message_p99"), count=messages, runs=runs, **figures)
