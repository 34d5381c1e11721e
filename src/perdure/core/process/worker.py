"""A process that drives runs: submitting and claiming runs, and the snapshots of their sources.

`loops` has the event loops of the process, `lease` the heartbeat. A worker's claims hold while the worker's row in the
store is renewed (every third of the lease, on the store's clock) and while the process counts as alive: the process
holds a lock, which is free after the death of the process. On one machine the held lock is enough: a process that
computes without letting the heartbeat run keeps its claims, unless the process was stopped by a signal. The token of a
run, not the lease, decides whether a write counts: the store refuses a worker that comes back too late (P3).
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from contextvars import copy_context
from typing import Any, NamedTuple, Protocol

from msgspec import json

from ...errors import LeaseLostError, PerdureError, RunAbortedError, RunCancelledError, StoreError, cancelled_text
from ..body.interfaces import LoopPort
from ..body.loop import LoopThread
from ..body.scope import Slot
from ..commit.records import Submission
from ..commit.writer import Leaders, Writer
from ..ground.clock import Clock, Deadline, SystemClock
from ..ground.model import (
    PARKED,
    WAITS,
    Claim,
    Created,
    CreateRun,
    Kind,
    NewRun,
    Policy,
    RunRow,
    Status,
    Taken,
    Wake,
    WorkerRow,
)
from ..ground.ports import Hold, Liveness, Store
from ..ground.spec import QueueSpec, TaskSpec
from ..journal import source
from ..run import calls
from ..run.driver import Driver
from ..run.interfaces import Elsewhere
from .lease import Lease
from .loops import Loops
from .post import Post
from .slots import Slots

log = logging.getLogger("perdure")

LAZY_SECONDS = 0.05
"""How long a row without a waiting caller may stay in memory."""
DOUBT_SECONDS = 0.05
"""Seconds between looks at a worker that looks dead."""


class Serves(Protocol):
    """A `Server` of this worker's, as a virtual clock sees it."""

    def still(self) -> list[int] | None:
        """Microseconds until each moment at which the server does something by itself; `None`: it is at work."""

    def look_at_clock(self) -> None:
        """The clock has jumped. From any thread."""


class _Snapshot(NamedTuple):
    """The latest snapshot of a code root that is in the store."""

    sources: source.Sources
    digest: bytes
    number: int


