"""Parts that all commands share: options, output, signals, and the group of commands."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import click

from .. import __version__
from .output import Output
from .signals import Signals

F = TypeVar("F", bound=Callable[..., Any])
N = TypeVar("N", bound="HasName")

# The names of `core.ground.model.Status`, so that `perdure --help` need not import the core; a test compares both.
STATUSES = (
    "QUEUED", "RUNNING", "SLEEPING", "WAITING", "INTERRUPTED", "PAUSED", "SUCCEEDED", "FAILED", "ABORTED", "CANCELLED",
    "MOVED",
)  # fmt: skip
ROWS = 200
"""Rows of a list or tree for people, by default."""

output = Output()
signals = Signals()


class CliCommand(click.Command):
    """A command with help that keeps the layout of its examples."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.epilog:
            formatter.write(f"\nExamples:\n{self.epilog}\n")


class CommandGroup(click.Group):
    command_class = CliCommand

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write(f"\n{self.epilog}\n")


def _set_store(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value and not ctx.resilient_parsing:
        use_store(value)
    return value


def use_store(url: str) -> None:
    """`--store`."""
    from .. import runtime

    runtime.init(url)


def run_or_url(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    """The name of a run that was given by name or by URL (`Run.url`); a URL names the store as well."""
    url, mark, name = value.rpartition("#")
    if not mark or "://" not in url or ctx.resilient_parsing:
        return value
    from urllib.parse import unquote

    from .. import runtime

    found = unquote(name)
    if value != runtime.run_url(found):
        use_store(url)
    return found


def _set_json(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    output.json = output.json or value


def _set_quiet(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    output.quiet = output.quiet or value


def _set_verbose(ctx: click.Context, parameter: click.Parameter, value: int) -> None:
    output.verbose += value


def _hidden(*names: str, **settings: Any) -> Callable[[F], F]:
    """An option for its callback alone; the command's function does not see the option."""
    return click.option(*names, expose_value=False, **settings)


def common(command: F) -> F:
    """The options of every command."""
    for option in (
        _hidden("-q", "--quiet", is_flag=True, callback=_set_quiet, help="Say less on stderr."),
        _hidden("-v", "--verbose", count=True, callback=_set_verbose, help="Say more on stderr."),
        _hidden("--json", is_flag=True, callback=_set_json, help="JSON on stdout."),
        _hidden(
            "--store", metavar="URL", callback=_set_store, is_eager=True,
            help="The store, as sqlite:///path/to.db, postgresql://user@host/database or a path. Also PERDURE_STORE; "
                 "default .perdure/perdure.db.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

GUIDE = """A run's name is its key: the same `perdure run` line again carries on with an interrupted run, and only
prints the result of a finished one. Kill the process at any moment; nothing recorded is done twice.

  perdure run etl.py main --name daily --url https://example.org
  perdure resume daily        carry on after a crash or a failure
  perdure show daily          what it did
  perdure serve etl.py        a worker: drives what perdure submit leaves to it, and what was left behind
  perdure logs daily          what its tasks and containers have written
  perdure ls                  all runs

Exit codes: 0 success, 1 the run failed, 2 wrong usage, 130 interrupted (the run can be resumed)."""


@click.group(cls=CommandGroup, context_settings=HELP, epilog=GUIDE)
@click.version_option(__version__, prog_name="perdure", message="%(prog)s %(version)s")
@common
def cli() -> None:
    """Durable Python workflows in one SQLite file: kill the process anywhere, start it again, it carries on."""


def log_to_stderr() -> None:
    """Show perdure's log records (retries, changed source) as plain lines on stderr."""
    import logging

    class StderrLines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            # To the present `sys.stderr`: the live summary replaces it meanwhile.
            output.say(self.format(record))

    logger = logging.getLogger("perdure")
    logger.addHandler(StderrLines())
    logger.propagate = False
    logger.setLevel(logging.ERROR if output.quiet else logging.DEBUG if output.verbose else logging.WARNING)


_PARTS = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_SECONDS = re.compile(r"\d{1,12}(?:\.\d{1,6})?s?")


class HasName(Protocol):
    """What a command operates on."""

    @property
    def name(self) -> str: ...


def operate_on_named(
    what: str, names: tuple[str, ...], find: Callable[[str], N], operation: Callable[[N], str]
) -> None:
    """Do the operation on each `what` of these names, and tell its answer. With an unknown name nothing is done."""
    log_to_stderr()
    told = [(one.name, operation(one)) for one in list(map(find, names))]
    if output.json:
        output.result_json([{"name": name, "state": state} for name, state in told])
    for name, state in told:
        output.note(f"{what} {name} {state}")


def length(ctx: click.Context, parameter: click.Parameter | None, value: str | None, hint: str | None = None) -> Any:
    """A length of time; a number without a unit is seconds. `hint`: the name of the option, where click does not know
    the name."""
    from datetime import timedelta

    if value is None:
        return None
    if _SECONDS.fullmatch(value):
        return timedelta(seconds=float(value.rstrip("s")))
    parts = _PARTS.fullmatch(value) if value else None
    if parts is None:
        raise click.BadParameter(f"{value!r} is no length of time such as 30d, 12h, 90m, 45s or 1d12h", param_hint=hint)
    days, hours, minutes, seconds = (int(part or 0) for part in parts.groups())
    try:
        return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    except OverflowError:
        raise click.BadParameter(f"{value} is longer than anything has lasted", param_hint=hint) from None
