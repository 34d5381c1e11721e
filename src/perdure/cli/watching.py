"""`perdure watch`: a table that follows the store, or a line for each change."""

from __future__ import annotations

import time
from collections.abc import Iterator

from .. import runtime
from ..api import looking
from ..api.looking import RunInfo
from ..core.ground.clock import seconds
from ..core.ground.model import Status
from .output import Output, RunsTable, local_time, run_data

PAUSE = 0.2
"""Seconds between two looks whether the store has changed."""
ANYWAY = 2.0
"""Seconds after which the runs are looked at without a change: a status may change with time alone."""


def watch_runs(output: Output, limit: int, fit: bool, status: Status | None) -> None:
    """Show the newest runs until interrupted.

    Args:
        output: the destination; a terminal gets a table, anything else a line for each change.
        limit: at most so many runs.
        fit: only as many runs as the terminal has lines.
        status: only runs of this status.
    """
    if output.json or not output.out.isatty():
        _lines(output, limit, status)
    else:
        _table(output, limit, fit, status)


def _looks(output: Output, limit: int, status: Status | None) -> Iterator[list[RunInfo]]:
    """The newest runs, now and after possible changes."""
    version, looked = None, 0.0
    while True:
        if looking.store_exists():
            now = runtime.worker().store.version()
            if now != version or seconds() - looked > ANYWAY:
                version, looked = now, seconds()
                yield looking.runs(limit=limit, status=status).runs
        elif version is None:
            output.note(f"there is no store at {runtime.store_url()} yet")
            version = -1
            yield []
        time.sleep(PAUSE)


def _lines(output: Output, limit: int, status: Status | None) -> None:
    told: dict[str, Status] = {}
    for runs in _looks(output, limit, status):
        fresh = {run.name: run for run in runs if told.get(run.name) != run.status}
        for run in reversed(list(fresh.values())):
            if output.json:
                output.result_json(run_data(run))
            else:
                output.result(f"{local_time(runtime.worker().clock.wall())}  {run.name}  {run.task}  {run.status}")
        told = {run.name: run.status for run in runs}


def _table(output: Output, limit: int, fit: bool, status: Status | None) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console(file=output.out, highlight=False, markup=False, emoji=False)
    with Live(console=console, auto_refresh=False, screen=False, vertical_overflow="crop") as live:
        for runs in _looks(output, limit, status):
            shown = max(1, console.height - 2) if fit else len(runs)
            live.update(RunsTable(runs[:shown]), refresh=True)
