"""The commands around workers: submit runs, be a worker, wait for runs, watch them."""

from __future__ import annotations

import os
import signal
import sys
from datetime import datetime, time, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ..core.ground.clock import US, perf, wall
from ..errors import LeaseLostError, PerdureError, StoreUnavailableError, UsageError
from . import completion
from .base import ROWS, STATUSES, CliCommand, cli, common, length, log_to_stderr, output, signals
from .commands import RunCommand, called
from .signals import INTERRUPTED, REPEATED_NS
from .ui import PageOptions, address, metrics_server, page_options, page_server, worker_figures

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..api.run import Run
    from ..api.task import Task
    from ..core.process.serving import ServedRun, Server
    from ..ui.metrics import Figures

SWITCH_SECONDS = 0.0005
"""Python's own 5 ms make wake-ups late by a multiple of 5 ms while a worker is busy."""

# -- submit ----------------------------------------------------------------------------------------------------

SUBMIT_HELP = """Leave a run to the workers (perdure serve) and return at once.

The run's name goes to stdout. By then the run is on disk, and will be driven even if this process dies. If a run of the
same name, task and inputs exists, the command prints the name and changes nothing.

FILE, TASK and inputs are as for `perdure run`."""

SUBMIT_EPILOG = """  perdure submit etl.py main --limit 100                    as soon as a worker is free
  perdure submit etl.py main --name nightly --at 02:00      when it is next two o'clock
  perdure submit etl.py main --in 90m                       in an hour and a half
  perdure wait $(perdure submit etl.py main)                and wait for its end"""


@cli.command("submit", cls=RunCommand, help=SUBMIT_HELP, epilog=SUBMIT_EPILOG, short_help="Leave a run to the workers.")
@click.option("--name", metavar="NAME", help="The run's name, its idempotency key. A readable random one by default.")
@click.option("--tag", metavar="NAME=VALUE", multiple=True, help="Keep a tag with a new run; several may be given.")
@click.option("--at", metavar="TIME", help="Begin it then: 2026-11-23T02:00 (local time), with an offset, or 02:00.")
@click.option("--in", metavar="LENGTH", help="Begin it after that: 45s, 90m, 12h, 30d or 1d12h.")
@common
@click.pass_context
def submit_command(ctx: click.Context, /, words: tuple[str, ...], **ignored: Any) -> None:
    from ..api._names import check_name
    from ..api.submitting import due_at, enqueue, request_submission
    from ..api.tags import tags_of_words

    task, args, values, own = called(ctx, "submit", words)
    at = None if own.at is None else moment(own.at)
    delay = None if own.delay is None else length(ctx, None, own.delay, "'--in'")
    if own.name is not None:
        check_name(own.name)
    run = enqueue(request_submission(task, args, values, own.name, tags_of_words(own.tags)), due_at(at, delay))
    if output.json:
        output.result_json(_of_run(run))
    else:
        output.result(run.name)
        output.note(_what_next(run))


def _what_next(run: Run) -> str:
    from .driving import line_for
    from .output import local

    row = run.row
    if row.ended_at is not None:
        return f"run {run.name} has ended before, it is {row.status}; see: {line_for('wait', [run.name])}"
    begins = f", and begins at {local(row.wake_at)}" if row.wake_at is not None and row.wake_at > wall() else ""
    return f"run {run.name} is {run.status}{begins}; wait for it with: {line_for('wait', [run.name])}"


