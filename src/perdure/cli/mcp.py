"""`perdure mcp`: tasks as tools of the Model Context Protocol."""

from __future__ import annotations

from datetime import timedelta

import click

from .base import CliCommand, cli, common, length, log_to_stderr

EPILOG = """  perdure mcp etl.py                 over stdin and stdout, as programs with a model start their servers
  perdure mcp etl.py --wait 5m       calls wait so long for their runs"""


@cli.command("mcp", cls=CliCommand, epilog=EPILOG, short_help="Serve tasks as tools for a model.")
@click.argument("sources", metavar="FILE_OR_MODULE...", nargs=-1, required=True, type=click.Path())
@click.option(
    "--wait", callback=length, metavar="LENGTH", default="30s", show_default=True,
    help="Then a call gives the name of its run, which goes on.",
)  # fmt: skip
@common
def mcp_command(sources: tuple[str, ...], wait: timedelta) -> None:
    """Serve the tasks in these files or modules as tools of the Model Context Protocol, over stdin and stdout, until
    stdin ends.

    Each call is a run, which this process drives. A call that is repeated with the same run_name joins the run, also
    after this process was killed.
    """
    import asyncio

    from ..integrations.mcp import serve

    log_to_stderr()
    asyncio.run(serve(sources, wait=wait.total_seconds()))
