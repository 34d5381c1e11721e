"""What tasks print and log, kept beside the store: a file for each attempt of an action.

- TL1 a record is kept once: what a replay prints or logs again is not kept; code inside of a trace always executes.
- TL2 keeping a record never fails, delays or changes the task: a full disk costs records, and is told once.
- TL3 files are bounded: an attempt keeps its newest records (`ATTEMPT_BYTES`), all tasks of a store the files that were
  written last (`ALL_BYTES`).

A task that prints nothing pays nothing: `sys.stdout` and `sys.stderr` are wrapped once, and a wrapper looks at one
context variable for each write.

A logging handler that writes to `sys.stderr` writes what is kept as a record already, so such a write is
passed on alone. What bypasses `sys.stdout` (subprocesses, C code, `sys.stdout.buffer`) is not kept. Nothing is synced:
a power cut may cost the last records.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

import msgspec

from ..core.body.interfaces import BodyPort, OutputPort
from ..core.body.scope import SCOPE, TraceScope
from ..core.ground.private import make_private

log = logging.getLogger("perdure")

ATTEMPT_BYTES: Final = 4 << 20
"""Of the records of one attempt; then the older half goes."""
ALL_BYTES: Final = 1 << 30
"""Of the records of all tasks of a store; then those go that were written first."""
LOOK_BYTES: Final = 16 << 20
"""A process looks at the sum of all files after it has written so much."""
LONGEST: Final = 16 << 10
"""Characters of a line; a longer line is kept in pieces."""
HANDLER_FRAMES: Final = 30
"""So many calls above a write a handler is looked for."""
SUFFIX: Final = ".jsonl"
OLDER: Final = ".1"
"""Behind the name of a file: the older half."""


class TaskRecord(msgspec.Struct, omit_defaults=True):
    """A line that a task has printed, or a record that it has logged."""

    at: int
    """Wall time in microseconds."""
    text: str
    source: str
    """`stdout`, `stderr` or `log`."""
    level: str = ""
    """Of a logged record: the name of its level."""
    logger: str = ""
    """Of a logged record: the name of its logger."""
    trace: str = ""
    """The trace that was executing."""
    trace_id: str = ""
    """Of OpenTelemetry, where the run is traced; hexadecimal."""
    span_id: str = ""


def record_path(root: str, uid: bytes, action: int, attempt: int) -> str:
    """The file with the newer records of an attempt; the older half is beside it, with `OLDER` behind the name."""
    return os.path.join(root, uid.hex(), f"{action}.{attempt}{SUFFIX}")


# -- keeping ---------------------------------------------------------------------------------------------------

_root: Callable[[], str | None] | None = None
_encoder = msgspec.json.Encoder()
_written = 0
"""Bytes since the last look at the sum of all files; late by a moment."""
_complained = False
correlate: Callable[[], tuple[str, str]] | None = None
"""Gives the ids of the current trace and span of OpenTelemetry. Set by the integration."""


class _Within(threading.local):
    on = False
    """This thread is passing a write on, or keeping a record."""


_within = _Within()


class TaskOutput:
    """Takes the records of one body. Text without an end of line waits for the rest, or for the end of the body."""

    def __init__(self, body: BodyPort, root: str) -> None:
        self._body = body
        self._root = root
        self._lock = threading.Lock()
        self._partial: dict[str, str] = {}

    def take(self, source: str, text: str, trace: str) -> None:
        """Text from a stream."""
        with self._lock:
            lines = (self._partial.pop(source, "") + text).split("\n")
            rest = lines.pop()
            while len(rest) > LONGEST:
                lines.append(rest[:LONGEST])
                rest = rest[LONGEST:]
            if rest:
                self._partial[source] = rest
            if lines:
                at = self._body.driver.worker.clock.wall()
                ids = _ids()
                self._keep([TaskRecord(at, line, source, "", "", trace, *ids) for line in lines])

    def add(self, record: logging.LogRecord, trace: str) -> None:
        """A logged record."""
        at = self._body.driver.worker.clock.wall()
        with self._lock:
            self._keep([TaskRecord(at, _text(record), "log", record.levelname, record.name, trace, *_ids())])

    def end(self) -> None:
        """The body has ended: keep what has no end of line."""
        # A warning of `_keep` is no output of the body, whose context this is.
        before, _within.on = _within.on, True
        try:
            with self._lock:
                if self._partial:
                    at = self._body.driver.worker.clock.wall()
                    self._keep([TaskRecord(at, text, source) for source, text in self._partial.items()])
                    self._partial.clear()
        finally:
            _within.on = before

    def _keep(self, records: list[TaskRecord]) -> None:
        global _complained
        body = self._body
        path = record_path(self._root, body.driver.run.uid, body.action, body.attempt)
        try:
            _append(path, b"".join(_encoder.encode(record) + b"\n" for record in records))
        except (OSError, ValueError) as error:
            if not _complained:
                _complained = True
                log.warning("what tasks print cannot be kept in %s: %s", path, error)
        _count(self._root, sum(len(record.text) + 60 for record in records))


def _ids() -> tuple[str, str]:
    return ("", "") if correlate is None else correlate()


def _append(path: str, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        file = os.open(path, flags, 0o600)
    except FileNotFoundError:
        make_private(os.path.dirname(path))
        file = os.open(path, flags, 0o600)
    try:
        if os.fstat(file).st_size + len(data) > ATTEMPT_BYTES // 2:
            os.replace(path, path + OLDER)
            os.close(file)
            file = os.open(path, flags, 0o600)
        os.write(file, data)
    finally:
        os.close(file)


def _count(root: str, size: int) -> None:
    global _written
    _written += size
    if _written > LOOK_BYTES:
        _written = 0
        threading.Thread(target=bound, args=(root,), name="perdure-logs", daemon=True).start()


def bound(root: str, most: int = ALL_BYTES) -> int:
    """Remove records that were written first until at most `most` bytes are left. Returns the removed bytes."""
    found: list[tuple[float, int, str]] = []
    for folder in _names(root):
        for name in _names(os.path.join(root, folder)):
            if name.removesuffix(OLDER).endswith(SUFFIX):
                path = os.path.join(root, folder, name)
                try:
                    status = os.stat(path)
                except OSError:
                    continue
                found.append((status.st_mtime, status.st_size, path))
    total = kept = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if kept <= most:
            break
        try:
            os.remove(path)
        except OSError:
            continue
        kept -= size
    return total - kept


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _text(record: logging.LogRecord) -> str:
    try:
        text = record.getMessage()
    except Exception:
        # The handlers tell of arguments that do not fit.
        text = str(record.msg)
    if record.exc_info and record.exc_info[0] is not None:
        text += "\n" + logging.Formatter().formatException(record.exc_info)
    return text


def _output(scope: Any) -> tuple[OutputPort | None, str]:
    """What takes the records of a context, and the trace that executes there; `None` in a replay."""
    if scope.__class__ is TraceScope:
        body, trace = scope.body, scope.name
    else:
        body, trace = scope, ""
        if body.idle_replaying:
            return None, ""
    output: OutputPort | None = body.output
    if output is None:
        root = None if _root is None else _root()
        if root is None:
            return None, ""
        # Of two threads that come here at once, one output stays: its records go to the same file.
        output = body.output = TaskOutput(body, root)
    return output, trace


class _Tee:
    """Stands for `sys.stdout` or `sys.stderr`: passes all on, and keeps what tasks write."""

    def __init__(self, target: Any, source: str) -> None:
        self._target = target
        self._source = source

    def write(self, text: str) -> Any:
        scope = SCOPE.get()
        if scope is None or _within.on:
            return self._target.write(text)
        _within.on = True
        try:
            written = self._target.write(text)
            if not _of_handler(sys._getframe(1)):
                output, trace = _output(scope)
                if output is not None:
                    output.take(self._source, text, trace)
        finally:
            _within.on = False
        return written

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __iter__(self) -> Any:
        return iter(self._target)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)


_handles = logging.Handler.handle.__code__


def _of_handler(frame: FrameType | None) -> bool:
    """Whether a logging handler writes."""
    for _ in range(HANDLER_FRAMES):
        if frame is None:
            return False
        if frame.f_code is _handles:
            return True
        frame = frame.f_back
    return False


class _Factory:
    """Makes log records: with the run, action and attempt of the task that logs, and whether it replays."""

    def __init__(self, make: Callable[..., logging.LogRecord]) -> None:
        self._make = make

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record = self._make(*args, **kwargs)
        scope = SCOPE.get()
        if scope is None:
            record.perdure_run = record.perdure_action = record.perdure_attempt = None
            record.perdure_replaying = False
            return record
        in_trace = scope.__class__ is TraceScope
        body = scope.body if in_trace else scope
        record.perdure_run = body.driver.run.name
        record.perdure_action = body.action
        record.perdure_attempt = body.attempt
        record.perdure_replaying = replaying = not in_trace and body.idle_replaying
        if not (_within.on or replaying):
            _within.on = True
            try:
                output, trace = _output(scope)
                if output is not None:
                    output.add(record, trace)
            finally:
                _within.on = False
        return record


def attach(root: Callable[[], str | None]) -> None:
    """Keep from now on what tasks print and log in this process. May be called again, after something else has taken
    the place of `sys.stdout`.

    Args:
        root: gives the directory for the files of all runs; `None`: nothing is kept.
    """
    global _root
    _root = root
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, _Tee):
            setattr(sys, name, _Tee(stream, name))
    factory = logging.getLogRecordFactory()
    if not isinstance(factory, _Factory):
        logging.setLogRecordFactory(_Factory(factory))


# -- reading ---------------------------------------------------------------------------------------------------

_decoder = msgspec.json.Decoder(TaskRecord)


def records_of(data: bytes) -> list[TaskRecord]:
    """The records in whole lines. A line that a power cut has damaged is left out."""
    found = []
    for line in data.splitlines():
        try:
            found.append(_decoder.decode(line))
        except msgspec.DecodeError:
            continue
    return found
