"""Replay under simulation and replay on real threads and asyncio's real loop, side by side.

A journal is recorded up to the last durable call and then replayed in the other world: a simulated history on real
threads, and a real run in the simulation. What the bodies observe has to be the same in both worlds.

    python -m tests.torture.sim_beside FIRST COUNT
"""

from __future__ import annotations

import pickle
import sys
import time
from dataclasses import dataclass, field

from perdure.core.ground.model import Status
from perdure.core.process.submission import new_run
from perdure.core.process.worker import Worker
from perdure.executors.local import DaemonThreads
from perdure.store.memory import MemoryLiveness, MemoryStore

from . import oracle, programs
from .sim import Life, Report, Settings, Simulation, in_child
from .sim_store import tables
from .sim_threads import US


@dataclass
class Observed(Report):
    """A journal, and what the bodies observed as it was recorded or replayed."""

    program: str = ""
    store: bytes = b""
    lines: list[programs.Line] = field(default_factory=list)


def opened(journal: Observed, store: MemoryStore) -> MemoryStore:
    """Fill the store with the journal, as a process has left it that is gone."""
    vars(store).update(pickle.loads(journal.store))
    for worker in store.workers():
        store.forget(worker.id)
    return store


# -- in the simulation -------------------------------------------------------------------------------------------------


class Recording(Simulation):
    """A history of one run that is recorded without faults."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, settings=Settings(size=1 + seed % 4, restless=0.3))
        self.report: Observed = Observed(seed, program=self.trees[0].show())

    def recorded_all(self, life: Life) -> None:
        self.report.store = pickle.dumps(tables(self.memory))
        self.report.lines = life.lines


class Replaying(Simulation):
    """A history that begins with the journal of a real run."""

    def __init__(self, journal: Observed) -> None:
        trees = [programs.parse(journal.program)]
        super().__init__(journal.seed, trees=trees, settings=Settings(restless=0.3))
        self.report: Observed = Observed(journal.seed)
        self._journal = journal
        self.scheduler.epoch = time.time_ns() // 1000 + 86_400 * US  # every deadline of the journal has passed

    def make_store(self) -> MemoryStore:
        return opened(self._journal, super().make_store())

    def judge(self, name: str) -> None:
        self.report.lines = self.lives[name][-1].lines


# -- on real threads ---------------------------------------------------------------------------------------------------


class Watched(programs.World):
    """The world of a real life."""

    def __init__(self, program: programs.Node, store: MemoryStore) -> None:
        super().__init__(program)
        self.store = store
        self.observed = Observed(0, program=program.show())
        programs.install(self)

    def write(self, line: programs.Line) -> None:
        if not self.observed.store:
            self.observed.lines.append(line)

    def recorded_all(self) -> None:
        with self.store._lock:
            self.observed.store = pickle.dumps(tables(self.store))


def _worker(store: MemoryStore) -> Worker:
    return Worker(store, MemoryLiveness(), DaemonThreads(), clock=store.clock)


def record(seed: int) -> Observed:
    """Record a program on real threads, in this process."""
    world = Watched(programs.generate(seed, 1 + seed % 4), MemoryStore())
    new = new_run(programs.root.spec, (), {}, name="r0", created_at=time.time_ns() // 1000)
    driver = _worker(world.store).submit(new, programs.root.spec)
    driver.done.result(60)  # type: ignore[union-attr]
    return world.observed


def replay(journal: Observed) -> Observed:
    """Replay a journal on real threads, in this process."""
    world = Watched(programs.parse(journal.program), opened(journal, MemoryStore()))
    run = world.store.run("r0")
    assert run is not None
    driver = _worker(world.store).take(run, programs.root.spec, (Status.RUNNING,))
    assert driver is not None
    driver.done.result(60)
    return world.observed


# -- side by side ------------------------------------------------------------------------------------------------------


def differences(seed: int) -> list[str]:
    """How replay in one world differs from what was recorded in the other."""
    simulated: Observed = in_child(seed, lambda: Recording(seed).run())
    real: Observed = in_child(seed, lambda: record(seed))
    pairs = {
        "recorded in the simulation, replayed on real threads": (simulated, in_child(seed, lambda: replay(simulated))),
        "recorded on real threads, replayed in the simulation": (real, in_child(seed, lambda: Replaying(real).run())),
    }
    found = []
    for name, (before, after) in pairs.items():
        wrong = [*before.violations, *after.violations]
        if not wrong and not after.lines:
            wrong = ["the replay observed nothing"]
        if not wrong:
            lives = [oracle.Life(life.lines, oracle.DONE, whole=True) for life in (before, after)]
            wrong = list(oracle.differences(*lives))
            wrong += [f"executed {name}" for name in oracle.executed(after.lines) if name in oracle.told(before.lines)]
        found += [f"seed {seed}, {name}: {text}" for text in wrong]
    return found


def main(first: int, count: int) -> int:
    wrong = [text for seed in range(first, first + count) for text in differences(seed)]
    print(*wrong, f"{2 * count} journals replayed in the other world, {len(wrong)} differences", sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
