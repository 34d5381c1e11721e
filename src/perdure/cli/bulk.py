"""The command that operates on all runs that fit a filter: `perdure bulk`."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from ..errors import UsageError
from .base import STATUSES, CliCommand, cli, common, length, log_to_stderr, output, signals

if TYPE_CHECKING:
    from ..api.bulk import Bulk
    from ..api.operate import Handle
    from .driving import Told

OPERATIONS = ("abort", "cancel", "pause", "resume")
"""The names of `api.bulk.OPERATIONS`, so that `perdure --help` need not import the core; a test compares both."""

BULK_EPILOG = """  perdure bulk abort --task etl.main --dry-run            how many runs, and which
  perdure bulk abort --task etl.main --yes                end them, without a question
  perdure bulk cancel --tag team=web --reason "moved"     ask them to clean up and end
  perdure bulk resume --error TimeoutError --since 1d     try again what failed with this error
  perdure bulk pause --name '*'                           every run of the store"""


@cli.command("bulk", cls=CliCommand, epilog=BULK_EPILOG, short_help="Abort, cancel, pause or resume many runs.")
@click.argument("operation", metavar="OPERATION", type=click.Choice(OPERATIONS))
@click.option(
    "--status", "statuses", type=click.Choice(STATUSES, case_sensitive=False), multiple=True,
    help="Only runs of this status; may be given several times.",
)  # fmt: skip
@click.option("--task", metavar="TASK", help="Only runs of this task, by its full name, such as etl.main.")
@click.option("--name", metavar="NAME", help="Only runs of this name; * and ? stand for any characters and for one.")
@click.option(
    "--tag", "tags", metavar="NAME=VALUE", multiple=True, help="Only runs with this tag; several may be given."
)
@click.option(
    "--since", callback=length, metavar="LENGTH", help="Only runs created since: 45s, 90m, 12h, 30d or 1d12h."
)
@click.option(
    "--error", metavar="TYPE", help="Only runs that failed with an exception of this class or a known subclass."
)
@click.option("--reason", metavar="TEXT", default="", help="With cancel: why, for people.")
@click.option("--grace", callback=length, metavar="LENGTH", help="With cancel: how long the code may clean up.")
@click.option("--dry-run", is_flag=True, help="Only count the runs.")
@click.option("--yes", is_flag=True, help="Ask no question.")
@common
def bulk_command(
    operation: str,
    statuses: tuple[str, ...],
    task: str | None,
    name: str | None,
    tags: tuple[str, ...],
    since: Any,
    error: str | None,
    reason: str,
    grace: Any,
    dry_run: bool,
    yes: bool,
) -> None:
    """Abort, cancel, pause or resume all runs that fit the options, after a count and a question. OPERATION: abort,
    cancel, pause or resume.

    Resumed runs that were paused are left to the workers; failed and interrupted runs are driven here to their ends.
    """
    from ..api import bulk
    from ..api.listing import back_from_now
    from ..api.looking import RunFilter
    from ..api.tags import tags_of_words
    from ..core.ground.model import Status

    if operation != "cancel" and (reason or grace is not None):
        raise click.UsageError("--reason and --grace are about cancel")
    log_to_stderr()
    output.keep_stdout()
    wanted = RunFilter(
        frozenset(Status(one.upper()) for one in statuses) or None, task, name, error=error,
        since=None if since is None else back_from_now(since), tags=tags_of_words(tags) if tags else None,
    )  # fmt: skip
    plan = bulk.planned(operation, wanted)
    if dry_run or not plan.bulk.names:
        _tell(plan.bulk)
        return
    _ask(plan.bulk, yes)
    done, handles = bulk.carried_out(plan, wanted, reason=reason, grace=grace)
    if not output.json:
        _tell(done)
    for run, text in done.refused.items():
        output.say(f"Error: run {run}: {text}")
    ends = _ends(handles)
    if output.json:
        output.result_json({**done._asdict(), "ends": [end.data for end in ends]})
    sys.exit(max([bool(done.refused), *(end.code for end in ends)]))


def _ask(found: Bulk, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"{found}. No terminal is there to ask: say --yes, or count only with --dry-run")
    output.say(str(found))
    if not click.confirm("Go on?", err=True):
        raise click.Abort


def _tell(found: Bulk) -> None:
    if output.json:
        output.result_json({**found._asdict(), "ends": []})
        return
    output.note(str(found))
    for name in found.names:
        output.result(name)


def _ends(handles: list[Handle]) -> list[Told]:
    """Wait for the runs that this process drives, and print their ends."""
    if not handles:
        return []
    from .driving import Wanted, driven

    def started(handle: Handle) -> Handle:
        return handle

    return driven(output, signals, [Wanted(one.name, partial(started, one)) for one in handles], one=False)
