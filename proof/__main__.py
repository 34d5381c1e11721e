"""Explore the models, once as they are and once with each fault: `python -m proof [--large]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from . import claims, limits, moves, signals, submits
from .checker import Broken, explore

LARGE = claims.Bounds(deaths=2, freezes=1, lapses=1, workers=3)

MODELS: list[tuple[str, dict[str, str], Callable[[str], Any]]] = [
    ("claims", claims.FAULTS, claims.model),
    ("limits", limits.FAULTS, limits.model),
    ("moves", moves.FAULTS, moves.model),
    ("signals", signals.FAULTS, signals.faulty),
    ("submits", submits.FAULTS, submits.faulty),
]


def main() -> int:
    """Print what was looked at; 1 where a property does not hold or a fault is not found."""
    parser = argparse.ArgumentParser(prog="python -m proof", description=__doc__)
    parser.add_argument("--large", action="store_true", help="three workers and more deaths; takes minutes")
    bounds = LARGE if parser.parse_args().large else claims.Bounds()
    right = [holds("claims", claims.model(None, bounds)), holds("moves", moves.model())]
    right.append(holds("limits", limits.model()))
    for mail in (signals.MailBounds(),) if bounds is LARGE else (signals.FREEZES, signals.CANCELS):
        right += [holds("signals", signals.model(parkable=parkable, bounds=mail)) for parkable in (True, False)]
    for cuts in (submits.Limits(),) if bounds is LARGE else (submits.DEATHS, submits.READS, submits.CUTS):
        right += [holds("submits", submits.model(polls=polls, limits=cuts)) for polls in (True, False)]
    found = [
        is_found(name, fault, expected, model(fault))
        for name, faults, model in MODELS
        for fault, expected in faults.items()
    ]
    return 0 if all(right) and all(found) else 1


def holds(name: str, model: Any) -> bool:
    """Whether all properties of the model hold."""
    try:
        found = explore(model)
    except Broken as broken:
        print(f"{name}: {broken}")
        return False
    print(f"{name}: {found.states} states, {found.steps} steps: all properties hold")
    return True


def is_found(name: str, fault: str, expected: str, model: Any) -> bool:
    """Whether that fault breaks just the property that it should break."""
    try:
        explore(model)
    except Broken as broken:
        print(f"{name}: found in {len(broken.way)} steps ({broken.name}): {fault}")
        return broken.name == expected
    print(f"{name}: NOT FOUND: {fault}")
    return False


if __name__ == "__main__":
    sys.exit(main())
