"""The `perdure` command: it parses, calls `perdure.api` and prints.

Exit codes: 0 success, 1 the run failed (or cannot go on just now), 2 wrong usage, 130 interrupted and resumable.

    entry        `run()`, which turns every error into one message and an exit code; base: parts of all commands
    commands     the commands for runs; serving: the commands around workers
    inputs       a task's options from its signature; convert: text and JSON into values of declared types
    driving      waits for runs while signals may come; signals: SIGINT and SIGTERM end the process promptly
    progress     the display meanwhile
    output       the results on stdout: values, tables and trees; failures: tracebacks of the user's own code
    completion   words for the shell, found without executing anything
"""

from __future__ import annotations

import signal

__all__ = ["main"]


def main() -> None:
    """The entry point of the command `perdure`."""
    # A signal that arrives during the imports waits for its handler (`Signals.install`).
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    from .entry import run

    run()
