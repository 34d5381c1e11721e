"""Replay under simulation and replay on real threads and asyncio's real loop, side by side.

A simulated history records a journal up to the last durable call. The journal is then replayed twice: in the
simulation, and in a process whose threads, clocks and event loop are Python's own. What the bodies observe has to be
the same.

    python -m tests.torture.sim_beside FIRST COUNT
"""

from __future__ import annotations

import pickle
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from perdure.core.ground.model import Status
from perdure.core.process.worker import Worker
from perdure.executors.local import DaemonThreads
from perdure.store.memory import MemoryLiveness, MemoryStore

from . import oracle, programs
from .sim import Life, Report, Settings, Simulation, in_child
from .sim_store import tables


@dataclass
class Recorded(Report):
    """A history, the journal of its run, and what the replay of the journal observed."""

    program: str = ""
    store: bytes = b""
    lines: list[programs.Line] = field(default_factory=list)


class Recording(Simulation):
    """A history of one run that is recorded without faults, and then replayed."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, settings=Settings(size=1 + seed % 4, restless=0.3, replay_at_end=True))
        self.report: Recorded = Recorded(seed, program=self.trees[0].show())

    def recorded_all(self, life: Life) -> None:
        if not self.report.store:
            self.report.store = pickle.dumps(tables(self.memory))
        super().recorded_all(life)
        self.report.lines = life.lines


class Watched(programs.World):
    """The world of the real replay."""

    def __init__(self, program: programs.Node) -> None:
        super().__init__(program)
        self.lines: list[programs.Line] = []

    def write(self, line: programs.Line) -> None:
        self.lines.append(line)


def replay(recorded: Recorded) -> list[programs.Line]:
    """Replay the journal on real threads and a real loop, in this process; what the bodies observe."""
    store = MemoryStore()
    vars(store).update(pickle.loads(recorded.store))
    for worker in store.workers():
        store.forget(worker.id)
    world = Watched(programs.parse(recorded.program))
    programs.install(world)
    worker = Worker(store, MemoryLiveness(), DaemonThreads(), clock=store.clock)
    run = store.run("r0")
    assert run is not None
    driver = worker.take(run, programs.root.spec, (Status.RUNNING,))
    assert driver is not None
    driver.done.result(60)
    return world.lines


def difference(seed: int) -> str | None:
    """How the two replays of a seed's journal differ; `None`: not at all."""
    recorded: Recorded = in_child(seed, lambda: Recording(seed).run())
    if recorded.violations:
        return f"seed {seed}: {recorded.violations}"
    began = time.monotonic()
    real: Any = in_child(seed, lambda: Recorded(seed, lines=replay(recorded)))
    if real.violations:
        return f"seed {seed}: the real replay failed after {time.monotonic() - began:.1f} s: {real.violations}"
    simulated = oracle.Life(recorded.lines, oracle.DONE, whole=True)
    for text in oracle.differences(simulated, oracle.Life(real.lines, oracle.DONE, whole=True)):
        return f"seed {seed}: {text}"
    return None


def main(first: int, count: int) -> int:
    wrong = [text for text in map(difference, range(first, first + count)) if text is not None]
    print(*wrong, f"{count} journals replayed twice, {len(wrong)} differ", sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
