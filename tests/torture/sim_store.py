"""The store of a simulated process: the store in memory, behind a wire that can fail.

The tables live outside of the simulated processes and survive them, as a database does. Each call takes virtual time,
and its fault, if there is one, strikes before the call has been applied or after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from enum import Enum
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from perdure.core.ground.model import CreateRun
from perdure.core.ground.ports import Hold
from perdure.errors import StoreUnavailableError

if TYPE_CHECKING:
    from perdure.store.memory import MemoryStore

    from .sim import SimProcess, Simulation


class Fault(Enum):
    """What can happen to a call of the store."""

    KILLED_BEFORE = "killed before a call was applied"
    KILLED_AFTER = "killed after a call was applied, before its answer"
    FAILS = "a call failed"
    ANSWER_LOST = "a call was applied, and its answer was lost"
    FROZEN_BEFORE = "frozen before a call was applied"
    FROZEN_AFTER = "frozen after a call was applied, before its answer"


class Sight(Enum):
    """What the processes know of each other besides the leases."""

    SAME_MACHINE = "locks of one machine"
    OTHER_MACHINES = "nothing"
    SESSIONS = "locks of database sessions"


WRITES = frozenset(
    {"commit", "append", "claim", "take_due", "release", "abort", "renew", "forget", "source_id", "advance", "move"}
    | {"send", "cancel", "publish"}
)


class SimStore:
    """A `Store` of one simulated process. Every verb goes through `_call`."""

    def __init__(self, memory: MemoryStore, simulation: Simulation, process: SimProcess) -> None:
        self._memory = memory
        self._simulation = simulation
        self._process = process
        self.id = memory.id
        self.url = memory.url
        self.clock = memory.clock

    def __getattr__(self, verb: str) -> Any:
        function = getattr(self._memory, verb)
        writes = verb in WRITES

        def called(*arguments: Any, **options: Any) -> Any:
            return self._call(verb, writes, function, arguments, options)

        setattr(self, verb, called)
        return called

    def close(self) -> None:
        """The tables stay."""

    def listen(self, bell: Callable[[], None], *, ends: bool = False) -> bool:
        return self._simulation.bells_of(self._process, bell)

    def hear(self, bell: Callable[[], None]) -> bool:
        """As `listen`. The tables know no bell: they outlive the process."""
        return self._simulation.bells_of(self._process, bell)

    def _call(self, verb: str, writes: bool, function: Any, arguments: Any, options: Any) -> Any:
        simulation, scheduler, process = self._simulation, self._simulation.scheduler, self._process
        scheduler.point()
        fault = simulation.fault_of(verb, writes)
        self._take(scheduler, writes)
        if fault is not None and scheduler.choices.chance() < 0.7:
            # The call is on its way, and other threads get on meanwhile.
            scheduler.sleep(0.003 * scheduler.choices.chance())
        if fault is Fault.KILLED_BEFORE:
            scheduler.kill(process)
        elif fault is Fault.FROZEN_BEFORE:
            simulation.freeze(process)
        elif fault is Fault.FAILS:
            raise StoreUnavailableError(f"simulated: {verb} fails")
        answer = simulation.ledger.apply(process, verb, function, arguments, options)
        if isinstance(answer, Iterator):
            answer = iter(list(answer))
        elif verb != "version":
            scheduler.note(verb)
        simulation.tell(verb, *_shown(arguments), "->", answer)
        if fault is Fault.KILLED_AFTER:
            scheduler.kill(process)
        elif fault is Fault.FROZEN_AFTER:
            simulation.freeze(process)
        elif fault is Fault.ANSWER_LOST:
            raise StoreUnavailableError(f"simulated: the answer to {verb} is lost")
        if writes:
            simulation.ring()
        scheduler.point()
        return answer

    def _take(self, scheduler: Any, writes: bool) -> None:
        """The time that a call takes; other threads run meanwhile."""
        settings, chance = self._simulation.settings, scheduler.choices.chance
        if writes and settings.slow_disk and chance() < 0.5:
            scheduler.sleep(settings.slow_disk * chance())
        elif chance() < 0.2:
            scheduler.sleep(0.0005 * chance())


def _shown(arguments: Sequence[Any]) -> list[str]:
    return [str(argument)[:200] for argument in arguments]


def tables(memory: MemoryStore) -> dict[str, Any]:
    """A copy of all that the store holds."""
    held = {name: value for name, value in vars(memory).items() if name not in ("id", "_mutex", "_clock", "_closed")}
    return {name: _copied(value) for name, value in held.items()}


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: copy(inner) if isinstance(inner, dict | set) else inner for key, inner in value.items()}
    return copy(value)


class ClaimTaken(NamedTuple):
    """A claim that the store has taken."""

    run: str
    at: int


class Ledger:
    """Checks each answer of the store beside the store (P3): a write under a lost claim must not be applied, and no
    claim is taken from a process that has renewed its lease in time. Keeps what a power cut would leave."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._memory: MemoryStore = simulation.memory
        self._on_disk = tables(self._memory)
        self.claims: dict[bytes, ClaimTaken] = {}
        """All claims by token, in the order in which the store has taken them."""

    def apply(self, process: SimProcess, verb: str, function: Any, arguments: Any, options: Any) -> Any:
        """Call the store, and check the answer."""
        if verb in ("commit", "append"):
            answer = self._write(verb, function, arguments)
        elif verb == "claim":
            answer = self._claim(process, function, arguments, options)
        else:
            answer = function(*arguments, **options)
        if self._simulation.settings.power and _to_disk(verb, arguments):
            self._on_disk = tables(self._memory)
        if verb in WRITES:
            for row in self._memory.runs():
                if row.token is not None and row.token not in self.claims:
                    self.claims[row.token] = ClaimTaken(row.name, self._simulation.scheduler.now)
        return answer

    def overtaken(self, token: bytes) -> float:
        """When the next claim of the same run was taken (microseconds); never: infinity."""
        mine = self.claims[token]
        later = (claim.at for claim in self.claims.values() if claim.run == mine.run and claim.at > mine.at)
        return min(later, default=inf)

    def lose_power(self) -> None:
        """Writes that were only visible are gone."""
        version = self._memory.version()
        vars(self._memory).update(self._on_disk)
        self._memory._version = version + 1
        self._on_disk = tables(self._memory)

    def _write(self, verb: str, function: Any, arguments: Any) -> Any:
        memory = self._memory
        if verb == "append":
            claims = [(arguments[0], arguments[1])]
        else:
            claims = [(0, b"") if isinstance(w, CreateRun) else (w.run, w.token) for w in arguments[0]]
        before = [memory.run_by_id(run) for run, _ in claims]
        answer = function(*arguments)
        for (run, token), row, written in zip(claims, before, [answer] if verb == "append" else answer, strict=True):
            if run and written and (row is None or row.token != token):
                self._simulation.wrong(f"a write of run {run} under a lost claim was applied")
            if run and not written:
                self._simulation.counts["a write under a lost claim was refused"] += 1
        return answer

    def _claim(self, process: SimProcess, function: Any, arguments: Any, options: Any) -> Any:
        row = self._memory.run_by_id(arguments[0])
        answer = function(*arguments, **options)
        if answer is not None and row is not None and row.token is not None and row.worker is not None:
            for holder in self._simulation.processes:
                worker = getattr(holder, "worker", None)
                if worker is None or worker.id != row.worker or holder is process:
                    continue
                if self._simulation.is_healthy(holder) and row.id in worker.drivers:
                    self._simulation.wrong(f"run {row.name} was taken from process {holder.number}, which was at work")
        return answer


