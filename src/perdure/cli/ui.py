"""The command `perdure ui`: the web page of the store."""

from __future__ import annotations

import os
from typing import Any

import click

from ..errors import UsageError
from .base import CliCommand, cli, common, log_to_stderr, output, signals
from .signals import INTERRUPTED

UI_EPILOG = """  perdure ui                                  the runs of the store, at http://127.0.0.1:8420/
  perdure ui etl.py                           and start the tasks of etl.py from forms
  perdure ui --read-only                      look, change nothing
  perdure ui --host 0.0.0.0                   for other machines, with a link that works once"""


@cli.command("ui", cls=CliCommand, epilog=UI_EPILOG, short_help="The web page of the store.")
@click.argument("sources", metavar="[FILE_OR_MODULE]...", nargs=-1, type=click.Path())
@click.option("--host", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option("--port", type=click.IntRange(0, 65535), metavar="N", default=8420, show_default=True, help="0: any.")
@click.option("--read-only", is_flag=True, help="Show everything, change nothing.")
@click.option("--token", is_flag=True, help="Ask for a one-time link on loopback, too; elsewhere always asked for.")
@click.option("--allow-host", "hosts", metavar="NAME", multiple=True, help="A further name of this server.")
@click.option("--mask", metavar="FIELD", multiple=True, help="A further field whose values are not shown.")
@common
def ui_command(
    sources: tuple[str, ...],
    host: str,
    port: int,
    read_only: bool,
    token: bool,
    hosts: tuple[str, ...],
    mask: tuple[str, ...],
) -> None:
    """Show the runs of the store in a browser, live, until SIGTERM or Ctrl-C.

    The tasks of the given files can be started from forms; workers (perdure serve) drive the runs. A run that is
    resumed from the page is driven by this process.
    """
    try:
        from ..ui.guard import is_loopback
        from ..ui.pages import UiSettings, tasks_of
        from ..ui.server import WebServer
        from ..ui.values import Mask
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn", "jinja2"):
            raise
        raise UsageError(
            "the web page needs starlette, uvicorn and jinja2, which are not installed: pip install 'perdure[ui]'"
        ) from error

    log_to_stderr()
    output.keep_stdout()
    settings = UiSettings(tasks_of(sources), Mask(mask), read_only, token or not is_loopback(host))
    server = WebServer(settings, host, port, hosts)
    stopped: list[int] = []

    def stop(number: int, frame: Any) -> None:
        if stopped:
            os._exit(INTERRUPTED)
        stopped.append(number)
        server.stop()

    signals.replace(stop)
    link = server.link()
    server.serve(lambda: output.result_json({"url": link}) if output.json else output.result(link))
    # A resumed run that blocks in C code cannot delay the end; the run stays resumable.
    from .. import runtime

    if runtime.is_open():
        runtime.worker().retire()
    os._exit(0)