def moment(text: str) -> datetime:
    """A time as people write it; without an offset in local time, without a date the next such time.

    Raises:
        UsageError: the text cannot be read.
    """
    from ..api.local_time import local_moment, next_local

    now = datetime.fromtimestamp(wall() / US).astimezone()
    try:
        if len(text) <= 8 and ":" in text and "-" not in text:
            return next_local(time.fromisoformat(text), now)
        return local_moment(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        raise UsageError(
            f"--at takes a time such as 02:00, 2026-11-23T02:00 or 2026-11-23T02:00+01:00, not {text!r}"
        ) from None


def _of_run(run: Run) -> dict[str, Any]:
    return {"name": run.name, "task": run.task, "status": str(run.status)}


# -- serve -----------------------------------------------------------------------------------------------------

SERVE_EPILOG = """  perdure serve etl.py                          drive the runs of the tasks in etl.py
  perdure serve etl.py reports.daily            several files or modules
  perdure serve etl.py --park-after 5s -v       and log the end of each run
  perdure serve etl.py --ui                     and show the store in a browser, at http://127.0.0.1:8420/
  perdure serve etl.py --metrics 0.0.0.0:9464   and let Prometheus ask for figures, at /metrics"""


@cli.command(cls=CliCommand, epilog=SERVE_EPILOG, short_help="Be a worker: drive all runs that are due.")
@click.argument("sources", metavar="FILE_OR_MODULE...", nargs=-1, required=True, type=click.Path())
@click.option(
    "--concurrency", type=click.IntRange(min=1), metavar="N", default=100, show_default=True,
    help="At most so many runs in memory.",
)  # fmt: skip
@click.option(
    "--park-after", callback=length, metavar="LENGTH", default="60s", show_default=True,
    help="Runs that sleep for longer leave memory until their wake time.",
)  # fmt: skip
@click.option(
    "--drain", callback=length, metavar="LENGTH", default="30s", show_default=True,
    help="On SIGTERM or Ctrl-C, wait so long for runs under way.",
)  # fmt: skip
@click.option(
    "--rehearse",
    is_flag=True,
    help="Replay runs without effects before they are driven, and leave runs alone that would not go on unchanged.",
)
@click.option("--ui", is_flag=True, help="Serve the web page of the store, too, as perdure ui does.")
@page_options
@click.option(
    "--metrics", metavar="[HOST:]PORT", callback=address,
    help="Serve figures for Prometheus at this address, under /metrics.",
)  # fmt: skip
@common
@click.pass_context
def serve(
    ctx: click.Context,
    /,
    sources: tuple[str, ...],
    concurrency: int,
    park_after: timedelta,
    drain: timedelta,
    rehearse: bool,
    ui: bool,
    metrics: tuple[str, int] | None,
    **page: Any,
) -> None:
    """Drive the runs of the tasks in these files or modules, until SIGTERM or Ctrl-C.

    Queued runs are begun, sleeping runs are woken when due, and runs of dead processes are carried on. Any number of
    workers may serve one store; a run is driven by one worker at a time.
    """
    from .. import runtime
    from ..api.hosting import served_tasks, server_for
    from .driving import tell

    log_to_stderr()
    output.keep_stdout()
    given = {name for name in page if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT}
    if given and not ui and not (metrics and given == {"hosts"}):
        raise click.UsageError("--host, --port, --read-only, --token, --allow-host and --mask belong to --ui")
    tasks = served_tasks(sources, partial(tell, output))
    worker = runtime.worker()
    figures = worker_figures() if ui or metrics else None

    def outcome(served: ServedRun) -> None:
        _tell(served)
        if figures is not None:
            figures.count(served)

    misfit = None
    if rehearse:
        from ..upkeep.rehearsal_of_store import Misfits

        misfit = Misfits(tasks).why
    server = server_for(worker, tasks, concurrency, park_after.total_seconds(), outcome, misfit)
    if figures is not None:
        _begin_pages(tasks, PageOptions(**page), ui, metrics, figures.of(server))
    stopped = _stop_on_signals(server)
    # The threads of a worker hand the interpreter to each other at every commit and claim, and wait for it as often.
    sys.setswitchinterval(SWITCH_SECONDS)
    output.note(f"serving {', '.join(sorted(tasks))} from {runtime.store_name()}; end with Ctrl-C or SIGTERM")
    server.serve()
    count = f"{server.driven} run is" if server.driven == 1 else f"{server.driven} runs are"
    output.note(f"{stopped[0]}: {count} let go, for at most {drain.total_seconds():g} s")
    left = server.drain(drain.total_seconds())
    if left:
        output.say(f"{left} of them came to no point to be let go at; what they were doing is done again elsewhere")
    try:
        worker.retire()
    except PerdureError as error:
        # The free lock of an ended process tells other workers the same.
        output.say(f"claims could not be given back: {error}")
    # A thread that blocks in C code cannot delay the end; memory holds nothing of value.
    sys.stderr.flush()
    os._exit(0)


def _begin_pages(
    tasks: Mapping[str, Task[..., Any]], page: PageOptions, ui: bool, metrics: tuple[str, int] | None, figures: Figures
) -> None:
    """Serve what `--ui` and `--metrics` ask for, in threads that end with the process."""
    if ui:
        shown = page_server(tasks, page, figures)
        shown.start()
        # Where browsers need a token, this is the only way in.
        output.say(f"web page: {shown.link()}")
    if metrics is not None:
        told = metrics_server(metrics, page.hosts, figures)
        told.start()
        output.note(f"figures: {told.url}metrics")


def _stop_on_signals(server: Server) -> list[str]:
    """The first signal ends serving in good order, the second at once. Returns a list for the signal's name."""
    received: list[str] = []
    first = 0

    def handle(number: int, frame: Any) -> None:
        nonlocal first
        if not received:
            first = perf()
            received.append(signal.Signals(number).name)
            server.stop()
        elif perf() - first > REPEATED_NS:
            os._exit(INTERRUPTED)

    signals.replace(handle)
    return received


def _tell(outcome: ServedRun) -> None:
    from ..core.ground.model import Status

    what = f"run {outcome.run} ({outcome.task})"
    if outcome.status == Status.FAILED:
        output.say(f"{what} failed: {_short(outcome.error)}")
    elif isinstance(outcome.error, LeaseLostError):
        output.say(f"Error: {outcome.error}")
    elif outcome.status == Status.INTERRUPTED and outcome.again is not None:
        # A broken store has been reported already, and affects every run alike.
        if output.verbose or not isinstance(outcome.error, StoreUnavailableError):
            output.say(f"{what} cannot be driven; it is tried again in {outcome.again:g} s: {outcome.error}")
    elif output.verbose:
        output.say(f"{what} {_DONE.get(outcome.status, f'is {outcome.status}')}")


_DONE = {
    "SUCCEEDED": "succeeded",
    "ABORTED": "was aborted",
    "CANCELLED": "was cancelled",
    "SLEEPING": "sleeps",
    "WAITING": "waits",
    "PAUSED": "is paused",
    "MOVED": "was moved",
}


def _short(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]


# -- wait, watch -----------------------------------------------------------------------------------------------

WAIT_EPILOG = """  perdure wait daily                        its result on stdout, as `perdure run` gives it
  perdure wait daily hourly --timeout 10m   several; 1 if one has failed, or has not ended by then"""


@cli.command(cls=CliCommand, epilog=WAIT_EPILOG, short_help="Wait until runs have ended.")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, shell_complete=completion.run_names)
@click.option("--timeout", callback=length, metavar="LENGTH", help="Wait no longer: 45s, 90m, 12h.")
@common
def wait(runs: tuple[str, ...], timeout: timedelta | None) -> None:
    """Wait until runs have ended, wherever they are driven, and print their results."""
    from ..api.run import Run
    from ..core.ground.clock import seconds
    from .driving import line_for, told

    log_to_stderr()
    end = None if timeout is None else seconds() + timeout.total_seconds()
    found = []
    code = 0
    waited = [Run.get(name) for name in dict.fromkeys(runs)]
    for run in waited:
        try:
            run.wait(None if end is None else max(0.0, end - seconds()))
        except TimeoutError:
            assert timeout is not None
            output.say(
                f"Error: run {run.name} has not ended within {timeout.total_seconds():g} s, it is {run.status}; "
                f"see: {line_for('show', [run.name])}"
            )
            code = 1
        one = told(output, run, one=len(waited) == 1)
        found.append(one.data)
        code = max(code, one.code)
    if output.json:
        output.result_json(found[0] if len(found) == 1 else found)
    sys.exit(code)


WATCH_EPILOG = """  perdure watch                      the newest runs, as they change
  perdure watch --status RUNNING
  perdure watch --json               a line of JSON for each change"""


@cli.command(cls=CliCommand, epilog=WATCH_EPILOG, short_help="The runs in the store, as they change.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most so many. Default: what fits.")
@click.option("--status", type=click.Choice(STATUSES, case_sensitive=False), help="Only runs of this status.")
@common
def watch(limit: int | None, status: str | None) -> None:
    """Show the newest runs as a table that follows changes, until Ctrl-C; outside a terminal, a line for each
    change."""
    from ..core.ground.model import Status
    from .watching import watch_runs

    log_to_stderr()
    watch_runs(output, limit or ROWS, limit is None, None if status is None else Status(status.upper()))
