"""Sets and dicts of decoded elements, filled in time in proportion to the number of elements.

Python salts the hashes of text and bytes, but not the hashes of numbers, nor of tuples of numbers. Bytes from outside
may hold numbers with equal hashes, or numbers that meet in the slots of the table: each insertion then compares the new
number with all others. Large collections are therefore filled slice by slice, and refused when several slices take far
longer than the hashes of the elements do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Any, Final

from ..clock import cpu

SLICE: Final = 256
FACTOR: Final = 16
"""An insertion is slow that takes so many times as long as the element's hash."""
GRACE: Final = 1_000_000
"""Nanoseconds that a slice may take beyond that."""
SLOW_SLICES: Final = 4
"""A single slow slice may be a stall of the machine."""


def set_of(items: list[Hashable]) -> set[Any]:
    """The set of these elements. Raises `ValueError` where most of the elements collide."""
    if len(items) <= SLICE:
        return set(items)
    found: set[Any] = set()
    slow = 0
    for at in range(0, len(items), SLICE):
        part = items[at : at + SLICE]
        expected = _hashing(part)
        began = cpu()
        found.update(part)
        slow = _checked(slow, cpu() - began, expected)
    return found


def dict_of(keys: list[Hashable], values: list[Any]) -> dict[Any, Any]:
    """The dict of these keys and values. Raises `ValueError` where most of the keys collide."""
    if len(keys) <= SLICE:
        return dict(zip(keys, values, strict=True))
    found: dict[Any, Any] = {}
    slow = 0
    for at in range(0, len(keys), SLICE):
        part = keys[at : at + SLICE]
        expected = _hashing(part)
        began = cpu()
        found.update(zip(part, values[at : at + SLICE], strict=True))
        slow = _checked(slow, cpu() - began, expected)
    return found


def _hashing(part: list[Hashable]) -> int:
    began = cpu()
    deque(map(hash, part), maxlen=0)
    return cpu() - began


def _checked(slow: int, took: int, expected: int) -> int:
    slow += took > FACTOR * expected + GRACE
    if slow >= SLOW_SLICES:
        raise ValueError("most of the elements or keys have hashes that collide")
    return slow
