"""The commands for queues: `perdure queues`, `perdure drain`, `perdure queue pause`, `resume`, `set` and `reset`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..errors import UsageError
from .base import CliCommand, CommandGroup, cli, common, length, log_to_stderr, operate_on_named, output

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from rich.table import Table

    from ..api.queueing import Rate
    from ..api.queues_known import QueueState

QUEUES_EPILOG = """  perdure queues                              the limits, what runs and what waits
  perdure queues --json                       the same for machines"""


@cli.command("queues", cls=CliCommand, epilog=QUEUES_EPILOG, short_help="The limits of queues, and what waits.")
@common
def queues_command() -> None:
    """List the queues that the store knows: the settings in force, and how many runs hold a slot and wait."""
    from ..api.queues_known import queues

    log_to_stderr()
    found = queues()
    if output.json:
        output.result_json([_data(one) for one in found])
    elif found:
        output.draw(_table(found))
    else:
        output.note("no run was submitted to a queue, and no worker has served a task with one")


DRAIN_EPILOG = """  perdure drain crawl && perdure store copy ...
  perdure drain crawl --timeout 5m            exit code 1 if runs are driven then
  perdure queue resume crawl                  afterwards"""


@cli.command("drain", cls=CliCommand, epilog=DRAIN_EPILOG, short_help="Pause queues, and wait until nothing runs.")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--timeout", metavar="TIME", callback=length, help="The longest wait, such as 90s or 5m.")
@common
def drain_command(names: tuple[str, ...], timeout: timedelta | None) -> None:
    """Pause queues, and wait until no run of theirs holds a slot. The queues stay paused until `perdure queue resume`.

    Runs that wait, and parked runs, stay where they are.
    """
    from ..api.queues_known import queue_named
    from ..core.ground.clock import machine_seconds

    for one in list(map(queue_named, names)):
        one.pause()
    end = None if timeout is None else machine_seconds() + timeout.total_seconds()
    full: list[str] = []

    def drain(one: QueueState) -> str:
        if one.drain(None if end is None else max(0.0, end - machine_seconds())):
            return "is paused, and no run holds a slot"
        full.append(one.name)
        return f"is paused, and runs still hold slots: {queue_named(one.name).running}"

    _operate(names, drain)
    if full:
        raise SystemExit(1)


GROUP_EPILOG = """  perdure queues                              the names and the settings
  perdure queue set crawl concurrency=40"""


@cli.group("queue", cls=CommandGroup, epilog=GROUP_EPILOG, short_help="Pause, resume or change a queue.")
def queue_group() -> None:
    """Pause, resume or change a queue. `perdure queues` lists the names."""


@queue_group.command("pause", epilog="  perdure queue pause crawl", short_help="Let no more runs begin.")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@common
def pause_command(names: tuple[str, ...]) -> None:
    """Let workers take no more runs of a queue until the queue is resumed. Runs that are driven go on."""
    _operate(names, lambda one: "is paused" if one.pause() else "was paused before")


@queue_group.command("resume", epilog="  perdure queue resume crawl", short_help="End the pause of a queue.")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@common
def resume_command(names: tuple[str, ...]) -> None:
    """End the pause of a queue."""
    _operate(names, lambda one: "gives runs again" if one.resume() else "is not paused")


SET_EPILOG = """  perdure queue set crawl concurrency=40 per_worker=4
  perdure queue set crawl rate=600/60         600 starts in any window of 60 seconds
  perdure queue set crawl per_key=none        without that limit"""


@queue_group.command("set", epilog=SET_EPILOG, short_help="Change settings until they are reset.")
@click.argument("name", metavar="NAME")
@click.argument("settings", metavar="SETTING=VALUE...", nargs=-1, required=True)
@common
def set_command(name: str, settings: tuple[str, ...]) -> None:
    """Put settings in the place of those in the code, at once and for all workers, until they are reset.

    Settings are concurrency, per_worker, per_key (a number), rate (COUNT/SECONDS), order (fifo, priority, fair) and
    aging (seconds); `none` removes a limit.
    """
    values = dict(map(setting_of_word, settings))
    _operate((name,), lambda one: f"has {settings_words(values)} now" if one.set(**values) is None else "")


@queue_group.command("reset", epilog="  perdure queue reset crawl", short_help="Let the settings in the code count.")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@common
def reset_command(names: tuple[str, ...]) -> None:
    """Remove the settings of an operator, so that those in the code count again."""
    _operate(names, lambda one: "has the settings of the code" if one.reset() else "had no other settings")


def setting_of_word(text: str) -> tuple[str, Any]:
    """A setting as people write it, `NAME=VALUE`.

    Raises:
        UsageError: the text cannot be read.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"{text!r} is no setting: write NAME=VALUE, such as concurrency=40")
    if value.lower() == "none":
        return name, None
    try:
        if name == "rate":
            return name, rate_of(value)
        if name == "aging":
            return name, float(value)
        return name, value if name == "order" else int(value)
    except ValueError:
        form = "COUNT/SECONDS, such as 600/60" if name == "rate" else "a number, or none"
        raise UsageError(f"{name} must be {form}, not {value!r}") from None


def rate_of(text: str) -> Rate:
    """`COUNT/SECONDS` as a rate.

    Raises:
        ValueError: the text is no such thing.
    """
    from ..api.queueing import Rate

    count, _, seconds = text.partition("/")
    return Rate(int(count), per=float(seconds or 1))


def _operate(names: tuple[str, ...], operation: Callable[[QueueState], str]) -> None:
    from ..api.queues_known import queue_named

    operate_on_named("queue", names, queue_named, operation)


def _data(one: QueueState) -> dict[str, Any]:
    return {
        "name": one.name,
        "running": one.running,
        "waiting": one.waiting,
        "paused": None if one.paused is None else one.paused.isoformat(),
        "declared": one.declared,
        "override": one.override,
    }


def settings_words(settings: dict[str, Any]) -> str:
    """Settings for people."""
    return ", ".join(f"{name}={_word(value)}" for name, value in settings.items())


def _word(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, dict):
        return f"{value['count']}/{value['per']:g}s"
    return f"{value.count}/{value.seconds:g}s" if hasattr(value, "seconds") else str(value)


def _table(found: list[QueueState]) -> Table:
    from rich.table import Table

    from .output import cell

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("NAME", no_wrap=True, overflow="ellipsis")
    table.add_column("STATE", no_wrap=True)
    for heading in ("RUNNING", "WAITING"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("SETTINGS", "SET BY AN OPERATOR"):
        table.add_column(heading)
    for one in found:
        state = "paused" if one.paused is not None else "active"
        table.add_row(
            cell(one.name),
            state,
            str(one.running),
            str(one.waiting),
            settings_words(one.declared),
            settings_words(one.override),
        )
    return table
