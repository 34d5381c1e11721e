"""`perdure export`, `perdure rehearse` and `perdure debug`: recorded runs against today's code."""

from __future__ import annotations

import json
import sys
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from . import completion
from .base import CliCommand, cli, common, log_to_stderr, output

if TYPE_CHECKING:
    from ..core.ground.model import Status

EXPORT_EPILOG = """  perdure export daily > tests/journals/daily.json
  perdure export daily --redact charge --redact 'mail*' > run.json"""


@cli.command(
    "export", cls=CliCommand, epilog=EXPORT_EPILOG, short_help="Write a run as JSON, for tests that replay it."
)
@click.argument("run", shell_complete=completion.run_names)
@click.option(
    "--redact", metavar="NAME", multiple=True,
    help="Replace the texts in the arguments and values of that task or trace; * and ? stand for letters.",
)  # fmt: skip
@common
def export(run: str, redact: tuple[str, ...]) -> None:
    """Write a recorded run as JSON to stdout. perdure.testing.replay replays the file against the code of the day,
    without effects and without a store.

    The file holds the arguments and values of all steps. --redact takes out the texts of the steps that you name.
    """
    from ..upkeep.exporting import exported

    log_to_stderr()
    output.result(json.dumps(exported(run, redact), indent=1, ensure_ascii=False))


REHEARSE_EPILOG = """  perdure rehearse etl.py                              all live runs of the tasks in etl.py
  perdure rehearse etl.py --task etl.main --json       of one task, a JSON line for each run
  perdure rehearse etl.py --status FAILED              what `resume` would do with failed runs"""


@cli.command(
    "rehearse", cls=CliCommand, epilog=REHEARSE_EPILOG, short_help="Whether live runs would go on under this code."
)
@click.argument("sources", metavar="FILE_OR_MODULE...", nargs=-1, required=True, type=click.Path())
@click.option("--task", metavar="TASK", help="Runs of this task alone, by its full name.")
@click.option(
    "--status", metavar="STATUS,...", help="Runs of these statuses. Default: SLEEPING,WAITING,RUNNING,INTERRUPTED."
)
@click.option("--these", hidden=True, type=click.File())
@common
def rehearse(sources: tuple[str, ...], task: str | None, status: str | None, these: Any) -> None:
    """Replay the live runs of a store against the code of these files, before the code is deployed. Nothing is executed
    and nothing is written. Exit code 1 if any run would not go on unchanged.

    A run goes on unchanged if the code asks for all that is recorded, in the recorded order. Otherwise the first
    difference is shown, and whether the run would execute something else from there on, or stop.
    """
    from ..api.hosting import served_tasks
    from ..upkeep import rehearsal_of_store as store
    from ..upkeep.rehearsing import Fate
    from .driving import tell

    log_to_stderr()
    output.keep_stdout()
    tasks = served_tasks(sources, partial(tell, output))
    if these is not None:
        found = store.rehearse_rows(store.named(these.read().split("\n")), tasks)
    else:
        found = store.rehearsed(sources, tasks, task=task, statuses=_statuses(status))
    counts: Counter[Fate] = Counter()
    for one in found:
        counts[one.verdict] += 1
        if output.json:
            output.result(json.dumps(one._asdict()))
        elif one.verdict is not Fate.UNCHANGED:
            output.result(f"{_BECOMES[one.verdict]}: {one.text()}")
    if not output.json:
        output.result(_summary(counts))
    sys.exit(1 if counts.total() > counts[Fate.UNCHANGED] else 0)


_BECOMES = {"changed": "executes something else", "stops": "stops", "broken": "cannot be replayed"}


def _summary(counts: Counter[Any]) -> str:
    total = counts.total()
    if not total:
        return "there are no live runs of these tasks"
    return (
        f"{total:,} runs: {counts['unchanged']:,} would go on unchanged, {counts['changed']:,} would execute something "
        f"else, {counts['stops']:,} would stop, {counts['broken']:,} cannot be replayed"
    )


def _statuses(text: str | None) -> tuple[Status, ...]:
    from ..core.ground.model import Status
    from ..upkeep.rehearsal_of_store import LIVE

    if text is None:
        return LIVE
    try:
        return tuple(Status(word.strip().upper()) for word in text.split(","))
    except ValueError:
        known = ", ".join(Status)
        raise click.BadParameter(f"{text!r}: the statuses are {known}", param_hint="'--status'") from None


DEBUG_EPILOG = """  perdure debug daily                    stop behind the first durable call
  perdure debug daily --at 12            stop behind the call with entry 12 (perdure show numbers them)
  perdure debug daily --file new.py      the code of another file"""


@cli.command("debug", cls=CliCommand, epilog=DEBUG_EPILOG, short_help="Replay a run under pdb, without effects.")
@click.argument("run", shell_complete=completion.run_names)
@click.option("--at", type=click.IntRange(min=1), metavar="ENTRY", help="Stop behind the call with that entry.")
@click.option("--file", type=click.Path(), metavar="FILE", help="The place of the code, if not that of the run.")
@common
def debug_command(run: str, at: int | None, file: str | None) -> None:
    """Execute the body of a recorded run under pdb, the debugger of Python. Recorded calls give their outcomes at once.
    No step is executed, and nothing is written.

    The run itself is left alone: it may be asleep, driven elsewhere or ended. To go back, start the command again with
    an earlier entry.
    """
    from .. import runtime
    from ..api.looking import find
    from ..api.requests import code_of
    from ..upkeep.debugging import debug
    from ..upkeep.exporting import recorded_run
    from ..upkeep.rehearsing import Fate

    log_to_stderr()
    row = find(run)
    found = debug(recorded_run(runtime.worker().store, row), code_of(row, file), at)
    if found.verdict is Fate.UNCHANGED:
        output.note(f"run {run}: the code has asked for all that is recorded")
    else:
        output.note(found.text())
