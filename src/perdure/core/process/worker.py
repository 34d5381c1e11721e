"""A process that drives runs: its store and writer, its loops and threads, its lease, and its runs.

A worker's claims hold while its row in the store is renewed (every third of the lease, on the store's clock) and while
its process counts as alive: the process holds a lock, which is free after its death. The token of a run, not the lease,
decides whether a write counts: the store refuses a worker that comes back too late (P3).
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from contextvars import copy_context
from typing import Any

from ...errors import LeaseLostError, PerdureError, RunAbortedError, StoreError
from ..body.interfaces import LoopPort
from ..body.loop import LoopThread
from ..body.scope import Slot
from ..commit.records import Submission
from ..commit.writer import Leaders, Writer
from ..ground.clock import US, Clock, Deadline, SystemClock, seconds
from ..ground.model import Claim, Created, CreateRun, Kind, NewRun, Run, Status, Taken, Wake, WorkerRow
from ..ground.ports import Liveness, Store
from ..ground.spec import TaskSpec
from ..journal import source
from ..run import calls
from ..run.driver import Driver
from ..run.interfaces import Elsewhere

log = logging.getLogger("perdure")

LAZY_SECONDS = 0.05
"""How long a row without a waiting caller may stay in memory."""
WATCH_SECONDS = 1.0
"""How often the claims of a few driven runs are looked at, so that an abort is noticed while nothing is written."""
WATCHED = 50
DOUBT_SECONDS = 0.05
"""Seconds between looks at a worker that looks dead."""
COMPLAIN_SECONDS = 30.0
"""How often the same trouble with the store is told of."""


class Worker:
    """See the module text. One per store and process."""

    def __init__(
        self, store: Store, liveness: Liveness, threads: Any, *, lease: float = 15.0, clock: Clock | None = None
    ) -> None:
        self.id = f"{socket.gethostname()}-{os.getpid()}-{os.urandom(4).hex()}"
        self.store = store
        self.liveness = liveness
        self.threads = threads
        self.lease = lease
        self.clock: Clock = clock if clock is not None else SystemClock()
        self.writer: Leaders = Writer(store)
        self.root: Callable[[Any], Any] = calls.root
        self.drivers: dict[int, Driver] = {}
        self._started_at = self.clock.wall()
        self._lock = threading.Lock()
        self._loops: list[LoopThread] = []
        self._sources: dict[str, tuple[source.Sources, bytes, int]] = {}
        self._claiming: set[bytes] = set()
        """Tokens on their way into the store, without a driver yet."""
        self._submitting = False
        """A loop is about to commit what was submitted."""
        self._lazy: set[Driver] = set()
        self._lazy_armed = False
        self._beating = False
        self._closed = threading.Event()
        self.elsewhere: Callable[[str], Elsewhere] | None = None
        """What executes bodies in other processes, by the name of the executor; made on first use."""
        self.doubt = False
        """The store has failed, so this worker may have claimed a run without driving the run."""
        self._complaint = ""
        self._complain_at = 0.0
        self.on_end: Callable[[Run, bool], None] | None = None
        """Called when a run has ended or was aborted here, with whether this process began the run."""

    # -- loops -------------------------------------------------------------------------------------------------

    @property
    def loop(self) -> LoopThread:
        """The main loop."""
        if not self._loops:
            with self._lock:
                if not self._loops:
                    self._loops.append(LoopThread("perdure-loop", self.threads))
        return self._loops[0]

    def loops(self) -> list[LoopThread]:
        """The existing loops."""
        return list(self._loops)

    def loop_for(self, driver: Driver) -> LoopThread:
        """A loop whose thread is not blocked by a synchronous durable call: the driver's own if possible."""
        return driver.loop if not driver.loop.blocked else self.free_loop()

    def free_loop(self) -> LoopThread:
        """A loop whose thread is not blocked by a synchronous durable call: the main one if possible."""
        if not self.loop.blocked:
            return self.loop
        with self._lock:
            for loop in self._loops:
                if not loop.blocked:
                    return loop
            loop = LoopThread(f"perdure-loop-{len(self._loops) + 1}", self.threads)
            self._loops.append(loop)
            return loop

    def call_on_loop(self, loop: LoopPort, make_task: Callable[[], asyncio.Task[Any]]) -> Future[Any]:
        """Make a task on that loop and have its outcome as a thread-safe future."""
        future: Future[Any] = Future()

        def done(task: asyncio.Task[Any]) -> None:
            if task.cancelled():
                future.set_exception(asyncio.CancelledError())
            elif (error := task.exception()) is not None:
                future.set_exception(error)
            else:
                future.set_result(task.result())

        def begin() -> None:
            try:
                make_task().add_done_callback(done, context=loop.loop.empty)
            except BaseException as error:
                future.set_exception(error)

        loop.soon(begin)
        return future

    def join(self, future: Future[Any], slot: Slot | None, timeout: float | None = None, *, shown: bool = False) -> Any:
        """Wait in a body's thread for work of the body elsewhere. The thread counts as waiting until the very moment at
        which the future is done, not until the thread has woken up. `shown`: known bodies or threads of the run show
        the work.

        Raises:
            TimeoutError: `timeout` seconds have passed.
        """
        if slot is None:
            return future.result(timeout)
        body = slot.branch.body
        if not shown:
            body.joins_unseen(1)
        body.thread_joins(future, slot)
        self.threads.parked()
        try:
            return future.result(timeout)
        finally:
            self.threads.resumed()
            body.thread_runs(slot, future)
            if not shown:
                body.joins_unseen(-1)

    # -- submitting and claiming -------------------------------------------------------------------------------

    def submit(self, new: NewRun, spec: TaskSpec) -> Driver | Run:
        """Store a run and drive it. Gives its driver, or the run that already has that name. Blocks on the store."""
        self.attend()
        claim = self._claim()
        try:
            created = self.writer.submit_through(CreateRun(new, claim))
        except BaseException:
            self._claiming.discard(claim.token)
            raise
        if not created.fresh:
            self._claiming.discard(claim.token)
            return created.run
        driver = self._driver(created.run, spec, fresh=True)
        driver.context = copy_context()
        driver.loop.soon(driver.start)
        return driver

    def submit_soon(self, new: NewRun, spec: TaskSpec) -> Future[Driver | Run]:
        """The same without blocking: runs that are submitted at one time share a commit."""
        self.attend()
        future: Future[Driver | Run] = Future()
        claim = self._claim()
        context = copy_context()

        def created(answer: Created | StoreError) -> None:
            if isinstance(answer, StoreError):
                self._claiming.discard(claim.token)
                future.set_exception(answer)
            elif not answer.fresh:
                self._claiming.discard(claim.token)
                future.set_result(answer.run)
            else:
                driver = self._driver(answer.run, spec, fresh=True)
                driver.context = context
                future.set_result(driver)
                driver.loop.soon(driver.start)

        self._submit_soon(Submission(CreateRun(new, claim), created))
        return future

    def _submit_soon(self, submission: Submission) -> None:
        self.writer.submit(submission)
        if not self._submitting:
            # One wake-up for all submissions until the loop runs: each wake-up would cost the submitting thread the
            # interpreter's lock.
            self._submitting = True
            loop = self.free_loop()
            loop.soon(self._flush_submissions, loop)

    def _flush_submissions(self, loop: LoopThread) -> None:
        # First: who submits from here on wakes the loop again.
        self._submitting = False
        loop.flush_soon(self.writer)

    def enqueue(self, new: NewRun, due: Wake | None) -> Created:
        """Store a run without a driver; any worker may drive the run from `due` on. Blocks on the store."""
        return self.writer.submit_through(CreateRun(new, None, due))

    def enqueue_soon(self, new: NewRun, due: Wake | None) -> Future[Created]:
        """The same without blocking: runs that are submitted at one time share a commit."""
        future: Future[Created] = Future()

        def created(answer: Created | StoreError) -> None:
            if isinstance(answer, StoreError):
                future.set_exception(answer)
            else:
                future.set_result(answer)

        self._submit_soon(Submission(CreateRun(new, None, due), created))
        return future

    def _claim(self) -> Claim:
        token = os.urandom(16)
        self._claiming.add(token)
        return Claim(token, self.id)

    def take(self, run: Run, spec: TaskSpec, statuses: Collection[Status], *, start: bool = True) -> Driver | None:
        """Claim a stored run and drive it (or leave `start` to the caller); `None`: another worker was faster. Blocks
        on the store."""
        self.attend()
        woken = run.status is Status.SLEEPING
        if woken:
            # Every other change of the run since is no waking.
            statuses = {Status.SLEEPING}.intersection(statuses)
        length = self.store.journal_length(run.id)
        claim = self._claim()
        try:
            claimed = self.store.claim(run.id, claim, expect=run.token, entries=length, statuses=statuses)
            if claimed is None:
                return None
            driver = self._driver(claimed, spec, fresh=False, taken=Taken(claimed, woken))
        finally:
            self._claiming.discard(claim.token)
        if start:
            driver.context = copy_context()
            driver.loop.soon(driver.start)
        return driver

    def take_due(self, specs: Mapping[str, TaskSpec], limit: int) -> list[Driver]:
        """Claim up to `limit` runs that are due, of tasks by their names; `start` is left to the caller. Blocks on the
        store."""
        self.attend()
        claims = [self._claim() for _ in range(limit)]
        taken: list[Taken] = []
        try:
            taken = self.store.take_due(specs, claims)
            return [self._driver(one.run, specs[one.run.task], fresh=not one.woken, taken=one) for one in taken]
        finally:
            self._claiming.difference_update(claim.token for claim in claims)

    def give_back(self, driver: Driver) -> None:
        """Let go of a run whose driver has not been started."""
        self.left(driver)
        self.store.release(driver.run_id, driver.token)

    def _driver(self, run: Run, spec: TaskSpec, *, fresh: bool, taken: Taken | None = None) -> Driver:
        driver = Driver(self, run, spec, self.free_loop(), fresh=fresh, taken=taken)
        before = self.drivers.get(run.id)
        self.drivers[run.id] = driver
        self._claiming.discard(driver.token)
        if before is not None and not before.stopping:
            # The old driver has lost its claim, while this process was frozen, to a worker that has lost the claim
            # since. No other code would tell the old driver: only drivers in `drivers` are looked after.
            before.fenced()
        return driver

    def left(self, driver: Driver) -> None:
        """That run is no longer driven here."""
        if self.drivers.get(driver.run_id) is driver:
            del self.drivers[driver.run_id]

    def sure_holder(self, run: Run) -> WorkerRow | None:
        """As `holder`, after waiting for certainty about a holder that looks dead."""
        while run.worker is not None and run.worker != self.id and self.liveness.doubts(run.worker):
            time.sleep(DOUBT_SECONDS)
        return self.holder(run)

    def doubt_holders(self, runs: Collection[Run]) -> None:
        """Begin to doubt all holders that look dead at once, so that `sure_holder` of all takes a moment, not one for
        each."""
        for worker in {run.worker for run in runs if run.worker is not None and run.status is Status.RUNNING}:
            self.liveness.doubts(worker)

    def holder(self, run: Run) -> WorkerRow | None:
        """The worker that drives the run right now; `None`: the run may be claimed."""
        if run.token is None or run.worker is None:
            return None
        if run.worker == self.id:
            # A claim of this worker counts from the moment at which the store may have it.
            return self._row() if run.token in self._claiming or run.id in self.drivers else None
        if self.liveness.is_dead(run.worker):
            return None
        row = self.store.worker(run.worker)
        return row if row is not None and row.lease > 0 else None

    def lives(self, row: WorkerRow) -> bool:
        """Whether that worker's claims hold."""
        return row.lease > 0 and not self.liveness.is_dead(row.id)

    def sleeps(self, run: Run) -> bool:
        """Whether a live run has nothing to do until a recorded deadline."""
        return any(
            Deadline(action.wake_at, action.wake_boot, action.boot).remaining(self.clock) > 0
            for action in self.store.open_actions(run.id)
            if action.wake_at is not None and action.state is None and action.kind != Kind.TIMEOUT
        )

    def why_fenced(self, driver: Driver) -> PerdureError:
        """The store refused a write of `driver`: why."""
        name = driver.run.name
        reason: PerdureError = LeaseLostError(
            f"run {name!r} is no longer this process's: it was frozen or cut off for longer than its lease "
            f"({self.lease:g} s), and another process took the run over. Nothing that happened here since was recorded."
        )
        try:
            now = self.store.run_by_id(driver.run_id)
        except StoreError:
            now = None
        if now is not None and now.status == Status.ABORTED:
            reason = RunAbortedError(f"run {name!r} was aborted")
        elif now is not None and now.worker is not None and now.worker != self.id:
            reason = LeaseLostError(f"{reason} It is driven by {now.worker} now.")
        return reason

    # -- sources -----------------------------------------------------------------------------------------------

    def source_id(self, target: str) -> int:
        """The number of today's snapshot of the code that `target` belongs to."""
        file = target.partition("::")[0]
        root = source.code_root(file) if file else ""
        known = self._sources.get(root)
        if known is None:
            sources = source.Sources(root or None)
        else:
            sources = known[0]
        snapshot = sources.snapshot()
        if known is None or known[1] != snapshot.digest:
            known = (sources, snapshot.digest, self.store.source_id(snapshot))
            self._sources[root] = known
        return known[2]

    def source_changed(self, source_id: int, target: str) -> bool:
        """Whether the code of that snapshot differs from today's."""
        file = target.partition("::")[0]
        self.source_id(target)
        sources = self._sources[source.code_root(file) if file else ""][0]
        then = self.store.source(source_id)
        return then is None or source.changed(then, sources.snapshot())

    # -- rows without a waiting caller --------------------------------------------------------------------------

    def flush_lazily(self, driver: Driver) -> None:
        """Commit that driver's outbox soon, unless something else does first."""
        self._lazy.add(driver)
        if not self._lazy_armed:
            self._lazy_armed = True
            self.free_loop().later(LAZY_SECONDS, self._flush_lazy)

    def _flush_lazy(self) -> None:
        self._lazy_armed = False
        while self._lazy:
            driver = self._lazy.pop()
            if driver.outbox and not driver.stopping:
                self.writer.mark_ready(driver)
        self.writer.flush()

    # -- the lease ---------------------------------------------------------------------------------------------

    def _row(self) -> WorkerRow:
        lease = int(self.lease * US)
        return WorkerRow(self.id, os.getpid(), socket.gethostname(), self.clock.boot_id, lease, self._started_at)

    def attend(self) -> None:
        """Before the first claim: take the lock, write the row, keep it fresh."""
        if self._beating:
            return
        with self._lock:
            if not self._beating:
                self.liveness.hold(self.id)
                self.store.renew(self._row())
                self._beating = True
                self._start_beat()

    def _start_beat(self) -> None:
        threading.Thread(target=self._beat, name="perdure-heartbeat", daemon=True).start()

    def _beat(self) -> None:
        renewed = self.clock.boot()
        interval = int(self.lease * US / 3)
        pause = min(WATCH_SECONDS, self.lease / 3)
        while not self._closed.wait(pause):
            now = self.clock.boot()
            due = now - renewed >= interval
            self._look_for_rest(seconds())
            try:
                if due:
                    self.store.renew(self._row())
                    renewed = now
                if self.drivers and (due or len(self.drivers) <= WATCHED):
                    self._watch()
            except StoreError as error:
                self.complain("the lease could not be renewed", error)

    def _look_for_rest(self, now: float) -> None:
        # A function, so that no local variable keeps a run alive until the next look.
        for driver in list(self.drivers.values())[:WATCHED]:
            for body in list(driver.bodies.values()):
                body.look_for_rest(now)

    def complain(self, what: str, error: StoreError) -> None:
        """Warn that the store fails. A failure hits all runs at once, so the same cause is logged now and then only."""
        now, text = seconds(), str(error)
        if text != self._complaint or now > self._complain_at:
            self._complaint, self._complain_at = text, now + COMPLAIN_SECONDS
            log.warning("%s: %s", what, text)

    def _watch(self) -> None:
        for driver in list(self.drivers.values()):
            now = self.store.run_by_id(driver.run_id)
            if now is not None and now.token != driver.token and not driver.stopping and not driver.ending:
                # A stopping driver notices by itself, and a parking driver has just given its claim back.
                driver.fenced()

    def retire(self) -> None:
        """The process ends: give back what is still claimed and leave no row behind. Quick; waits for nothing."""
        self._closed.set()
        for driver in list(self.drivers.values()):
            if not driver.ending:
                self.store.release(driver.run_id, driver.token)
        if self._beating:
            self._beating = False
            self.store.forget(self.id)
            self.liveness.drop(self.id)

    def close(self) -> None:
        """Stop driving, let go of the lock, end the loops. For tests, and for `perdure.init` with another store."""
        self._closed.set()
        for driver in list(self.drivers.values()):
            driver.stop(PerdureError("perdure was shut down"))
        for driver in list(self.drivers.values()):
            try:
                driver.done.exception(5)
            except TimeoutError:
                log.warning("run %s did not unwind", driver.run.name)
        for loop in self._loops:
            loop.stop()
        try:
            self.retire()
        except StoreError as error:
            log.debug("the worker's row stays behind: %s", error)
        self.store.close()
