"""The commands that drive runs, end them and look at them: each parses, calls `perdure.api` and prints."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import click

from ..errors import UsageError
from . import completion
from .base import ROWS, STATUSES, CliCommand, cli, common, length, log_to_stderr, output, run_or_url, signals, use_store

if TYPE_CHECKING:
    from .driving import Wanted
    from .inputs import Input, Own


class RunCommand(CliCommand):
    """`perdure run` and `submit`: words behind FILE and TASK belong to the task, and are read by its signature."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.params["words"] = tuple(args)
        return []

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return ["FILE", "TASK", "[--name NAME]", "[--INPUT VALUE ...]"]

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        return completion.run_words(str(ctx.info_name), list(ctx.params.get("words", ())), incomplete)


# -- run -------------------------------------------------------------------------------------------------------

TIMES = (
    ("--at TIME", "Begin it then: 2026-11-23T02:00 (local time), or with an offset; or 02:00, the next time it is."),
    ("--in LENGTH", "Begin it after that: 45s, 90m, 12h, 30d or 1d12h."),
)

RUN_HELP = """Run a task of a Python file, or carry on with the run of that name.

The task's parameters are options: `n: int = 3` becomes --n, `batch_size` --batch-size (or --batch_size). Numbers, text,
dates, enums and paths are typed as they are, a bool is --flag or --no-flag; dataclasses, lists, dicts and other
structures are JSON, and a list may also be given item by item (--to a --to b). `null` is None where that is allowed.

FILE alone lists its tasks; FILE TASK --help shows the inputs of one.

The result goes to stdout, everything else, what the task prints included, to stderr."""

RUN_EPILOG = """  perdure run etl.py                                  list the tasks of etl.py
  perdure run etl.py main --help                      show the inputs of main
  perdure run etl.py main --name daily --limit 100    run it, or carry on with it
  perdure run etl.py main --order '{"id": 7}' --json  JSON in, JSON out
  perdure run --name daily greet.py hello --name Ada  an input that is called like an option of perdure's"""


@cli.command("run", cls=RunCommand, help=RUN_HELP, epilog=RUN_EPILOG, short_help="Run a task, or carry on with a run.")
@click.option("--name", metavar="NAME", help="The run's name, its idempotency key. A readable random one by default.")
@click.option("--tag", metavar="NAME=VALUE", multiple=True, help="Keep a tag with a new run; several may be given.")
@common
@click.pass_context
def run_command(ctx: click.Context, /, words: tuple[str, ...], **ignored: Any) -> None:
    from ..api import operate
    from ..api.tags import tags_of_words
    from .driving import Wanted

    task, args, values, own = called(ctx, "run", words)
    asked = operate.request(task, args, values, own.name, tags_of_words(own.tags))
    sys.exit(_drive([Wanted(asked.new.name, lambda: operate.submit(asked))], one=True))


def called(ctx: click.Context, verb: str, words: tuple[str, ...]) -> tuple[Any, tuple[Any, ...], dict[str, Any], Own]:
    """The task of a `run` or `submit` command line, its arguments, and perdure's own options. Help ends the process."""
    from .inputs import read, split

    found = split(words, verb)
    own = found.own
    _apply(own)
    if found.file is None:
        if own.help:
            click.echo(ctx.get_help())
            ctx.exit()
        raise UsageError(f"name a file and a task: perdure {verb} FILE TASK; more with: perdure {verb} --help")
    from ..api.loading import find_task

    log_to_stderr()
    output.keep_stdout()
    if found.task is None:
        sys.exit(_list_tasks(verb, found.file, asked=own.help))
    task = find_task(found.file, found.task)
    args, values = read(task, found.file, found.rest, own)
    _apply(own)
    if own.help:
        output.result(_task_help(verb, found.file, found.task, task))
        ctx.exit()
    return task, args, values, own


def _apply(own: Own) -> None:
    from .. import runtime

    output.json = output.json or own.json
    output.quiet = output.quiet or own.quiet
    output.verbose = max(output.verbose, own.verbose)
    # Again after the file is loaded: the command line overrides a `perdure.init` in the file.
    if own.store and runtime.store_url() != own.store:
        use_store(own.store)


