"""What the suite shares: a worker that serves in a thread, a look at what it parks, and traces that leave a mark.

In every test, no run may ever be parked beyond a deadline that it has recorded (`Watched`).
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Collection
from concurrent.futures import Future
from typing import Any

from tests.waiting import PATIENCE, wait_for

import perdure
from perdure import runtime
from perdure.core.ground.clock import US
from perdure.core.ground.model import PARKED, Kind, RunWrites, Status
from perdure.core.process.serving import ServedRun, Server
from perdure.core.process.worker import Worker
from perdure.core.run.driver import Driver
from perdure.extras import durable_sleep
from perdure.testing import VirtualClock

NAP = 60.0
"""Long enough to be parked for. The clock jumps over it."""
PARK_AFTER = 10.0
FOR_EVER = float("inf")
JUST_AFTER = 1000
"""Microseconds behind a deadline that a jump ends at."""

counts: Counter[str] = Counter()
"""How often each trace was executed."""
counts_by_run: Counter[tuple[str, str]] = Counter()
seen: list[Any] = []
"""What bodies did outside of the journal."""
gates: dict[str, Future[None]] = {}
"""What holds up a run, by its name: see `held`."""


class Watched:
    """Checks D5 at every park: the wake time is not later than a recorded deadline that is still waited for."""

    def __init__(self, store: Any) -> None:
        self.late: list[str] = []
        self.parks: Counter[int] = Counter()
        self._store = store
        self._commit = store.commit
        self.before: Callable[[Any], None] = lambda writes: None
        store.commit = self.commit

    def commit(self, writes: Any) -> Any:
        self.before(writes)
        answers = self._commit(writes)
        for write, answer in zip(writes, answers, strict=True):
            if not isinstance(write, RunWrites) or write.park is None or not answer:
                continue
            self.parks[write.run] += 1
            now = runtime.worker().clock.boot()
            for action in self._store.open_actions(write.run):
                waits = action.kind == Kind.SLEEP or (action.kind == Kind.TASK and (action.wake_boot or 0) > now)
                if waits and action.wake_boot is not None and write.park.wake.boot > action.wake_boot + 20_000:
                    self.late.append(f"run {write.run}: {action.name}, {write.park.wake.boot - action.wake_boot} us")
        return answers


class Serving:
    """A worker that serves in a thread of its own, on a clock that jumps (`finish`, `skip_until`)."""

    def __init__(
        self, tasks: Collection[Any], clock: VirtualClock, park_after: float = PARK_AFTER, **more: Any
    ) -> None:
        self.clock = clock
        self.outcomes: list[ServedRun] = []
        self.specs = {task.name: task.spec for task in tasks}
        self.server = Server(runtime.worker(), self.specs, park_after=park_after, tell=self.outcomes.append, **more)
        self._sweeps = 0
        self._plain_sweep = self.server._sweep
        self.server._sweep = self._sweep  # type: ignore[method-assign]
        self._thread = threading.Thread(target=self.server.serve, name="perdure-test-server", daemon=True)

    def __enter__(self) -> Serving:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.stop()
        self._thread.join(PATIENCE)
        self.server.drain(1.0)

    def _sweep(self) -> None:
        self._plain_sweep()
        self._sweeps += 1

    def look_twice(self) -> None:
        """Wait until the worker has looked twice at everything that it might do."""
        before = self._sweeps
        wait_for(lambda: self._sweeps >= before + 2)

    def skip_until(self, condition: Callable[[], Any], story: Callable[[], object] = str) -> None:
        """Jump from deadline to deadline until the condition is true. No jump while anything is under way."""
        worker, before = runtime.worker(), -1

        def look() -> bool:
            nonlocal before
            if condition():
                return True
            left = left_until_next(worker, self.specs)
            at = -1 if left is None else worker.clock.boot() + left
            # Twice the same: between a claim and its driver, nothing shows that a run is under way.
            if left is not None and abs(at - before) < 2 * JUST_AFTER:
                self.clock.jump((left + JUST_AFTER) / US)
                at = -1
            before = at
            return False

        wait_for(look, story=story)

    def finish(self, run: Any) -> Any:
        """Jump until the run has ended; its result."""
        self.skip_until(lambda: run.row.status in (Status.SUCCEEDED, Status.FAILED), lambda: self.outcomes[-5:])
        return run.result

    def parks(self, run: Any = None) -> int:
        return sum(o.status in PARKED for o in self.outcomes if run is None or o.run == run.name)


def left_until_next(worker: Worker, tasks: Any) -> int | None:
    """Microseconds until something happens by itself in a worker that serves; `None` while something is under way, or
    about to be parked."""
    due = worker.store.next_due(tasks)
    lefts = [] if due is None else [int(due * US)]
    for driver in list(worker.drivers.values()):
        left = _on_its_loop(driver, driver.rest)
        if left is None or (driver.park_after is not None and left > driver.park_after * US):
            return None
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


def parked(run: Any) -> bool:
    return bool(run.row.status == Status.SLEEPING)


@perdure.trace
async def step(name: str) -> str:
    count(name)
    return name


@perdure.trace
def sync_step(name: str) -> str:
    count(name)
    return name


@perdure.trace
async def held_step(name: str) -> str:
    """A step that lasts until `let_go`."""
    count(name)
    await held()
    return name


async def held(run: str = "") -> None:
    """Wait until `let_go` is called for this run: by nothing that the run's body counts as its own timer or thread."""
    await asyncio.wrap_future(gates.setdefault(run or name_of_run(), Future()))


def let_go(run: str = "") -> None:
    """Let what is `held` in this run go on."""
    gate = gates.setdefault(run or name_of_run(), Future())
    if not gate.done():
        gate.set_result(None)


def count(name: str) -> None:
    counts[name] += 1
    counts_by_run[name_of_run(), name] += 1


def name_of_run() -> str:
    found = perdure.ctx()
    assert found is not None
    return found.run_name


def attempt() -> int:
    found = perdure.ctx()
    assert found is not None
    return found.attempt


async def nap_between(name: str, seconds: float = NAP) -> str:
    await step(f"{name} before")
    await durable_sleep.aio(seconds)
    return await step(f"{name} after")


def assert_replays(run: Any) -> None:
    """The finished journal, replayed from its first entry, gives the same and executes nothing (P1, P4)."""
    result, executed = run.result, counts.copy()
    worker = runtime.worker()
    with contextlib.closing(sqlite3.connect(worker.store.path, timeout=10)) as database, database:  # type: ignore[attr-defined]
        database.execute("UPDATE runs SET status = 'RUNNING', result = NULL, value = NULL WHERE id = ?", (run.row.id,))
    row = worker.store.run(run.name)
    assert row is not None
    driver = worker.take(row, run._spec, (Status.RUNNING,))
    assert driver is not None
    value = driver.done.result(PATIENCE)[2]
    assert value == result
    assert driver.executed == 0
    assert counts == executed
