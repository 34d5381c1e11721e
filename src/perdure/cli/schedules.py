"""The commands for schedules: `perdure schedules`, `perdure schedule pause`, `resume` and `trigger`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .base import CliCommand, CommandGroup, cli, common, log_to_stderr, operate_on_named, output

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from rich.table import Table

    from ..api.scheduling import TaskSchedule

SCHEDULES_EPILOG = """  perdure schedules                           what fires when, and what is paused
  perdure schedules --json                    the same for machines"""


@cli.command("schedules", cls=CliCommand, epilog=SCHEDULES_EPILOG, short_help="What fires when, and what is paused.")
@click.option("--task", metavar="TASK", help="Only schedules of this task, by its full name, such as etl.main.")
@common
def schedules_command(task: str | None) -> None:
    """List the schedules that workers have served: the next firing, the newest firing with a run, and the state."""
    from ..api.scheduling import schedules

    log_to_stderr()
    found = schedules(task=task)
    if output.json:
        output.result_json([_data(one) for one in found])
    elif found:
        output.draw(_table(found))
    else:
        output.note("no worker has served a task with triggers")


GROUP_EPILOG = """  perdure schedules                           the names, and what is paused
  perdure schedule pause etl.nightly"""


@cli.group("schedule", cls=CommandGroup, epilog=GROUP_EPILOG, short_help="Pause, resume or trigger a schedule.")
def schedule_group() -> None:
    """Pause, resume or trigger a schedule. `perdure schedules` lists the names."""


@schedule_group.command(
    "pause", epilog="  perdure schedule pause etl.nightly", short_help="Fire no more until resumed."
)
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@common
def pause_command(names: tuple[str, ...]) -> None:
    """Give the firings of a schedule no runs until the schedule is resumed. Runs that exist are not touched."""
    _operate(names, lambda one: "is paused" if one.pause() else "was paused before")


@schedule_group.command("resume", epilog="  perdure schedule resume etl.nightly", short_help="Fire again.")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@common
def resume_command(names: tuple[str, ...]) -> None:
    """End the pause of a schedule. No run makes up for the firings in the pause."""
    _operate(names, lambda one: "fires again" if one.resume() else "is not paused")


TRIGGER_EPILOG = """  perdure schedule trigger etl.nightly --file etl.py
  perdure wait $(perdure schedule trigger etl.nightly --file etl.py)"""


@schedule_group.command("trigger", epilog=TRIGGER_EPILOG, short_help="Submit a run now.")
@click.argument("name", metavar="NAME")
@click.option("--file", metavar="FILE_OR_MODULE", required=True, help="Where the task is, with its triggers.")
@common
def trigger_command(name: str, file: str) -> None:
    """Submit a run with the inputs of the trigger, as if its time were now. The name of the run goes to stdout."""
    from ..api.loading import load_source
    from ..api.scheduling import schedule_named

    log_to_stderr()
    found = schedule_named(name)
    load_source(file)
    run = found.trigger()
    if output.json:
        output.result_json({"name": run.name, "task": run.task, "status": str(run.status)})
    else:
        output.result(run.name)


def _operate(names: tuple[str, ...], operation: Callable[[TaskSchedule], str]) -> None:
    from ..api.scheduling import schedule_named

    operate_on_named("schedule", names, schedule_named, operation)


def _data(one: TaskSchedule) -> dict[str, Any]:
    return {
        "name": one.name,
        "task": one.task,
        "rule": one.rule,
        "next": [at.isoformat() for at in one.next],
        "paused": _iso(one.paused),
        "fired": _iso(one.fired),
        "overdue": _iso(one.overdue),
    }


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _table(found: list[TaskSchedule]) -> Table:
    from rich.table import Table

    from .output import cell

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("NAME", "RULE"):
        table.add_column(heading, no_wrap=True, overflow="ellipsis")
    for heading in ("STATE", "NEXT", "LAST"):
        table.add_column(heading, no_wrap=True)
    for one in found:
        state = "paused" if one.paused is not None else "overdue" if one.overdue is not None else "active"
        table.add_row(
            cell(one.name), cell(_rule(one.rule)), state, _local(one.next[0] if one.next else None), _local(one.fired)
        )
    return table


def _rule(definition: str) -> str:
    """A definition for people: lengths with their units, beginnings in the local zone."""
    from .output import local, span

    period, found, start = definition.removeprefix("every ").partition(" from ")
    if not (found and definition.startswith("every ") and period.isdecimal() and start.lstrip("-").isdecimal()):
        return definition
    return f"every {span(int(period))}" + (f" from {local(int(start))}" if int(start) else "")


def _local(at: datetime | None) -> str:
    """A time for people, in the local zone."""
    return "" if at is None else at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
