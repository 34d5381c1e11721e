"""The graph of a run's tasks: which task called which, how often, and for how long. Drawn by the server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from ..api import looking
from ..api.looking import Picture
from ..core.ground.clock import US
from .settings import UiSettings

BOXES: Final = 60
"""Names of tasks in a drawing; those with the most calls."""
WIDTH: Final = 200
HEIGHT: Final = 46
ACROSS: Final = 280
"""From the left of a column to the left of the next."""
DOWN: Final = 66
MARGIN: Final = 10


def graph_page(ui: UiSettings, asked: Mapping[str, str]) -> dict[str, Any]:
    """The tasks of a run by name, their calls of each other, and where both stand in the drawing."""
    picture = looking.picture(asked.get("name", ""))
    tasks, calls = _counted(picture)
    kept = dict(sorted(tasks.items(), key=lambda item: (item[1]["depth"] > 0, -item[1]["count"]))[:BOXES])
    _place(kept)
    edges = [
        {"caller": caller, "called": called, "count": count, "path": _path(kept[caller], kept[called])}
        for (caller, called), count in sorted(calls.items(), key=lambda item: -item[1])
        if caller in kept and called in kept
    ]
    return {
        "run": picture.run.name,
        "tasks": list(kept.values()),
        "calls": edges,
        "left_out": len(tasks) - len(kept),
        "width": max(one["x"] for one in kept.values()) + WIDTH + 5 * MARGIN,
        "height": max(one["y"] for one in kept.values()) + HEIGHT + 3 * MARGIN,
    }


def _counted(picture: Picture) -> tuple[dict[str, dict[str, Any]], Counter[tuple[str, str]]]:
    """The tasks by name, in the order in which they were first called, and how often which called which."""
    tasks: dict[str, dict[str, Any]] = {}
    calls: Counter[tuple[str, str]] = Counter()
    name_at: dict[int, str] = {}
    for position in range(picture.total):
        node = picture.node(position)
        caller = name_at.get(node.parent)
        if node.kind not in ("task", "container"):
            if caller is not None:
                name_at[position] = caller  # what a trace calls, its task calls
            continue
        name_at[position] = node.name
        depth = 0 if caller is None else tasks[caller]["depth"] + 1
        one = tasks.setdefault(
            node.name, {"name": node.name, "count": 0, "failed": 0, "open": 0, "time": 0.0, "depth": depth}
        )
        one["count"] += 1
        one["failed"] += node.status == "FAILED"
        one["open"] += node.took is None
        one["time"] += (node.took or 0) / US
        if caller is not None:
            calls[caller, node.name] += 1
    return tasks, calls


def _place(tasks: dict[str, dict[str, Any]]) -> None:
    """Put each task into the column of its depth. Empty columns are left out."""
    columns = {depth: number for number, depth in enumerate(sorted({one["depth"] for one in tasks.values()}))}
    below: Counter[int] = Counter()
    for one in tasks.values():
        column = columns[one["depth"]]
        one["x"] = MARGIN + column * ACROSS
        one["y"] = 2 * MARGIN + below[column] * DOWN
        below[column] += 1


def _path(caller: dict[str, Any], called: dict[str, Any]) -> str:
    """A curve from the right side of the caller's box to the box of the called task."""
    x, y = caller["x"] + WIDTH, caller["y"] + HEIGHT // 2
    to_y = called["y"] + HEIGHT // 2
    if called["x"] > caller["x"]:
        middle = (x + called["x"]) // 2
        return f"M{x} {y} C{middle} {y} {middle} {to_y} {called['x']} {to_y}"
    # A task that calls itself, or a task to the left: back in a bow on the right.
    end, bow = called["x"] + WIDTH, max(x, called["x"] + WIDTH) + 40
    return f"M{x} {y - 8} C{bow} {y - 14} {bow} {to_y + 14} {end} {to_y + 8}"
