"""The model of messages to one run: sent, stored, taken by the calls that wait, over deaths, parking and a move (P12).

Two senders send one message each, which has a key, and repeat the send after a death. The run receives two messages,
one after the other. Workers drive the run as in `claims`; here a claim is only held or lost. A call that waits records
the wait, attends to the bell, and looks into the box. A message is given to the call in memory, recorded together with
its mark in one commit, and announced to the body. A run that waits may be parked, and moved to another store.

A run that has more to do than to wait cannot be parked: then the bell alone brings a message to the call. Both kinds of
runs are explored. Progress is MS4: no message lies beside a call that waits. A cancelled call that keeps its message
(MS3) shows as a message out of order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from .checker import Model, Step

SENDERS = 2
RECEIVES = 2

QUEUED, RUNNING, WAITING, MOVED, DONE = "QUEUED", "RUNNING", "WAITING", "MOVED", "DONE"

FAULTS = {
    "send without a look for the key": "P12",
    "return before the commit": "P12",
    "record and mark in two commits": "MS1",
    "mark and record in two commits": "MS1",
    "record without the fencing token": "P3",
    "take the newest message first": "MS2",
    "announce before the commit": "P12",
    "look before attending to the bell": "progress",
    "a send rings no bell": "progress",
    "park without a look into the box": "progress",
    "a send leaves a parked run parked": "progress",
    "a cancelled call keeps its message": "MS2",
    "a released run takes messages": "P12",
    "read the messages before the release": "P12",
    "the marks stay at the source of a move": "MS1",
}
"""Changes of one step, and the property that each breaks."""
BELL = ("look before attending to the bell", "a send rings no bell")
"""Faults that parking would hide: parking looks into the box as well."""


class MailBounds(NamedTuple):
    """How often each fault of the environment happens at most."""

    deaths: int = 1
    freezes: int = 1
    sender_deaths: int = 1
    cancels: int = 1
    workers: int = 2


FREEZES = MailBounds(sender_deaths=0, cancels=0)
CANCELS = MailBounds(freezes=0)
"""Two smaller explorations: workers that die and freeze; workers and senders that die, and calls that are cancelled."""


class Driver(NamedTuple):
    """One worker. A worker that died is replaced by a new process at once."""

    drives: bool = False
    """The worker believes that it drives the run."""
    holds: bool = False
    """The claim is the worker's: its token is the token of the row."""
    frozen: bool = False
    told: int = 0
    """Outcomes that its body was told of, those of the replay included."""
    waits: bool = False
    """The open wait is recorded."""
    attends: bool = False
    """Rings of the bell reach this worker."""
    rung: bool = False
    """The worker is to look into the box."""
    given: int = -1
    """The position of the message that the call was given; -1: none."""
    recorded: bool = False
    """The entry of the given message is on disk."""
    floor: int = 0
    """Messages before this position are not given again."""


class Mail(NamedTuple):
    """Everything."""

    status: str = QUEUED
    due: bool = True
    open_wait: bool = False
    stored: tuple[int, ...] = ()
    """The messages, by their senders, in commit order."""
    marked: tuple[bool, ...] = ()
    """Whether each message is marked as taken."""
    entries: tuple[int, ...] = ()
    """The positions of the messages that the entries of the run hold."""
    senders: tuple[int, ...] = (0,) * SENDERS
    """0: not sent; 1: on disk, not returned; 2: returned."""
    half: bool = False
    """The first of two commits is done, where a fault makes two of one."""
    moved: bool = False
    copied: tuple[tuple[int, ...], tuple[bool, ...]] | None = None
    """The messages that the mover has read."""
    unfenced: bool = False
    misreplayed: bool = False
    deaths: int = 0
    freezes: int = 0
    sender_deaths: int = 0
    cancels: int = 0
    drivers: tuple[Driver, ...] = ()


def model(
    fault: str | None = None,
    *,
    parkable: bool = True,
    bounds: MailBounds = MailBounds(),  # noqa: B008 - immutable
) -> Model[Mail]:
    """The protocol, with one fault planted in it or none, for runs that can be parked or for runs that cannot."""
    assert fault is None or fault in FAULTS, fault
    return Model(
        Mail(drivers=(Driver(),) * bounds.workers),
        lambda state: map(_sorted, _Post(state, fault, parkable, bounds).all()),
        {
            "P12": lambda state: _kept(state) and _once(state) and not state.misreplayed,
            "MS2": lambda state: list(state.entries) == sorted(state.entries),
            "MS1": lambda state: state.half or _marks_fit(state),
            "P3": lambda state: not state.unfenced,
        },
        lambda state: state.status == DONE,
    )


def faulty(fault: str) -> Model[Mail]:
    """The model with the fault, of the kind of run, and within the bounds, that show the fault soonest."""
    bounds = FREEZES if FAULTS[fault] == "progress" else MailBounds()
    return model(fault, parkable=fault not in BELL, bounds=bounds)


