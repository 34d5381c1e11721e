"""The model of one run that moves to another store and stays there: M1 to M3, killed anywhere and repeated.

The mover releases the run at the source, stores it at the target (`adopt`), and notes at the source that it has
arrived. The mover may die between any two steps, and is then started again. Drivers at both stores take the run
whenever the row there allows; the target may remove a finished run (`gc`). A namesake at the target makes the mover
take the run back.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .checker import Model, Step

WAITING, RUNNING, DONE, MOVED, GONE = "WAITING", "RUNNING", "DONE", "MOVED", "GONE"

DEATHS = 3

FAULTS = {
    "adopt before the release": "M1",
    "release removes the rows": "M2",
    "adopt without a look for the uid": "M3",
    "arrived before the adoption": "progress",
    "the target forgets what it has removed": "M3",
    "take back whenever the name is taken": "M3",
}
"""Changes of one step, and the promise that each breaks."""


class Run(NamedTuple):
    """Everything about the run and its mover."""

    source: str = WAITING
    target: str = GONE
    namesake: bool = False
    """Another run at the target has the name."""
    was: str = WAITING
    """The status at the source before the release; the row keeps it."""
    adopted: bool = False
    """The target knows that the run has come once, also after its removal there."""
    arrived: bool = False
    """The source knows that the target has, or had, the run."""
    mover: int = 0
    """0: not at work; 1: before the release; 2: released; 3: adopted."""
    deaths: int = 0
    stored: int = 0
    """How often the target has stored the run."""
    executed: int = 0
    """How often the run was driven to its end."""


def model(fault: str | None = None) -> Model[Run]:
    """The move, with one fault planted in it or none; with and without a namesake at the target."""
    assert fault is None or fault in FAULTS, fault
    return Model(
        Run(),
        lambda state: _steps(state, fault),
        {
            "M1": lambda state: not (_can_drive(state.source) and _can_drive(state.target)),
            "M2": lambda state: state.executed > 0 or state.source != GONE or state.target != GONE,
            "M3": lambda state: state.stored <= 1 and state.executed <= 1,
        },
        lambda state: state.executed == 1,
    )


def _can_drive(status: str) -> bool:
    return status in (WAITING, RUNNING)


def _steps(state: Run, fault: str | None) -> Iterator[Step[Run]]:
    yield from _drivers(state)
    if not state.namesake and state.target == GONE:
        yield Step("another run at the target takes the name", state._replace(namesake=True), True)
    if state.mover == 0:
        if state.source in (WAITING, DONE, MOVED) and not state.arrived:
            yield Step("the mover starts", state._replace(mover=1))
        return
    if state.deaths < DEATHS:
        yield Step("the mover is killed", state._replace(mover=0, deaths=state.deaths + 1), True)
    yield from _mover(state, fault)


def _drivers(state: Run) -> Iterator[Step[Run]]:
    ended = state.executed + 1
    if state.source == WAITING:
        yield Step("a worker at the source takes the run", state._replace(source=RUNNING))
    elif state.source == RUNNING:
        yield Step("the run ends at the source", state._replace(source=DONE, executed=ended))
    if state.target == WAITING:
        yield Step("a worker at the target takes the run", state._replace(target=RUNNING))
    elif state.target == RUNNING:
        yield Step("the run ends at the target", state._replace(target=DONE, executed=ended))
    elif state.target == DONE:
        yield Step("the target removes the ended run", state._replace(target=GONE))


def _mover(state: Run, fault: str | None) -> Iterator[Step[Run]]:
    done = state._replace(mover=0)
    if state.mover == 1:
        if fault == "adopt before the release":
            yield Step("the target stores the run", state._replace(mover=2, target=WAITING, stored=state.stored + 1))
        elif state.source in (WAITING, DONE, MOVED):
            left = GONE if fault == "release removes the rows" else MOVED
            was = state.was if state.source == MOVED else state.source
            yield Step("the source releases the run", state._replace(mover=2, source=left, was=was))
        else:
            yield Step("the source keeps the run, which is driven", done)
    elif state.mover == 2:
        if fault == "adopt before the release":
            yield Step("the source releases the run", state._replace(mover=3, source=MOVED))
        elif fault == "arrived before the adoption" and not state.arrived:
            yield Step("the source notes the arrival", state._replace(arrived=True))
        elif state.target != GONE and fault != "adopt without a look for the uid":
            yield Step("the target has the run already", state._replace(mover=3))
        elif state.namesake and (not state.adopted or fault == "take back whenever the name is taken"):
            yield Step("the source takes the run back", done._replace(source=state.was))
        elif state.adopted and not (fault or "").startswith(("the target forgets", "adopt without a look")):
            yield Step("the target has had the run already", state._replace(mover=3))
        elif not state.namesake:
            came = state._replace(mover=3, target=state.was, stored=state.stored + 1, adopted=True)
            yield Step("the target stores the run", came)
    else:
        yield Step("the source notes the arrival", done._replace(arrived=True))