def _list_tasks(verb: str, file: str, *, asked: bool) -> int:
    """The tasks of a file. Without `--help` the command was incomplete, so the exit code says that nothing ran."""
    from ..api.loading import load_source, tasks_in
    from .inputs import inputs_of

    tasks = tasks_in(load_source(file))
    if output.json:
        output.result_json([_task_data(name, task, inputs_of(task)) for name, task in tasks.items()])
    for name, task in tasks.items() if not output.json else ():
        inputs = " ".join(one.option if one.required else f"[{one.option}]" for one in inputs_of(task))
        doc = _first_line(task.fn)
        output.result(f"{name} {inputs}".rstrip() + (f"\n    {doc}" if doc else ""))
    if not tasks:
        raise UsageError(f"{file} holds no tasks; declare one with @env.task")
    if not asked:
        output.say(f"Name one of them: perdure {verb} {file} TASK; its inputs: perdure {verb} {file} TASK --help")
    return 0 if asked else 2


def _task_data(name: str, task: Any, inputs: list[Input]) -> dict[str, Any]:
    return {"name": name, "task": task.name, "doc": _first_line(task.fn), "inputs": list(map(_input_data, inputs))}


def _first_line(fn: Any) -> str:
    return (fn.__doc__ or "").strip().partition("\n")[0]


def _input_data(one: Input) -> dict[str, Any]:
    from ..api.jsonable import jsonable
    from .inputs import NOTHING

    default = None if one.default is NOTHING else jsonable(one.default)
    return {
        "name": one.name,
        "option": one.option,
        "type": one.type_label,
        "required": one.required,
        "default": default,
    }


def _task_help(verb: str, file: str, name: str, task: Any) -> str:
    import inspect

    from .inputs import command, inputs_of, own_options

    inputs = inputs_of(task)
    formatter = click.HelpFormatter(width=100)
    formatter.write_usage(command(verb, file, name), "[--name NAME] [--INPUT VALUE ...]" if inputs else "[--name NAME]")
    if task.fn.__doc__:
        formatter.write_paragraph()
        with formatter.indentation():
            for line in inspect.cleandoc(task.fn.__doc__).splitlines():
                formatter.write(f"{'':>{formatter.current_indent}}{line}\n" if line else "\n")
    if inputs:
        with formatter.section(f"Inputs of {task.name}"):
            formatter.write_dl([(_input_usage(one), _input_help(one)) for one in inputs])
    hidden = [one.option for one in inputs if one.option in own_options(verb)]
    if hidden:
        formatter.write_paragraph()
        formatter.write_text(
            f"{', '.join(hidden)} behind the task is the task's; perdure's own stands in front of the file: "
            f"perdure {verb} {hidden[0]} ... {file} {name} {hidden[0]} ..."
        )
    with formatter.section("Options of perdure"):
        formatter.write_dl([
            ("--name NAME", "The run's name, its idempotency key."),
            ("--tag NAME=VALUE", "Keep a tag with a new run; several may be given."),
            *(TIMES if verb == "submit" else ()),
            ("--json", "JSON on stdout."),
            ("--store URL", "The store."),
            ("-v, -q", "Say more, or less, on stderr."),
        ])  # fmt: skip
    return formatter.getvalue()


def _input_usage(one: Input) -> str:
    if one.is_flag:
        return f"{one.option} / --no-{one.option[2:]}"
    return f"{one.option} {one.type_label}"


def _input_help(one: Input) -> str:
    from ..api.convert import is_simple
    from .inputs import NOTHING
    from .output import plain_repr

    if one.required:
        text = "required"
    elif one.default is NOTHING:
        text = "any number of them"
    else:
        default = plain_repr(one.default)
        text = f"default: {default}" if len(default) < 200 else "has a default"
    if one.is_many:
        text += "; a JSON array, or once for each item"
    elif not one.is_flag and not is_simple(one.type) and one.type_label != "any" and " | " not in one.type_label:
        text += "; JSON"
    return text


# -- resume, rerun, abort, gc ----------------------------------------------------------------------------------

RESUME_EPILOG = """  perdure resume daily                   continue a run that was interrupted, or that failed
  perdure resume --all                   continue everything that was interrupted, nothing that failed or is paused
  perdure resume daily --no-drive        end its pause; a worker that serves its task continues it
  perdure resume --task etl.main         end the pause of a task; workers continue its runs
  perdure resume daily --file new.py     its code has moved
  perdure resume daily --retry-failed    also try again what failed and was caught by the code
  perdure resume daily --accept          go on under code that differs from what is recorded"""


