"""Numbers of attempts over crashes: simulated histories whose processes die often, and the number in each life.

The programs, the workers and the faults are those of the simulation (`tests/torture/sim.py`). A life that has written
an entry, and has then been killed, has spent its attempt: the next life of the run sees a higher number.
"""

from __future__ import annotations

from typing import Any

from proof.generators import Violation

import perdure
from perdure.core.ground.model import RunWrites
from perdure.store.memory import MemoryStore

from . import programs
from .sim import Settings, Simulation, in_child
from .sim_threads import Choices


class Noting(MemoryStore):
    """Notes what became of each claim."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.written: set[bytes] = set()
        """The claims under which entries were written."""
        self.given_up: set[bytes] = set()
        """The claims that ended in good order: parked, finished or given back."""

    def commit(self, writes: Any) -> Any:
        answers = super().commit(writes)
        for write, answer in zip(writes, answers, strict=True):
            if isinstance(write, RunWrites) and answer:
                if write.segments:
                    self.written.add(write.token)
                if write.park is not None or write.finish is not None:
                    self.given_up.add(write.token)
        return answers

    def append(self, run: int, token: bytes, segment: Any) -> Any:
        answer = super().append(run, token, segment)
        if answer:
            self.written.add(token)
        return answer

    def release(self, run: int, token: bytes, refusal: Any = None) -> Any:
        self.given_up.add(token)
        return super().release(run, token, refusal)


class Counted(Simulation):
    """A history that notes the number of each attempt of a root task."""

    def __init__(self, seed: int) -> None:
        choices = Choices(seed)
        settings = Settings(workers=1 + choices.among(2), size=2, kill_rate=0.05, faults=8, park_after=0.03)
        super().__init__(seed, settings=settings)
        self.numbers: list[tuple[bytes, int]] = []
        """The claim and the number, by life."""

    def make_store(self) -> Noting:
        return Noting(clock=self.clock)

    def line_written(self, line: programs.Line) -> None:
        driver = programs.driver()
        if line.kind == "drive" and driver is not None:
            context = perdure.ctx()
            assert context is not None
            self.numbers.append((driver.token, context.attempt))
        super().line_written(line)

    def judge(self, name: str) -> None:
        store: Any = self.memory
        for (token, number), (_, later) in zip(self.numbers, self.numbers[1:], strict=False):
            if later < number or (later == number and token in store.written and token not in store.given_up):
                self.wrong(f"P2: attempt {later} follows attempt {number}, which wrote entries and was killed")


def history(seed: int) -> None:
    """A history of one run.

    Raises:
        Violation: P2, two lives count as one attempt.
    """
    report = in_child(seed, lambda: Counted(seed).run())
    if report.violations:
        raise Violation(report.violations[0])
