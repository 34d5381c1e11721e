"""Runs that are told to stop while their outcome is on its way to disk: simulated histories (D4).

The programs and the workers are those of the simulation (`tests/torture/sim.py`). At a commit that may hold the end of
a run, another thread stops the driver, as at a shutdown or after a lost lease, before or behind the commit. Futures
that are resolved twice show as errors in the log, and a run without a driver shows as a run that never ends.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import InvalidStateError
from typing import Any

from proof.generators import Violation

from perdure.errors import LeaseLostError, PerdureError
from perdure.store.memory import MemoryStore

from .sim import Settings, Simulation, in_child
from .sim_store import Fault
from .sim_threads import Choices

REASONS = (PerdureError, LeaseLostError)


class Stopped(Simulation):
    """A history in which drivers are stopped at the very end."""

    def __init__(self, seed: int) -> None:
        choices = Choices(seed)
        settings = Settings(workers=1, runs=2, size=1, slow_disk=0.01, restless=0.3, direct=0.5)
        super().__init__(seed, settings=settings, choices=choices)
        self.stops_left = 2

    def make_store(self) -> MemoryStore:
        wrong = self.wrong

        class Handler(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                error = record.exc_info[1] if record.exc_info else None
                if isinstance(error, (InvalidStateError, asyncio.InvalidStateError)):
                    wrong(f"a future is resolved twice: {error}")

        # A body may leave failed work to asyncio; a future that is resolved twice is perdure's own fault.
        logging.getLogger("asyncio").addHandler(Handler())
        return super().make_store()

    def fault_of(self, verb: str, writes: bool) -> Fault | None:
        process: Any = self.scheduler.current.process
        worker = getattr(process, "worker", None)
        for driver in list(worker.drivers.values()) if worker is not None and verb == "commit" else ():
            if driver.ending and self.stops_left and self.choices.chance() < 0.7:
                self.stops_left -= 1
                self.count("stopped at the end")
                self.scheduler.start_in(process, "stops", lambda driver=driver: self._stop(driver))
        return super().fault_of(verb, writes)

    def _stop(self, driver: Any) -> None:
        if self.choices.chance() < 0.7:
            self.scheduler.sleep(self.choices.between(0.0, 0.01))
        driver.stop(REASONS[self.choices.among(len(REASONS))]("stopped at the very end"))


def history(seed: int) -> None:
    """A history of two runs.

    Raises:
        Violation: D4, a run ends twice, or never.
    """
    report = in_child(seed, lambda: Stopped(seed).run())
    if report.violations:
        raise Violation(f"D4 {report.violations[0]}")
