"""Durations as users give them: any number, from the standard library or from numpy."""

from __future__ import annotations

import math
from typing import Any

LONGEST = 100 * 366 * 86_400


def seconds_of(value: Any, what: str) -> float:
    """A duration in seconds. A negative duration is a deadline in the past, and counts as 0.

    Raises:
        TypeError: not a number.
        ValueError: NaN, endless, or more than a hundred years.
    """
    if not hasattr(type(value), "__float__"):
        raise TypeError(f"{what} takes a number of seconds, not {type(value).__name__}")
    try:
        seconds = float(value)
    except OverflowError:
        seconds = math.inf
    except (TypeError, ValueError):  # an array of several numbers
        raise TypeError(f"{what} takes a number of seconds, not {type(value).__name__}") from None
    if math.isnan(seconds):
        raise ValueError(f"{what} takes a number of seconds, not NaN")
    if seconds > LONGEST:
        raise ValueError(f"{what} cannot wait for ever ({value} s); the longest is 100 years")
    return max(0.0, seconds)
