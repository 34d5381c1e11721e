"""The judgement of the soak calls steady figures flat, and growing figures growing, over noise and odd rows."""

from __future__ import annotations

import random

import pytest
from tests.soak.judgement import Tolerance, judge

HOURS = [n / 10 for n in range(1, 21)]
TOLERANCE = Tolerance(0.05, 2)


def noise(seed: int) -> list[float]:
    chance = random.Random(seed)
    return [chance.gauss(0, 1.5) for _ in HOURS]


@pytest.mark.parametrize("seed", range(5))
def test_a_leak_is_found_in_noise_and_noise_is_no_leak(seed: int) -> None:
    """Family: a verdict from few noisy rows. A steady figure, a leak, a rise in the warm-up, an odd row, a decline."""
    steady = [100 + each for each in noise(seed)]
    leak = [value + 20 * hour for value, hour in zip(steady, HOURS, strict=True)]
    warming = [value - (40 if hour < 0.5 else 0) for value, hour in zip(steady, HOURS, strict=True)]
    odd = [value + (500 if number == 15 else 0) for number, value in enumerate(steady)]
    shrinking = [value - 20 * hour for value, hour in zip(steady, HOURS, strict=True)]
    verdicts = [judge("x", HOURS, each, TOLERANCE).flat for each in (steady, leak, warming, odd, shrinking)]
    assert verdicts == [True, False, True, True, True]


def test_a_slow_leak_is_found_over_a_longer_time() -> None:
    """The growth over the whole time counts, not the slope alone."""
    for hours, flat in ((HOURS, True), ([hour * 50 for hour in HOURS], False)):
        assert judge("x", hours, [100 + hour for hour in hours], TOLERANCE).flat is flat
