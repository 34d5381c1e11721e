"""A clock that tests move forwards, so that a sleep of an hour takes no time.

`VirtualClock` goes on as the machine's clocks do and jumps where a test says so. Stores, workers, the timers of event
loops and the pauses of a serving worker all count on the same clock: plain timers of a body jump along with recorded
deadlines. Nothing is frozen, so what perdure does by itself in real milliseconds still happens.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from perdure.core.body import waits
from perdure.core.body.loop import PerdureLoop
from perdure.core.ground import clock as ground_clock
from perdure.core.ground.clock import US, SystemClock
from perdure.core.process import serving, worker
from perdure.core.run.driver import Driver
from perdure.store.sqlite import store as sqlite

REARM = 0.02
"""Seconds until a sleeper looks at the clock again, instead of half a minute: the clock may have jumped."""
LONGEST_POLL = 0.02
"""The same for a serving worker."""
JUST_AFTER = 1000
"""Microseconds behind a deadline that a jump ends at."""


class VirtualClock:
    """The machine's clocks, and some jumps further. All jumps are forwards."""

    def __init__(self) -> None:
        self._machine = SystemClock()
        self.boot_id = self._machine.boot_id
        self._ahead = 0

    def wall(self) -> int:
        return self._machine.wall() + self._ahead

    def boot(self) -> int:
        return self._machine.boot() + self._ahead

    def seconds(self) -> float:
        return ground_clock.seconds() + self._ahead / US

    def advance(self, seconds: float) -> None:
        """Jump so far ahead. Who sleeps notices within `REARM` seconds."""
        self._ahead += int(seconds * US)

    @classmethod
    def install(cls, monkeypatch: pytest.MonkeyPatch) -> VirtualClock:
        """Have every store and worker that is made from here on, and all loops, count on a new clock."""
        clock = cls()
        monkeypatch.setattr(sqlite, "SystemClock", lambda: clock)
        monkeypatch.setattr(PerdureLoop, "time", lambda self: clock.seconds())
        monkeypatch.setattr(waits, "REARM", REARM)
        monkeypatch.setattr(serving, "seconds", clock.seconds)
        monkeypatch.setattr(serving, "LAST_POLL", LONGEST_POLL)
        return clock


def left_until_next(worker: worker.Worker, tasks: object) -> int | None:
    """Microseconds until something happens by itself in a worker that serves; `None` while something is under way."""
    due = worker.store.next_due(tasks)  # type: ignore[arg-type]
    lefts = [] if due is None else [int(due * US)]
    for driver in list(worker.drivers.values()):
        left = _on_its_loop(driver, driver.rest)
        if left is None or (driver.park_after is not None and left > driver.park_after * US):
            return None  # it moves, or is about to be parked
        lefts.append(left)
    return None if not lefts or min(lefts) <= 0 else min(lefts)


def _on_its_loop(driver: Driver, look: Callable[[], int | None]) -> int | None:
    found: list[int | None] = []
    done = threading.Event()

    def ask() -> None:
        found.append(look())
        done.set()

    driver.loop.soon(ask)
    return found[0] if done.wait(5) else None
