"""The command that forks runs: `perdure fork`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..errors import ValueMismatchError
from . import completion
from .base import CliCommand, cli, common, log_to_stderr, output

if TYPE_CHECKING:
    from ..core.ground.values import Codec

FORK_EPILOG = """  perdure fork daily --before 7                      executes entry 7 again, and all that follows
  perdure fork daily --after 7 --outcome 0.5         with another outcome of the call of entry 7
  perdure resume $(perdure fork daily --before 7)    and drives the new run here"""


@cli.command(cls=CliCommand, epilog=FORK_EPILOG, short_help="A new run that shares a run's past.")
@click.argument("run", metavar="RUN", shell_complete=completion.run_names)
@click.option("--before", type=click.IntRange(min=1), metavar="N", help="Share what was recorded before entry N.")
@click.option("--after", type=click.IntRange(min=1), metavar="N", help="Share entry N as well, with another outcome.")
@click.option("--outcome", metavar="VALUE", help="The outcome of entry N: JSON, by the declared type of the call.")
@click.option("--name", metavar="NAME", help="The new run's name. A readable random one by default.")
@click.option("--file", metavar="FILE", type=click.Path(), help="Where the code is, if not where it was.")
@common
def fork(
    run: str, before: int | None, after: int | None, outcome: str | None, name: str | None, file: str | None
) -> None:
    """Store a new run that shares the journal of RUN, which has ended, up to an entry; its name goes to stdout.

    Entries are numbered in `perdure show`. Workers that serve the task go on with the new run, or `perdure resume`.
    """
    from ..api import forking
    from ..api.convert import Unfit, from_text

    log_to_stderr()

    def read(codec: Codec[Any]) -> Any:
        try:
            return from_text(outcome or "", codec.annotation)
        except Unfit as misfit:
            raise ValueMismatchError(f"{codec.where} of run {run!r}: {misfit}; nothing was stored") from None

    row = forking.fork(run, before, after, new_name=name, file=file, read=None if outcome is None else read)
    if output.json:
        output.result_json({"name": row.name, "task": row.task})
    else:
        output.result(row.name)
