"""Standing still: a paused run begins nothing new, and leaves memory once the outcomes of what executes are recorded.

- PS1 once the driver knows of the pause, no call without an entry starts. The driver gives the claim back only when
  every outcome of a call under way is on disk.
- PS2 from the return of `RunQueue.pause` to the resume, no worker claims the run. A pause is a column of the row of the
  run, so the death of any process changes nothing.
- PS3 from the return of `RunQueue.pause_task` to the resume, no worker claims or begins a run of the task. The pause of
  a task is a row of its own, so runs that are submitted later stand still as well.

A run that only waits for deadlines and messages is parked. Every other run is handed over like a run of a worker that
shuts down: the stored status stays RUNNING, without a claim.
"""

from __future__ import annotations

import logging
import threading
from typing import Any, Protocol

from ...errors import RunPausedError, StoreError, paused_text, task_paused_text
from ..body.interfaces import LoopPort
from ..ground.model import RunRow
from .gate import Gate
from .interfaces import WorkerPort

log = logging.getLogger("perdure")

LOOK_SECONDS = 0.02
"""How often a driver looks whether a paused run stands still."""


class PausableDriver(Protocol):
    """What pausing asks of a driver."""

    worker: WorkerPort
    run: RunRow
    run_id: int
    loop: Any
    gate: Gate

    @property
    def stopping(self) -> bool:
        """Whether driving has been told to end."""
        ...

    @property
    def ending(self) -> bool:
        """Whether the outcome is on its way to disk."""
        ...

    def between_calls(self) -> bool:
        """Whether nothing of the run is under way."""
        ...

    def consider(self, park_after: float | None = None) -> None:
        """Park the run if nothing but deadlines and messages can move the run."""

    def hand_over(self, reason: BaseException) -> bool:
        """Stop driving if nothing of the run is under way."""
        ...


class Pausing:
    """The pause of one driven run. `_lock` guards the flags; the looks are on the thread of the run's loop."""

    def __init__(self, driver: PausableDriver) -> None:
        self._driver = driver
        self._lock = threading.Lock()
        self._by_run = False
        self._by_task = False
        self.wanted = False
        """The run is to stand still."""

    def follow(self, *, paused: bool) -> None:
        """The row of the run says whether the run is paused. From any thread; idempotent."""
        with self._lock:
            self._by_run = paused
            changed = self._changed()
        if changed:
            self._follow()

    def follow_task(self, *, paused: bool) -> None:
        """The store says whether the task of the run is paused. From any thread; idempotent."""
        with self._lock:
            self._by_task = paused
            changed = self._changed()
        if changed:
            self._follow()

    def _changed(self) -> bool:
        was = self.wanted
        self.wanted = self._by_run or self._by_task
        return self.wanted is not was

    def _follow(self) -> None:
        while True:
            wanted = self.wanted
            self._driver.gate.hold(wanted)
            if self.wanted is wanted:  # otherwise another thread has changed it, and may have told the gate earlier
                break
        if wanted:
            self._driver.loop.soon(self._look)

    def error(self) -> RunPausedError:
        """The error for callers that wait for the run."""
        run = self._driver.run
        if self._by_run or not self._by_task:
            return RunPausedError(paused_text(run.name))
        return RunPausedError(task_paused_text(run.name, run.task))

    def _look(self) -> None:
        driver = self._driver
        if not self.wanted or driver.stopping or driver.ending:
            return
        if driver.between_calls() and self._holds():
            driver.consider(0.0)
            driver.hand_over(self.error())
        if not driver.stopping:
            loop: LoopPort = driver.loop
            loop.later(LOOK_SECONDS, self._look)

    def _holds(self) -> bool:
        """Whether the store still says that the run or its task is paused. A resume that came meanwhile lets the run go
        on."""
        driver = self._driver
        try:
            row = driver.worker.store.run_by_id(driver.run_id)
            tasks = driver.worker.store.paused_tasks()
        except StoreError as error:
            log.debug("run %s: the pause could not be looked up: %s", driver.run.name, error)
            return False
        if row is not None:
            self.follow(paused=row.paused is not None)
        self.follow_task(paused=driver.run.task in tasks)
        return self.wanted