@cli.command(cls=CliCommand, epilog=RESUME_EPILOG, short_help="Carry on with paused, interrupted or failed runs.")
@click.argument("runs", metavar="[RUN]...", nargs=-1, shell_complete=completion.run_names)
@click.option("--all", "every", is_flag=True, help="Every interrupted run; failed and paused ones are left alone.")
@click.option("--file", metavar="FILE", type=click.Path(), help="Where the code is, if not where it was.")
@click.option(
    "--accept",
    is_flag=True,
    help="Where the code asks for something else than is recorded, follow the code from there on. Recorded outcomes "
    "are reused where the code asks for them.",
)
@click.option("--retry-failed", is_flag=True, help="Also try calls again whose recorded failures the code has caught.")
@click.option("--no-drive", is_flag=True, help="Only end the pause of paused runs, for workers to continue them.")
@click.option(
    "--task", "tasks", metavar="NAME", multiple=True, help="End the pause of a task, for workers to continue."
)
@common
def resume(
    runs: tuple[str, ...],
    every: bool,
    file: str | None,
    accept: bool,
    retry_failed: bool,
    no_drive: bool,
    tasks: tuple[str, ...],
) -> None:
    """Carry on with paused or interrupted runs, where they were.

    A failed run is continued when it is named: the failures that ended the run are taken back and tried again, and all
    other outcomes stay. For a run that has succeeded, the recorded result is printed.
    """
    from ..api import operate
    from .driving import Wanted

    if tasks:
        if runs or every or no_drive or accept or retry_failed or file is not None:
            raise click.UsageError("--task is about a paused task and all of its runs: give it alone")
        from .pausing import resume_tasks

        resume_tasks(tasks)
        return
    if bool(runs) == every:
        raise click.UsageError("name runs, or say --all; see them with: perdure ls --status INTERRUPTED")
    if every and accept:
        raise click.UsageError("--accept is about one run and its code: name the run")
    if every and retry_failed:
        raise click.UsageError("--retry-failed is about runs whose code has caught failures: name the runs")
    if no_drive:
        _check_no_drive(every, file, accept or retry_failed)
        _end_pauses(runs)
    log_to_stderr()
    names = operate.interrupted() if every else list(dict.fromkeys(runs))
    if not names:
        output.note("no run is interrupted")
    output.keep_stdout()
    again = partial(operate.resume, file=file, accept=accept, retry_failed=retry_failed)
    wanted = [Wanted(name, partial(again, name)) for name in names]
    sys.exit(_drive(wanted, one=len(runs) == 1))


def _check_no_drive(every: bool, file: str | None, driving: bool) -> None:
    if every or file is not None or driving:
        raise click.UsageError("--no-drive is about paused runs: name them, without the options for driving")


def _end_pauses(runs: tuple[str, ...]) -> NoReturn:
    from ..api.run import Run
    from .driving import operate_on_each

    def end_one(name: str) -> str:
        run = Run.get(name)
        run.resume(drive=False)
        status = run.status
        return f"run {name} is no longer paused, " + (
            f"but its task {run.task} is" if status == "PAUSED" else f"it is {status}"
        )

    sys.exit(operate_on_each(output, runs, end_one))


RERUN_EPILOG = """  perdure rerun daily                    once more, from the start, under a new name
  perdure rerun daily --recover          once more, without what had succeeded
  perdure rerun daily --from 7           once more from entry 7 on, with the outcomes before it
  perdure rerun daily --name daily-2     the new run's name"""


@cli.command(cls=CliCommand, epilog=RERUN_EPILOG, short_help="A new run with the same inputs.")
@click.argument("run", metavar="RUN", shell_complete=completion.run_names)
@click.option("--recover", is_flag=True, help="Reuse what succeeded in RUN: values, finished children, ended sleeps.")
@click.option("--from", "entry", type=click.IntRange(min=1), metavar="N", help="Begin with entry N of perdure show.")
@click.option("--name", metavar="NAME", help="The new run's name. A readable random one by default.")
@click.option("--file", metavar="FILE", type=click.Path(), help="Where the code is, if not where it was.")
@common
def rerun(run: str, recover: bool, entry: int | None, name: str | None, file: str | None) -> None:
    """Start a new run of the same task with the same inputs."""
    from ..api import operate
    from ..api.forking import fork
    from ..api.requests import request_rerun
    from .driving import Wanted

    log_to_stderr()
    output.keep_stdout()
    if entry is not None:
        if recover:
            raise click.UsageError("--from shares all outcomes before an entry, --recover the successful ones: say one")
        forked = fork(run, entry, new_name=name, file=file, paused=True)
        sys.exit(_drive([Wanted(forked.name, partial(operate.resume, forked.name, file))], one=True))
    asked = request_rerun(run, recover=recover, new_name=name, file=file)
    sys.exit(_drive([Wanted(asked.new.name, lambda: operate.submit(asked))], one=True))


