"""The model of calls under a limit: asked for, given, given back and lost, over deaths, freezes and parking (P14).

Each run makes one call under a limit of one slot, and may be aborted. A process drives a run under a claim; when the
process dies, or is frozen past its lease, another process ends the claim, and the run goes on under a new one. The
frozen process may come back. A call asks for a slot and gets a ticket; slots are given under the lock of the limit, to
the lowest number of a run with a living claim; the commit of the outcome removes the ticket. A run that waits may be
parked, and is made due again when a slot is free.

P14 is about calls at work under the claim of their run. Progress is that every run ends: no slot leaks, and no call is
forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from .checker import Model, Step

RUNS = 3
SLOTS = 1

QUEUED, RUNNING, PARKED, DONE = "QUEUED", "RUNNING", "PARKED", "DONE"
NOTHING, ASKED, INSIDE = "nothing", "asked", "inside"
NONE, WAITS, HOLDS, ASLEEP, CALLED, LOST = "none", "waits", "holds", "asleep", "called", "lost"

FAULTS = {
    "count every ticket that holds, with any claim": "progress",
    "read the room without the lock": "P14",
    "give slots back by the number alone": "P14",
    "free the slot before the outcome": "P14",
    "the commit of the outcome keeps the ticket, and counts by tickets": "progress",
    "tell a call of a slot without a look at the token": "stale",
    "a park drops the ticket": "progress",
    "a park leaves a ticket that has just been given": "progress",
    "a call that asks again stays parked": "progress",
    "give slots to calls without a living claim, and count them": "progress",
}
"""Changes of one step, and the property that each breaks."""


class LimitBounds(NamedTuple):
    """How often each fault of the environment happens at most."""

    deaths: int = 1
    freezes: int = 1
    aborts: int = 1


class Limited(NamedTuple):
    """One run, its ticket, and the processes that drive or drove it."""

    status: str = QUEUED
    claimed: bool = False
    """A claim is in force: that of the newest process."""
    due: bool = True
    ticket: str = NONE
    number: int = 0
    under: bool = False
    """The ticket was asked for under the claim in force."""
    phase: str = NOTHING
    """What the process with the newest claim does."""
    alive: bool = False
    frozen: bool = False
    stale: str = NOTHING
    """What a process does that was frozen past its lease and has come back."""
    saw: int = -1
    """The number of holders that an ask without the lock has read; -1: none."""


class Calls(NamedTuple):
    """Everything."""

    runs: tuple[Limited, ...]
    numbers: int = 0
    entered_stale: bool = False
    deaths: int = 0
    freezes: int = 0
    aborts: int = 0


def model(fault: str | None = None, bounds: LimitBounds = LimitBounds()) -> Model[Calls]:  # noqa: B008 - immutable
    """The protocol, with one fault planted in it or none."""
    assert fault is None or fault in FAULTS, fault
    return Model(
        Calls((Limited(),) * RUNS),
        lambda state: map(_sorted, _Limit(state, fault, bounds).all()),
        {
            "P14": lambda state: sum(map(_at_work, state.runs)) <= SLOTS,
            "stale": lambda state: not state.entered_stale,
        },
        lambda state: all(run.status == DONE for run in state.runs),
    )


def _sorted(step: Step[Calls]) -> Step[Calls]:
    """The step, with numbers as small as their order allows, and the runs in an order of their own: they are alike."""
    runs = step.after.runs
    known = sorted({run.number for run in runs if run.ticket != NONE})
    small = [run._replace(number=known.index(run.number) + 1 if run.ticket != NONE else 0) for run in runs]
    return step._replace(after=step.after._replace(runs=tuple(sorted(small)), numbers=len(known)))


def _at_work(run: Limited) -> bool:
    """Whether a call is at work under the claim of its run."""
    return run.phase == INSIDE and run.claimed


class _Limit:
    """All steps from one state."""

    def __init__(self, state: Calls, fault: str | None, bounds: LimitBounds) -> None:
        self.state = state
        self.fault = fault
        self.bounds = bounds

    def all(self) -> Iterator[Step[Calls]]:
        for number, run in enumerate(self.state.runs):
            yield from self._environment(number, run)
            yield from self._claims(number, run)
            if run.alive and not run.frozen:
                yield from self._drives(number, run)
            yield from self._stale(number, run)
        yield from self._gives()
        yield from self._calls()

    def _to(self, number: int, run: Limited, label: str, is_fault: bool = False, **more: Any) -> Step[Calls]:
        runs = list(self.state.runs)
        runs[number] = run
        return Step(f"run {number}: {label}", self.state._replace(runs=tuple(runs), **more), is_fault)

    # -- claims ------------------------------------------------------------------------------------------------------

    def _environment(self, number: int, run: Limited) -> Iterator[Step[Calls]]:
        state = self.state
        if run.alive and not run.frozen and state.deaths < self.bounds.deaths:
            dead = run._replace(alive=False, phase=NOTHING, saw=-1)
            yield self._to(number, dead, "its process dies", True, deaths=state.deaths + 1)
        if run.alive and not run.frozen and state.freezes < self.bounds.freezes:
            yield self._to(number, run._replace(frozen=True), "its process is frozen", True, freezes=state.freezes + 1)
        if run.frozen:
            yield self._to(number, run._replace(frozen=False), "its process is continued", True)
        if run.status != DONE and state.aborts < self.bounds.aborts:
            # The ticket stays as it is: nothing but the end of the claim says that the slot is free.
            over = Limited(status=DONE, due=False, ticket=run.ticket, number=run.number, stale=run.phase)
            yield self._to(number, over, "a person aborts the run", True, aborts=state.aborts + 1)

    def _claims(self, number: int, run: Limited) -> Iterator[Step[Calls]]:
        if run.claimed and (not run.alive or run.frozen):
            gone = run._replace(claimed=False, under=False, alive=False, frozen=False, phase=NOTHING, saw=-1)
            if run.frozen and run.phase != NOTHING:
                gone = gone._replace(stale=run.phase)
            yield self._to(number, gone, "a worker ends the claim of a process that is gone")
        if not run.claimed and (run.status == RUNNING or (run.status in (QUEUED, PARKED) and run.due)):
            taken = run._replace(status=RUNNING, claimed=True, under=False, due=False, alive=True, phase=NOTHING)
            yield self._to(number, taken, "a worker claims the run")

    # -- the call ----------------------------------------------------------------------------------------------------

    def _drives(self, number: int, run: Limited) -> Iterator[Step[Calls]]:
        if run.phase == NOTHING:
            yield from self._ask(number, run)
        elif run.phase == ASKED:
            if run.ticket == HOLDS and run.under:
                yield self._to(number, run._replace(phase=INSIDE), "the call hears of its slot and begins")
            yield from self._park(number, run)
        else:
            yield from self._outcome(number, run)

    def _ask(self, number: int, run: Limited) -> Iterator[Step[Calls]]:
        unlocked = self.fault == "read the room without the lock"
        if unlocked and run.saw < 0:
            yield self._to(number, run._replace(saw=self._holders()), "the call reads the room")
            return
        stays = self.fault == "a call that asks again stays parked" and run.ticket in (ASLEEP, CALLED)
        ticket = run.ticket if stays else WAITS
        known = run.ticket != NONE
        number_of = run.number if known else self.state.numbers + 1
        asked = run._replace(phase=ASKED, ticket=ticket, number=number_of, under=True, saw=-1)
        if unlocked and run.saw < SLOTS:
            asked = asked._replace(ticket=HOLDS)
        yield self._to(number, asked, "the call asks", numbers=self.state.numbers + (not known))

    def _park(self, number: int, run: Limited) -> Iterator[Step[Calls]]:
        """The run leaves memory while its call waits, or has just been given the slot and has not heard of it."""
        if run.ticket not in (WAITS, HOLDS, ASLEEP):
            return
        parked = run._replace(status=PARKED, claimed=False, under=False, alive=False, phase=NOTHING, due=False)
        if self.fault == "a park drops the ticket":
            parked = parked._replace(ticket=NONE, number=0)
        elif not (self.fault == "a park leaves a ticket that has just been given" and run.ticket == HOLDS):
            parked = parked._replace(ticket=ASLEEP)
        yield self._to(number, parked, "the run is parked")

    def _outcome(self, number: int, run: Limited) -> Iterator[Step[Calls]]:
        if self.fault == "free the slot before the outcome" and run.ticket == HOLDS:
            yield self._to(number, run._replace(ticket=NONE, number=0), "the call gives its slot back")
            return
        done = Limited(status=DONE, due=False, stale=run.stale)
        if self.fault == "the commit of the outcome keeps the ticket, and counts by tickets":
            done = done._replace(ticket=HOLDS, number=run.number)
        yield self._to(number, done, "the outcome is committed and the slot given back")

    def _stale(self, number: int, run: Limited) -> Iterator[Step[Calls]]:
        """A process that has lost its claim comes back."""
        if run.stale == ASKED:
            if self.fault == "tell a call of a slot without a look at the token" and run.ticket == HOLDS:
                yield self._to(number, run._replace(stale=INSIDE), "an old process hears of a slot", entered_stale=True)
            yield self._to(number, run._replace(stale=NOTHING), "an old process notices and stops")
        elif run.stale == INSIDE:
            after = run._replace(stale=NOTHING)
            if self.fault == "give slots back by the number alone":
                after = after._replace(ticket=NONE, number=0)
            yield self._to(number, after, "an old process gives its slot back; its commit is refused")

    # -- the limit ---------------------------------------------------------------------------------------------------

    def _holders(self) -> int:
        by_ticket = self.fault in (
            "count every ticket that holds, with any claim",
            "the commit of the outcome keeps the ticket, and counts by tickets",
            "give slots to calls without a living claim, and count them",
        )
        return sum(run.ticket == HOLDS and (by_ticket or _claimed(run)) for run in self.state.runs)

    def _gives(self) -> Iterator[Step[Calls]]:
        if self._holders() >= SLOTS:
            return
        to_all = self.fault == "give slots to calls without a living claim, and count them"
        waiting = [
            (run.number, position)
            for position, run in enumerate(self.state.runs)
            if run.ticket == WAITS and (to_all or _claimed(run))
        ]
        for _, position in sorted(waiting)[:1]:
            yield self._to(position, self.state.runs[position]._replace(ticket=HOLDS), "its call is given the slot")

    def _calls(self) -> Iterator[Step[Calls]]:
        """A worker makes parked runs due while a slot is free, or the first one if it is the next in line."""
        asleep = [
            (run.number, position) for position, run in enumerate(self.state.runs) if run.ticket == ASLEEP
            and run.status == PARKED
        ]  # fmt: skip
        waiting = [run.number for run in self.state.runs if run.ticket == WAITS and _claimed(run)]
        for number, position in sorted(asleep)[:1]:
            if self._holders() < SLOTS or (waiting and number < min(waiting)):
                called = self.state.runs[position]._replace(ticket=CALLED, due=True)
                yield self._to(position, called, "a worker makes the run due")


def _claimed(run: Limited) -> bool:
    """Whether the run has the claim under which its ticket was asked for."""
    return run.claimed and run.under
