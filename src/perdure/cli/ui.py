"""The command `perdure ui`: the web page of the store; and the same page in `perdure serve --ui`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from ..errors import UsageError
from .base import CliCommand, cli, common, log_to_stderr, output, signals
from .signals import INTERRUPTED

if TYPE_CHECKING:
    from ..api.task import Task
    from ..ui.metrics import Figures, WorkerFigures
    from ..ui.server import MetricsServer, PageServer

F = TypeVar("F", bound=Callable[..., Any])


class PageOptions(NamedTuple):
    """The options of the web page."""

    host: str
    port: int
    read_only: bool
    token: bool
    hosts: tuple[str, ...]
    mask: tuple[str, ...]


def page_options(command: F) -> F:
    """The options of commands that serve the web page."""
    for option in (
        click.option("--mask", metavar="FIELD", multiple=True, help="A further field whose values are not shown."),
        click.option("--allow-host", "hosts", metavar="NAME", multiple=True, help="A further name of this server."),
        click.option(
            "--token", is_flag=True, help="Ask for a one-time link on loopback, too; elsewhere always asked for."
        ),
        click.option("--read-only", is_flag=True, help="The web page shows everything and changes nothing."),
        click.option(
            "--port", type=click.IntRange(0, 65535), metavar="N", default=8420, show_default=True,
            help="The port of the web page. 0: any.",
        ),
        click.option(
            "--host", metavar="ADDRESS", default="127.0.0.1", show_default=True,
            help="The address at which the web page listens.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


@contextlib.contextmanager
def packages() -> Iterator[None]:
    """Imports of the packages of the extra `ui`."""
    try:
        yield
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn", "jinja2"):
            raise
        raise UsageError(
            "the web page needs starlette, uvicorn and jinja2, which are not installed: pip install 'perdure[ui]'"
        ) from error


def page_server(
    tasks: Mapping[str, Task[..., Any]], options: PageOptions, figures: Figures | None = None
) -> PageServer:
    """The web page with these options."""
    with packages():
        from ..ui.guard import is_loopback
        from ..ui.server import PageServer
        from ..ui.settings import UiSettings
        from ..ui.values import Mask
    token = options.token or not is_loopback(options.host)
    settings = UiSettings(tasks, Mask(options.mask), options.read_only, token)
    return PageServer(settings, options.host, options.port, options.hosts, figures)


def metrics_server(address: tuple[str, int], hosts: tuple[str, ...], figures: Figures) -> MetricsServer:
    """The figures at an address of their own."""
    with packages():
        from ..ui.server import MetricsServer
    return MetricsServer(*address, hosts, figures)


def worker_figures() -> WorkerFigures:
    """What counts the runs of a worker."""
    with packages():
        from ..ui.metrics import WorkerFigures
    return WorkerFigures()


def address(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, int] | None:
    """An address as `PORT`, `HOST:PORT` or `[HOST]:PORT`."""
    if value is None:
        return None
    host, _, port = value.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise click.BadParameter(f"{value!r} is no address such as 9464 or 0.0.0.0:9464")
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port)


UI_EPILOG = """  perdure ui                                  the runs of the store, at http://127.0.0.1:8420/
  perdure ui etl.py                           and start the tasks of etl.py from forms
  perdure ui --read-only                      look, change nothing
  perdure ui --host 0.0.0.0                   for other machines, with a link that works once"""


@cli.command("ui", cls=CliCommand, epilog=UI_EPILOG, short_help="The web page of the store.")
@click.argument("sources", metavar="[FILE_OR_MODULE]...", nargs=-1, type=click.Path())
@page_options
@common
def ui_command(sources: tuple[str, ...], **options: Any) -> None:
    """Show the runs of the store in a browser, live, until SIGTERM or Ctrl-C.

    The tasks of the given files can be started from forms; workers (perdure serve) drive the runs. A run that is
    resumed from the page is driven by this process.
    """
    log_to_stderr()
    output.keep_stdout()
    with packages():
        from ..ui.pages import tasks_of
    server = page_server(tasks_of(sources), PageOptions(**options))
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