CANCEL_EPILOG = """  perdure cancel daily                          its code cleans up, however long that takes
  perdure cancel daily --grace 30s --reason "wrong input"
  perdure cancel daily && perdure wait daily    until it is CANCELLED"""


@cli.command(cls=CliCommand, epilog=CANCEL_EPILOG, short_help="Ask runs to clean up and end.")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, shell_complete=completion.run_names)
@click.option("--reason", metavar="TEXT", default="", help="Why, for people.")
@click.option("--grace", callback=length, metavar="LENGTH", help="How long the code may clean up. For ever by default.")
@common
def cancel(runs: tuple[str, ...], reason: str, grace: Any) -> None:
    """Ask runs to end, as CANCELLED, wherever they are driven, and return at once.

    The code of a run hears of that at its durable calls and may clean up, with durable calls. After --grace the run is
    ended as it is.
    """
    from ..api.run import Run
    from .driving import operate_on_each

    def cancel_one(name: str) -> str:
        run = Run.get(name)
        if not run.cancel(reason, grace):
            return f"run {name} was asked to cancel before, it is {run.status}"
        return f"run {name} is cancelled" if run.status == "CANCELLED" else f"run {name} is asked to cancel"

    sys.exit(operate_on_each(output, runs, cancel_one))


WAKE_EPILOG = "  perdure wake daily        begin now what was submitted with --at or --in"


@cli.command(cls=CliCommand, epilog=WAKE_EPILOG, short_help="Let a worker take up runs that wait for a time.")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, shell_complete=completion.run_names)
@common
def wake(runs: tuple[str, ...]) -> None:
    """Let submitted runs begin now that wait for their time. A run that is due already, sleeps, pauses before the next
    attempt or waits for a message is refused with the reason: recorded deadlines stay."""
    from ..api.run import Run
    from .driving import operate_on_each

    def wake_one(name: str) -> str:
        woken = Run.get(name).wake()
        return f"run {name} is due now" if woken else f"run {name} waits for no time, it is {Run.get(name).status}"

    sys.exit(operate_on_each(output, runs, wake_one))


@cli.command(cls=CliCommand, epilog="  perdure abort daily", short_help="End a run for good.")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, shell_complete=completion.run_names)
@common
def abort(runs: tuple[str, ...]) -> None:
    """End runs at once and for good, as ABORTED, wherever they are driven. None of their code gets to clean up.
    Recorded outcomes stay."""
    from ..api.run import Run
    from .driving import operate_on_each

    def abort_one(name: str) -> str:
        return f"run {name} is aborted" if Run.get(name).abort() else f"run {name} was aborted before"

    sys.exit(operate_on_each(output, runs, abort_one))


GC_EPILOG = """  perdure gc --older-than 30d --dry-run                  show what would go
  perdure gc --older-than 30d                            runs that ended 30 days ago or earlier
  perdure gc --older-than 12h --status SUCCEEDED         keep those that failed or were aborted"""


@cli.command(cls=CliCommand, epilog=GC_EPILOG, short_help="Remove finished runs and what only they needed.")
@click.option("--older-than", callback=length, required=True, metavar="AGE", help="As 30d, 12h, 90m, 45s or 1d12h.")
@click.option(
    "--status", "statuses", type=click.Choice(STATUSES[6:10], case_sensitive=False), multiple=True,
    help="Only runs of this status; may be given several times.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only show what would go.")
