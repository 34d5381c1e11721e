"""The whole command line, and its end: every foreseen error is one message and an exit code."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import click

from ..errors import PerdureError
from . import (
    bulk,
    checking,
    commands,
    comparing,
    completion,
    copilot,
    forking,
    limits,
    mcp,
    messages,
    notify,
    pausing,
    queues,
    rehearsal,
    schedules,
    seeing,
    serving,
    stores,
    ui,
)
from .base import cli, output, signals
from .output import OutputFailedError
from .signals import Interrupted

__all__ = [
    "bulk",
    "checking",
    "commands",
    "comparing",
    "copilot",
    "forking",
    "limits",
    "mcp",
    "messages",
    "notify",
    "pausing",
    "queues",
    "rehearsal",
    "run",
    "schedules",
    "seeing",
    "serving",
    "stores",
    "ui",
]


def run(args: list[str] | None = None) -> NoReturn:
    """Run the command line and end the process; every foreseen error is one message."""
    _open_missing_streams()
    output.claim_stdout()
    if "serve" in (sys.argv[1:] if args is None else args)[:1]:
        # A worker that is told to end has ended well, also where that comes early: a supervisor must not see a failure.
        signals.code = 0
    sys.exit(_run(args))


def _run(args: list[str] | None) -> int:
    try:
        if os.environ.get(completion.VARIABLE) is None:
            signals.install()
        else:
            signals.unblock()
        code = cli.main(args=args, prog_name="perdure", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (Interrupted, click.Abort, KeyboardInterrupt):
        signals.ignore()
        if signals.code == 0:
            output.note("told to end before serving began; no run was taken")
        else:
            output.say("interrupted")
        # Threads that a loaded file has started need not delay the end.
        os._exit(signals.code)
    except PerdureError as error:
        from .driving import exit_code, tell

        tell(output, error)
        return exit_code(error)
    except OutputFailedError as failure:
        cause = failure.__cause__
        if isinstance(cause, BrokenPipeError):
            # The reader of the output has seen enough (`| head`). Nothing may be flushed at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), output.out.fileno())
            return 0
        reason = cause.strerror if isinstance(cause, OSError) else cause
        output.say(f"Error: the output could not be written: {reason}; what was recorded is safe")
        os._exit(1)
    except FileNotFoundError:
        if _has_directory():
            raise
        output.say("Error: the working directory does not exist any more; change to another directory")
        return 1


def _has_directory() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def _open_missing_streams() -> None:
    """A file opened later must not become stdout or stderr because those were closed."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
