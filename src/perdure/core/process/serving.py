"""A process that drives runs of its tasks: queued runs, runs that are due, and runs without a living driver.

- SV1 a worker drives a run only under a claim from the store; runs of a living worker are left alone.
- SV2 a worker keeps in memory the driven runs, at most `concurrency`, and the next retry of runs that could not be
  driven; never the queue, nor sleeping runs.
- SV3 no run is missed: the worker looks for due runs at the earliest due time and after every change of the store, and
  for abandoned runs after every change of the store or of the set of living workers.
- SV4 a run that cannot be driven (its code does not fit, its engine is away) is retried after growing pauses, and keeps
  no other run from being driven.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from time import sleep
from typing import TYPE_CHECKING, Any, NamedTuple

from ...errors import (
    LeaseLostError,
    Parked,
    PerdureError,
    RunAbortedError,
    RunCancelledError,
    RunPausedError,
    StoreError,
    StoreUnavailableError,
)
from ..ground.clock import US, seconds
from ..ground.model import Result, Serving, Status
from ..ground.spec import TaskSpec, parsed
from ..run.refusing import place_on_stack

if TYPE_CHECKING:
    from ..body.loop import LoopThread
    from ..ground.model import RunRow
    from ..run.driver import Driver
    from .schedule import Schedule
    from .worker import Worker

log = logging.getLogger("perdure")

FIRST_POLL = 0.005
"""Seconds between questions to a changing store for changes."""
LAST_POLL = 0.25
"""The same, once it has not changed for long."""
LOOK_SECONDS = 0.4
"""How often to look whether a worker has died."""
DOUBT_SECONDS = 30.0
"""How often to look for stored claims without an answer from the store, as behind a pooler that lost the answer to a
COMMIT."""
SWEEP_SECONDS = 0.5
"""How often to look again at a run that could not be parked when its sleep began."""
PRESSED_SECONDS = 1.0
"""While other runs wait for a place, runs with longer sleeps than this are parked, even with a longer `park_after`."""
TICK = 0.004
"""Seconds between two rounds at least."""
BATCH = 200
"""How many runs are claimed in one transaction at most."""
FIRST_RETRY = 1.0
LAST_RETRY = 300.0
"""Seconds before a run that could not be driven is tried again: at first, and at most."""
AWAY_SECONDS = 0.5
"""How long to leave an unusable store alone; up to twenty times as long when the failure lasts."""
BLOCKED_SECONDS = 1.0
"""How long a loop may be silent before the blocking task is named."""
STOP_SECONDS = 2.0
"""How long what has not been handed over when a drain ends may take to unwind."""


class ServedRun(NamedTuple):
    """The end of driving a run here."""

    run: str
    task: str
    status: Status
    """How the run ended; SLEEPING or WAITING: parked; PAUSED: it stands still until it is resumed; INTERRUPTED: it
    could not be driven any further here."""
    error: BaseException | None
    """A failed run's error, or why it could not be driven."""
    again: float | None
    """Seconds until the next try here, if the run could not be driven."""


class _Later(NamedTuple):
    at: float
    pause: float