class Worker:
    """See the module text. One per store and process."""

    def __init__(
        self,
        store: Store,
        liveness: Liveness,
        threads: Any,
        *,
        lease: float = 15.0,
        clock: Clock | None = None,
        writer: Leaders | None = None,
    ) -> None:
        """`lease`: seconds. `writer`: how rows reach the store, by default a `Writer` of that store."""
        self.id = f"{socket.gethostname()}-{os.getpid()}-{os.urandom(4).hex()}"
        self.store = store
        self.liveness = liveness
        self.threads = threads
        self.clock: Clock = clock if clock is not None else SystemClock()
        self.writer: Leaders = writer if writer is not None else Writer(store)
        self.root: Callable[[Any], Any] = calls.root
        self.drivers: dict[int, Driver] = {}
        self.loops = Loops(threads)
        self.post = Post(store)
        self.slots = Slots(store, self.free_dead)
        self.lease = Lease(self.id, store, liveness, self.clock, self.drivers, seconds=lease)
        self._sources: dict[str, _Snapshot] = {}
        self.servers: list[Serves] = []
        """What serves runs through this worker, or is about to."""
        self._claiming: set[bytes] = set()
        """Tokens on their way into the store, without a driver yet."""
        self._submitting = False
        """A loop is about to commit what was submitted."""
        self._declared: dict[str, QueueSpec] = {}
        """The queues whose settings the store has from this process, by name."""
        self._lazy: dict[Driver, None] = {}
        self._lazy_armed = False
        self.elsewhere: Callable[[str], Elsewhere] | None = None
        """What executes bodies in other processes, by the name of the executor; made on first use."""
        self.doubt = False
        """The store has failed, so this worker may have claimed a run without driving the run."""
        self.on_end: Callable[[RunRow, bool], None] | None = None
        """Called when a run has ended or was aborted here, with whether this process began the run."""

    # -- what a run asks of its process (`WorkerPort`) ----------------------------------------------------------

    def loop_for(self, driver: Driver) -> LoopThread:
        """See `Loops`."""
        return self.loops.loop_for(driver)

    def call_on_loop(self, loop: LoopPort, make_task: Callable[[], asyncio.Task[Any]]) -> Future[Any]:
        """See `Loops`."""
        return self.loops.call_on_loop(loop, make_task)

    def join(self, future: Future[Any], slot: Slot | None, timeout: float | None = None, *, shown: bool = False) -> Any:
        """See `Loops`."""
        return self.loops.join(future, slot, timeout, shown=shown)

    # -- submitting and claiming -------------------------------------------------------------------------------

    def submit(self, new: NewRun, spec: TaskSpec) -> Driver | RunRow:
        """Store a run and drive it. Gives its driver, or the run that already has that name, or, while the task is
        paused, the stored run. Blocks on the store."""
        self.lease.attend()
        claim = self._claim()
        try:
            created = self.writer.submit_through(CreateRun(new, claim))
        except BaseException:
            self._claiming.discard(claim.token)
            raise
        if not created.fresh or created.run.token != claim.token:
            self._claiming.discard(claim.token)
            return created.run
        driver = self._driver(created.run, spec, fresh=True)
        driver.context = copy_context()
        driver.loop.soon(driver.start)
        return driver

    def submit_soon(self, new: NewRun, spec: TaskSpec) -> Future[Driver | RunRow]:
        """The same without blocking: runs that are submitted at one time share a commit."""
        self.lease.attend()
        future: Future[Driver | RunRow] = Future()
        claim = self._claim()
        context = copy_context()

        def created(answer: Created | StoreError) -> None:
            if isinstance(answer, StoreError):
                self._claiming.discard(claim.token)
                future.set_exception(answer)
            elif not answer.fresh or answer.run.token != claim.token:
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
            loop = self.loops.free_loop()
            loop.soon(self._flush_submissions, loop)

    def _flush_submissions(self, loop: LoopThread) -> None:
        # First: who submits from here on wakes the loop again.
        self._submitting = False
        loop.flush_soon(self.writer)

    def declares(self, queue: QueueSpec) -> bool:
        """Whether the store has the settings of the queue from this process."""
        known = self._declared.get(queue.name)
        return known is not None and known.settings == queue.settings

    def declare(self, queue: QueueSpec) -> None:
        """Bring the settings of a queue into the store. Blocks on the store."""
        if not self.declares(queue):
            self.store.declare_queue(queue.name, json.encode(queue.settings).decode())
            self._declared[queue.name] = queue

    def enqueue(self, new: NewRun, due: Wake | None, policy: Policy | None = None) -> Created:
        """Store a run without a driver; any worker may drive the run from `due` on. Blocks on the store. `policy`: what
        counts beside the name of the run."""
        if policy is not None:
            return self.store.submit(CreateRun(new, None, due), policy)
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

    def take(
        self,
        run: RunRow,
        spec: TaskSpec,
        statuses: Collection[Status],
        *,
        start: bool = True,
        accepts: bool = False,
        retries_failures: bool = False,
        resumes: bool = False,
        moves: bool = False,
    ) -> Driver | None:
        """Claim a stored run and drive it (or leave `start` to the caller); `None`: another worker was faster. Blocks
        on the store. `accepts`, `retries_failures`: see `Driver`. `resumes`: a paused run is claimed as well, and its
        pause ends. `moves`: the place of the code is recorded."""
        self.lease.attend()
        woken = run.status in PARKED
        if woken:
            # Every other change of the run since is no waking.
            statuses = set(PARKED).intersection(statuses)
        length = self.store.journal_length(run.id)
        claim = self._claim()
        try:
            claimed = self.store.claim(
                run.id,
                claim,
                expect=run.token,
                entries=length,
                statuses=statuses,
                crashed=self._crashed(run),
                resumes=resumes,
            )
            if claimed is None:
                return None
            driver = self._driver(claimed, spec, fresh=False, taken=Taken(claimed, woken))
            driver.accepts, driver.retries_failures = accepts, retries_failures
            if moves and driver.run.target != run.target:
                # Before anything of the run is executed there. A crash before this line leaves the run where it was.
                self.store.move_code(run.id, claim.token, driver.run.target)
        finally:
            self._claiming.discard(claim.token)
        if start:
            driver.context = copy_context()
            driver.loop.soon(driver.start)
        return driver

    def take_due(self, specs: Mapping[str, TaskSpec], limit: int) -> list[Driver]:
        """Claim up to `limit` runs that are due, of tasks by their names; `start` is left to the caller. Blocks on the
        store."""
        self.lease.attend()
        claims = [self._claim() for _ in range(limit)]
        taken: list[Taken] = []
        try:
            taken = self.store.take_due(specs, claims)
            return [self._driver(one.run, specs[one.run.task], fresh=not one.woken, taken=one) for one in taken]
        finally:
            self._claiming.difference_update(claim.token for claim in claims)

    def free_slots(self, alive: Collection[str]) -> None:
        """End the claims, in queues, of workers that are gone: the slots are free, and the workers are fenced (FC1).
        `alive`: workers that are known to live."""
        for run in self.store.slots_of_others(alive):
            if run.token is not None and self.holder(run) is None:
                self.store.end_claim(run.id, run.token, crashed=self._crashed(run))

    def free_dead(self) -> None:
        """End the claims of workers that are gone and hold slots."""
        rows = self.store.workers()
        self.free_slots({row.id for row in rows if self.lives(row)} | {self.id})

    def give_back(self, drivers: Collection[Driver]) -> None:
        """Let go of runs whose drivers have not been started."""
        # All drivers leave first: where the store fails, `doubt` leads to the claims without a driver.
        for driver in drivers:
            self.left(driver)
        for driver in drivers:
            self.store.release(driver.run_id, driver.token)

    def _driver(self, run: RunRow, spec: TaskSpec, *, fresh: bool, taken: Taken | None = None) -> Driver:
        driver = Driver(self, run, spec, self.loops.free_loop(), fresh=fresh, taken=taken)
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

    def sure_holder(self, run: RunRow) -> WorkerRow | None:
        """As `holder`, after waiting for certainty about a holder that looks dead."""
        while run.worker is not None and run.worker != self.id and self.liveness.doubts(run.worker):
            time.sleep(DOUBT_SECONDS)
        return self.holder(run)

    def doubt_holders(self, runs: Collection[RunRow]) -> None:
        """Begin to doubt all holders that look dead at once, so that `sure_holder` of all takes a moment, not one for
        each."""
        for worker in {run.worker for run in runs if run.worker is not None and run.status is Status.RUNNING}:
            self.liveness.doubts(worker)

    def is_alive(self, worker: str) -> bool:
        """Whether the worker of that id is this process, or lives."""
        row = self.store.worker(worker)
        return worker == self.id or (row is not None and self.lives(row))

    def holder(self, run: RunRow) -> WorkerRow | None:
        """The worker that drives the run right now; `None`: the run may be claimed."""
        if run.token is None or run.worker is None:
            return None
        if run.worker == self.id:
            # A claim of this worker counts from the moment at which the store may have it.
            return self.lease.row() if run.token in self._claiming or run.id in self.drivers else None
        row = self.store.worker(run.worker)
        return row if row is not None and self.lives(row) else None

    def lives(self, row: WorkerRow) -> bool:
        """Whether that worker's claims hold."""
        if row.lease > 0:
            return not self.liveness.is_dead(row.id)
        # A lock says who is at work on this machine alone; after a reboot the same id means another process.
        return row.boot == self.clock.boot_id and self.liveness.hold_of(row.id) is Hold.AT_WORK

    def _crashed(self, run: RunRow) -> bool:
        """Whether the run's last claim ended by a crash. A living worker that lost the claim did not crash."""
        if run.token is None or run.worker is None:
            return True
        return run.worker != self.id and self.liveness.hold_of(run.worker) in (Hold.FREE, Hold.UNKNOWN)

    def sleeps(self, run: RunRow) -> bool:
        """Whether a live run has nothing to do until a recorded deadline."""
        return any(
            Deadline(action.wake_at, action.wake_boot, action.boot).remaining(self.clock) > 0
            for action in self.store.open_actions(run.id)
            if action.wake_at is not None and action.state is None and action.kind != Kind.TIMEOUT
        )

    def waits(self, run: RunRow) -> bool:
        """Whether a call of a live run waits for a message."""
        return any(action.kind in WAITS for action in self.store.open_actions(run.id))

    def why_fenced(self, driver: Driver) -> PerdureError:
        """The store refused a write of `driver`: why."""
        name = driver.run.name
        reason: PerdureError = LeaseLostError(
            f"run {name!r} is no longer this process's: it was frozen or cut off for longer than its lease "
            f"({self.lease.seconds:g} s), and another process took the run over. Nothing that happened here since "
            "was recorded."
        )
        try:
            now = self.store.run_by_id(driver.run_id)
        except Exception:
            now = None
        if now is not None and now.status == Status.ABORTED:
            reason = RunAbortedError(f"run {name!r} was aborted")
        elif now is not None and now.status == Status.CANCELLED:
            reason = RunCancelledError(cancelled_text(name, now.cancel))
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
            sources = known.sources
        snapshot = sources.snapshot()
        if known is None or known.digest != snapshot.digest:
            known = self._sources[root] = _Snapshot(sources, snapshot.digest, self.store.source_id(snapshot))
        return known.number

    def source_changed(self, source_id: int, target: str) -> bool:
        """Whether the code of that snapshot differs from today's."""
        file = target.partition("::")[0]
        self.source_id(target)
        sources = self._sources[source.code_root(file) if file else ""].sources
        then = self.store.source(source_id)
        return then is None or source.changed(then, sources.snapshot())

    # -- for a virtual clock -------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether nothing is being submitted, claimed or committed, and no thread of a body or a trace is at work."""
        claims = self._claiming or self._submitting or self._lazy
        return not claims and self.writer.idle and self.slots.idle and not self.threads.at_work

    def look_at_clock(self) -> None:
        """The clock has jumped: all that waits for a time looks again. From any thread."""
        for driver in list(self.drivers.values()):
            for body in list(driver.bodies.values()):
                body.look_at_clock()
        self.slots.look_at_clock()
        for loop in self.loops.existing():
            loop.soon(_look)
        for server in list(self.servers):
            server.look_at_clock()

    # -- rows without a waiting caller --------------------------------------------------------------------------

    def flush_lazily(self, driver: Driver) -> None:
        """Commit that driver's outbox soon, unless something else does first."""
        self._lazy[driver] = None
        if not self._lazy_armed:
            self._lazy_armed = True
            self.loops.free_loop().later(LAZY_SECONDS, self._flush_lazy)

    def _flush_lazy(self) -> None:
        self._lazy_armed = False
        while self._lazy:
            driver, _ = self._lazy.popitem()
            if driver.outbox and not driver.stopping:
                self.writer.mark_ready(driver)
        self.writer.flush()

    # -- the end ------------------------------------------------------------------------------------------------

    def retire(self) -> None:
        """The process ends: give back what is still claimed and leave no row behind. Quick; waits for nothing."""
        self.lease.stop()
        for driver in list(self.drivers.values()):
            if not driver.ending:
                self.store.release(driver.run_id, driver.token)
        self.lease.end()

    def close(self) -> None:
        """Stop driving, let go of the lock, end the loops. For tests, and for `perdure.init` with another store."""
        self.lease.stop()
        self.post.close()
        self.slots.close()
        for driver in list(self.drivers.values()):
            driver.stop(PerdureError("perdure was shut down"))
        for driver in list(self.drivers.values()):
            try:
                driver.done.exception(5)
            except TimeoutError:
                log.warning("run %s did not unwind", driver.run.name)
        self.loops.stop()
        try:
            self.retire()
        except StoreError as error:
            log.debug("the worker's row stays behind: %s", error)
        self.store.close()


def _look() -> None:
    """Does nothing: a loop looks at its timers after each callback."""
