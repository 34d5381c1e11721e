"""How figures look in the results, and how they are judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Line:
    work: str
    figure: str
    raw: str = ""
    peers: dict[str, str] = field(default_factory=dict)  # ratio by name
    target: str = ""
    verdict: str = ""


def at_least(value: float | None, target: float) -> str:
    if value is None:
        return "not measured"
    return "met" if value >= target else f"short by {(1 - value / target) * 100:.0f} %"


def at_most(value: float | None, target: float, unit: str = "x") -> str:
    if value is None:
        return "not measured"
    return "met" if value <= target else f"over by {value - target:.2f}{unit}"


def rate(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    digits = 0 if value >= 1000 else 1
    return f"{value:,.{digits}f} {unit}"


def times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}x" if value < 10 else f"{value:.0f}x"


def markdown(cells: Sequence[Sequence[str]]) -> str:
    """A table whose first row is its headings."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    text = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    text.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(text)
