"""A clock that jumps, so that a workflow that sleeps for a year is tested in milliseconds.

`virtual_time` puts all clocks of this process under the control of a test: stores, workers, schedules, the deadlines of
runs and the timers of the event loops that execute bodies. The clocks go on as the machine's clocks do. While a caller
waits for a run and every branch of every run waits for time, they jump to the next moment at which something happens.

- VT1 the clock jumps on its own only while a caller outside of all runs waits for a run (`perdure.run`, `Run.wait`).
- VT2 the clock never jumps while code of a body or a trace can go on, or a commit or a message is under way, and never
  beyond the next moment for which something waits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from .. import runtime
from ..api.arrivals import callers_wait
from ..core.body.loop import LoopStillness, LoopThread
from ..core.ground import clock as ground
from ..core.ground.clock import US, moment
from ..core.process.worker import Worker
from ..core.run.driver import Driver
from ..errors import UsageError
from ..store import is_postgres

__all__ = ["VirtualClock", "virtual_time"]

PATIENCE = 30.0
"""Real seconds for which `advance` waits for runs that are at work."""
PAUSE = 0.001
"""Real seconds between two looks at least."""
SAME = 1000
"""Microseconds by which two looks at the same deadline may differ."""
ANSWER = 5.0
"""Real seconds within which a loop has to answer."""


class Still(NamedTuple):
    """All runs of this process wait."""

    version: int
    """The version of the store."""
    until: int | None
    """The boot clock of the next moment at which something happens by itself; `None`: nothing will."""


class VirtualClock:
    """The clocks of this process; see `virtual_time`."""

    def __init__(self, at: datetime | None) -> None:
        if at is not None and at.tzinfo is None:
            raise UsageError(f"virtual_time: {at!r} has no time zone; write datetime(..., tzinfo=UTC), say")
        self._machine = ground.SystemClock()
        self._boot = 0
        self._wall = 0 if at is None else int((at - moment(ground.wall())) / timedelta(microseconds=1))
        self._lock = threading.Lock()
        """Held while the clocks are put ahead."""
        ground.shift(0, self._wall, on=True)

    @property
    def now(self) -> datetime:
        """The present time of this clock, in UTC."""
        return moment(ground.wall()).astimezone(UTC)

    def advance(
        self, by: timedelta | None = None, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0
    ) -> None:
        """Let so much time pass. All that is due meanwhile happens in order, each at its moment: before each jump, and
        at the end, the clock waits until every run of this process waits for time or for a message.

        Raises:
            TimeoutError: a run is at work and does not come to rest.
        """
        span = (by or timedelta()) + timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        if span < timedelta():
            raise UsageError(f"a virtual clock goes forwards only, not by {span}")
        self._advance_to(self._machine.boot() + int(span / timedelta(microseconds=1)))

    def to(self, at: datetime) -> None:
        """Let the time pass until `at`, as `advance` does.

        Raises:
            TimeoutError: a run is at work and does not come to rest.
        """
        if at.tzinfo is None:
            raise UsageError(f"clock.to: {at!r} has no time zone; write datetime(..., tzinfo=UTC), say")
        if at < self.now:
            raise UsageError(f"a virtual clock goes forwards only: it is {self.now}, which is later than {at}")
        self.advance(at - self.now)

    def jump(self, seconds: float) -> None:
        """Put all clocks ahead at once, also while code is at work. Deadlines within that span are late by then."""
        self._put_ahead(int(seconds * US))

    def _put_ahead(self, by: int) -> None:
        with self._lock:
            self._boot += by
            self._wall += by
            ground.shift(self._boot, self._wall, on=True)
        if runtime.is_open():
            runtime.worker().look_at_clock()

    # -- waiting until all runs wait ------------------------------------------------------------------------------

    def _advance_to(self, end: int) -> None:
        patience = ground.machine_seconds() + PATIENCE
        while True:
            still = self._settled(patience)
            target = end if still.until is None else min(end, still.until)
            left = target - self._machine.boot()
            if left > 0:
                self._put_ahead(left)
                patience = ground.machine_seconds() + PATIENCE
            elif self._machine.boot() >= end:
                return

    def _settled(self, patience: float) -> Still:
        """Wait until all runs wait, twice in a row: between a claim and its driver, nothing shows that a run is under
        way."""
        before = None
        while True:
            still = look()
            if still is not None and _same(still, before) and not _is_due(still, self._machine.boot()):
                return still
            before = still
            if ground.machine_seconds() > patience:
                raise TimeoutError(f"the clock cannot go on, because something is at work: {_at_work()}")
            time.sleep(PAUSE)

    def follow(self, stopped: threading.Event) -> None:
        """Jump from moment to moment while a caller waits, until `stopped` is set."""
        before: Still | None = None
        while not stopped.wait(PAUSE):
            if not callers_wait():
                before = None
                continue
            still = look()
            if still is None or not _same(still, before):
                before = still
                continue
            before = None
            if still.until is not None and callers_wait() and (left := still.until - self._machine.boot()) > 0:
                self._put_ahead(left)


def _refuse_server_clock(url: str) -> None:
    if is_postgres(url):
        raise UsageError("virtual_time: a Postgres store follows the clock of its server; use memory:// or a file")


def _same(still: Still, before: Still | None) -> bool:
    """Whether two looks in a row have found the same."""
    if before is None or still.version != before.version or (still.until is None) != (before.until is None):
        return False
    # Several clocks are read one after the other.
    return still.until is None or before.until is None or abs(still.until - before.until) < SAME


def _is_due(still: Still, now: int) -> bool:
    return still.until is not None and still.until <= now


def look() -> Still | None:
    """Whether all runs of this process wait, and until when; `None` while anything is under way."""
    if not runtime.is_open():
        return Still(0, None)
    worker = runtime.worker()
    _refuse_server_clock(worker.store.url)
    version = worker.store.version()
    drivers = list(worker.drivers.values())
    # Messages that are on disk come first.
    worker.post.look()
    lefts = _of_runs(worker, drivers)
    if lefts is None:
        return None
    for server in list(worker.servers):
        of_server = server.still()
        if of_server is None:
            return None
        lefts += of_server
    if not worker.idle or list(worker.drivers.values()) != drivers or worker.store.version() != version:
        return None
    now = worker.clock.boot()
    return Still(version, now + min(lefts) if lefts else None)


def _of_runs(worker: Worker, drivers: list[Driver]) -> list[int] | None:
    """Microseconds left of all that the driven runs wait for; `None` while one moves."""
    lefts: list[int] = []
    traces: dict[object, int] = {}
    for driver in drivers:
        for body in list(driver.bodies.values()):
            still = body.still()
            if still is None:
                return None
            lefts += still.lefts
            if still.traces:
                traces[body] = still.traces
        if not driver.still():
            return None
    for loop in worker.loops.existing():
        if loop.blocked:
            continue
        found = _on_loop(loop)
        if found is None:
            return None
        lefts += [int(left * US) for left in found.lefts]
        for body_of_trace, timers in found.traces.items():
            if traces.get(body_of_trace, 0) <= timers:
                traces.pop(body_of_trace, None)
    # A trace without a timer waits for something else than time.
    return None if traces else lefts


def _on_loop(loop: LoopThread) -> LoopStillness | None:
    found: list[LoopStillness | None] = []
    done = threading.Event()

    def ask() -> None:
        found.append(loop.loop.still())
        done.set()

    # Behind what has woken the loop.
    loop.soon(loop.soon, ask)
    return found[0] if done.wait(ANSWER) else None


def _at_work() -> str:
    names = [driver.run.name for driver in list(runtime.worker().drivers.values()) if not driver.still()]
    return f"run {', '.join(names[:3])}" if names else "the worker, or a trace that waits for something else than time"


@contextmanager
def virtual_time(at: datetime | None = None, *, auto: bool = True) -> Iterator[VirtualClock]:
    """Within the block, time jumps: `with virtual_time() as clock:`. While the test waits for a run (`perdure.run`,
    `Run.wait`) and every branch of every run waits for time, the clock jumps to the next deadline. `clock.advance` and
    `clock.to` let time pass by hand.

    Sleeps, timeouts, retries, schedules and workers follow, as do `asyncio.sleep` and `asyncio.timeout` in bodies and
    traces. `time.sleep`, `datetime.now`, containers, other processes and other event loops stay on the machine's clock.
    At the end of the block the clocks go back, so the block needs a store of its own.

    Args:
        at: the time at which the clock begins, with a time zone; now by default.
        auto: `False`: the clock jumps by `advance`, `to` and `jump` alone.

    Raises:
        UsageError: `at` has no time zone, or the store in use is a Postgres database.
    """
    _refuse_server_clock(runtime.store_url())
    clock = VirtualClock(at)
    stopped = threading.Event()
    follower = threading.Thread(target=clock.follow, args=(stopped,), name="perdure-virtual-clock", daemon=True)
    if auto:
        follower.start()
    try:
        yield clock
    finally:
        stopped.set()
        if auto:
            follower.join()
        ground.shift(0, 0, on=False)