def _sorted(step: Step[Mail]) -> Step[Mail]:
    """The step, with the workers in an order of their own: workers are alike, so half of the states suffice."""
    return step._replace(after=step.after._replace(drivers=tuple(sorted(step.after.drivers))))


def _once(state: Mail) -> bool:
    """No message is received twice."""
    received = [state.stored[position] for position in state.entries]
    return len(set(received)) == len(received)


def _kept(state: Mail) -> bool:
    """A message whose send has returned is on disk, where the run is."""
    return all(phase < 2 or sender in state.stored for sender, phase in enumerate(state.senders))


def _marks_fit(state: Mail) -> bool:
    """MS1: a message is marked where an entry holds the message, and nowhere else."""
    return all(marked == (position in state.entries) for position, marked in enumerate(state.marked))


class _Post:
    """All steps from one state."""

    def __init__(self, state: Mail, fault: str | None, parkable: bool, bounds: MailBounds) -> None:
        self.state = state
        self.fault = fault
        self.parkable = parkable
        self.bounds = bounds

    def all(self) -> Iterator[Step[Mail]]:
        for sender, phase in enumerate(self.state.senders):
            yield from self._sender(sender, phase)
        yield from self._mover()
        for number, driver in enumerate(self.state.drivers):
            yield from self._environment(number, driver)
            if not driver.frozen:
                yield from self._drive(number, driver) if driver.drives else self._claim(number, driver)

    def _to(self, number: int, driver: Driver, label: str, is_fault: bool = False, **row: Any) -> Step[Mail]:
        drivers = list(self.state.drivers)
        drivers[number] = driver
        return Step(f"a worker {label}", self.state._replace(drivers=tuple(drivers), **row), is_fault)

    # -- senders -----------------------------------------------------------------------------------------------------

    def _sender(self, sender: int, phase: int) -> Iterator[Step[Mail]]:
        state = self.state
        name = f"sender {sender}"
        if phase == 0 and self._accepts():
            known = sender in state.stored and self.fault != "send without a look for the key"
            sent = self._phase(state if known else self._stored(sender), sender, 1)
            yield Step(f"{name}: its message is committed", sent)
        if phase == 0 and self.fault == "return before the commit":
            yield Step(f"{name}: the send returns", self._phase(state, sender, 2))
        if phase == 1:
            yield Step(f"{name}: the send returns", self._phase(state, sender, 2))
            if state.sender_deaths < self.bounds.sender_deaths:
                died = self._phase(state, sender, 0)._replace(sender_deaths=state.sender_deaths + 1)
                yield Step(f"{name}: dies, and will send again", died, True)

    def _phase(self, state: Mail, sender: int, phase: int) -> Mail:
        senders = list(state.senders)
        senders[sender] = phase
        return state._replace(senders=tuple(senders))

    def _accepts(self) -> bool:
        """A run that has ended, or was released to another store, takes no message."""
        if self.state.status == MOVED:
            return self.fault == "a released run takes messages"
        return self.state.status != DONE

    def _stored(self, sender: int) -> Mail:
        state = self.state
        rings = self.fault != "a send rings no bell"
        drivers = tuple(each._replace(rung=each.rung or (each.attends and rings)) for each in state.drivers)
        wakes = state.status == WAITING and state.open_wait and self.fault != "a send leaves a parked run parked"
        return state._replace(
            stored=(*state.stored, sender), marked=(*state.marked, False), due=state.due or wakes, drivers=drivers
        )

    # -- the mover ---------------------------------------------------------------------------------------------------

    def _mover(self) -> Iterator[Step[Mail]]:
        state = self.state
        early = self.fault == "read the messages before the release"
        copied = (state.stored, state.marked)
        if state.moved:
            return
        if early and state.copied is None:
            yield Step("the mover reads the messages", state._replace(copied=copied), True)
        elif state.status in (QUEUED, WAITING):
            yield Step("the source releases the run", state._replace(status=MOVED), True)
        elif state.status == MOVED and state.copied is None:
            yield Step("the mover reads the messages", state._replace(copied=copied))
        elif state.status == MOVED and state.copied is not None:
            stored, marked = state.copied
            if self.fault == "the marks stay at the source of a move":
                marked = (False,) * len(stored)
            came = state._replace(status=QUEUED, moved=True, stored=stored, marked=marked, due=True, copied=None)
            yield Step("the target stores the run", came)

    # -- workers -----------------------------------------------------------------------------------------------------

    def _environment(self, number: int, driver: Driver) -> Iterator[Step[Mail]]:
        state = self.state
        if driver.drives and state.deaths < self.bounds.deaths:
            yield self._to(number, Driver(), "dies, and a new process starts", True, deaths=state.deaths + 1)
        if driver.frozen:
            yield self._to(number, driver._replace(frozen=False), "is continued", True)
        elif driver.drives and state.freezes < self.bounds.freezes:
            yield self._to(number, driver._replace(frozen=True), "is frozen", True, freezes=state.freezes + 1)

    def _claim(self, number: int, driver: Driver) -> Iterator[Step[Mail]]:
        """Take the run where it is due, or where its holder is dead or frozen past the lease."""
        state = self.state
        holder = next((each for each in state.drivers if each.holds), None)
        if state.status in (QUEUED, WAITING) and state.due:
            label = "takes the due run"
        elif state.status == RUNNING and (holder is None or holder.frozen):
            label = "takes the run over"
        else:
            return
        drivers = tuple(each._replace(holds=False) for each in state.drivers)
        # The replay tells the body of every entry, from the journal.
        mine = Driver(drives=True, holds=True, told=len(state.entries), waits=state.open_wait)
        after = state._replace(drivers=(*drivers[:number], mine, *drivers[number + 1 :]), status=RUNNING, due=False)
        yield Step(f"a worker {label}", after._replace(half=False))

    def _drive(self, number: int, driver: Driver) -> Iterator[Step[Mail]]:
        if driver.told >= RECEIVES:
            yield from self._write(number, Driver(), "finishes the run", status=DONE, due=False)
        elif driver.recorded:
            yield from self._announce(number, driver)
        elif driver.given >= 0:
            yield from self._given(number, driver)
        elif not driver.waits:
            yield from self._write(number, driver._replace(waits=True), "records that it waits", open_wait=True)
        else:
            yield from self._waiting(number, driver)

    def _announce(self, number: int, driver: Driver) -> Iterator[Step[Mail]]:
        wrong = driver.told >= len(self.state.entries) or self.state.entries[driver.told] != driver.given
        after = Driver(drives=True, holds=driver.holds, told=driver.told + 1, floor=driver.given + 1)
        yield self._to(number, after, "tells the body", misreplayed=self.state.misreplayed or wrong)

    def _given(self, number: int, driver: Driver) -> Iterator[Step[Mail]]:
        """The call has a message in memory."""
        state = self.state
        if self.fault == "announce before the commit":
            yield self._to(number, driver, "tells the body", misreplayed=len(state.entries) <= driver.told)
        marked = list(state.marked)
        marked[driver.given] = True
        entry: dict[str, Any] = {"entries": (*state.entries, driver.given), "open_wait": False}
        mark: dict[str, Any] = {"marked": tuple(marked)}
        recorded = driver._replace(recorded=True)
        parts = {"record and mark in two commits": (entry, mark), "mark and record in two commits": (mark, entry)}
        if self.fault not in parts:
            yield from self._write(number, recorded, f"commits message {driver.given} and its mark", **entry, **mark)
        elif state.half:
            yield from self._write(number, recorded, "makes the second commit", **parts[self.fault][1], half=False)
        else:
            yield from self._write(number, driver, "makes the first of two commits", **parts[self.fault][0], half=True)
        if state.cancels < self.bounds.cancels and not state.half:
            floor = (
                driver.floor if self.fault == "a cancelled call keeps its message" else min(driver.floor, driver.given)
            )
            back = driver._replace(given=-1, floor=floor, rung=True)
            yield self._to(
                number, back, "its call is cancelled, and another call waits", True, cancels=state.cancels + 1
            )

    def _waiting(self, number: int, driver: Driver) -> Iterator[Step[Mail]]:
        """The wait is recorded; no message is given."""
        state = self.state
        early = self.fault == "look before attending to the bell"
        untaken = [position for position, marked in enumerate(state.marked) if not marked and position >= driver.floor]
        if not driver.attends and not (early and not driver.rung):
            yield self._to(number, driver._replace(attends=True, rung=not early), "attends to the bell")
        elif early and not driver.attends:
            looked = self._looked(driver._replace(rung=True), untaken)
            yield self._to(number, looked, "looks into the box, before it attends")
        elif driver.rung:
            yield self._to(number, self._looked(driver._replace(rung=False), untaken), "looks into the box")
        if self.parkable:
            waiting = not all(state.marked) and self.fault != "park without a look into the box"
            yield from self._write(number, Driver(), "parks the run", status=WAITING, due=waiting)

    def _looked(self, driver: Driver, untaken: list[int]) -> Driver:
        if not untaken:
            return driver
        found = untaken[-1] if self.fault == "take the newest message first" else untaken[0]
        return driver._replace(given=found, floor=found + 1)

    def _write(self, number: int, after: Driver, label: str, **row: Any) -> Iterator[Step[Mail]]:
        """A write under the token of the claim: all of it, or nothing and the worker stops driving."""
        state, driver = self.state, self.state.drivers[number]
        if driver.holds and state.status == RUNNING:
            yield self._to(number, after, label, **row)
        elif self.fault == "record without the fencing token" and "entries" in row:
            yield self._to(number, after, label, unfenced=True, **row)
        else:
            yield self._to(number, Driver(), f"{label}: refused, so it stops")
