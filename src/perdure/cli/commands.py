"""The commands: each parses, calls `perdure.api.operate` and prints."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from .. import __version__
from ..errors import PerdureError, UsageError
from . import completion
from .output import Output
from .signals import INTERRUPTED, Interrupted, Signals

if TYPE_CHECKING:
    from .driving import Wanted
    from .inputs import Input, Own

F = TypeVar("F", bound=Callable[..., Any])

# As `core.model.Status`, spelled out so that `perdure --help` need not import the core; a test compares them.
STATUSES = ("QUEUED", "RUNNING", "SLEEPING", "INTERRUPTED", "SUCCEEDED", "FAILED", "ABORTED")
ROWS = 200
"""Rows of a list or tree for people, unless they ask for more."""

output = Output()
signals = Signals()


class Command(click.Command):
    """A command whose help keeps the layout of its examples."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.epilog:
            formatter.write(f"\nExamples:\n{self.epilog}\n")


class RunCommand(Command):
    """`perdure run`: what stands behind FILE and TASK belongs to the task, and is read by its signature."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.params["words"] = tuple(args)
        return []

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return ["FILE", "TASK", "[--name NAME]", "[--INPUT VALUE ...]"]

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        return completion.run_words(list(ctx.params.get("words", ())), incomplete)


class Group(click.Group):
    command_class = Command

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write(f"\n{self.epilog}\n")


def _set_store(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value and not ctx.resilient_parsing:
        use_store(value)
    return value


def use_store(url: str) -> None:
    """`--store`."""
    from .. import runtime

    runtime.init(url)


def _set_json(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    output.json = output.json or value


def _set_quiet(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    output.quiet = output.quiet or value


def _set_verbose(ctx: click.Context, parameter: click.Parameter, value: int) -> None:
    output.verbose += value


def _hidden(*names: str, **settings: Any) -> Callable[[F], F]:
    """An option that its callback deals with; the command's function does not see it."""
    return click.option(*names, expose_value=False, **settings)