def _to_disk(verb: str, arguments: Any) -> bool:
    """Whether the write, and every write before it, survives a power cut (`Journals.commit`)."""
    if verb == "commit":
        return not all(isinstance(write, CreateRun) and write.claim is not None for write in arguments[0])
    return verb in ("append", "abort", "advance", "send", "cancel")


class SimLiveness:
    """The locks of all processes."""

    def __init__(self, sight: Sight, processes: list[SimProcess]) -> None:
        self.sight = sight
        self.processes = processes
        self.held: dict[str, SimProcess] = {}

    def of(self, process: SimProcess, now: Callable[[], int]) -> _Locks:
        """A `Liveness` as that process has it."""
        return _Locks(self, process, now)


class _Locks:
    def __init__(self, all: SimLiveness, me: SimProcess, now: Callable[[], int]) -> None:
        self._all = all
        self._me = me
        self._now = now

    def hold(self, worker: str) -> None:
        self._all.held[worker] = self._me

    def drop(self, worker: str) -> None:
        self._all.held.pop(worker, None)

    def hold_of(self, worker: str) -> Hold:
        holder = self._all.held.get(worker)
        if holder is self._me:
            return Hold.AT_WORK
        if self._all.sight is Sight.OTHER_MACHINES:
            return Hold.UNKNOWN
        if holder is None or holder.dead:
            return Hold.FREE
        if self._all.sight is Sight.SAME_MACHINE and holder.frozen_until <= self._now():
            return Hold.AT_WORK
        return Hold.KEPT

    def is_dead(self, worker: str) -> bool:
        return self.hold_of(worker) is Hold.FREE

    def doubts(self, worker: str) -> bool:
        return False
