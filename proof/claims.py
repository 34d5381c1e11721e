"""The model of one run and the workers that share it: claims, leases, locks, the fencing token, parking, waking.

The run has a fixed sequence of steps; one of them is a sleep that a worker may spend parked. A worker looks at the row
of the run, judges whether the holder of the claim is gone, claims by compare-and-set, reads the journal, and then
executes, commits and announces one outcome after the other. Between any two of these steps the worker may die or be
frozen, and a lease may end.

Time is a choice: a lease may end whenever its worker is frozen, or is at work without a heartbeat (C code that holds
the interpreter's lock). A wake time may come at any moment.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from .checker import Model, Step

STEPS = 3
"""Outcomes that the run records; the middle one is the end of a sleep."""
SLEEP = 1


class Bounds(NamedTuple):
    """How often each fault happens at most: the bounds keep the model finite."""

    deaths: int = 1
    freezes: int = 1
    lapses: int = 1
    workers: int = 2


QUEUED, RUNNING, SLEEPING, DONE = "QUEUED", "RUNNING", "SLEEPING", "DONE"

FAULTS = {
    "commit without the fencing token": "P3",
    "finish without the fencing token": "P3",
    "park without the fencing token": "P3",
    "claim without compare-and-set": "one living driver",
    "wake without compare-and-set": "one living driver",
    "announce before the commit": "P1",
    "execute before the journal is read": "P1",
    "the sleep counts from the resume": "P7",
    "judge by the lease alone": "one living driver",
    "judge by nothing": "one living driver",
    "count a lost lease as a crash": "only deaths are crashes",
    "park and keep the claim": "a parked run has no claim",
    "park without a wake time": "progress",
    "never take over from a frozen worker": "progress",
    "the claim of a dead worker holds": "progress",
    "a fenced worker goes on": "a fenced worker stops",
}
"""Changes of one step, and the property that each breaks."""


class Worker(NamedTuple):
    """One process. A process that has died is replaced by a new one, with a lock and a lease of its own."""

    alive: bool = True
    frozen: bool = False
    lease: bool = True
    """The lease has not ended."""
    saw: int | None = None
    """The token in the row that the worker looked at, with the intention to claim; 0 is "no token"."""
    saw_crash: bool = False
    token: int | None = None
    """The worker drives under this token."""
    known: int = 0
    """Entries that the worker knows of."""
    executed: bool = False
    """The outcome of the next step is in memory, not on disk."""
    on_disk: bool = False
    """The outcome is on disk and has not been announced."""
    fenced_writes: int = 0
    """Writes that were refused; after the first the worker has to stop."""


class State(NamedTuple):
    """Everything."""

    status: str = QUEUED
    token: int | None = None
    holder: int | None = None
    entries: int = 0
    due: bool = True
    """A queued or sleeping run may be taken."""
    slept: bool = False
    """The deadline of the sleep is recorded."""
    miscounted: bool = False
    """A claim was counted as lost by a crash, and its process had not died."""
    told: int = 0
    """Outcomes that user code was told of."""
    again: bool = False
    """A driver with the claim has executed a step that was recorded."""
    twice: bool = False
    """A write was accepted from a worker without the claim."""
    stolen: bool = False
    """The claim of a worker at work was taken."""
    restarted: bool = False
    """The sleep was begun twice."""
    deaths: int = 0
    freezes: int = 0
    lapses: int = 0
    workers: tuple[Worker, ...] = ()


def model(fault: str | None = None, bounds: Bounds = Bounds()) -> Model[State]:  # noqa: B008 - immutable
    """The protocol, with one fault planted in it or none."""
    assert fault is None or fault in FAULTS, fault
    return Model(
        State(workers=(Worker(),) * bounds.workers),
        lambda state: _Steps(state, fault, bounds).all(),
        {
            "P3": lambda state: not state.twice,
            "P1": lambda state: state.told <= state.entries and not state.again,
            "P7": lambda state: not state.restarted,
            "one living driver": lambda state: not state.stolen,
            "only deaths are crashes": lambda state: not state.miscounted,
            "a parked run has no claim": lambda state: state.status != SLEEPING or state.token is None,
            "a fenced worker stops": lambda state: all(worker.fenced_writes < 2 for worker in state.workers),
        },
        lambda state: state.status == DONE,
    )


class _Steps:
    """All steps from one state."""

    def __init__(self, state: State, fault: str | None, bounds: Bounds) -> None:
        self.state = state
        self.fault = fault
        self.bounds = bounds

    def all(self) -> Iterator[Step[State]]:
        """The steps of the environment, and of each worker."""
        state = self.state
        if state.status == SLEEPING and not state.due and self.fault != "park without a wake time":
            yield Step("the wake time comes", state._replace(due=True))
        for number, worker in enumerate(state.workers):
            yield from self._environment(number, worker)
            if worker.alive and not worker.frozen:
                yield from self._driver(number, worker) if worker.token is not None else self._idle(number, worker)

    def _to(self, number: int, worker: Worker, label: str, is_fault: bool = False, **row: Any) -> Step[State]:
        workers = list(self.state.workers)
        workers[number] = worker
        after = self.state._replace(workers=tuple(workers), **row)
        return Step(f"worker {number}: {label}", _renumbered(after), is_fault)

    # -- the environment ---------------------------------------------------------------------------------------------

    def _environment(self, number: int, worker: Worker) -> Iterator[Step[State]]:
        state = self.state
        if not worker.alive:
            yield self._to(number, Worker(), "a new process starts")
            return
        if state.deaths < self.bounds.deaths:
            yield self._to(number, Worker(alive=False), "dies", True, deaths=state.deaths + 1)
        if worker.frozen:
            # Progress must not depend on that.
            yield self._to(number, worker._replace(frozen=False), "is continued", True)
        elif state.freezes < self.bounds.freezes:
            yield self._to(number, worker._replace(frozen=True), "is frozen", True, freezes=state.freezes + 1)
        if worker.lease and worker.frozen:
            yield self._to(number, worker._replace(lease=False), "its lease ends")
        elif worker.lease and state.lapses < self.bounds.lapses:
            lapsed = worker._replace(lease=False)
            yield self._to(number, lapsed, "its lease ends while it computes", True, lapses=state.lapses + 1)
        if not worker.lease and not worker.frozen:
            yield self._to(number, worker._replace(lease=True), "renews its lease")

    # -- a worker without the run ------------------------------------------------------------------------------------

    def _is_gone(self) -> bool:
        """Whether the holder of the claim counts as gone, by its lock first and its lease second."""
        state = self.state
        if state.holder is None:
            return True
        holder = state.workers[state.holder]
        if self.fault == "judge by nothing":
            return True
        if self.fault == "judge by the lease alone":
            return not holder.lease or not holder.alive
        if not holder.alive or holder.token != state.token:
            # The lock is free, or a new process of that place has a lock of its own.
            return self.fault != "the claim of a dead worker holds"
        if holder.frozen and self.fault != "never take over from a frozen worker":
            return not holder.lease
        return False

    def _idle(self, number: int, worker: Worker) -> Iterator[Step[State]]:
        state = self.state
        if worker.saw is None:
            if state.status == RUNNING and self._is_gone():
                holder = None if state.holder is None else state.workers[state.holder]
                is_death = holder is not None and (not holder.alive or holder.token != state.token)
                crash = is_death or (holder is not None and self.fault == "count a lost lease as a crash")
                saw = worker._replace(saw=state.token or 0, saw_crash=crash)
                at_work = holder is not None and not is_death and not holder.frozen
                stolen = state.stolen or at_work
                yield self._to(number, saw, "sees a run whose holder is gone", stolen=stolen)
            if state.status in (QUEUED, SLEEPING) and state.due:
                if self.fault == "wake without compare-and-set":
                    yield self._to(number, worker._replace(saw=-1, saw_crash=False), "sees a due run")
                else:
                    yield self._claimed(number, worker, "takes the due run", False)
            return
        # Looking and claiming are two steps.
        fits = state.status == RUNNING and worker.saw == (state.token or 0)
        if self.fault == "claim without compare-and-set":
            fits = state.status == RUNNING
        if worker.saw == -1:
            fits = state.status in (QUEUED, SLEEPING, RUNNING)
        if fits:
            yield self._claimed(number, worker, "claims", worker.saw_crash)
        else:
            yield self._to(number, worker._replace(saw=None, saw_crash=False), "was too slow to claim")

    def _claimed(self, number: int, worker: Worker, label: str, crashed: bool) -> Step[State]:
        state = self.state
        stolen = state.stolen
        died = state.holder is None or state.workers[state.holder].token != state.token
        if state.token is not None and state.holder is not None:
            holder = state.workers[state.holder]
            # The claim that was looked at may be taken, also from a process that was continued meanwhile; no later one.
            stolen = stolen or (holder.alive and holder.token == state.token and worker.saw != state.token)
        token = 1 + max(_tokens(state))
        known = 0 if self.fault == "execute before the journal is read" else state.entries
        driving = Worker(lease=worker.lease, token=token, known=known)
        return self._to(
            number, driving, label,
            status=RUNNING, token=token, holder=number, due=False, stolen=stolen,
            miscounted=state.miscounted or (crashed and not died),
        )  # fmt: skip

    # -- a worker that drives the run --------------------------------------------------------------------------------

    def _driver(self, number: int, worker: Worker) -> Iterator[Step[State]]:
        state = self.state
        holds = worker.token == state.token and state.status == RUNNING
        if worker.known == STEPS:
            yield from self._write(number, worker, "finishes the run", "finish", status=DONE, token=None, holder=None)
            return
        if worker.on_disk:
            told = max(state.told, worker.known + 1)
            next_one = worker._replace(on_disk=False, known=worker.known + 1)
            yield self._to(number, next_one, f"announces outcome {worker.known}", told=told)
            return
        if worker.executed:
            if self.fault == "announce before the commit" and state.told <= worker.known:
                yield self._to(number, worker, f"announces outcome {worker.known}", told=worker.known + 1)
            entries = max(state.entries, worker.known + 1)
            saved = worker._replace(executed=False, on_disk=True)
            yield from self._write(number, saved, f"commits outcome {worker.known}", "commit", entries=entries)
            return
        again = state.again or (holds and worker.known < state.entries)
        if worker.known == SLEEP:
            restarted = state.restarted or (state.slept and self.fault == "the sleep counts from the resume")
            slept = worker._replace(executed=True)
            yield self._to(number, slept, "sleeps in memory", again=again, slept=True, restarted=restarted)
            row: dict[str, Any] = {"status": SLEEPING, "slept": True, "due": False}
            if self.fault != "park and keep the claim":
                row.update(token=None, holder=None)
            yield from self._write(number, Worker(lease=worker.lease), "parks the run", "park", **row)
        else:
            yield self._to(number, worker._replace(executed=True), f"executes step {worker.known}", again=again)

    def _write(self, number: int, after: Worker, label: str, kind: str, **row: Any) -> Iterator[Step[State]]:
        """A write under the token of the claim: all of it, or nothing and the worker stops driving."""
        state, worker = self.state, self.state.workers[number]
        holds = worker.token == state.token and state.status == RUNNING
        if holds or self.fault == f"{kind} without the fencing token":
            yield self._to(number, after, label, twice=state.twice or not holds, **row)
        elif self.fault == "a fenced worker goes on":
            refused = worker._replace(fenced_writes=min(2, worker.fenced_writes + 1))
            yield self._to(number, refused, f"{label}: refused")
        else:
            yield self._to(number, Worker(lease=worker.lease), f"{label}: refused, so it stops")


def _tokens(state: State) -> set[int]:
    """The tokens that the row or any worker knows; 0 and -1 are none."""
    return {0, state.token or 0, *(token or 0 for worker in state.workers for token in (worker.token, worker.saw))}


def _renumbered(state: State) -> State:
    """The same state with small tokens: a token is only ever compared with others, so the model stays finite."""
    small = {token: number for number, token in enumerate(sorted(token for token in _tokens(state) if token > 0), 1)}
    small.update({0: 0, -1: -1})

    def of(token: int | None) -> int | None:
        return None if token is None else small[token]

    workers = tuple(worker._replace(token=of(worker.token), saw=of(worker.saw)) for worker in state.workers)
    return state._replace(token=of(state.token), workers=workers)
