"""Start runs, wait for them while signals may come, and print how they ended."""

from __future__ import annotations

import os
import shlex
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from typing import Any, NamedTuple, NoReturn

from .. import runtime
from ..api import looking, operate
from ..api.operate import Handle, RunEnd
from ..api.run import Run
from ..api.status import derived_status
from ..core.ground.model import FINISHED, Status
from ..errors import CodeNotLoadedError, PerdureError, UsageError
from ..runtime.settings import DEFAULT_STORE
from .failures import of_exception, users_frames
from .output import Output, ended_data, readable, unfinished_data
from .progress import Reporter
from .signals import INTERRUPTED, Interrupted, Signals

UNWIND_SECONDS = 1.5
"""Timeout for releasing the claims of interrupted runs."""
CAUGHT_SHOWN = 5
"""Caught failures that the end of a failed run lists."""
RETIRE_SECONDS = 0.5
"""Timeout for retiring the worker; afterwards, the free lock tells other processes the same."""


class Wanted(NamedTuple):
    """A run to be driven: the name, known before anything is stored, and the way to start it."""

    name: str
    start: Callable[[], Handle]


class Told(NamedTuple):
    """The end of one run: as JSON data, and as an exit code."""

    data: dict[str, Any]
    code: int


def drive(output: Output, signals: Signals, wanted: Sequence[Wanted], *, one: bool) -> int:
    """Drive runs to their ends, all at once, and print the results. Returns the exit code.

    Args:
        one: the caller asked for a single run, so the result is printed without the name.
    """
    found = driven(output, signals, wanted, one=one)
    if output.json:
        output.result_json(found[0].data if one else [run.data for run in found])
    return _worst([run.code for run in found])


def driven(output: Output, signals: Signals, wanted: Sequence[Wanted], *, one: bool) -> list[Told]:
    """As `drive`, but JSON is left to the caller."""
    handles: list[Handle] = []
    told: dict[str, Told] = {}
    reporter: Reporter | None = None
    try:
        for run in wanted:
            signals.last_words = _how_to_go_on([run.name for run in wanted])
            try:
                handles.append(run.start())
            except PerdureError as error:
                if one:
                    raise
                told[run.name] = _refused(output, run.name, error)
        reporter = Reporter(output, handles)
        reporter.began()
        _wait(reporter, [handle.done for handle in handles if handle.done is not None])
    except Interrupted:
        signals.ignore()
        if reporter is not None:
            reporter.end()
        _interrupted(output, wanted, handles, told, one=one)
    reporter.end()
    signals.last_words = ""
    for handle in handles:
        told[handle.name] = _ended(output, reporter, handle, one=one)
    return [told[run.name] for run in wanted]


def _wait(reporter: Reporter, futures: list[Future[Any]]) -> None:
    while futures:
        futures = list(wait(futures, timeout=reporter.interval, return_when="FIRST_COMPLETED").not_done)
        if futures:
            reporter.tick()


def _worst(codes: list[int]) -> int:
    return max(codes, default=0)


# -- the end of a run -------------------------------------------------------------------------------------------


def _ended(output: Output, reporter: Reporter, handle: Handle, *, one: bool) -> Told:
    try:
        ended = operate.outcome(handle)
    except PerdureError as error:
        if one and not output.json:
            raise
        return _refused(output, handle.name, error, handle.task)
    if ended.error is not None:
        _tell_failure(output, ended)
    elif ended.driven:
        output.note(f"run {ended.name} succeeded: {reporter.counts(ended)}")
    else:
        output.note(f"run {ended.name} has succeeded before: its recorded result, nothing was executed")
    if ended.driven:
        reporter.summarize(ended.name)
    if ended.error is None and not output.json:
        text = readable(ended.result)
        output.result(text if one else f"{ended.name}: {text}")
    return Told(ended_data(ended), 0 if ended.error is None else 1)


def told(output: Output, run: Run, *, one: bool) -> Told:
    """The present state of a run of another driver's."""
    status = run.status
    if status not in FINISHED:
        return Told(unfinished_data(run.name, run.task, str(status), f"it is {status}"), 1)
    try:
        ended = operate.outcome(Handle(run, None, False))
    except PerdureError as error:
        return _refused(output, run.name, error, run.task)
    if ended.error is not None:
        _tell_failure(output, ended)
    elif not output.json:
        text = readable(ended.result)
        output.result(text if one else f"{ended.name}: {text}")
    return Told(ended_data(ended), 0 if ended.error is None else 1)


def _tell_failure(output: Output, ended: RunEnd) -> None:
    error = ended.error
    assert error is not None
    text = error.traceback.strip("\n")
    text = text if output.verbose else users_frames(text)
    if text:
        output.say(text)
    again = "" if ended.driven else " (recorded before; nothing was executed)"
    summary = f"{error.type}: {error.message}".partition("\n")[0] if error.message else error.type
    output.say(f"run {ended.name} failed: {summary}{again}")
    output.say(f"To continue it, once the cause is gone: {resume_line([ended.name])}")
    _tell_caught(output, ended.name)