@common
def gc(older_than: Any, statuses: tuple[str, ...], dry_run: bool) -> None:
    """Remove old runs that have ended, old cached outcomes, and logs and files without a reference.

    Never a run that is queued, running, sleeping or interrupted, nor anything that such a run needs. Files stay for a
    day after they were stored, and as long as an older run is driven.
    """
    from ..core.ground.model import FINISHED, Status
    from ..upkeep import collecting
    from .output import print_removed, removed_data

    log_to_stderr()
    wanted = frozenset(Status(status.upper()) for status in statuses) or FINISHED
    removed = collecting.collect(older_than, wanted, dry_run=dry_run)
    if output.json:
        output.result_json({"dry_run": dry_run, **removed_data(removed)})
    else:
        print_removed(output, removed, dry_run=dry_run)


def _drive(wanted: list[Wanted], *, one: bool) -> int:
    from .driving import drive

    return drive(output, signals, wanted, one=one)


# -- ls, show --------------------------------------------------------------------------------------------------

ERROR_HELP = "Only runs that failed with an exception of this class, such as OSError, or of a known subclass."
LS_EPILOG = """  perdure ls --status FAILED --since 1d
  perdure ls --error TimeoutError                        its subclasses too, such as TaskTimeoutError
  perdure ls --task etl.main --name 'daily-*'
  perdure ls --json | jq -r '.[].name'"""


@cli.command("ls", cls=CliCommand, epilog=LS_EPILOG, short_help="The runs in the store, newest first.")
@click.option(
    "--limit", type=click.IntRange(min=0), metavar="N",
    help=f"At most so many; 0 for all. Default {ROWS}, with --json all.",
)  # fmt: skip
@click.option("--status", type=click.Choice(STATUSES, case_sensitive=False), help="Only runs of this status.")
@click.option("--task", metavar="TASK", help="Only runs of this task, by its full name, or a pattern such as etl.*.")
@click.option("--name", metavar="NAME", help="Only runs of this name; * and ? stand for any characters and for one.")
@click.option(
    "--tag", "tags", metavar="NAME=VALUE", multiple=True, help="Only runs with this tag; several may be given."
)
@click.option(
    "--since", callback=length, metavar="LENGTH", help="Only runs created since: 45s, 90m, 12h, 30d or 1d12h."
)
@click.option("--error", metavar="TYPE", help=ERROR_HELP)
@common
def list_command(
    limit: int | None,
    status: str | None,
    task: str | None,
    name: str | None,
    tags: tuple[str, ...],
    since: Any,
    error: str | None,
) -> None:
    """List the runs in the store, newest first, each with the reason why the run does not move."""
    from ..api import looking
    from ..api.listing import back_from_now
    from ..api.tags import tags_of_words
    from ..core.ground.model import Status
    from .output import RunsTable, run_data

    most = _rows(limit)
    statuses = None if status is None else {Status(status.upper())}
    created = None if since is None else back_from_now(since)
    wanted = looking.RunFilter(statuses, task, name, since=created, tags=tags_of_words(tags), error=error)
    runs, more = looking.runs(limit=most, wanted=wanted)
    if output.json:
        output.result_json([run_data(run) for run in runs])
    elif runs:
        output.draw(RunsTable(runs))
    else:
        where = looking.store_path() or "this store"
        output.note(f"no such runs in {where}" if wanted != looking.RunFilter() else f"no runs in {where}")
    if more:
        output.note(f"there are more than {most}; see all with: perdure ls --limit 0")


def _rows(limit: int | None) -> int | None:
    if limit is None:
        return None if output.json else ROWS
    return limit or None


SHOW_EPILOG = """  perdure show daily
  perdure show daily --failed                     the failed actions alone
  perdure show daily --slowest                    the slowest actions, the slowest first
  perdure show daily --action fetch               whole inputs and outcome, or the error with its traceback
  perdure show daily --follow                     as it goes on, until it has ended
  perdure show daily --json | jq '.actions[] | select(.status == "FAILED")'"""

SLOWEST = 20
"""Actions that `--slowest` shows."""


