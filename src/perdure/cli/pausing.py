"""The command that pauses runs and tasks: `perdure pause`. `perdure resume` ends a pause."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import click

from . import completion
from .base import CliCommand, cli, common, log_to_stderr, output

PAUSE_EPILOG = """  perdure pause daily                    nothing new starts; what executes is recorded
  perdure resume daily                   it goes on here
  perdure resume daily --no-drive        it goes on in a worker that serves its task
  perdure pause --task etl.main          the same for all runs of a task, also for runs to come
  perdure resume --task etl.main         they go on in the workers"""


@cli.command(cls=CliCommand, epilog=PAUSE_EPILOG, short_help="Let runs stand still until they are resumed.")
@click.argument("runs", metavar="[RUN]...", nargs=-1, shell_complete=completion.run_names)
@click.option("--task", "tasks", metavar="NAME", multiple=True, help="All runs of a task, also runs to come.")
@common
def pause(runs: tuple[str, ...], tasks: tuple[str, ...]) -> None:
    """Let runs stand still, wherever they are driven, and return at once.

    Nothing new starts in a paused run, and the outcomes of what executes are recorded. Then the run is PAUSED: it needs
    no memory, and no worker takes it up until `perdure resume`. Messages for the run are kept meanwhile.

    With --task, no run of the task begins or goes on until `perdure resume --task`. New runs are still stored.
    """
    from ..api.run import Run
    from .driving import operate_on_each

    if bool(runs) == bool(tasks):
        raise click.UsageError("name runs, or a task with --task")
    if tasks:
        pause_tasks(tasks)
        return

    def pause_one(name: str) -> str:
        run = Run.get(name)
        if not run.pause():
            return f"run {name} was paused before, it is {run.status}"
        status = run.status
        return f"run {name} is paused" if status == "PAUSED" else f"run {name} is about to stand still, it is {status}"

    sys.exit(operate_on_each(output, runs, pause_one))


def pause_tasks(tasks: Sequence[str]) -> None:
    """Pause tasks on all runs, and say so."""
    from ..api.pausing import pause_task

    _on_tasks(tasks, lambda task: "is paused" if pause_task(task) else "was paused before")


def resume_tasks(tasks: Sequence[str]) -> None:
    """End the pauses of tasks, and say so."""
    from ..api.pausing import resume_task

    _on_tasks(tasks, lambda task: "is no longer paused" if resume_task(task) else "is not paused")


def _on_tasks(tasks: Sequence[str], operation: Callable[[str], str]) -> None:
    log_to_stderr()
    told = [(task, operation(task)) for task in dict.fromkeys(tasks)]
    if output.json:
        output.result_json([{"task": task, "state": state} for task, state in told])
    for task, state in told:
        output.note(f"task {task} {state}")
