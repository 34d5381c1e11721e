"""The command that pauses runs: `perdure pause`. `perdure resume` ends a pause."""

from __future__ import annotations

import sys

import click

from . import completion
from .base import CliCommand, cli, common, output

PAUSE_EPILOG = """  perdure pause daily                    nothing new starts; what executes is recorded
  perdure resume daily                   it goes on here
  perdure resume daily --no-drive        it goes on in a worker that serves its task"""


@cli.command(cls=CliCommand, epilog=PAUSE_EPILOG, short_help="Let runs stand still until they are resumed.")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, shell_complete=completion.run_names)
@common
def pause(runs: tuple[str, ...]) -> None:
    """Let runs stand still, wherever they are driven, and return at once.

    Nothing new starts in a paused run, and the outcomes of what executes are recorded. Then the run is PAUSED: it needs
    no memory, and no worker takes it up until `perdure resume`. Messages for the run are kept meanwhile.
    """
    from ..api.run import Run
    from .driving import operate_on_each

    def pause_one(name: str) -> str:
        run = Run.get(name)
        if not run.pause():
            return f"run {name} was paused before, it is {run.status}"
        status = run.status
        return f"run {name} is paused" if status == "PAUSED" else f"run {name} is about to stand still, it is {status}"

    sys.exit(operate_on_each(output, runs, pause_one))
