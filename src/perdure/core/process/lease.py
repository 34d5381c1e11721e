"""The lease of a worker: the row that makes the worker's claims hold, and the heartbeat that renews the row.

The heartbeat also looks after the driven runs: a run that was claimed by another worker, or ended from outside, is
fenced even while the run writes nothing.

The heartbeat is a thread, so code that holds the interpreter's lock delays the heartbeat. On one machine a worker's
lock then speaks for the worker (`Liveness.hold_of`). Workers of other machines see the lease alone, so a worker whose
heartbeat came too late because the process was computing asks for a longer lease from then on. Otherwise two machines
would take such a run from each other for ever.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Mapping

from msgspec import json

from ...errors import StoreError
from ..ground.clock import US, Clock, process_cpu, seconds
from ..ground.model import Serving, WorkerRow
from ..ground.ports import Liveness, Store
from ..run.driver import Driver

log = logging.getLogger("perdure")

WATCH_SECONDS = 1.0
"""How often the claims of a few driven runs are looked at, so that an abort is noticed while nothing is written."""
WATCHED = 50
LONGEST_LEASE = 600.0
"""Seconds to which the lease of a worker may grow that computes without a pause."""
BUSY_PART = 10
"""A process that has used this part of a gap on a processor was computing: on a busy machine processes share."""
COMPLAIN_SECONDS = 30.0
"""How often the same trouble with the store is told of."""


class Lease:
    """See the module text. One per worker; from any thread."""

    def __init__(
        self,
        id: str,
        store: Store,
        liveness: Liveness,
        clock: Clock,
        drivers: Mapping[int, Driver],
        *,
        seconds: float,
    ) -> None:
        """`drivers`: the runs that the worker drives right now. The worker changes the mapping, the lease reads it."""
        self.seconds = seconds
        self._id = id
        self._store = store
        self._liveness = liveness
        self._clock = clock
        self._drivers = drivers
        self._started_at = clock.wall()
        self._lock = threading.Lock()
        self._beating = False
        self._closed = threading.Event()
        self._serves = ""
        self._complaint = ""
        self._complain_at = 0.0

    def row(self) -> WorkerRow:
        """The worker's row, as the store has to hold it."""
        length = int(self.seconds * US)
        host = socket.gethostname()
        return WorkerRow(self._id, os.getpid(), host, self._clock.boot_id, length, self._started_at, self._serves)

    def serve_no_more(self) -> None:
        """This process serves nothing from now on: the next heartbeat tells the store."""
        self._serves = ""

    def serve(self, serving: Serving) -> None:
        """Let the store have what this process serves from now on. Blocks on the store."""
        self._serves = json.encode(serving).decode()
        if self._beating:
            self._store.renew(self.row())
        else:
            self.attend()

    def attend(self) -> None:
        """Before the first claim: take the lock, write the row, keep it fresh."""
        if self._beating:
            return
        with self._lock:
            if not self._beating:
                self._liveness.hold(self._id)
                self._store.renew(self.row())
                self._beating = True
                threading.Thread(target=self._beat, name="perdure-heartbeat", daemon=True).start()

    def _beat(self) -> None:
        renewed, worked = self._clock.boot(), process_cpu()
        while not self._closed.wait(min(WATCH_SECONDS, self.seconds / 3)):
            now = self._clock.boot()
            due = now - renewed >= self.seconds * US / 3
            self._look_for_rest(seconds())
            try:
                if due:
                    self._lengthen((now - renewed) / US, (process_cpu() - worked) / 1e9)
                    self._store.renew(self.row())
                    renewed, worked = now, process_cpu()
                if self._drivers:
                    self._watch_tasks()
                    if due or len(self._drivers) <= WATCHED:
                        self.watch()
            except Exception as error:
                # Also a fault of the store's own code: without this thread each later run would lose its lease.
                self.complain("the lease could not be renewed", error)

    def _lengthen(self, gap: float, computed: float) -> None:
        """Ask for a longer lease where the process has been computing in a gap between two renewals that was longer
        than the lease. A process that was stopped, or a machine that was suspended, computes nothing meanwhile."""
        longest = max(LONGEST_LEASE, self.seconds)
        if gap > self.seconds and computed > gap / BUSY_PART and self.seconds < longest:
            log.warning(
                "no heartbeat for %.1f s: the code of a task has kept the interpreter to itself for longer than the "
                "lease (%g s). The lease of this worker is %.0f s from now on. Give such work executor='process', or "
                "raise PERDURE_LEASE", gap, self.seconds, min(2 * gap, longest),
            )  # fmt: skip
            self.seconds = min(2 * gap, longest)

    def _look_for_rest(self, now: float) -> None:
        # A function, so that no local variable keeps a run alive until the next look.
        for driver in list(self._drivers.values())[:WATCHED]:
            for body in list(driver.bodies.values()):
                body.watch.look_for_rest(now)

    def _watch_tasks(self) -> None:
        """Pass on the pauses of tasks, which one look tells for all runs. Blocks on the store."""
        paused = self._store.paused_tasks()
        for driver in list(self._drivers.values()):
            driver.pausing.follow_task(paused=driver.run.task in paused)

    def watch(self) -> None:
        """Fence the drivers whose claim is lost, and pass on pauses and requests to cancel. Blocks on the store."""
        for driver in list(self._drivers.values()):
            now = self._store.run_by_id(driver.run_id)
            if now is not None and now.token != driver.token and not driver.stopping and not driver.ending:
                # A stopping driver notices by itself, and a parking driver has just given its claim back.
                driver.fenced()
            elif now is not None:
                driver.pausing.follow(paused=now.paused is not None)
                if now.cancel is not None:
                    self._cancel(driver, now.cancel, now.cancel_until)

    def _cancel(self, driver: Driver, reason: str, until: int | None) -> None:
        """The run was asked to cancel; end the run once its time for cleaning up is over."""
        driver.cancel_run(reason)
        if until is None or driver.stopping or driver.ending or self._clock.wall() < until:
            return
        if self._store.end_cancelled(driver.run_id, self._clock.wall()):
            driver.fenced()

    def complain(self, what: str, error: Exception) -> None:
        """Warn that the store fails. A failure hits all runs at once, so the same cause is logged now and then only."""
        now, text = seconds(), str(error) if isinstance(error, StoreError) else f"{type(error).__name__}: {error}"
        if text != self._complaint or now > self._complain_at:
            self._complaint, self._complain_at = text, now + COMPLAIN_SECONDS
            log.warning("%s: %s", what, text)

    def stop(self) -> None:
        """End the heartbeat; the row and the lock stay."""
        self._closed.set()

    def end(self) -> None:
        """The worker claims nothing any more: leave no row behind."""
        self.stop()
        if self._beating:
            self._beating = False
            self._store.forget(self._id)
            self._liveness.drop(self._id)
