"""The command `perdure top`."""

from __future__ import annotations

import os
import sys

import click

from ..errors import UsageError
from .base import ROWS, STATUSES, CliCommand, cli, common, output, signals

TOP_EPILOG = """  perdure top                        the runs, queues and workers of the store, live
  perdure top --status RUNNING       only runs under way"""


@cli.command("top", cls=CliCommand, epilog=TOP_EPILOG, short_help="The store on a full screen, live; act on runs.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", default=ROWS, show_default=True, help="Newest runs.")
@click.option("--status", type=click.Choice(STATUSES, case_sensitive=False), help="Only runs of this status.")
@common
def top_command(limit: int, status: str | None) -> None:
    """Show runs, queues and workers on a full screen that follows the store. Enter opens a run with its tree and logs;
    keys pause, resume, wake, cancel and abort the chosen run, after a question. q ends."""
    from ..core.ground.model import Status

    if not (sys.stdin.isatty() and output.out.isatty()):
        raise UsageError(
            "perdure top draws on a terminal, and there is none; perdure watch prints a line for each change"
        )
    try:
        from .top import TopApp
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "textual":
            raise
        raise UsageError("perdure top needs textual, which is not installed: pip install 'perdure[ui]'") from error
    app = TopApp(limit, None if status is None else Status(status.upper()))
    # The terminal must be itself again in any case.
    signals.replace(lambda number, frame: app.exit())
    app.run()
    # A look at a store that is slow to answer cannot delay the end.
    sys.stdout.flush()
    os._exit(0)