class Server:
    """See the module text. `serve` does its work in the calling thread; `stop` may be called from anywhere."""

    def __init__(
        self,
        worker: Worker,
        specs: Mapping[str, TaskSpec],
        *,
        concurrency: int = 100,
        park_after: float = 60.0,
        schedule: Schedule | None = None,
        tell: Callable[[ServedRun], None] = lambda outcome: None,
        misfit: Callable[[RunRow], str | None] | None = None,
    ) -> None:
        """
        Args:
            worker: whose store and loops are used.
            specs: the tasks to serve, by their full names.
            concurrency: how many runs to hold in memory at once.
            park_after: runs that have nothing to do for longer than this (seconds) leave memory until then.
            schedule: submits runs of these tasks when their triggers say so.
            tell: hears what becomes of each run, in the thread that serves.
            misfit: why a run with a past does not fit the code here, if it does not; such runs are left alone.
        """
        self.worker = worker
        self.specs = dict(specs)
        for spec in specs.values():
            for name in spec.names:
                self.specs.setdefault(name, spec)
        self.concurrency = concurrency
        self.park_after = park_after
        self._tell = tell
        self._schedule = schedule
        self._fire_at: int | None = None if schedule is None else 0
        """When the next trigger fires (wall, microseconds)."""
        self._driven: dict[Driver, None] = {}
        """In the order in which driving began. Not by run: a run that another worker took over may come back before its
        old driver here has left."""
        self._ended: deque[Driver] = deque()
        self._bell = threading.Event()
        self._stopping = False
        self._draining = False
        self._letting_go = PerdureError("the worker has been stopped; another one, or `perdure resume`, carries on")
        self._later: dict[int, _Later] = {}
        self._pressed = False
        """More runs are due than there are places."""
        self._stubborn: set[int] = set()
        """Runs that did not unwind when they were parked."""
        self._version = -1
        self._next_due: float | None = None
        """When the next run is due; `None`: not known."""
        self._looked: Any = None
        self._more = False
        """There may be runs left behind that there was no place for."""
        self._misfit = misfit
        self._misfits: set[int] = set()
        self._strangers: set[tuple[str, str]] = set()
        self._look_at = 0.0
        self._doubt_at = seconds() + DOUBT_SECONDS
        self._sweep_at = 0.0
        self._pulses: dict[LoopThread, _Pulse] = {}
        # Before `serve` begins in a thread of its own: a virtual clock waits for the first look.
        worker.servers.append(self)

    @property
    def driven(self) -> int:
        """How many runs are in memory."""
        return len(self._driven)

    def stop(self) -> None:
        """Have `serve` return soon. Only sets a flag, so that a signal handler may call it."""
        self._stopping = True

    # -- serving -----------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Drive runs until `stop` is called; runs under way are left to `drain`. A store that cannot be used for a
        while is logged and waited for.

        Raises:
            StoreError: the store cannot be used from the start.
        """
        self.worker.lease.serve(Serving(sorted(self.specs), self.concurrency))
        self.worker.store.listen(self._bell.set)
        try:
            self._serve()
        finally:
            self.worker.lease.serve_no_more()
            self.worker.servers.remove(self)

    def _serve(self) -> None:
        for spec in self.specs.values():
            if spec.queue is not None:
                self.worker.declare(spec.queue)
        pause = FIRST_POLL
        away = 0.0
        while not self._stopping:
            self._bell.clear()
            try:
                pause = FIRST_POLL if self._round() else min(2 * pause, LAST_POLL)
                if away:
                    away = 0.0
                    log.warning("the store can be used again")
            except StoreError as error:
                self.worker.doubt = True
                self._look_at = 0.0
                away = min(max(2 * away, AWAY_SECONDS), 20 * AWAY_SECONDS)
                self.worker.lease.complain("the store cannot be used for now", error)
                # In short pieces, so that `stop` is heard.
                end = seconds() + away
                while seconds() < end and not self._stopping:
                    self._bell.wait(LAST_POLL)
                    self._bell.clear()
                continue
            # One look for all ends and due runs within a tick; and some time for the driving threads.
            sleep(TICK)
            self._bell.wait(max(0.0, min(pause, self._wait())))
        self._reap()

    def still(self) -> list[int] | None:
        """Microseconds until each moment at which the server does something by itself, `None` while something is to be
        done now. For a virtual clock. From any thread; late by a moment."""
        due, fire_at = self._next_due, self._fire_at
        if due is None or self._ended or self._more or self.worker.store.version() != self._version:
            return None
        if any(driver.has_left for driver in list(self._driven)):
            return None
        now = seconds()
        moments = [later.at - now for later in list(self._later.values())]
        if due != float("inf") and len(self._driven) < self.concurrency:
            moments.append(due - now)
        lefts = [int(left * US) for left in moments]
        if fire_at is not None:
            lefts.append(fire_at - self.worker.clock.wall())
        return lefts

    def look_at_clock(self) -> None:
        """The clock has jumped. From any thread."""
        self._bell.set()

    def _wait(self) -> float:
        """Seconds until something is to be done, whether or not the store changes."""
        now = seconds()
        moments = [self._look_at, self._sweep_at]
        if self._fire_at is not None:
            moments.append(now + (self._fire_at - self.worker.clock.wall()) / US)
        if len(self._driven) < self.concurrency:
            moments.append(now if self._next_due is None else self._next_due)
        return min(moments) - now

    def _round(self) -> bool:
        """Do what is to be done now; whether the store has changed, or something was done."""
        worker = self.worker
        self._reap()
        now = seconds()
        self._fire()
        version = worker.store.version()
        changed = version != self._version
        if changed:
            self._version = version
            self._next_due = None
            if self._schedule is not None and self._schedule.any_paused:
                self._fire_at = 0
        if now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            if now >= self._doubt_at:
                self._doubt_at = now + DOUBT_SECONDS
                worker.doubt = True
            self._recover(version)
            self._watch_loops(now)
        elif self._more and len(self._driven) < self.concurrency:
            # Before the queue, which may always be longer than there are places.
            self._recover(version)
        if now >= self._sweep_at:
            self._sweep_at = now + SWEEP_SECONDS
            self._sweep()
        return self._take(now) or changed

    def _fire(self) -> None:
        """Submit the runs of triggers. The wall clock may step, so every round looks."""
        now = self.worker.clock.wall()
        if self._schedule is None or self._fire_at is None or now < self._fire_at:
            return
        for run in self._schedule.fire(now):
            log.info("run %s was submitted as scheduled", run.name)
        self._fire_at = self._schedule.next_at()

    def _take(self, now: float) -> bool:
        """Claim what is due."""
        free = min(self.concurrency - len(self._driven), BATCH)
        if self._next_due is None:
            left = self.worker.store.next_due(self.specs, self.worker.id)
            self._next_due = now + left if left is not None else float("inf")
        if free <= 0 or now < self._next_due:
            return False
        drivers = self.worker.take_due(self.specs, free)
        fitting = [driver for driver in drivers if self._fits(driver.run)]
        # Whether more are due, the next round finds out; it comes at once.
        self._next_due = None
        try:
            if len(drivers) == self.concurrency - len(self._driven):
                # The drivers have to know from their beginning: found by later looks alone, each would keep its place
                # as long.
                left = self.worker.store.next_due(self.specs, self.worker.id)
                self._next_due = now + left if left is not None else float("inf")
                self._pressed = self._next_due <= now
        finally:
            # The store may fail between the claim and this line. A claimed run without a driver at work would wait for
            # the end of this process.
            for driver in fitting:
                self._begin(driver)
            if len(fitting) < len(drivers):
                self.worker.give_back([driver for driver in drivers if driver not in self._driven])
        return bool(drivers)

    def _begin(self, driver: Driver) -> None:
        driver.park_after = self._patience() if driver.run_id not in self._stubborn else None
        driver.retry_after = self._next_pause(driver.run_id)
        self._driven[driver] = None
        driver.done.add_done_callback(lambda _: self._left(driver))
        driver.loop.soon(driver.start)

    def _left(self, driver: Driver) -> None:
        # On the thread where driving has ended.
        self._ended.append(driver)
        self._bell.set()

    def _recover(self, version: int) -> None:
        """Go on with runs whose driver is gone, and free the slots of those that do not go on here."""
        worker = self.worker
        rows = worker.store.workers()
        alive = {row.id for row in rows if worker.lives(row)} | {worker.id}
        for row in rows:
            if row.id not in alive and worker.liveness.is_dead(row.id):
                worker.store.forget(row.id)
        # First: a run that goes on here takes its slot along.
        self._take_over(version, alive)
        worker.free_slots(alive)

    def _take_over(self, version: int, alive: set[str]) -> None:
        worker, now = self.worker, seconds()
        now_due = any(later.at <= now for later in self._later.values())
        if (version, alive) == self._looked and not now_due and not worker.doubt:
            return
        self._looked = None
        free = self.concurrency - len(self._driven)
        self._more = free <= 0
        if self._more:
            return
        limit = free + len(self._later)
        if worker.doubt:
            self._give_back(alive)
        found = worker.store.abandoned(self.specs, alive, limit=limit)
        paused = worker.store.paused_tasks() if found else {}
        for run in found:
            if len(self._driven) >= self.concurrency:
                self._more = True
                return
            if run.paused is not None or run.task in paused:
                self._let_go_of_paused(run)
                continue
            later = self._later.get(run.id)
            if (later is not None and later.at > now) or worker.holder(run) is not None or not self._fits(run):
                continue
            try:
                driver = worker.take(run, self.specs[run.task], (Status.RUNNING,), start=False)
            except StoreError:
                raise
            except PerdureError as error:
                self._postpone(run.id, run.name, run.task, error)
                continue
            if driver is not None:
                log.info("run %s was left behind and goes on here", run.name)
                self._begin(driver)
            elif run.queue is not None:
                self._more = True  # perhaps for want of a slot: the run goes before runs that have not begun
        if len(found) < limit:
            self._looked = (version, alive)
            self._forget_later({run.id for run in found}, now)

    def _let_go_of_paused(self, run: RunRow) -> None:
        """Release the claim of a driver that died, or lost its store, before the run stood still."""
        if run.token is not None and self.worker.holder(run) is None:
            self.worker.store.release(run.id, run.token)

    def _give_back(self, alive: set[str]) -> None:
        """Release claims of this worker without a driver: the store failed when they were made or given back."""
        worker = self.worker
        own = worker.store.abandoned(self.specs, alive - {worker.id}, limit=len(self._driven) + self.concurrency)
        for run in own:
            if run.token is not None and run.worker == worker.id and worker.holder(run) is None:
                worker.store.release(run.id, run.token)
        worker.doubt = len(own) >= len(self._driven) + self.concurrency

    def _forget_later(self, found: set[int], now: float) -> None:
        """Forget pauses of runs that are gone: ended, or driven by another worker (SV2)."""
        driven = {driver.run_id for driver in self._driven}
        gone = [run for run, later in self._later.items() if later.at <= now and run not in found and run not in driven]
        for run in gone:
            del self._later[run]

    def _fits(self, run: RunRow) -> bool:
        """Whether a run belongs to the very task, not to a task of the same name in another module. A run of another
        task is left alone for long."""
        there, here = parsed(run.target), parsed(self.specs[run.task].target())
        if self.specs[run.task].is_task_of(there):
            return self._misfit is None or not self._is_misfit(run, self._misfit)
        theirs = f"{there.module}.{there.name}"
        self._later[run.id] = _Later(seconds() + LAST_RETRY, LAST_RETRY)
        if (run.task, theirs) not in self._strangers:
            self._strangers.add((run.task, theirs))
            log.warning(
                "run %s, and others like it, are left alone: their task %s is %s in %s, and the one served here is %s. "
                "Serve that file too; or, if the code has moved, say so with @env.task(formerly=%r), or for this run: "
                "perdure resume %s --file NEW_PATH",
                run.name, run.task, theirs, there.file, f"{here.module}.{here.name}", theirs, run.name,
            )  # fmt: skip
        return False

    def _is_misfit(self, run: RunRow, misfit: Callable[[RunRow], str | None]) -> bool:
        """Whether the recorded past of a run does not fit the code. Looked at before each time that the run is driven,
        because another worker may have driven the run meanwhile."""
        why = misfit(run) if self.worker.store.journal_length(run.id) else None
        if why is None:
            return False
        self._later[run.id] = _Later(seconds() + LAST_RETRY, LAST_RETRY)
        if run.id not in self._misfits:
            self._misfits.add(run.id)
            log.warning("run %s does not fit the code served here, and is left alone: %s", run.name, why)
        return True

    def _sweep(self) -> None:
        due = self._next_due is not None and self._next_due <= seconds()
        self._pressed = len(self._driven) >= self.concurrency and due
        for driver in list(self._driven):
            if driver.park_after is not None:
                driver.park_after = self._patience()
                driver.loop.soon(driver.consider)

    def _patience(self) -> float:
        return min(PRESSED_SECONDS, self.park_after) if self._pressed else self.park_after

    # -- what has ended ----------------------------------------------------------------------------------------

    def _reap(self) -> None:
        while self._ended:
            driver = self._ended.popleft()
            if driver in self._driven:
                del self._driven[driver]
                self._outcome(driver)

    def _outcome(self, driver: Driver) -> None:
        run = driver.run
        error = driver.done.exception()
        if error is None:
            self._later.pop(run.id, None)
            self._stubborn.discard(run.id)
            result, _, live = driver.done.result()
            if result == Result.VALUE:
                self._tell(ServedRun(run.name, run.task, Status.SUCCEEDED, None, None))
            elif result == Result.CANCELLED:
                self._tell(ServedRun(run.name, run.task, Status.CANCELLED, None, None))
            else:
                self._tell(ServedRun(run.name, run.task, Status.FAILED, live, None))
        elif isinstance(error, (Parked, RunPausedError)):
            self._left_memory(driver, error)
        elif isinstance(error, (RunAbortedError, RunCancelledError)):
            self._later.pop(run.id, None)
            self._stubborn.discard(run.id)
            status = Status.ABORTED if isinstance(error, RunAbortedError) else Status.CANCELLED
            self._tell(ServedRun(run.name, run.task, status, None, None))
        elif isinstance(error, LeaseLostError) or error is self._letting_go:
            self._tell(ServedRun(run.name, run.task, Status.INTERRUPTED, error, None))
        else:
            if isinstance(error, StoreError):
                self.worker.doubt = True
            if isinstance(error, StoreUnavailableError):
                # It meets every run at once, and is no fault of theirs.
                self.worker.lease.complain("runs are interrupted because the store cannot be used", error)
            self._postpone(run.id, run.name, run.task, error)

    def _left_memory(self, driver: Driver, error: Parked | RunPausedError) -> None:
        run = driver.run
        self._later.pop(run.id, None)
        if driver.overdue:
            self._stubborn.add(run.id)
            for again in self._driven:
                if again.run_id == run.id:
                    again.park_after = None
        if isinstance(error, RunPausedError):
            status = Status.PAUSED
        else:
            status = Status.WAITING if error.waits else Status.SLEEPING
        self._tell(ServedRun(run.name, run.task, status, None, None))

    def _postpone(self, run: int, name: str, task: str, error: BaseException) -> None:
        pause = self._next_pause(run)
        self._later[run] = _Later(seconds() + pause, pause)
        self._tell(ServedRun(name, task, Status.INTERRUPTED, error, None if self._draining else pause))

    def _next_pause(self, run: int) -> float:
        before = self._later.get(run)
        return FIRST_RETRY if before is None else min(2 * before.pause, LAST_RETRY)

    # -- the end -----------------------------------------------------------------------------------------------

    def drain(self, patience: float) -> int:
        """Park sleeping runs, hand the others over to other workers as soon as nothing of them is under way, and stop
        the rest after `patience` seconds. Gives the number of stopped runs."""
        self._draining = True
        end = seconds() + patience
        for driver in list(self._driven):
            driver.drain()
        while self._driven and seconds() < end:
            for driver in list(self._driven):
                driver.loop.soon(driver.consider, 0.0)
                driver.loop.soon(driver.hand_over, self._letting_go)
            self._bell.wait(0.02)
            self._bell.clear()
            self._reap()
        left = list(self._driven)
        for driver in left:
            driver.stop(self._letting_go)
        end = seconds() + STOP_SECONDS
        while self._driven and seconds() < end:
            self._bell.wait(0.05)
            self._bell.clear()
            self._reap()
        return len(left)

    # -- loops that do not answer ------------------------------------------------------------------------------

    def _watch_loops(self, now: float) -> None:
        for loop in self.worker.loops.existing():
            pulse = self._pulses.get(loop)
            if pulse is None:
                pulse = self._pulses[loop] = _Pulse()
            if pulse.answered:
                pulse.ask(loop, now)
            elif now - pulse.asked > BLOCKED_SECONDS and not pulse.named:
                pulse.named = True
                log.warning("%s", _who_blocks(loop, now - pulse.asked))


class _Pulse:
    """Whether a loop has answered since it was asked last."""

    def __init__(self) -> None:
        self.answered = True
        self.asked = 0.0
        self.named = False

    def ask(self, loop: LoopThread, now: float) -> None:
        self.answered = self.named = False
        self.asked = now
        loop.soon(self._answer)

    def _answer(self) -> None:
        self.answered = True


def _who_blocks(loop: LoopThread, since: float) -> str:
    """The task that blocks a loop's thread, and its current line, for people."""
    task: Any = asyncio.tasks._current_tasks.get(loop.loop)  # type: ignore[attr-defined]
    branch = getattr(task, "branch", None)
    who = f"task {branch.body.name} of run {branch.body.driver.run.name}" if branch is not None else "a callback"
    place = place_on_stack(sys._current_frames().get(loop.ident or 0))
    where = f" at {place}" if place else ""
    return (
        f"{who} has kept the event loop for {since:.1f} s{where}; all other async tasks of this process wait. Make it "
        "a sync task (def), await something that does not block, or move the work to asyncio.to_thread()."
    )
