"""The commands for limits of calls: `perdure limits`, `perdure limit set` and `reset`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..errors import UsageError
from .base import CliCommand, CommandGroup, cli, common, log_to_stderr, operate_on_named, output
from .queues import rate_of
from .queues import settings_words as words

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.table import Table

    from ..api.limits_known import LimitState

LIMITS_EPILOG = """  perdure limits                              the limits of calls, and what waits
  perdure limits --json                       the same for machines"""


@cli.command("limits", cls=CliCommand, epilog=LIMITS_EPILOG, short_help="The limits of calls, and what waits.")
@common
def limits_command() -> None:
    """List the limits of calls that the store knows: the settings, and how many calls hold a slot and wait."""
    from ..api.limits_known import limits

    log_to_stderr()
    found = limits()
    if output.json:
        output.result_json([_data(one) for one in found])
    elif found:
        output.draw(_table(found))
    else:
        output.note("no call under a limit was made in this store")


GROUP_EPILOG = """  perdure limits                              the names and the settings
  perdure limit set openai concurrency=4"""


@cli.group("limit", cls=CommandGroup, epilog=GROUP_EPILOG, short_help="Change a limit of calls.")
def limit_group() -> None:
    """Change a limit of calls. `perdure limits` lists the names."""


SET_EPILOG = """  perdure limit set openai concurrency=4
  perdure limit set openai rate=500/60 cost=90000/60
  perdure limit set openai cost=none          without that limit"""


@limit_group.command("set", epilog=SET_EPILOG, short_help="Change settings until they are reset.")
@click.argument("name", metavar="NAME")
@click.argument("settings", metavar="SETTING=VALUE...", nargs=-1, required=True)
@common
def set_command(name: str, settings: tuple[str, ...]) -> None:
    """Put settings in the place of those in the code, at once and for all processes, until they are reset.

    Settings are concurrency (a number), rate and cost (COUNT/SECONDS); `none` removes a limit.
    """
    values = dict(map(limit_setting_of, settings))
    _operate((name,), lambda one: f"has {words(values)} now" if one.set(**values) is None else "")


@limit_group.command("reset", epilog="  perdure limit reset openai", short_help="Let the settings in the code count.")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@common
def reset_command(names: tuple[str, ...]) -> None:
    """Remove the settings of an operator, so that those in the code count again."""
    _operate(names, lambda one: "has the settings of the code" if one.reset() else "had no other settings")


def limit_setting_of(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"{text!r} is no setting: write NAME=VALUE, such as concurrency=4")
    if value.lower() == "none":
        return name, None
    try:
        return name, rate_of(value) if name in ("rate", "cost") else int(value)
    except ValueError:
        form = "COUNT/SECONDS, such as 500/60" if name in ("rate", "cost") else "a number, or none"
        raise UsageError(f"{name} must be {form}, not {value!r}") from None


def _operate(names: tuple[str, ...], operation: Callable[[LimitState], str]) -> None:
    from ..api.limits_known import limit_named

    operate_on_named("limit", names, limit_named, operation)


def _data(one: LimitState) -> dict[str, Any]:
    return {
        "name": one.name,
        "held": one.held,
        "waiting": one.waiting,
        "declared": one.declared,
        "override": one.override,
    }


def _table(found: list[LimitState]) -> Table:
    from rich.table import Table

    from .output import cell

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("NAME", no_wrap=True, overflow="ellipsis")
    for heading in ("HELD", "WAITING"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("SETTINGS", "SET BY AN OPERATOR"):
        table.add_column(heading)
    for one in found:
        table.add_row(cell(one.name), str(one.held), str(one.waiting), words(one.declared), words(one.override))
    return table
