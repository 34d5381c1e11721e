"""Whether a figure of the soak is flat: the robust slope of its rows, and the growth that the slope stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

WARM_UP = 0.3
"""The first part of the rows, in which caches fill, does not count."""


@dataclass(frozen=True)
class Tolerance:
    """The growth, over the whole time judged, below which a figure is flat: the greater of a share and an amount."""

    share: float
    amount: float


@dataclass(frozen=True)
class Verdict:
    """One figure: its median, its slope per hour, and the growth over the time judged."""

    figure: str
    middle: float
    slope: float
    growth: float
    allowed: float

    @property
    def flat(self) -> bool:
        return self.growth <= self.allowed


def theil_sen(times: Sequence[float], values: Sequence[float]) -> float:
    """The median of the slopes between all pairs of rows: a single odd row does not move it."""
    slopes = [
        (values[later] - values[sooner]) / (times[later] - times[sooner])
        for sooner in range(len(times))
        for later in range(sooner + 1, len(times))
        if times[later] > times[sooner]
    ]
    return median(slopes) if slopes else 0.0


def judge(figure: str, hours: Sequence[float], values: Sequence[float], tolerance: Tolerance) -> Verdict:
    """The verdict on one figure over the rows behind the warm-up."""
    first = int(len(hours) * WARM_UP)
    times, late = hours[first:], values[first:]
    slope, middle = theil_sen(times, late), median(late)
    growth = slope * (times[-1] - times[0])
    return Verdict(figure, middle, slope, growth, max(tolerance.share * abs(middle), tolerance.amount))
