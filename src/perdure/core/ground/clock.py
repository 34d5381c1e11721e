"""The only module that reads the system clock.

There are two clocks, in integer microseconds. *wall* counts from the Unix epoch: people see this clock, and it may
step. *boot* counts from the boot of the machine, suspend included: this clock never steps, and all processes of the
same boot share it. The identity of the boot tells whether two readings of *boot* may be compared.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple, Protocol, TypeVar

T = TypeVar("T")
US: Final = 1_000_000
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)


def moment(at: int) -> datetime:
    """Microseconds since the Unix epoch as a time in UTC."""
    return EPOCH + timedelta(microseconds=at)


class Clock(Protocol):
    """The clock of the core; tests inject a virtual clock."""

    boot_id: str

    def wall(self) -> int:
        """Microseconds since the Unix epoch."""

    def boot(self) -> int:
        """Microseconds since boot, suspend included."""


class Deadline(NamedTuple):
    """A moment that outlives the process: by the boot clock within a boot, by the wall clock beyond (P7)."""

    wall: int
    boot: int | None
    boot_id: str | None

    @classmethod
    def after(cls, seconds: float, clock: Clock) -> Deadline:
        """The moment `seconds` from now."""
        span = int(seconds * US)
        return cls(clock.wall() + span, clock.boot() + span, clock.boot_id)

    def remaining(self, clock: Clock) -> int:
        """Microseconds left; zero or less when the deadline has passed."""
        if self.boot is not None and self.boot_id == clock.boot_id:
            return self.boot - clock.boot()
        return self.wall - clock.wall()


class _Shift:
    """How far a test has put the clocks of this process ahead, in microseconds. Zero outside of tests."""

    boot = 0
    """Of the boot clock, and of all time limits within the process."""
    wall = 0
    on = False
    """A virtual clock is in use, which may jump at any moment."""


_shift = _Shift()


def shift(boot: int, wall: int, *, on: bool) -> None:
    """Put all clocks of this process that far ahead of the machine's; for `perdure.testing.virtual_time`."""
    _shift.boot, _shift.wall, _shift.on = boot, wall, on


class SystemClock:
    """The machine's clocks."""

    def __init__(self) -> None:
        self.boot_id = _boot_id()

    def wall(self) -> int:
        return time.time_ns() // 1000 + _shift.wall

    if sys.platform == "darwin":
        # The boot clock: Darwin's CLOCK_MONOTONIC goes on while the machine sleeps.
        def boot(self) -> int:
            return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000 + _shift.boot

    else:

        def boot(self) -> int:
            return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000 + _shift.boot


def wall() -> int:
    """Microseconds since the Unix epoch."""
    return time.time_ns() // 1000 + _shift.wall


cpu = time.thread_time_ns
"""Nanoseconds of CPU time of the calling thread: stalls of the machine do not count."""

process_cpu = time.process_time_ns
"""Nanoseconds of CPU time of the process."""

perf = time.perf_counter_ns
"""Nanoseconds of a fast monotonic clock, for durations within the process. No wrapper, because of hot paths."""


def _boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        pass
    if sys.platform == "darwin":
        import subprocess

        command = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.returncode == 0:
            return answer.stdout.strip()
    # Without an identity every process counts as another boot, and deadlines fall back to the wall clock after a
    # restart.
    import uuid

    return uuid.uuid4().hex


def seconds() -> float:
    """Seconds on a monotonic clock, for time limits and pauses within the process."""
    return machine_seconds() + _shift.boot / US


def machine_seconds() -> float:
    """The same of the machine, also under a virtual clock: for callers outside of runs."""
    return perf() / 1e9


def loop_seconds() -> float:
    """The clock of event loops, in seconds."""
    return time.monotonic() + _shift.boot / US


LOOK_SECONDS = 0.01
"""How often a thread with a time limit looks at a virtual clock."""


def result_within(future: Future[T], limit: float | None) -> T:
    """The result of `future`.

    Raises:
        TimeoutError: `limit` seconds have passed before.
    """
    if limit is None or not _shift.on:
        return future.result(limit)
    end = seconds() + limit
    while True:
        try:
            return future.result(min(LOOK_SECONDS, max(0.0, end - seconds())))
        except TimeoutError:
            if future.done() or seconds() >= end:
                raise
