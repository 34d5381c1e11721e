"""How driving a run ends: with its outcome, with a reason, or parked.

- D3 once driving has been told to end (`stop`), nothing more is recorded, for all that user code does while unwinding.
- D4 `done` is resolved exactly once: with the outcome on disk, or with the reason for the end of driving.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from concurrent.futures import Future
from typing import Any

from ...errors import (
    LeaseLostError,
    NonDeterminismError,
    Parked,
    PerdureError,
    RunAbortedError,
    RunCancelledError,
    RunStopped,
    StoreError,
)
from ..body.body import Body
from ..body.loop import LoopThread
from ..body.scope import driving
from ..commit.records import Synced
from ..ground.clock import perf
from ..ground.model import NewRefusal, Park, RunRow, Wake
from ..journal.segment import Journal
from .gate import Gate
from .interfaces import WorkerPort
from .pausing import Pausing
from .refusing import is_refusal, place_of_tasks, place_on_stack, refusal_of

log = logging.getLogger("perdure")

UNWIND_SECONDS = 1.0
"""How long a stopped run's tasks may take to unwind before the caller is told."""


class Ending:
    """The end of a `Driver`, which is built on this class. `_stopping` and `_left` change once, under `_lock`."""

    worker: WorkerPort
    run: RunRow
    run_id: int
    token: bytes
    loop: LoopThread
    gate: Gate
    source_id: int
    n: int
    journal: Journal
    outbox: list[Any]
    abandoning: bool
    broken: bool
    bodies: dict[int, Body]
    pausing: Pausing

    def __init__(self) -> None:
        self.done: Future[tuple[int, bytes, Any]] = Future()
        """`(Result, encoded value, the value itself or its error)`, or the exception that ended driving."""
        self.cancel_told = False
        """The open bodies have been told of the request to cancel the run. Known before the run is parked."""
        self.retry_after: float | None = None
        """Seconds until this process tries again, should the run not be drivable; `None`: this process does not."""
        self._place = ""
        """The line of the user's code at which driving was told to end, where that is known."""
        self.overdue = False
        """The run was parked, and something in it did not unwind in time."""
        self._lock = threading.Lock()
        self._stopping: BaseException | None = None
        self._told: list[Body] = []
        """The bodies that were open when driving was told to end."""
        self._left = False
        self._outcome: tuple[int, bytes, Any] | None = None
        self._main: asyncio.Task[Any] | None = None

    def dispose_all(self) -> None:
        """The run has ended: dispose of all attempts outside of this process."""
        raise NotImplementedError

    def settled(self, action: int) -> None:
        """See `Sink`."""
        raise NotImplementedError

    def finished(self) -> None:
        """The outcome is on disk."""
        outcome = self._outcome
        assert outcome is not None
        self.dispose_all()
        if self.leave():
            self.done.set_result(outcome)

    # -- ending early ------------------------------------------------------------------------------------------

    def stop(self, reason: BaseException) -> None:
        """Drive no further: shutdown, lost claim, mismatch, broken store. Nothing more is recorded. Any thread."""
        if not self.begin_to_stop(reason):
            return
        if is_refusal(reason):
            bodies = list(self.bodies.values())
            self._place = place_on_stack(sys._getframe()) or place_of_tasks(
                task for body in bodies if body.loop.here() for task in list(body.tasks)
            )
        # Bodies that unwind quickly leave `bodies` by then, perhaps with some of their code still running.
        self._told = list(self.bodies.values())
        for body in self._told:
            body.close()
        self.loop.soon(self._unwind)

    def begin_to_stop(self, reason: BaseException) -> bool:
        """Driving ends for that reason; `False` if it ends already, or has ended. From any thread."""
        with self._lock:
            if self._stopping is not None or self._left:
                return False
            self._stopping = reason
        self.gate.close()
        return True

    def _unwind(self) -> None:
        # Bodies on other loops have been told by `Body.close`; a task is touched on its own loop's thread only.
        bodies = [body for body in list(self.bodies.values()) if body.loop is self.loop]
        tasks = [task for body in bodies for task in list(body.tasks) if not task.done()]
        if self._main is not None and not self._main.done():
            self._main.cancel()
            tasks.append(self._main)
        if not tasks:
            self._give_up()
            return
        for task in tasks:
            task.cancel()
        waits = self._told if isinstance(self._stopping, Parked) else []
        waiter = self.loop.loop.create_task(_settle(tasks, waits), context=self.loop.loop.empty.copy())
        waiter.add_done_callback(self._unwound, context=self.loop.loop.empty)

    def _unwound(self, settled: asyncio.Task[bool]) -> None:
        self.overdue = not settled.result()
        if self.overdue:
            for body in self._told:
                body.loop.soon(body.loop.keep, body.tasks)
        self._told = []
        self._give_up()

    def _give_up(self) -> None:
        reason = self._stopping
        assert reason is not None
        if self._left:
            return
        if isinstance(reason, Parked):
            if self.overdue:
                log.warning(
                    "run %s does not unwind: something in it swallows its cancellation. It goes on at its wake time, "
                    "but what is left of it stays in memory, and it will not be parked again by this process",
                    self.run.name,
                )
            self.outbox.append(Park(Wake(*reason.wake), self.n, reason.waits, self.cancel_told, reason.tickets))
            self.worker.writer.mark_ready(self)
            self.loop.flush_soon(self.worker.writer)
            return
        if self._outcome is not None and not isinstance(reason, (LeaseLostError, StoreError)):
            # The end is on its way to disk: wait for the result rather than guess.
            synced = Synced(None)
            self.outbox.append(synced)
            try:
                self.worker.writer.through(self, synced)
            except RunStopped:
                pass
        if not isinstance(reason, LeaseLostError):
            try:
                held = self.worker.store.release(self.run_id, self.token, self._refusal(reason))
                if not held and isinstance(reason, NonDeterminismError):
                    # Of a journal that another process has continued, this one has read some rows before and some after
                    # it was frozen: they do not belong together, and say nothing of the code.
                    reason = self.worker.why_fenced(self)
            except Exception as error:
                # Also a fault of the store's own code: the caller of the run waits for the end.
                self.worker.doubt = True
                if not isinstance(reason, StoreError):
                    log.warning("run %s could not be released: %s", self.run.name, error)
        if isinstance(reason, (RunAbortedError, RunCancelledError)):
            self.dispose_all()
        self._resolve_error(reason)

    def _refusal(self, reason: BaseException) -> NewRefusal | None:
        if not is_refusal(reason):
            return None
        now = self.worker.clock.wall()
        return refusal_of(reason, self.run.worker or "", now, self.retry_after, self._place)

    def parked(self) -> None:
        """That the run sleeps is in the store."""
        assert self._stopping is not None
        self._resolve_error(self.pausing.error() if self.pausing.wanted else self._stopping)

    def _resolve_error(self, reason: BaseException) -> None:
        if self.leave():
            self.done.set_exception(reason)

    def leave(self) -> bool:
        """Driving ends; `False` if it had ended already (D4)."""
        with self._lock:
            if self._left:
                return False
            self._left = True
        driving(-1)
        self.worker.left(self)
        return True

    def fenced(self) -> None:
        """The store refused a write: another worker has the claim (P3), or the run was ended from outside."""
        self._fail(self.worker.why_fenced(self))

    def failed(self, error: StoreError) -> None:
        """The store cannot be written."""
        self._fail(error)

    def _fail(self, error: PerdureError) -> None:
        if isinstance(self._stopping, Parked):
            # Nothing but its row was left to be written.
            self._resolve_error(error)
        else:
            self.stop(error)

    @property
    def ending(self) -> bool:
        """Whether the outcome is on its way to disk."""
        return self._outcome is not None

    @property
    def has_left(self) -> bool:
        """Whether driving has ended."""
        return self._left

    @property
    def stopping(self) -> bool:
        """Whether driving has been told to end."""
        return self._stopping is not None

    def why_stopped(self) -> str:
        """For `RunStopped`."""
        reason = self._stopping
        return f"run {self.run.name!r} is no longer driven here" + (f": {reason}" if reason is not None else "")

    def stopped_error(self) -> RunStopped:
        """The error of all durable calls from now on, and of callers whose record was not written."""
        reason = self._stopping
        if isinstance(reason, Parked):
            return Parked(str(reason), reason.wake, waits=reason.waits)
        return RunStopped(self.why_stopped())


async def _settle(tasks: list[asyncio.Task[Any]], bodies: list[Body]) -> bool:
    """Wait until these tasks, and all code of these bodies, have unwound; whether they have in time."""
    end = perf() + int(UNWIND_SECONDS * 1e9)
    _, pending = await asyncio.wait(tasks, timeout=UNWIND_SECONDS)
    pause = 0.001
    while any(not body.unwound() for body in bodies) and perf() < end:
        await asyncio.sleep(pause)
        pause = min(2 * pause, 0.05)
    return not pending and all(body.unwound() for body in bodies)
