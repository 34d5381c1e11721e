"""What was measured, in the order in which it was, and ratios between neighbours in time."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import mean, median


@dataclass
class Timeline:
    """Every measurement in the order in which it was taken."""

    taken: list[tuple[str, float]] = field(default_factory=list)
    extra: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)  # what is not here to be measured, and why; no failure

    def figures(self, key: str) -> list[float]:
        return [figure for name, figure in self.taken if name == key]

    def median(self, key: str) -> float | None:
        figures = self.figures(key)
        return median(figures) if figures else None

    def pairs(self, key: str, against: str) -> list[tuple[float, float]]:
        """Each figure of `key` with the mean of the nearest `against` before and behind it."""
        result = []
        for index, (name, figure) in enumerate(self.taken):
            if name != key:
                continue
            before = next((f for n, f in reversed(self.taken[:index]) if n == against), None)
            behind = next((f for n, f in self.taken[index:] if n == against), None)
            neighbours = [f for f in (before, behind) if f is not None]
            if neighbours:
                result.append((figure, mean(neighbours)))
        return result

    def ratio(self, key: str, against: str) -> float | None:
        pairs = self.pairs(key, against)
        return median(figure / other for figure, other in pairs) if pairs else None

    def on_top(self, key: str, against: str) -> float | None:
        """Microseconds that one call takes longer; both figures are rates."""
        pairs = self.pairs(key, against)
        return median(1e6 / figure - 1e6 / other for figure, other in pairs) if pairs else None
