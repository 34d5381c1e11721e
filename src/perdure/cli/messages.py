"""The commands that talk to runs: `perdure signal`, `perdure send`, `perdure conditions`, `perdure published`,
`perdure stream`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from . import completion
from .base import CliCommand, cli, common, log_to_stderr, output, run_or_url

if TYPE_CHECKING:
    from rich.table import Table

    from ..api.messages import ConditionInfo
    from ..api.run import Run

SIGNAL_EPILOG = """  perdure signal daily approve true                       a condition of type bool
  perdure signal daily approve '{"ok": true}'             of a dataclass, as JSON
  perdure conditions                                      who waits, and for which type"""


@cli.command("signal", cls=CliCommand, epilog=SIGNAL_EPILOG, short_help="Set a condition that a run waits for.")
@click.argument("run", metavar="RUN", shell_complete=completion.run_names, callback=run_or_url)
@click.argument("name", metavar="NAME")
@click.argument("value", metavar="VALUE")
@common
def signal_command(run: str, name: str, value: str) -> None:
    """Set condition NAME of a run. The first value counts; an equal value is accepted again.

    VALUE is read by the type that the run waits for. Where the run does not wait yet, VALUE is JSON, or else text.
    """
    from ..api.convert import from_text
    from ..api.given import given_message
    from ..api.run import Run
    from ..core.ground.model import Kind

    log_to_stderr()
    found = Run.get(run)
    data, data_type = given_message(found, Kind.CONDITION, name, partial(from_text, value))
    found.signal(name, data, data_type=data_type)
    _told(found, "condition", name, f"condition {name!r} is set")


SEND_EPILOG = """  perdure send daily orders '{"id": 7}'                   a message to the mailbox orders
  perdure send daily orders '{"id": 7}' --key evt-77      sent once, however often the command is repeated"""


@cli.command("send", cls=CliCommand, epilog=SEND_EPILOG, short_help="Send a message to a mailbox of a run.")
@click.argument("run", metavar="RUN", shell_complete=completion.run_names, callback=run_or_url)
@click.argument("name", metavar="NAME")
@click.argument("value", metavar="VALUE")
@click.option("--key", metavar="KEY", help="Messages of one run and mailbox with one key are one message.")
@common
def send_command(run: str, name: str, value: str, key: str | None) -> None:
    """Send a message to mailbox NAME of a run. Messages are received one by one, in the order of sending.

    VALUE is read by the type that the run waits for. Where the run does not wait yet, VALUE is JSON, or else text.
    """
    from ..api.convert import from_text
    from ..api.given import given_message
    from ..api.run import Run
    from ..core.ground.model import Kind

    log_to_stderr()
    found = Run.get(run)
    data, data_type = given_message(found, Kind.RECEIVE, name, partial(from_text, value))
    found.send(name, data, key=key, data_type=data_type)
    _told(found, "mailbox", name, f"a message for mailbox {name!r} is stored")


def _told(run: Run, kind: str, name: str, what: str) -> None:
    if output.json:
        output.result_json({"run": run.name, "kind": kind, "name": name})
    else:
        output.note(f"run {run.name}: {what}")


CONDITIONS_EPILOG = """  perdure conditions                          who waits for what, since when, until when
  perdure conditions --json                   the same for machines"""


@cli.command("conditions", cls=CliCommand, epilog=CONDITIONS_EPILOG, short_help="Who waits for which message.")
@common
def conditions_command() -> None:
    """List the calls that wait for a condition or a message, and the messages that no call has asked for."""
    from ..api import looking, messages

    log_to_stderr()
    found = messages.conditions() if looking.store_exists() else []
    if output.json:
        output.result_json([_data(one) for one in found])
    elif found:
        output.draw(_table(found))
    else:
        output.note("no run waits for a message")


@cli.command("published", cls=CliCommand, short_help="The values that a run has published.")
@click.argument("run", metavar="RUN", shell_complete=completion.run_names, callback=run_or_url)
@common
def published_command(run: str) -> None:
    """Show the latest value of each name that the code of a run has published (`perdure.publish`)."""
    from ..api.jsonable import jsonable
    from ..api.run import Run

    log_to_stderr()
    found = Run.get(run).published()
    if output.json:
        output.result_json(jsonable(found))
    elif found:
        output.draw(_values(found))
    else:
        output.note(f"run {run} has published nothing")


STREAM_EPILOG = """  perdure stream chat answer                     the items so far
  perdure stream chat answer --follow            and those to come, until the run has ended
  perdure stream chat answer --after 40 --json   one JSON object for each item behind item 40"""


@cli.command("stream", cls=CliCommand, epilog=STREAM_EPILOG, short_help="The items of a stream that a run writes.")
@click.argument("run", metavar="RUN", shell_complete=completion.run_names, callback=run_or_url)
@click.argument("name", metavar="NAME")
@click.option("--after", type=click.IntRange(min=0), default=0, metavar="N", help="Begin behind item N.")
@click.option("--follow", "-f", is_flag=True, help="Go on with further items, until the stream is closed.")
@common
def stream_command(run: str, name: str, after: int, follow: bool) -> None:
    """Print the items of stream NAME of a run (`perdure.stream`), an item a line.

    Where a later attempt has written the stream from its beginning again, a note on stderr says so.
    """
    from ..api.jsonable import jsonable
    from ..api.run import Run
    from ..api.streaming import present
    from .output import readable

    log_to_stderr()
    found = Run.get(run)
    for item in found.stream(name, after=after) if follow else present(found.row, name, after):
        if output.json:
            output.result_json({**item._asdict(), "value": jsonable(item.value)})
            continue
        if item.restarted:
            output.note(f"attempt {item.attempt} begins the stream again with item {item.offset}")
        output.result(readable(item.value))


def _values(found: dict[str, Any]) -> Table:
    from rich.table import Table

    from .output import cell

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("NAME", no_wrap=True, overflow="ellipsis")
    table.add_column("VALUE", no_wrap=True, overflow="ellipsis", ratio=1)
    for name, value in found.items():
        table.add_row(cell(name), cell(repr(value)))
    return table


def _data(one: ConditionInfo) -> dict[str, Any]:
    from .output import iso

    return {
        "run": one.run,
        "kind": one.kind,
        "name": one.name,
        "prompt": one.prompt or None,
        "description": one.description or None,
        "type": one.type or None,
        "waits": one.waits,
        "since": iso(one.since),
        "until": iso(one.until),
        "unread": one.unread,
    }


def _table(found: list[ConditionInfo]) -> Table:
    from rich.table import Table

    from .output import cell, local

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("RUN", "KIND", "NAME", "STATE"):
        table.add_column(heading, no_wrap=True, overflow="ellipsis")
    for heading in ("SINCE", "UNTIL"):
        table.add_column(heading, no_wrap=True)
    for heading in ("TYPE", "PROMPT"):
        table.add_column(heading, no_wrap=True, overflow="ellipsis", ratio=1)
    for one in found:
        state = "waits" if one.waits else f"{one.unread} unread"
        table.add_row(
            cell(one.run), one.kind, cell(one.name), state, local(one.since),
            local(one.until) if one.until is not None else "", cell(one.type), cell(one.prompt),
        )  # fmt: skip
    return table