def common(command: F) -> F:
    """The options that every command takes."""
    for option in (
        _hidden("-q", "--quiet", is_flag=True, callback=_set_quiet, help="Say less on stderr."),
        _hidden("-v", "--verbose", count=True, callback=_set_verbose, help="Say more on stderr."),
        _hidden("--json", is_flag=True, callback=_set_json, help="JSON on stdout."),
        _hidden(
            "--store", metavar="URL", callback=_set_store, is_eager=True,
            help="The store, as sqlite:///path/to.db or a path. Also PERDURE_STORE; default .perdure/perdure.db.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

GUIDE = """A run's name is its key: the same `perdure run` line again carries on with an interrupted run, and only
prints the result of a finished one. Kill the process at any moment; nothing recorded is done twice.

  perdure run etl.py main --name daily --url https://example.org
  perdure resume daily        carry on after a crash or a failure
  perdure show daily          what it did
  perdure logs daily          what its containers have written
  perdure ls                  all runs

Exit codes: 0 success, 1 the run failed, 2 wrong usage, 130 interrupted (the run can be resumed)."""


@click.group(cls=Group, context_settings=HELP, epilog=GUIDE)
@click.version_option(__version__, prog_name="perdure", message="%(prog)s %(version)s")
@common
def cli() -> None:
    """Durable Python workflows in one SQLite file: kill the process anywhere, start it again, it carries on."""


# -- run -------------------------------------------------------------------------------------------------------

RUN_HELP = """Run a task of a Python file, or carry on with the run of that name.

The task's parameters are options: `n: int = 3` becomes --n, `batch_size` --batch-size (or --batch_size). Numbers, text,
dates, enums and paths are typed as they are, a bool is --flag or --no-flag; dataclasses, lists, dicts and other
structures are JSON, and a list may also be given item by item (--tag a --tag b). `null` is None where that is allowed.

FILE alone lists its tasks; FILE TASK --help shows the inputs of one.

The result goes to stdout, everything else, what the task prints included, to stderr."""

RUN_EPILOG = """  perdure run etl.py                                  list the tasks of etl.py
  perdure run etl.py main --help                      show the inputs of main
  perdure run etl.py main --name daily --limit 100    run it, or carry on with it
  perdure run etl.py main --order '{"id": 7}' --json  JSON in, JSON out
  perdure run --name daily greet.py hello --name Ada  an input that is called like an option of perdure's"""


@cli.command("run", cls=RunCommand, help=RUN_HELP, epilog=RUN_EPILOG, short_help="Run a task, or carry on with a run.")
@click.option("--name", metavar="NAME", help="The run's name, its idempotency key. A readable random one by default.")
@common
@click.pass_context
def run_command(ctx: click.Context, /, words: tuple[str, ...], **ignored: Any) -> None:
    from .inputs import read, split

    found = split(words)
    own = found.own
    _apply(own)
    if found.file is None:
        if own.help:
            click.echo(ctx.get_help())
            return
        raise UsageError("name a file and a task: perdure run FILE TASK; more with: perdure run --help")
    from ..api.loading import find_task

    log_to_stderr()
    output.keep_stdout()
    if found.task is None:
        sys.exit(_list_tasks(found.file, asked=own.help))
    task = find_task(found.file, found.task)
    args, values = read(task, found.file, found.rest, own)
    _apply(own)
    if own.help:
        output.result(_task_help(found.file, found.task, task))
        return
    from ..api import operate
    from .driving import Wanted

    asked = operate.request(task, args, values, own.name)
    sys.exit(_drive([Wanted(asked.new.name, lambda: operate.submit(asked))], one=True))


def _apply(own: Own) -> None:
    from .. import runtime

    output.json = output.json or own.json
    output.quiet = output.quiet or own.quiet
    output.verbose = max(output.verbose, own.verbose)
    # Again after the file is loaded: what the command line says stands above a `perdure.init` in the file.
    if own.store and runtime.store_url() != own.store:
        use_store(own.store)


def _list_tasks(file: str, *, asked: bool) -> int:
    """The tasks of a file. Without `--help` that is not what `run` is for, so its exit code says that nothing ran."""
    from ..api.loading import load_file, tasks_in
    from .inputs import inputs_of

    tasks = tasks_in(load_file(file))
    if output.json:
        output.result_json([_task_data(name, task, inputs_of(task)) for name, task in tasks.items()])
    for name, task in tasks.items() if not output.json else ():
        inputs = " ".join(one.option if one.required else f"[{one.option}]" for one in inputs_of(task))
        doc = _first_line(task.fn)
        output.result(f"{name} {inputs}".rstrip() + (f"\n    {doc}" if doc else ""))
    if not tasks:
        raise UsageError(f"{file} holds no tasks; declare one with @env.task")
    if not asked:
        output.say(f"Name one of them: perdure run {file} TASK; its inputs: perdure run {file} TASK --help")
    return 0 if asked else 2


def _task_data(name: str, task: Any, inputs: list[Input]) -> dict[str, Any]:
    return {"name": name, "task": task.name, "doc": _first_line(task.fn), "inputs": list(map(_input_data, inputs))}


def _first_line(fn: Any) -> str:
    return (fn.__doc__ or "").strip().partition("\n")[0]


def _input_data(one: Input) -> dict[str, Any]:
    from .inputs import NOTHING
    from .output import jsonable

    default = None if one.default is NOTHING else jsonable(one.default)
    return {
        "name": one.name,
        "option": one.option,
        "type": one.type_label,
        "required": one.required,
        "default": default,
    }


def _task_help(file: str, name: str, task: Any) -> str:
    import inspect

    from .inputs import OWN_OPTIONS, command, inputs_of

    inputs = inputs_of(task)
    formatter = click.HelpFormatter(width=100)
    formatter.write_usage(command(file, name), "[--name NAME] [--INPUT VALUE ...]" if inputs else "[--name NAME]")
    if task.fn.__doc__:
        formatter.write_paragraph()
        with formatter.indentation():
            for line in inspect.cleandoc(task.fn.__doc__).splitlines():
                formatter.write(f"{'':>{formatter.current_indent}}{line}\n" if line else "\n")
    if inputs:
        with formatter.section(f"Inputs of {task.name}"):
            formatter.write_dl([(_input_usage(one), _input_help(one)) for one in inputs])
    hidden = [one.option for one in inputs if one.option in OWN_OPTIONS]
    if hidden:
        formatter.write_paragraph()
        formatter.write_text(
            f"{', '.join(hidden)} behind the task is the task's; perdure's own stands in front of the file: "
            f"perdure run {hidden[0]} ... {file} {name} {hidden[0]} ..."
        )
    with formatter.section("Options of perdure"):
        formatter.write_dl([
            ("--name NAME", "The run's name, its idempotency key."),
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
    from .convert import is_simple
    from .inputs import NOTHING

    if one.required:
        text = "required"
    elif one.default is NOTHING:
        text = "any number of them"
    else:
        text = f"default: {one.default!r}" if len(repr(one.default)) < 200 else "has a default"
    if one.is_many:
        text += "; a JSON array, or once for each item"
    elif not one.is_flag and not is_simple(one.type) and one.type_label != "any" and " | " not in one.type_label:
        text += "; JSON"
    return text


# -- resume, rerun, abort, gc ----------------------------------------------------------------------------------

RESUME_EPILOG = """  perdure resume daily                   continue a run that was interrupted, or that failed
  perdure resume --all                   continue everything that was interrupted, nothing that failed
  perdure resume daily --file new.py     its code has moved"""


@cli.command(cls=Command, epilog=RESUME_EPILOG, short_help="Carry on with interrupted or failed runs.")
@click.argument("runs", metavar="[RUN]...", nargs=-1, shell_complete=completion.run_names)
@click.option("--all", "every", is_flag=True, help="Every interrupted run; failed ones are left alone.")
@click.option("--file", metavar="FILE", type=click.Path(), help="Where the code is, if not where it was.")
@common
def resume(runs: tuple[str, ...], every: bool, file: str | None) -> None:
    """Carry on with interrupted runs, where they were.

    A failed run is continued when it is named: the failures that ended it are taken back and tried again, everything
    else stays. A run that has succeeded only gives its recorded result.
    """
    from ..api import operate
    from .driving import Wanted

    if bool(runs) == every:
        raise click.UsageError("name runs, or say --all; see them with: perdure ls --status INTERRUPTED")
    log_to_stderr()
    names = operate.interrupted() if every else list(dict.fromkeys(runs))
    if not names:
        output.note("no run is interrupted")
    output.keep_stdout()
    wanted = [Wanted(name, lambda name=name: operate.resume(name, file)) for name in names]  # type: ignore[misc]
    sys.exit(_drive(wanted, one=len(runs) == 1))


RERUN_EPILOG = """  perdure rerun daily                    once more, from the start, under a new name
  perdure rerun daily --recover          once more, without what had succeeded
  perdure rerun daily --name daily-2     the new run's name"""


@cli.command(cls=Command, epilog=RERUN_EPILOG, short_help="A new run with the same inputs.")
@click.argument("run", metavar="RUN", shell_complete=completion.run_names)
@click.option("--recover", is_flag=True, help="Reuse what succeeded in RUN: values, finished children, ended sleeps.")
@click.option("--name", metavar="NAME", help="The new run's name. A readable random one by default.")
@click.option("--file", metavar="FILE", type=click.Path(), help="Where the code is, if not where it was.")
@common
def rerun(run: str, recover: bool, name: str | None, file: str | None) -> None:
    """Start a new run of the same task with the same inputs."""
    from ..api import operate
    from .driving import Wanted

    log_to_stderr()
    output.keep_stdout()
    asked = operate.request_rerun(run, recover=recover, new_name=name, file=file)
    sys.exit(_drive([Wanted(asked.new.name, lambda: operate.submit(asked))], one=True))


@cli.command(cls=Command, epilog="  perdure abort daily", short_help="End a run for good.")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, shell_complete=completion.run_names)
@common
def abort(runs: tuple[str, ...]) -> None:
    """End runs for good, as ABORTED, wherever they are driven. What they have recorded stays."""
    from ..api import operate
    from .driving import exit_code, tell

    code = 0
    data = []
    for name in dict.fromkeys(runs):
        try:
            fresh = operate.abort(name)
        except PerdureError as error:
            tell(output, error)
            code = max(code, exit_code(error))
            continue
        output.note(f"run {name} is aborted" if fresh else f"run {name} was aborted before")
        data.append({"name": name, "status": "ABORTED"})
    if output.json:
        output.result_json(data)
    sys.exit(code)


_PARTS = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


def _age(ctx: click.Context, parameter: click.Parameter, value: str) -> Any:
    """A length of time with its unit, which is never guessed: what is removed does not come back."""
    from datetime import timedelta

    parts = _PARTS.fullmatch(value) if value else None
    if parts is None:
        raise click.BadParameter(f"{value!r} is no length of time such as 30d, 12h, 90m, 45s or 1d12h")
    days, hours, minutes, seconds = (int(part or 0) for part in parts.groups())
    try:
        return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    except OverflowError:
        raise click.BadParameter(f"{value} is longer than anything has lasted") from None


GC_EPILOG = """  perdure gc --older-than 30d --dry-run                  show what would go
  perdure gc --older-than 30d                            runs that ended 30 days ago or earlier
  perdure gc --older-than 12h --status SUCCEEDED         keep those that failed or were aborted"""


@cli.command(cls=Command, epilog=GC_EPILOG, short_help="Remove finished runs and what only they needed.")
@click.option("--older-than", callback=_age, required=True, metavar="AGE", help="As 30d, 12h, 90m, 45s or 1d12h.")
@click.option(
    "--status", "statuses", type=click.Choice(STATUSES[4:], case_sensitive=False), multiple=True,
    help="Only runs of this status; may be given several times.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only show what would go.")
@common
def gc(older_than: Any, statuses: tuple[str, ...], dry_run: bool) -> None:
    """Remove runs that ended longer ago, outcomes cached longer ago, and logs and files that nothing refers to.

    Never a run that is queued, running, sleeping or interrupted, nor anything that one needs. Files stay for a day
    after they were put in, and while a run is driven that was started before that.
    """
    from ..api import collecting
    from ..core.model import FINISHED, Status
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

LS_EPILOG = """  perdure ls --status FAILED
  perdure ls --json | jq -r '.[].name'"""


@cli.command("ls", cls=Command, epilog=LS_EPILOG, short_help="The runs in the store, newest first.")
@click.option(
    "--limit", type=click.IntRange(min=0), metavar="N",
    help=f"At most so many; 0 for all. Default {ROWS}, with --json all.",
)  # fmt: skip
@click.option("--status", type=click.Choice(STATUSES, case_sensitive=False), help="Only runs of this status.")
@common
def list_command(limit: int | None, status: str | None) -> None:
    """List the runs in the store, newest first."""
    from ..api import looking
    from ..core.model import Status
    from .output import print_runs, run_data

    most = _rows(limit)
    runs, more = looking.runs(limit=most, status=None if status is None else Status(status.upper()))
    if output.json:
        output.result_json([run_data(run) for run in runs])
    elif runs:
        print_runs(output, runs)
    else:
        where = looking.store_path() or "this store"
        output.note(f"no runs{f' are {status.upper()}' if status else ''} in {where}")
    if more:
        output.note(f"there are more than {most}; see all with: perdure ls --limit 0")


def _rows(limit: int | None) -> int | None:
    if limit is None:
        return None if output.json else ROWS
    return limit or None


SHOW_EPILOG = """  perdure show daily
  perdure show daily --json | jq '.actions[] | select(.status == "FAILED")'"""


@cli.command(cls=Command, epilog=SHOW_EPILOG, short_help="What a run did, as a tree.")
@click.argument("run", metavar="RUN", shell_complete=completion.run_names)
@click.option(
    "--limit", type=click.IntRange(min=0), metavar="N",
    help=f"At most so many actions, the first and the last; 0 for all. Default {ROWS}, with --json all.",
)  # fmt: skip
@common
def show(run: str, limit: int | None) -> None:
    """Show the tree of a run's actions: kind, status, attempts, start, duration, inputs, outcome."""
    from ..api import looking
    from .output import print_tree, tree_data

    most = _rows(limit)
    tree = looking.tree(run, most)
    if output.json:
        output.result_json(tree_data(tree))
    else:
        print_tree(output, tree)
    left_out = tree.total - len(tree.nodes)
    if left_out:
        output.note(f"{left_out:,} of {tree.total:,} actions are left out; see all with: perdure show {run} --limit 0")


LOGS_EPILOG = """  perdure logs daily                 of all its containers
  perdure logs daily convert         of the container task convert
  perdure logs daily -f              and go on until the run has ended"""


@cli.command("logs", cls=Command, epilog=LOGS_EPILOG, short_help="What a run's containers have written.")
@click.argument("run", metavar="RUN", shell_complete=completion.run_names)
@click.argument("action", metavar="[ACTION]", required=False)
@click.option("--follow", "-f", is_flag=True, help="Go on with what they write, until the run has ended.")
@common
def logs_command(run: str, action: str | None, follow: bool) -> None:
    """Print what a run's containers have written. ACTION: a container task's name, or an action's number."""
    from .logs import print_logs

    print_logs(output, run, action, follow=follow)


# -- completion ------------------------------------------------------------------------------------------------

COMPLETION_EPILOG = """  eval "$(perdure completion bash)"                                       in ~/.bashrc
  eval "$(perdure completion zsh)"                                        in ~/.zshrc
  perdure completion fish > ~/.config/fish/completions/perdure.fish       once"""


@cli.command("completion", cls=Command, epilog=COMPLETION_EPILOG, short_help="The script for your shell's completion.")
@click.argument("shell", type=click.Choice(completion.SHELLS))
@common
def completion_command(shell: str) -> None:
    """Print the script that completes commands, tasks of a file, their inputs, and names of runs."""
    text = completion.script(cli, shell)
    if output.json:
        output.result_json({"shell": shell, "script": text})
    else:
        output.result(text)


# -- the whole -------------------------------------------------------------------------------------------------


def log_to_stderr() -> None:
    """What perdure logs (retries, changed source) as plain lines among our own."""
    import logging

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            # To whatever `sys.stderr` is now: the live summary stands in for it meanwhile.
            output.say(self.format(record))

    logger = logging.getLogger("perdure")
    logger.addHandler(Lines())
    logger.propagate = False
    logger.setLevel(logging.ERROR if output.quiet else logging.DEBUG if output.verbose else logging.WARNING)


def run(args: list[str] | None = None) -> NoReturn:
    """Run the command line and end the process; every foreseen error is one message."""
    _open_missing_streams()
    if os.environ.get(completion.VARIABLE) is None:
        signals.install()
    sys.exit(_run(args))


def _run(args: list[str] | None) -> int:
    try:
        code = cli.main(args=args, prog_name="perdure", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (Interrupted, click.Abort, KeyboardInterrupt):
        signals.ignore()
        output.say("interrupted")
        # Threads that a file has started while it was loaded need not hold up the end.
        os._exit(INTERRUPTED)
    except PerdureError as error:
        from .driving import exit_code, tell

        tell(output, error)
        return exit_code(error)
    except BrokenPipeError:
        # Whoever read our output has seen enough (`| head`). Nothing may be flushed at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), output.out.fileno())
        return 0
    except OSError as error:
        if error.filename is not None:
            raise
        output.say(f"Error: the output could not be written: {error.strerror}; what was recorded is safe")
        os._exit(1)


def _open_missing_streams() -> None:
    """A file opened later must not become stdout or stderr because those were closed."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
