"""Generators of cases for parts of perdure that the simulation does not reach, each with its own oracle.

A generator is a module with one function, `history(seed)`. It makes a case from the seed, carries the case out in this
process, and raises `Violation` where an invariant does not hold. `python -m proof.generators NAME FIRST COUNT` tries
many seeds.
"""

from __future__ import annotations


class Violation(Exception):
    """An invariant does not hold. The first word is its id in the register."""


NAMES = ("bodies", "replays", "schedules", "segments")