def _tell_caught(output: Output, name: str) -> None:
    """Say which recorded failures a plain resume does not try again."""
    found = operate.caught(name)
    if not found:
        return
    calls = "a failure" if len(found) == 1 else f"{len(found)} failures"
    output.say(f"Its code has caught {calls} that a resume does not try again:")
    for failure in found[:CAUGHT_SHOWN]:
        error = f"{failure.error.type}: {failure.error.message}".partition("\n")[0]
        output.say(f"  {failure.call}: {error}")
    if len(found) > CAUGHT_SHOWN:
        output.say(f"  and {len(found) - CAUGHT_SHOWN} more: {line_for('show', [name])}")
    output.say(f"To try these again as well: {resume_line([name])} --retry-failed")


def _refused(output: Output, name: str, error: PerdureError, task: str | None = None) -> Told:
    """A run that is not driven (any further), beside other runs or for JSON."""
    tell(output, error)
    return Told(unfinished_data(name, task, _status_of(name), str(error)), exit_code(error))


def _status_of(name: str) -> str | None:
    try:
        row = looking.find(name)
        return str(derived_status(row))
    except PerdureError:
        return None


def operate_on_each(output: Output, names: Sequence[str], operation: Callable[[str], str]) -> int:
    """Carry out an operation on each run, print what came of it, and return the exit code.

    Args:
        operation: gets a run's name and returns a sentence for people.
    """
    code, data = 0, []
    for name in dict.fromkeys(names):
        try:
            output.note(operation(name))
            data.append({"name": name, "status": str(looking.status(name))})
        except PerdureError as error:
            tell(output, error)
            code = max(code, exit_code(error))
    if output.json:
        output.result_json(data)
    return code


def exit_code(error: PerdureError) -> int:
    """2 where the user's call was wrong, 1 for every other error."""
    return 2 if isinstance(error, UsageError) else 1


def tell(output: Output, error: PerdureError) -> None:
    """Print an error of perdure's as one message, with the traceback of a cause in the user's own code."""
    if isinstance(error, CodeNotLoadedError) and error.__cause__ is not None:
        output.say(of_exception(error.__cause__))
    output.say(f"Error: {error}")
    if output.verbose > 1:
        output.say(of_exception(error))


# -- interrupted -----------------------------------------------------------------------------------------------


def _interrupted(
    output: Output, wanted: Sequence[Wanted], handles: list[Handle], told: dict[str, Told], *, one: bool
) -> NoReturn:
    """Stop in order, say how to go on, and end the process: a thread that blocks in C code cannot delay the end."""
    operate.stop(handles, "interrupted")
    wait([handle.done for handle in handles if handle.done is not None], timeout=UNWIND_SECONDS)
    open_names = []
    for run in wanted:
        handle = next((handle for handle in handles if handle.name == run.name), None)
        ended = None
        if handle is not None and handle.done is not None and handle.done.done():
            try:
                ended = operate.outcome(handle)
            except PerdureError:
                ended = None
        if ended is not None:
            told[run.name] = Told(ended_data(ended), INTERRUPTED)
        elif run.name not in told:
            open_names.append(run.name)
            task = None if handle is None else handle.task
            data = unfinished_data(run.name, task, str(Status.INTERRUPTED), "interrupted")
            told[run.name] = Told(data, INTERRUPTED)
    retiring = threading.Thread(target=_retire, daemon=True)
    retiring.start()
    retiring.join(RETIRE_SECONDS)
    if output.json:
        found = [told[run.name].data for run in wanted]
        output.result_json(found[0] if one else found)
    _flush()
    output.say(_how_to_go_on(open_names).rstrip("\n") or "interrupted, just after the end")
    os._exit(INTERRUPTED)


def _retire() -> None:
    try:
        runtime.worker().retire()
    except PerdureError:
        pass  # the worker's lock dies with the process


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass


def _how_to_go_on(names: list[str]) -> str:
    if not names:
        return ""
    what = f"run {names[0]} is interrupted" if len(names) == 1 else f"{len(names)} runs are interrupted"
    return f"{what}; to continue: {resume_line(names)}\n"


def resume_line(names: Sequence[str]) -> str:
    """The command that continues the given runs."""
    return line_for("resume", names)


def line_for(command: str, names: Sequence[str]) -> str:
    """A command about the given runs, ready to be typed in this directory and environment."""
    line = f"perdure {command} {' '.join(map(shlex.quote, names))}"
    url = runtime.store_url()
    if url != (os.environ.get("PERDURE_STORE") or DEFAULT_STORE):
        line += f" --store {shlex.quote(runtime.store_name())}"
    return line
