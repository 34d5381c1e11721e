"""A run's tree while the run goes on: on a terminal of `perdure run`, and for `perdure show --follow`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

from rich.text import Text

from .. import runtime
from ..api import looking
from ..api.looking import ActionNode, Picture
from ..core.ground.clock import perf
from ..core.ground.harmless import harmless
from ..core.ground.model import FINISHED, Status
from .output import (
    STYLES,
    Output,
    action_data,
    counted,
    local,
    local_time,
    outcome_text,
    print_tree,
    run_data,
    run_head,
    span,
)

LOOK_SECONDS = 0.2
"""Between two looks."""
COST = 20
"""A look reads the whole run. The pause is at least so many times as long as the look took."""
INDENT_MOST = 12
"""Levels of a tree that are indented."""


# -- lines of a live tree --------------------------------------------------------------------------------------


def live_lines(picture: Picture, room: int) -> list[Text]:
    """The tree in at most `room` lines: what is under way first, then what began last; each with its callers."""
    now = runtime.worker().clock.wall()
    shown = _fitting(picture, max(room - 1, 1))
    lines = [_line(node, now) for position, node in shown.items() if position]
    left = picture.total - len(shown)
    if left > 0:
        lines.insert(0, Text(f"… {counted(left, 'more action')}", "dim"))
    return lines


def _fitting(picture: Picture, room: int) -> dict[int, ActionNode]:
    if picture.total <= room:
        return picture.nodes(range(picture.total))
    positions = range(1, picture.total)
    ranked = sorted(positions, key=lambda one: (_under_way(picture.node(one)), picture.node(one).at or 0), reverse=True)
    shown: dict[int, ActionNode] = {}
    for position in ranked:
        with_callers = picture.nodes([position])
        if len(shown | with_callers) > room:
            break
        shown |= with_callers
    return dict(sorted(shown.items()))


def _under_way(node: ActionNode) -> bool:
    return node.took is None and node.status in ("RUNNING", "SLEEPING", "WAITING")


def _line(node: ActionNode, now: int) -> Text:
    name = f"{node.name} [{node.label}]" if node.label else node.name
    line = Text("  " * min(node.depth - 1, INDENT_MOST), no_wrap=True, overflow="ellipsis")
    line.append(harmless(name).replace("\n", " "))
    line.append("  ").append(node.status, STYLES.get(node.status, ""))
    took = node.took if node.took is not None else now - node.at if _under_way(node) and node.at is not None else None
    if took is not None:
        line.append(f"  {span(max(took, 0))}", "dim")
    if node.attempts is not None and node.attempts > 1:
        line.append(f"  attempt {node.attempts}", "yellow")
    told = outcome_text(node)
    if told and (node.error is not None or node.until is not None):
        line.append("  ").append(harmless(told).replace("\n", " "))
    if node.discarded or node.earlier or node.status == "UNFINISHED":
        line.stylize("dim")
    return line


def summary(name: str, most: int) -> list[str]:
    """The actions of a run by name, those with the most time first, as lines for people."""
    groups = looking.summed(looking.picture(name))
    lines = []
    for one in groups[:most]:
        failed = f", {one.failed:,} failed" if one.failed else ""
        lines.append(f"  {one.name}: {one.actions:,} in {span(one.time)}, at most {span(one.most)}{failed}")
    if len(groups) > most:
        lines.append(f"  and {counted(len(groups) - most, 'more name')}")
    return lines


# -- perdure show --follow -------------------------------------------------------------------------------------


class _Key(NamedTuple):
    """An action over several looks: places in a tree change."""

    action: int | None
    entry: int | None


def follow(output: Output, name: str, limit: int | None) -> None:
    """Show the tree of a run until the run has ended: live on a terminal, elsewhere a line for each change."""
    if output.json or not output.out.isatty():
        _lines(output, name)
    else:
        _tree(output, name, limit)


def _looks(name: str) -> Iterator[Picture]:
    """The run, now and after possible changes; at last as it has ended."""
    version = None
    while True:
        now = runtime.worker().store.version() if looking.store_exists() else -1
        # A run under way changes with time alone, and with the death of a process.
        began = perf()
        found = looking.picture(name)
        if now != version or found.run.status not in (Status.SUCCEEDED, Status.FAILED):
            version = now
            yield found
        if found.run.status in FINISHED or found.run.status == Status.MOVED:
            return
        time.sleep(max(LOOK_SECONDS, COST * (perf() - began) / 1e9))


def _lines(output: Output, name: str) -> None:
    told: dict[_Key, str] = {}
    run: Status | None = None
    for picture in _looks(name):
        if picture.run.status != run:
            run = picture.run.status
            if output.json:
                output.result_json({"run": run_data(picture.run)})
            else:
                why = "" if run == Status.SUCCEEDED else f"  {picture.run.why}"
                output.result(f"{local_time(runtime.worker().clock.wall())}  {name}  {run}{why}")
        for position in range(1, picture.total):
            node = picture.node(position)
            key = _Key(node.action, None if node.action is not None else node.entry)
            if told.get(key) == node.status:
                continue
            told[key] = node.status
            if output.json:
                output.result_json({"action": action_data(node)})
            else:
                output.result(_change(node))


def _change(node: ActionNode) -> str:
    at = node.at if node.took is None or node.at is None else node.at + node.took
    parts = [local_time(at) if at is not None else local(at), node.name, node.status, span(node.took)]
    if node.error is not None or node.until is not None:
        parts.append(outcome_text(node))
    return "  ".join(part.replace("\n", " ") for part in parts if part)


def _tree(output: Output, name: str, limit: int | None) -> None:
    from rich.console import Console, Group
    from rich.live import Live

    console = Console(file=output.out, highlight=False, markup=False, emoji=False)
    picture: Picture | None = None
    with Live(console=console, auto_refresh=False, transient=True, vertical_overflow="crop") as live:
        for picture in _looks(name):
            head = run_head(picture.run)
            room = max(console.height - 2 - head.plain.count("\n"), 2)
            live.update(Group(head, *live_lines(picture, room)), refresh=True)
    assert picture is not None
    print_tree(output, looking.part(picture, limit))
