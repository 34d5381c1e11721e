"""An explicit-state model checker: visits every state that a model can reach, and judges each.

A model is a set of functions on immutable, hashable states. `explore` goes breadth first, so that the way to a broken
invariant is one of the shortest. Two kinds of properties are checked:

- *invariants* hold in every state;
- *progress*: from every state a good state can be reached by steps without a further fault. So no state is a trap.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

S = TypeVar("S", bound=Hashable)


class Step(NamedTuple, Generic[S]):
    """One step of the model."""

    label: str
    after: S
    is_fault: bool = False
    """A step of the environment that does harm (a death, a freeze): progress must not depend on such steps."""


@dataclass(frozen=True)
class Model(Generic[S]):
    """What is to be explored."""

    start: S
    steps: Callable[[S], Iterable[Step[S]]]
    invariants: Mapping[str, Callable[[S], bool]]
    """By the names of the register of invariants: what holds in every state."""
    is_good: Callable[[S], bool]
    """The states that can be reached from everywhere."""


class Broken(Exception):
    """A property does not hold. `way` leads to a state in which it does not."""

    def __init__(self, name: str, way: list[str], state: object) -> None:
        super().__init__(f"{name} does not hold after:\n  " + "\n  ".join(way or ["(the start)"]) + f"\nin {state}")
        self.name = name
        self.way = way


@dataclass(frozen=True)
class Explored:
    """How much was looked at."""

    states: int
    steps: int


def explore(model: Model[S], most: int = 5_000_000) -> Explored:
    """Visit every state.

    Args:
        model: what is explored.
        most: states after which the exploration is given up.

    Raises:
        Broken: an invariant or the progress does not hold.
        MemoryError: the model has more than `most` states.
    """
    came_from: dict[S, tuple[S, str] | None] = {model.start: None}
    before: dict[S, list[S]] = {}
    waiting = deque([model.start])
    count = 0
    while waiting:
        state = waiting.popleft()
        for name, holds in model.invariants.items():
            if not holds(state):
                raise Broken(name, _way(came_from, state), state)
        for step in model.steps(state):
            count += 1
            if not step.is_fault:
                before.setdefault(step.after, []).append(state)
            if step.after not in came_from:
                came_from[step.after] = (state, step.label)
                waiting.append(step.after)
                if len(came_from) > most:
                    raise MemoryError(f"the model has more than {most} states")
    _check_progress(model, came_from, before)
    return Explored(len(came_from), count)


def _check_progress(model: Model[S], came_from: Mapping[S, tuple[S, str] | None], before: Mapping[S, list[S]]) -> None:
    good = [state for state in came_from if model.is_good(state)]
    reached = set(good)
    while good:
        for earlier in before.get(good.pop(), ()):
            if earlier not in reached:
                reached.add(earlier)
                good.append(earlier)
    for state in came_from:
        if state not in reached:
            raise Broken("progress", _way(came_from, state), state)


def _way(came_from: Mapping[S, tuple[S, str] | None], state: S) -> list[str]:
    labels = []
    found = came_from[state]
    while found is not None:
        state, label = found
        labels.append(label)
        found = came_from[state]
    return labels[::-1]
