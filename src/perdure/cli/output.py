"""Streams and layout: the result to stdout, all else to stderr; text for people, JSON for machines."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TextIO
from uuid import UUID

from ..api.jsonable import is_reference, jsonable, local_path
from ..core.ground.harmless import harmless
from ..errors import PerdureError, UsageError

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table
    from rich.text import Text

    from ..api.looking import ActionNode, RunInfo, Tree
    from ..api.operate import RunEnd
    from ..core.ground.model import Entry
    from ..upkeep.collecting import Removed

WIDE = 100_000
"""Columns of a table outside a terminal: nothing is cut."""


# -- streams ---------------------------------------------------------------------------------------------------


class OutputFailedError(Exception):
    """Stdout cannot be written. The cause is the error of the system call. Not an `OSError`, so that no handler of such
    errors takes the failure for the failure of another file."""


class _Stdout(io.FileIO):
    """A file whose own failures differ from the failures of other files, pipes and sockets of the process."""

    def write(self, data: Any) -> int | None:  # type: ignore[override]
        try:
            return super().write(data)
        except OSError as error:
            raise OutputFailedError from error


def _stream(descriptor: int, encoding: str, errors: str | None) -> TextIO:
    file = _Stdout(descriptor, "w")
    return io.TextIOWrapper(io.BufferedWriter(file), encoding, errors, line_buffering=file.isatty())


class Output:
    """The two streams of a command, and its verbosity."""

    def __init__(self) -> None:
        self.json = False
        self.quiet = False
        self.verbose = 0
        self._out: TextIO | None = None

    def claim_stdout(self) -> None:
        """From now on a failure to write `sys.stdout` is an `OutputFailedError`. Before any code of the user's."""
        now = sys.__stdout__
        if now is not None and now is sys.stdout:
            with contextlib.suppress(OSError):  # closed
                sys.stdout = _stream(os.dup(1), now.encoding, now.errors)

    def keep_stdout(self) -> None:
        """From now on stdout of code and subprocesses goes to stderr; only results go to the real stdout.

        Otherwise a task's `print` would stand in the middle of the JSON.
        """
        if self._out is not None:
            return
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        try:
            sys.stdout.flush()
            kept = os.dup(1)
            os.dup2(2, 1)
        except (OSError, AttributeError):  # closed: there is no reader for the result
            self._out = open(os.devnull, "w", encoding=encoding)  # noqa: SIM115 - lives as long as the process
            return
        self._out = _stream(kept, encoding, "backslashreplace")
        # What user code prints goes to stderr; its failures are the failures of user code.
        sys.stdout = sys.__stdout__
        with contextlib.suppress(AttributeError):
            sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]

    @property
    def out(self) -> TextIO:
        """Where results go."""
        return self._out if self._out is not None else sys.stdout

    def result(self, text: str) -> None:
        """Write to stdout, now. A terminal gets the text without control characters, a file or pipe gets all of it."""
        if self.out.isatty():
            text = harmless(text)
        self._write(text)

    def _write(self, text: str) -> None:
        self.out.write(text if text.endswith("\n") else f"{text}\n")
        self.out.flush()

    def result_json(self, data: Any) -> None:
        """Write JSON data to stdout: one line for programs, several for a person who looks."""
        # Indenting takes Python's slow encoder.
        self.result(json.dumps(data, indent=2 if self.out.isatty() else None))

    def say(self, text: str) -> None:
        """One message to stderr."""
        if sys.stderr is not None:
            with contextlib.suppress(OSError, ValueError):  # stderr is closed; the exit code still tells
                print(harmless(text), file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """A message that `--quiet` leaves out."""
        if not self.quiet:
            self.say(text)

    def draw(self, *parts: RenderableType) -> None:
        """Tables to stdout; cut to the width of a terminal, never elsewhere."""
        from rich.console import Console

        width = None if self.out.isatty() else WIDE
        console = Console(file=self.out, width=width, highlight=False, markup=False, emoji=False)
        with console.capture() as capture:
            console.print(*parts, sep="\n")
        self._write("\n".join(line.rstrip() for line in capture.get().splitlines()))

    def draw_lines(self, head: RenderableType, lines: Callable[[int | None], Iterable[Text]]) -> None:
        """A heading and lines to stdout. `lines` gets the width of a terminal, and `None` elsewhere."""
        from rich.console import Console

        console = Console(
            file=self.out, width=None if self.out.isatty() else WIDE, highlight=False, markup=False, emoji=False
        )
        with console.capture() as capture:
            console.print(head)
        self._write("\n".join(line.rstrip() for line in capture.get().splitlines()))
        if not self.out.isatty():
            self._write("\n".join(line.plain for line in lines(None)))
            return
        for line in lines(console.width):
            console.print(line)


# -- values ----------------------------------------------------------------------------------------------------


def readable(value: Any) -> str:
    """A result for people: text unchanged, a file by its path, times and paths as users type them, other values as
    Python writes them, long structures over several lines."""
    if isinstance(value, str):
        return value
    if is_reference(value):
        return value.url or local_path(value) or repr(value)
    plain = plain_repr(value)
    if plain != repr(value):
        return plain
    import pprint

    return pprint.pformat(value, width=100, sort_dicts=False)


def plain_repr(value: Any) -> str:
    """A value for help and tables: as `repr`, but as a user types paths, times, enums and files."""
    if isinstance(value, (PurePath, UUID, Decimal)) or is_reference(value):
        return str(value.url or value.name) if is_reference(value) else str(value)
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.name
    return str(value) if isinstance(value, timedelta) else repr(value)


# -- times -----------------------------------------------------------------------------------------------------


def iso(us: int | None) -> str | None:
    """Microseconds since the epoch as ISO 8601 in UTC."""
    return None if us is None else _moment(us).isoformat(timespec="microseconds")


def _moment(us: int) -> datetime:
    return datetime.fromtimestamp(us // 1_000_000, UTC).replace(microsecond=us % 1_000_000)


def local(us: int | None) -> str:
    """A time for people, in the local zone."""
    return "" if us is None else _moment(us).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def local_time(us: int) -> str:
    """The time of day."""
    return _moment(us).astimezone().strftime("%H:%M:%S")


def span(us: int | None) -> str:
    """A duration for people."""
    if us is None:
        return ""
    if us < 1_000:
        return f"{us} µs"
    if us < 1_000_000:
        return f"{us / 1_000:.3g} ms"
    seconds = us / 1_000_000
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} m {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} m" if hours < 24 else f"{hours // 24} d {hours % 24:02} h"


# -- results of runs -------------------------------------------------------------------------------------------


def ended_data(ended: RunEnd) -> dict[str, Any]:
    """The end of a run, as `--json` prints it."""
    error = ended.error
    return {
        "name": ended.name,
        "task": ended.task,
        "status": str(ended.status),
        "result": jsonable(ended.result),
        "error": None if error is None else error._asdict(),
        "replayed": ended.replayed,
        "executed": ended.executed,
    }


def unfinished_data(name: str, task: str | None, status: str | None, message: str) -> dict[str, Any]:
    """A run that was not driven to its end, in the same shape."""
    error = {"type": None, "message": message, "traceback": ""}
    return {"name": name, "task": task, "status": status, "result": None, "error": error, "replayed": 0, "executed": 0}


def cell(text: str, style: str = "") -> Text:
    """Text from outside for a table, in one line."""
    from rich.text import Text

    return Text(harmless(text).replace("\n", " "), style)


# -- lists -----------------------------------------------------------------------------------------------------

STYLES = {
    "SUCCEEDED": "green", "FAILED": "red", "RUNNING": "cyan", "SLEEPING": "blue", "WAITING": "blue",
    "INTERRUPTED": "yellow", "PAUSED": "yellow", "ABORTED": "magenta", "MOVED": "dim", "CANCELLED": "dim",
    "UNFINISHED": "dim", "NOT_FIRED": "dim",
}  # fmt: skip


def run_data(run: RunInfo) -> dict[str, Any]:
    """A run as `--json` prints it."""
    holder = run.holder
    return {
        "name": run.name,
        "task": run.task,
        "status": str(run.status),
        "created_at": iso(run.created_at),
        "started_at": iso(run.started_at),
        "ended_at": iso(run.ended_at),
        "recovers": run.reuse,
        "tags": run.tags,
        "wakes_at": iso(run.wake_at),
        "why": run.why,
        "refusal": refusal_data(run),
        "driven_by": None if holder is None else {"pid": holder.pid, "host": holder.host},
    }


def refusal_data(run: RunInfo) -> dict[str, Any] | None:
    """Why a process could not drive the run, as `--json` prints it."""
    found = run.refusal
    if found is None:
        return None
    return {
        "type": found.error,
        "message": found.message,
        "place": found.place,
        "worker": found.worker,
        "tries": found.tries,
        "at": iso(found.at),
        "again": iso(found.again),
        "ways_out": list(run.ways_out),
    }


class RunsTable:
    """Runs as a table. The last column says why a run does not move, or how the run failed.

    A narrow terminal shortens inputs and reasons first, then leaves these columns out, and shortens names last.
    """

    LEAST = 16
    """Characters of a reason below which the column says too little to be shown."""

    def __init__(self, runs: Iterable[RunInfo]) -> None:
        from ..core.ground.values._preview import preview_inputs

        self._rows: list[tuple[Text, ...]] = []
        for run in runs:
            took = run.ended_at - run.started_at if run.ended_at is not None and run.started_at is not None else None
            self._rows.append((
                cell(run.name), cell(run.task), cell(str(run.status), STYLES.get(run.status, "")),
                cell(local(run.created_at)), cell(span(took)), cell(preview_inputs(run.inputs, 120)),
                cell("" if run.status == "SUCCEEDED" else run.why),
            ))  # fmt: skip

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        headings = ("NAME", "TASK", "STATUS", "CREATED", "TOOK", "INPUTS", "STATE")
        columns = zip(headings, *self._rows, strict=True)
        widths = [max(len(column[0]), *(text.cell_len for text in column[1:]), 0) for column in columns]
        room = options.max_width - sum(width + 2 for width in widths[:5])
        shown = widths[:5]
        inputs = min(widths[5], max(room // 3, room - widths[6] - 2))
        reasons = min(widths[6], room - inputs - 2)
        if reasons >= min(self.LEAST, widths[6]):
            shown += [inputs, reasons]
        elif room >= len("INPUTS"):
            shown.append(min(widths[5], room))
        for place, (heading, width) in enumerate(zip(headings, shown, strict=False)):
            may_shrink = place < 2 and room < 0
            table.add_column(heading, no_wrap=True, overflow="ellipsis", **{} if may_shrink else {"width": width})
        for row in self._rows:
            table.add_row(*row[: len(shown)])
        yield table


# -- trees -----------------------------------------------------------------------------------------------------


def tree_data(tree: Tree) -> dict[str, Any]:
    """A run and its actions, nested, as `--json` prints them."""
    by_position: dict[int, dict[str, Any]] = {}
    for position, node in tree.nodes.items():
        data = by_position[position] = _node_data(node)
        if node.parent >= 0:
            by_position[node.parent]["actions"].append(data)
    return {**run_data(tree.run), **by_position[0], "total": tree.total, "left_out": tree.total - len(tree.nodes)}


def failures_data(node: ActionNode) -> list[dict[str, Any]]:
    """The failed attempts that were tried again: when, and the error."""
    from ..api.looking import error_of

    told = [(iso(one.at), error_of(one)) for one in node.failures]
    return [{"at": at, "type": error.type, "message": error.message} for at, error in told if error is not None]


def _node_data(node: ActionNode) -> dict[str, Any]:
    from ..api.looking import error_of

    error = error_of(node)
    data: dict[str, Any] = {
        "action": node.action,
        "entry": node.entry,
        "kind": node.kind,
        "name": node.name,
        "status": node.status,
        "group": node.label,
        "attempts": node.attempts,
        "start": iso(node.at),
        "duration": None if node.took is None else node.took / 1_000_000,
        "until": iso(node.until),
        "inputs": _decoded(node.inputs),
        "outcome": _decoded(node.value),
        "error": None if error is None else error._asdict(),
        "failures": failures_data(node),
        "items": node.items,
        "discarded": node.discarded,
        "earlier": node.earlier,
        "reused": node.reused,
        "actions": [],
    }
    if node.parent < 0:
        # The root's name is the run's; the task stands in `task`.
        del data["name"], data["status"]
    return data


def entry_data(entry: Entry) -> dict[str, Any]:
    """An entry of a journal, as `store dump` prints it. For a row about other entries `of` is the entry's number."""
    from ..core.ground.model import Kind, Result
    from ..core.ground.values import describe_error
    from ..core.journal.replay import EventKind, decode_notes

    result = Result(entry.result)
    about = result in (Result.LOOSEN, Result.FAILED, Result.DISCARD, Result.REUSE)
    error: dict[str, Any] | None = None
    if result is Result.ERROR and entry.value is not None:
        try:
            kind, message, _ = describe_error(entry.value)
            error = {"type": kind, "message": message}
        except UsageError:
            error = {"type": None, "message": _decoded(entry.value)}
    return {
        "entry": entry.n,
        "action": entry.action,
        "result": result.name,
        "of": entry.seq if about else None,
        "kind": Kind(entry.kind).name.lower() if entry.kind else None,
        "name": entry.name or None,
        "group": entry.label,
        "branch": entry.branch,
        "position": None if about else entry.seq,
        "occurrence": entry.occ,
        "item": entry.item,
        "fingerprint": entry.fp.hex(),
        "source": entry.source,
        "child": entry.child,
        "after": entry.after,
        "begun": entry.begun,
        "events": [
            {
                "after": event.after,
                "kind": EventKind(event.kind).name.lower(),
                "branch": event.branch,
                "number": event.number,
            }
            for event in decode_notes(entry.notes or b"")
        ],
        "start": iso(entry.at) if entry.at else None,
        "duration": entry.took / 1_000_000,
        "inputs": _decoded(entry.inputs),
        "outcome": None if result is Result.ERROR else _decoded(entry.value),
        "error": error,
    }


def _decoded(data: bytes | None) -> Any:
    if data is None:
        return None
    from ..core.ground.values import ANY, preview

    try:
        return jsonable(ANY.decode(data))
    except (PerdureError, RecursionError):
        return preview(data)


_TREE_COLUMNS = (
    ("ACTION", False, False), ("KIND", False, False), ("STATUS", False, False), ("ATTEMPTS", True, False),
    ("ENTRY", True, False), ("START", False, False), ("TOOK", False, False), ("INPUTS", False, True),
    ("OUTCOME", False, True),
)  # fmt: skip


def print_tree(output: Output, tree: Tree, *, flat: bool = False) -> None:
    """A run and its actions as an indented table. `flat`: the nodes are a list and no tree."""
    from .columns import Column, ColumnRow, laid_out

    rows = []
    before = -1
    for position, node in tree.nodes.items():
        if position != before + 1 and before < position:
            more = f"… {position - before - 1:,} more"
            rows.append(ColumnRow([more, *[""] * (len(_TREE_COLUMNS) - 1)], {}, "dim"))
        before = position
        name = f"{'' if flat else '  ' * min(node.depth, 20)}{node.name}" + (f" [{node.label}]" if node.label else "")
        marks = {"discarded": node.discarded, "earlier attempt": node.earlier, "reused": node.reused}
        status = ", ".join([node.status, *(mark for mark, holds in marks.items() if holds)])
        texts = (
            name, node.kind, status, "" if node.attempts is None else str(node.attempts),
            "" if node.entry is None else str(node.entry), local(node.at), span(node.took), _inputs_text(node),
            outcome_text(node),
        )  # fmt: skip
        faint = node.discarded or node.earlier or node.status == "UNFINISHED"
        styles = {2: STYLES[node.status]} if node.status in STYLES else {}
        rows.append(ColumnRow([_one_line(text) for text in texts], styles, "dim" if faint else ""))
    columns = [Column(*column) for column in _TREE_COLUMNS]
    output.draw_lines(run_head(tree.run), lambda width: laid_out(columns, rows, width))


def action_data(node: ActionNode) -> dict[str, Any]:
    """An action in full, as `show --action --json` prints it."""
    from ..core.ground.values import describe_error

    data = {**_node_data(node), "name": node.name, "status": node.status}
    del data["actions"]
    if node.error is not None and data["error"] is not None:
        try:
            data["error"]["traceback"] = describe_error(node.error)[2]
        except UsageError:
            data["error"]["traceback"] = ""
    return data


def print_action(output: Output, node: ActionNode) -> None:
    """An action in full: whole inputs and outcome, or the error with the traceback of the user's code."""
    from .failures import users_frames

    data = action_data(node)
    lines = [f"{node.name}  {node.kind}  {node.status}"]
    if node.at is not None:
        lines.append(f"began {local(node.at)}" + (f", took {span(node.took)}" if node.took is not None else ""))
    if node.attempts is not None:
        lines.append(f"attempts: {node.attempts}" if node.attempts else "from the cache")
    for one, failure in zip(node.failures, data["failures"], strict=True):
        lines.append(f"an attempt failed {local(one.at)}: {failure['type']}: {failure['message']}")
    output.result("\n".join(lines))
    if node.inputs is not None:
        output.result(f"inputs:\n{json.dumps(data['inputs'], indent=2, ensure_ascii=False)}")
    error = data["error"]
    if error is not None:
        output.result(f"error: {error['type']}: {error['message']}\n{users_frames(error['traceback'])}".rstrip())
    if node.value is not None:
        output.result(f"outcome:\n{json.dumps(data['outcome'], indent=2, ensure_ascii=False)}")


def _one_line(text: str) -> str:
    return harmless(text).replace("\n", " ")


def run_head(run: RunInfo) -> Text:
    """The heading of a run: name, task, status, times, and why the run does not move."""
    from rich.text import Text

    head = Text.assemble(
        (run.name, "bold"), "  ", harmless(run.task), "  ", (str(run.status), STYLES.get(run.status, ""))
    )
    head.append(f"\ncreated {local(run.created_at)}" + (f", ended {local(run.ended_at)}" if run.ended_at else ""))
    if run.reuse is not None:
        head.append(f"\nrecovers {run.reuse}")
    if run.status != "SUCCEEDED":
        head.append(f"\n{_one_line(run.why)}")
    if run.refusal is not None:
        place = f"\nat {run.refusal.place}" if run.refusal.place else ""
        head.append(harmless(f"\n{run.refusal.error}: {run.refusal.message}{place}").replace("\n", "\n  "), "yellow")
        for way in run.ways_out:
            if way.partition(": ")[2] not in run.refusal.message:
                head.append(harmless(f"\n{way}"))
    return head


def _inputs_text(node: ActionNode) -> str:
    from ..core.ground.values._preview import preview_inputs

    return "" if node.inputs is None else preview_inputs(node.inputs, 100)


def outcome_text(node: ActionNode) -> str:
    """The outcome of an action in short: a value, an error, a number of items, or a time."""
    from ..api.looking import error_of
    from ..core.ground.values import preview

    error = error_of(node)
    if error is not None:
        kind, message = error.type.rpartition(".")[2], error.message.partition("\n")[0]
        return f"{kind}: {message}"[:200] if message else kind
    if node.items is not None:
        return f"{node.items} item{'s' * (node.items != 1)}"
    if node.until is not None:
        return f"until {local(node.until)}"
    if node.kind == "time" and node.value is not None:
        return preview(node.value, 40)
    return "" if node.value is None else preview(node.value, 100)


# -- removal ---------------------------------------------------------------------------------------------------


def removed_data(removed: Removed) -> dict[str, Any]:
    """As JSON data."""
    return {
        "runs": [{"name": run.name, "status": str(run.status), "ended_at": iso(run.ended_at)} for run in removed.runs],
        "cached": removed.cached,
        "sources": removed.sources,
        "logs": removed.logs,
        "blobs": removed.blobs,
        "bytes": removed.size,
    }


def print_removed(output: Output, removed: Removed, *, dry_run: bool) -> None:
    """A line for each removable or (with `--verbose`) removed run, and one for all."""
    if dry_run or output.verbose:
        for run in removed.runs:
            output.result(f"{run.name}  {run.status}  ended {local(run.ended_at)}")
    counts = (
        (len(removed.runs), "run"), (removed.cached, "cached outcome"), (removed.sources or 0, "snapshot of code"),
        (removed.logs, "directory of logs"), (removed.blobs, "stored file"),
    )  # fmt: skip
    parts = [counted(count, what) for count, what in counts if count]
    if removed.blobs:
        parts[-1] += f" ({removed.size:,} bytes)"
    done = "would be removed" if dry_run else "removed"
    output.result(f"{done}: {', '.join(parts)}" if parts else "nothing to remove")


def counted(count: int, what: str) -> str:
    """A number of things: `3 runs`, `1 directory of logs`."""
    first, space, rest = what.partition(" of ")
    plural = first if count == 1 else f"{first[:-1]}ies" if first.endswith("y") else f"{first}s"
    return f"{count:,} {plural}{space}{rest}"
