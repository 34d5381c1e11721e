"""Generators of cases for parts of perdure that the simulation does not reach, each with its own oracle.

A generator is a module with one function, `history(seed)`. It makes a case from the seed, carries the case out in this
process, and raises `Violation` where an invariant does not hold. `python -m proof.generators NAME FIRST COUNT` tries
many seeds.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable


class Violation(Exception):
    """An invariant does not hold. The first word is its id in the register."""


MODULES = {
    name: f"proof.generators.{name}"
    for name in ("bodies", "collecting", "containers", "copies", "redactions", "replays", "schedules", "segments")
} | {name: f"tests.torture.sim_{name}" for name in ("attempts", "endings", "leaders")}
"""The generators. Those that use the simulation stand beside the simulation."""


def history_of(name: str) -> Callable[[int], None]:
    """The function `history` of a generator."""
    found: Callable[[int], None] = importlib.import_module(MODULES[name]).history
    return found