@cli.command(cls=CliCommand, epilog=SHOW_EPILOG, short_help="What a run did, as a tree.")
@click.argument("run", metavar="RUN", shell_complete=completion.run_names, callback=run_or_url)
@click.option(
    "--limit", type=click.IntRange(min=0), metavar="N",
    help=f"At most so many actions, the first and the last; 0 for all. Default {ROWS}, with --json all.",
)  # fmt: skip
@click.option("--failed", is_flag=True, help="Only failed actions, with the actions that they belong to.")
@click.option("--slowest", is_flag=True, help=f"The {SLOWEST} slowest actions, or --limit of them.")
@click.option("--action", metavar="ACTION", help="One action in full: a task's name, or an action's number.")
@click.option("--follow", "-f", is_flag=True, help="Go on until the run has ended; no terminal: a line a change.")
@common
def show(run: str, limit: int | None, failed: bool, slowest: bool, action: str | None, follow: bool) -> None:
    """Show why a run does not move, and the tree of its actions: kind, status, attempts, start, duration, inputs,
    outcome."""
    from ..api import looking
    from ..api.reports import report_files
    from .output import action_data, print_action, print_tree, tree_data

    if failed + slowest + follow + (action is not None) > 1:
        raise click.UsageError("--failed, --slowest, --action and --follow are different views: give one of them")
    if follow:
        from .following import follow as follow_run

        follow_run(output, run, _rows(limit))
        return
    picture = looking.picture(run)
    if action is not None:
        node = looking.named_action(picture, action)
        if output.json:
            output.result_json(action_data(node))
        else:
            print_action(output, node)
        return
    most = SLOWEST if slowest and limit is None else _rows(limit)
    tree = looking.slowest(picture, most) if slowest else looking.part(picture, most, failed=failed)
    if output.json:
        output.result_json(tree_data(tree))
    else:
        print_tree(output, tree, flat=slowest)
    left_out = tree.total - len(tree.nodes)
    if left_out > 0 and not (failed or slowest):
        output.note(f"{left_out:,} of {tree.total:,} actions are left out; see all with: perdure show {run} --limit 0")
    if reports := report_files(run):
        names = ", ".join(f"{one.name} ({one.action})" for one in reports)
        output.note(f"reports of {names}; see one with: perdure report {run} ACTION")


LOGS_EPILOG = """  perdure logs daily                 of all its tasks and containers
  perdure logs daily convert         of the task convert
  perdure logs daily --json          a line of JSON for each line and record, with the time and the level
  perdure logs daily -f              and go on until the run has ended"""


@cli.command("logs", cls=CliCommand, epilog=LOGS_EPILOG, short_help="What a run's tasks and containers have written.")
@click.argument("run", metavar="RUN", shell_complete=completion.run_names, callback=run_or_url)
@click.argument("action", metavar="[ACTION]", required=False)
@click.option("--follow", "-f", is_flag=True, help="Go on with what they write, until the run has ended.")
@common
def logs_command(run: str, action: str | None, follow: bool) -> None:
    """Print what a run's tasks have printed and logged, and the output of its containers. ACTION: a task's name, or an
    action's number."""
    from .logs import print_logs

    print_logs(output, run, action, follow=follow)


REPORT_EPILOG = """  perdure report daily               the report of the run's only action with a report, to stdout
  perdure report daily train -o r.html   of the task train, to a file
  perdure report daily train --open  in the web browser"""


@cli.command("report", cls=CliCommand, epilog=REPORT_EPILOG, short_help="The HTML that a run's tasks have reported.")
@click.argument("run", metavar="RUN", shell_complete=completion.run_names, callback=run_or_url)
@click.argument("action", metavar="[ACTION]", required=False)
@click.option("--output", "-o", "file", metavar="FILE", type=click.Path(dir_okay=False), help="Write the page here.")
@click.option("--open", "show", is_flag=True, help="Show the page in the web browser.")
@common
def report_command(run: str, action: str | None, file: str | None, show: bool) -> None:
    """Print the report of an action as a page of HTML. ACTION: a task's name, or an action's number."""
    from .reports import print_report

    print_report(output, run, action, file, show)


# -- completion ------------------------------------------------------------------------------------------------

COMPLETION_EPILOG = """  eval "$(perdure completion bash)"                                       in ~/.bashrc
  eval "$(perdure completion zsh)"                                        in ~/.zshrc
  perdure completion fish > ~/.config/fish/completions/perdure.fish       once"""


@cli.command(
    "completion", cls=CliCommand, epilog=COMPLETION_EPILOG, short_help="The script for your shell's completion."
)
@click.argument("shell", type=click.Choice(completion.SHELLS))
@common
def completion_command(shell: str) -> None:
    """Print the script that completes commands, tasks of a file, their inputs, and names of runs."""
    text = completion.script(cli, shell)
    if output.json:
        output.result_json({"shell": shell, "script": text})
    else:
        output.result(text)
