"""`perdure store`: look at a store, bring its schema up to date, move runs from one to another."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from . import completion
from .base import CliCommand, CommandGroup, cli, common, log_to_stderr, output

EPILOG = """Stores are named by URL: sqlite:///path/to.db or a path, postgresql://user@host/database."""


@cli.group("store", cls=CommandGroup, epilog=EPILOG, short_help="Check, migrate, back up, dump or move whole stores.")
def store_group() -> None:
    """Look at a store, bring its schema up to date, or move runs from one store to another."""


CHECK_EPILOG = """  perdure store check
  perdure store check postgresql://me@db.example.org/flows"""


@store_group.command(cls=CliCommand, epilog=CHECK_EPILOG, short_help="What a store is, and what is wrong with it.")
@click.argument("url", required=False)
@common
def check(url: str | None) -> None:
    """Show what a store is and how many runs it holds, and look for damage. Exit code 1 if there is any.

    Without URL: the store in use.
    """
    from .. import runtime
    from ..upkeep.moving import checked

    log_to_stderr()
    url = url or runtime.store_url()
    found = checked(url)
    counts = {str(status): count for status, count in found.counts.items()}
    if output.json:
        output.result_json(
            {"url": found.url, "id": found.id, **found.facts, "runs": counts, "problems": found.problems}
        )
    else:
        runs = ", ".join(f"{count:,} {status}" for status, count in sorted(counts.items())) or "none"
        lines = {"store": found.url, **found.facts, "runs": runs}
        width = max(map(len, lines))
        for name, text in lines.items():
            output.result(f"{name.ljust(width)}  {text}")
        for problem in found.problems:
            output.say(f"Error: {problem}")
        if not found.problems:
            output.note("nothing is wrong with it")
    sys.exit(1 if found.problems else 0)


@store_group.command(cls=CliCommand, short_help="Make a store, or bring its schema up to date.")
@click.argument("url", required=False)
@common
def migrate(url: str | None) -> None:
    """Make the store if it is not there, and bring its schema up to this version of perdure. Does nothing twice.

    Every command does the same when it opens a store. This one is for deployments in which only one role may change a
    database's schema: let that role run it before the workers start. It is safe while others do the same.
    """
    from .. import runtime
    from ..upkeep.moving import migrated

    log_to_stderr()
    shown, schema = migrated(url or runtime.store_url())
    if output.json:
        output.result_json({"url": shown, "schema": schema})
    else:
        output.result(f"{shown} is up to date: schema {schema}")


BACKUP_EPILOG = """  perdure store backup /backups/flows.db
  perdure store check /backups/flows.db"""


@store_group.command(cls=CliCommand, epilog=BACKUP_EPILOG, short_help="Copy an SQLite store while workers go on.")
@click.argument("file", type=click.Path(dir_okay=False))
@click.argument("url", required=False)
@common
def backup(file: str, url: str | None) -> None:
    """Copy the store's database to FILE while workers go on, and check the copy. Stored files are not copied.

    Without URL: the store in use. FILE must not exist.
    """
    from .. import runtime
    from ..upkeep.backups import backup as copied

    log_to_stderr()
    found = copied(url or runtime.store_url(), file)
    count = sum(found.counts.values())
    if output.json:
        output.result_json({"file": file, "id": found.id, "runs": count})
    else:
        output.result(f"{file}: {count:,} runs, checked")


DUMP_EPILOG = """  perdure store dump daily
  perdure store dump daily | jq 'select(.result == "ERROR")'"""


@store_group.command(cls=CliCommand, epilog=DUMP_EPILOG, short_help="A run's journal, one JSON line for each entry.")
@click.argument("run", metavar="RUN", shell_complete=completion.run_names)
@common
def dump(run: str) -> None:
    """Print the journal of a run as JSON lines in commit order, for scripts: one object for each entry.

    Values are decoded as `show --json` does. Exit code 1 where the journal is damaged; what comes before the damage is
    printed.
    """
    from ..upkeep.dumping import entries
    from .output import entry_data

    log_to_stderr()
    for entry in entries(run):
        output.result(json.dumps(entry_data(entry)))


COPY_HELP = """Move the finished, queued and sleeping runs of one store to another, with the files that they refer to.

At the source they are MOVED from then on, and their names say where they went. Runs that are driven or were interrupted
stay: let them end, or abort them, and call this again. A killed command is called again in the same way; no run is lost
or doubled. Stop the workers of the source first, or its schedules go on there.

Cached outcomes and what containers have written stay behind."""

COPY_EPILOG = """  perdure store copy .perdure/perdure.db postgresql://me@db.example.org/flows --dry-run
  perdure store copy .perdure/perdure.db postgresql://me@db.example.org/flows"""


@store_group.command(
    "copy", cls=CliCommand, help=COPY_HELP, epilog=COPY_EPILOG, short_help="Move runs to another store."
)
@click.argument("source")
@click.argument("target")
@click.option("--source-blobs", metavar="URL", help="Where the files lie; default PERDURE_BLOBS, else beside it.")
@click.option("--target-blobs", metavar="URL", help="Where they are to lie; default PERDURE_BLOBS, else beside it.")
@click.option("--dry-run", is_flag=True, help="Only count what would be moved.")
@common
def copy(source: str, target: str, source_blobs: str | None, target_blobs: str | None, dry_run: bool) -> None:
    from ..upkeep.moving import Moved, move
    from .output import counted

    log_to_stderr()

    def tell(done: int, of: int) -> None:
        if done == of or done % 1000 == 0:
            output.note(f"{done:,} of {of:,} runs")

    def parts(moved: Moved) -> str:
        text = counted(moved.runs, "run")
        if moved.waiting:
            text += f" ({moved.waiting:,} of them not ended)"
        if moved.schedules:
            text += f", {counted(moved.schedules, 'schedule')}"
        if moved.files:
            text += f", {counted(moved.files, 'file')} ({moved.size:,} bytes)"
        return text

    moved = move(source, target, source_blobs=source_blobs, target_blobs=target_blobs, dry_run=dry_run, tell=tell)
    if output.json:
        data: dict[str, Any] = {
            "dry_run": dry_run, "runs": moved.runs, "waiting": moved.waiting, "files": moved.files,
            "bytes": moved.size, "schedules": moved.schedules, "staying": moved.staying,
        }  # fmt: skip
        output.result_json(data)
    else:
        output.result(f"{'would be moved' if dry_run else 'moved'}: {parts(moved)}")
        for name, why in moved.staying.items():
            output.say(f"{name} stays: {why}")
    sys.exit(1 if moved.staying and not dry_run else 0)
