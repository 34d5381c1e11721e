"""The tree of a run as text, for messages of failed tests."""

from __future__ import annotations

from .. import runtime
from ..api.looking import ActionNode, tree
from ..core.ground.values import describe_error, preview

LONGEST = 40
"""Actions of a run that are shown at most."""
LAST = 5
"""Runs that are shown at most: the last that were created."""


def text_of_run(name: str) -> str:
    """The tree of a run, a line for each action."""
    found = tree(name, LONGEST)
    lines = [f"run {found.run.name}: {found.run.task}, {found.run.status}"]
    shown = 0
    for position, node in found.nodes.items():
        if position > shown:
            lines.append(f"  ... {position - shown} more")
        shown = position + 1
        lines.append(f"  {'  ' * node.depth}{_text(node)}")
    return "\n".join(lines)


def text_of_runs() -> str:
    """The trees of the last runs of the store in use; empty where no store is open."""
    if not runtime.is_open():
        return ""
    rows = runtime.worker().store.runs(limit=LAST)
    return "\n".join(text_of_run(row.name) for row in rows)


def _text(node: ActionNode) -> str:
    parts = [f"{node.kind} {node.name}" if node.kind.lower() != node.name else node.name, node.status]
    if node.attempts is not None and node.attempts > 1:
        parts.append(f"attempt {node.attempts}")
    if node.error is not None:
        kind, message, _ = describe_error(node.error)
        parts.append(f"{kind}: {message}")
    elif node.value is not None:
        parts.append(f"-> {preview(node.value, 80)}")
    return ", ".join(parts)
