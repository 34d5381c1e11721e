"""The model of a submission: a run is submitted by name, workers are woken, and one of them claims and drives the run.

Two submitters submit the same run; each repeats the submission after a death, as a program does that is started again.
A commit is visible first and on disk later; a power cut takes what is only visible, and ends all processes. A worker
clears its bell, notes the version of the store, looks for a due run, claims the run by compare-and-set, reads it, and
drives it. A worker that has found nothing waits: for its bell, and for a poll, which looks again if the version has
changed. A read may fail behind the claim; then the worker gives the claim back.

Bells alone must do where no submitter dies, so both are explored: workers with polls, and workers without.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from .checker import Model, Step

QUEUED, RUNNING, DONE = "QUEUED", "RUNNING", "DONE"
IDLE, VISIBLE, FOUND, ON_DISK, RUNG, RETURNED = range(6)
"""How far a submitter has come. `FOUND`: another process has submitted the run."""
CLEARED, LOOKED, CLAIMED, DRIVES, WAITS, BEGINS = range(6)
"""What a worker has done last."""

FAULTS = {
    "return before the commit": "P2",
    "return before the run is on disk": "P2",
    "create without a look for the name": "one run of a name",
    "claim without compare-and-set": "P3",
    "ring before the commit": "progress",
    "a submission rings no bell": "progress",
    "clear the bell behind the look": "progress",
    "note the version behind the look": "progress",
    "keep a claim whose run cannot be read": "progress",
    "the claim of a dead worker holds": "progress",
}
"""Changes of one step, and the property that each breaks."""
BELL = ("ring before the commit", "a submission rings no bell", "clear the bell behind the look")
"""Faults that polls would hide."""


class Limits(NamedTuple):
    """How often each fault of the environment happens at most."""

    deaths: int = 1
    submitter_deaths: int = 1
    cuts: int = 1
    failed_reads: int = 1
    workers: int = 2


DEATHS = Limits(cuts=0, failed_reads=0)
READS = Limits(deaths=0, cuts=0)
CUTS = Limits(deaths=0, submitter_deaths=0, failed_reads=0)
"""Three smaller explorations: processes that die, reads that fail, power cuts."""


class Row(NamedTuple):
    """A stored run."""

    status: str = QUEUED
    holder: int = -1
    """The worker with the claim."""
    on_disk: bool = False


class Server(NamedTuple):
    """One worker. A worker that died is replaced by a new process at once."""

    did: int = BEGINS
    saw: int = -1
    """The row that the worker is about to claim, or drives."""
    rung: bool = False
    noted: bool = False
    """The store has not changed since the worker noted its version."""


class Queue(NamedTuple):
    """Everything."""

    rows: tuple[Row, ...] = ()
    submitters: tuple[int, ...] = (IDLE, IDLE)
    servers: tuple[Server, ...] = ()
    stolen: bool = False
    """A claim was taken from a worker that drives."""
    deaths: int = 0
    submitter_deaths: int = 0
    cuts: int = 0
    failed_reads: int = 0


def model(
    fault: str | None = None,
    *,
    polls: bool = True,
    limits: Limits = Limits(),  # noqa: B008 - immutable
) -> Model[Queue]:
    """The protocol, with one fault planted in it or none, for workers with polls or without."""
    assert fault is None or fault in FAULTS, fault
    if not polls:
        # A bell that a dead submitter has not rung is a matter of polls.
        limits = limits._replace(submitter_deaths=0)
    return Model(
        Queue(servers=(Server(),) * limits.workers),
        lambda state: _Submits(state, fault, polls, limits).all(),
        {
            "P2": lambda state: bool(state.rows) or RETURNED not in state.submitters,
            "one run of a name": lambda state: len(state.rows) < 2,
            "P3": lambda state: not state.stolen,
        },
        _is_over,
    )


def faulty(fault: str) -> Model[Queue]:
    """The model with the fault, of the kind of workers, and within the limits, that show the fault soonest."""
    limits = {"return before the run is on disk": CUTS, "keep a claim whose run cannot be read": READS}
    return model(fault, polls=fault not in BELL, limits=limits.get(fault, DEATHS))


def _is_over(state: Queue) -> bool:
    """All submissions have returned, and the run has ended."""
    return set(state.submitters) == {RETURNED} and {row.status for row in state.rows} == {DONE}


class _Submits:
    """All steps from one state."""

    def __init__(self, state: Queue, fault: str | None, polls: bool, limits: Limits) -> None:
        self.state = state
        self.fault = fault
        self.polls = polls
        self.limits = limits

    def all(self) -> Iterator[Step[Queue]]:
        for number, phase in enumerate(self.state.submitters):
            yield from self._submitter(number, phase)
        for number, server in enumerate(self.state.servers):
            yield from self._server(number, server)
            if server.did not in (BEGINS, WAITS) and self.state.deaths < self.limits.deaths:
                yield self._dies(number)
        if self.state.cuts < self.limits.cuts:
            yield self._cut()

    # -- the environment ---------------------------------------------------------------------------------------------

    def _dies(self, number: int) -> Step[Queue]:
        """The claim of the dead worker is held by no process (-2)."""
        rows = tuple(row._replace(holder=-2) if row.holder == number else row for row in self.state.rows)
        after = self._put(number, Server(), rows=rows, deaths=self.state.deaths + 1)
        return Step("a worker dies, and a new process starts", after, True)

    def _cut(self) -> Step[Queue]:
        """Rows that are not on disk are gone; the claim of a row that has not ended was visible alone."""
        state = self.state
        rows = tuple(
            row if row.status == DONE else row._replace(status=QUEUED, holder=-1) for row in state.rows if row.on_disk
        )
        submitters = tuple(phase if phase == RETURNED else IDLE for phase in state.submitters)
        servers = (Server(),) * len(state.servers)
        after = state._replace(rows=rows, submitters=submitters, servers=servers, cuts=state.cuts + 1)
        return Step("the power is cut", after, True)

    # -- submitters --------------------------------------------------------------------------------------------------

    def _submitter(self, number: int, phase: int) -> Iterator[Step[Queue]]:
        state, name = self.state, f"submitter {number}"
        if phase == IDLE:
            if state.rows and self.fault != "create without a look for the name":
                yield Step(f"{name} finds the run", self._came(number, FOUND))
            else:
                rings = self.fault == "ring before the commit"
                if rings and not all(server.rung for server in state.servers):
                    yield Step(f"{name} rings", self._rung(state))
                changed = self._changed(state._replace(rows=(*state.rows, Row())))
                yield Step(f"{name} commits the run", self._came(number, VISIBLE, changed))
            if self.fault == "return before the commit":
                yield Step(f"{name} returns", self._came(number, RETURNED))
        elif phase in (VISIBLE, FOUND):
            if self.fault == "return before the run is on disk":
                yield Step(f"{name} returns", self._came(number, RETURNED))
            rows = tuple(row._replace(on_disk=True) for row in state.rows)
            # A run that was found has a bell of its own, or is found by a poll: its row has to be on disk all the same.
            then = ON_DISK if phase == VISIBLE else RUNG
            yield Step(f"the run of {name} is on disk", self._came(number, then, state._replace(rows=rows)))
        elif phase == ON_DISK:
            silent = self.fault in ("a submission rings no bell", "ring before the commit")
            after = state if silent else self._rung(state)
            yield Step(f"{name} rings", self._came(number, RUNG, after))
        elif phase == RUNG:
            yield Step(f"{name} returns", self._came(number, RETURNED))
        if phase not in (IDLE, RETURNED) and state.submitter_deaths < self.limits.submitter_deaths:
            died = self._came(number, IDLE)._replace(submitter_deaths=state.submitter_deaths + 1)
            yield Step(f"{name} dies, and submits again", died, True)

    def _came(self, number: int, phase: int, state: Queue | None = None) -> Queue:
        state = self.state if state is None else state
        submitters = list(state.submitters)
        submitters[number] = phase
        return state._replace(submitters=tuple(submitters))

    def _rung(self, state: Queue) -> Queue:
        return state._replace(servers=tuple(server._replace(rung=True) for server in state.servers))

    def _changed(self, state: Queue) -> Queue:
        return state._replace(servers=tuple(server._replace(noted=False) for server in state.servers))

    # -- workers -----------------------------------------------------------------------------------------------------

    def _put(self, number: int, server: Server, **more: Any) -> Queue:
        servers = list(self.state.servers)
        servers[number] = server
        return self.state._replace(servers=tuple(servers), **more)

    def _server(self, number: int, server: Server) -> Iterator[Step[Queue]]:
        late = self.fault == "clear the bell behind the look"
        if server.did == BEGINS:
            noted = self.fault != "note the version behind the look"
            ready = Server(CLEARED, rung=server.rung and late, noted=noted)
            yield Step("a worker clears its bell and notes the version", self._put(number, ready))
        elif server.did == CLEARED:
            yield from self._look(number, server)
        elif server.did == LOOKED:
            if server.saw < 0:
                waits = server._replace(did=WAITS, rung=server.rung and not late)
                noted = server.noted or self.fault == "note the version behind the look"
                yield Step("a worker waits", self._put(number, waits._replace(noted=noted)))
            else:
                yield from self._claim(number, server)
        elif server.did == CLAIMED:
            yield from self._read(number, server)
        elif server.did == DRIVES:
            yield from self._finish(number, server)
        elif server.rung or (self.polls and not server.noted):
            how = "its bell" if server.rung else "a poll"
            yield Step(f"{how} wakes a worker", self._put(number, server._replace(did=BEGINS)))

    def _look(self, number: int, server: Server) -> Iterator[Step[Queue]]:
        dead = (-2,) if self.fault != "the claim of a dead worker holds" else ()
        due = [
            place
            for place, row in enumerate(self.state.rows)
            if row.status == QUEUED or (row.status == RUNNING and row.holder in dead)
        ]
        for place in due or [-1]:
            found = "finds a run" if due else "finds nothing"
            yield Step(f"a worker {found}", self._put(number, server._replace(did=LOOKED, saw=place)))

    def _claim(self, number: int, server: Server) -> Iterator[Step[Queue]]:
        row = self.state.rows[server.saw]
        free = row.status == QUEUED or (row.status == RUNNING and row.holder == -2)
        if free or (row.status == RUNNING and self.fault == "claim without compare-and-set"):
            stolen = self.state.stolen or not free
            rows = self._with(server.saw, row._replace(status=RUNNING, holder=number))
            claimed = self._put(number, server._replace(did=CLAIMED), rows=rows, stolen=stolen)
            yield Step("a worker claims the run", self._changed(claimed))
        else:
            yield Step("a worker finds the run taken", self._put(number, server._replace(did=BEGINS, saw=-1)))

    def _read(self, number: int, server: Server) -> Iterator[Step[Queue]]:
        yield Step("a worker reads the run", self._put(number, server._replace(did=DRIVES)))
        if self.state.failed_reads < self.limits.failed_reads:
            row = self.state.rows[server.saw]
            if self.fault != "keep a claim whose run cannot be read":
                row = row._replace(status=QUEUED, holder=-1)
            failed = self._put(
                number, server._replace(did=BEGINS, saw=-1), rows=self._with(server.saw, row),
                failed_reads=self.state.failed_reads + 1,
            )  # fmt: skip
            # The worker that gives a claim back rings its own bell, and the others see another version.
            yield Step("a read fails behind a claim", self._changed(failed), True)

    def _finish(self, number: int, server: Server) -> Iterator[Step[Queue]]:
        row = self.state.rows[server.saw]
        rows = tuple(each._replace(on_disk=True) for each in self.state.rows)
        if row.holder == number:
            place = server.saw
            rows = (*rows[:place], Row(DONE, -1, True), *rows[place + 1 :])
        done = self._put(number, server._replace(did=BEGINS, saw=-1), rows=rows)
        yield Step("a worker finishes the run", self._changed(done))

    def _with(self, place: int, row: Row) -> tuple[Row, ...]:
        rows = self.state.rows
        return (*rows[:place], row, *rows[place + 1 :])
