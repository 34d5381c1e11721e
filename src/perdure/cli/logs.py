"""`perdure logs`: the output of a run's tasks and containers, from disk and live."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator

from ..api import looking
from ..api.looking import LogFile
from ..core.ground.harmless import harmless_log
from ..core.ground.model import Status
from ..runtime.task_logs import OLDER, TaskRecord, records_of
from .output import Output, iso, local_time

PAUSE = 0.2
"""Seconds between two looks while following."""
_UNDER_WAY = (Status.QUEUED, Status.RUNNING, Status.SLEEPING, Status.WAITING)
_PIECE = 1 << 20


def print_logs(output: Output, run: str, action: str | None, *, follow: bool) -> None:
    """Print the logs of a run's tasks and containers to stdout; with several, a line on stderr names the next one. With
    `--json` a line for each record."""
    positions: dict[str, int] = {}
    last = ""
    while True:
        # The status is asked for first: lines from before the end are then read in this round.
        over = not follow or looking.status(run) not in _UNDER_WAY
        files = looking.log_files(run, None if follow and not positions and not over else action)
        if action is not None:
            files = [log for log in files if action in (str(log.action), log.name, log.name.rpartition(".")[2])]
        for log in files:
            for data in _news(log, positions):
                if last != log.path and (len(files) > 1 or log.attempt > 1) and not output.json:
                    output.note(f"== {log.name}, action {log.action}, attempt {log.attempt}")
                last = log.path
                if output.json:
                    for record in _as_records(log, data):
                        output.result_json(_record_data(run, log, record))
                    continue
                text = _as_text(data) if log.records else data
                sys.stdout.buffer.write(harmless_log(text) if sys.stdout.isatty() else text)
                sys.stdout.buffer.flush()
        if over:
            break
        time.sleep(PAUSE)
    if not positions:
        output.note(f"run {run} has written nothing")


def record_line(record: TaskRecord) -> str:
    """A record for people: what was printed as it was, what was logged with its time, level and logger."""
    if record.source != "log":
        return record.text
    return f"{local_time(record.at)} {record.level} {record.logger}: {record.text}"


def _as_text(data: bytes) -> bytes:
    lines = (f"{record_line(record)}\n" for record in records_of(data))
    return "".join(lines).encode("utf-8", "backslashreplace")


def _as_records(log: LogFile, data: bytes) -> list[TaskRecord]:
    if log.records:
        return records_of(data)
    return [TaskRecord(0, line.decode("utf-8", "replace"), "container") for line in data.splitlines()]


def _record_data(run: str, log: LogFile, record: TaskRecord) -> dict[str, object]:
    return {
        "run": run,
        "action": log.action,
        "task": log.name,
        "attempt": log.attempt,
        "trace": record.trace or None,
        "at": iso(record.at or None),
        "source": record.source,
        "level": record.level or None,
        "logger": record.logger or None,
        "text": record.text,
        "trace_id": record.trace_id or None,
        "span_id": record.span_id or None,
        # What a replay prints again is not kept.
        "replaying": False,
    }


def _news(log: LogFile, positions: dict[str, int]) -> Iterator[bytes]:
    """What has been added to a log since the last look, in pieces of whole lines; of a container, in any pieces."""
    begin = positions.get(log.path, 0)
    if log.records:
        older = log.path + OLDER
        if log.path not in positions:
            yield from (data for data, _ in _pieces(older, 0, whole=True))
        elif _size(log.path) < begin:
            # The file that was read has become the older half meanwhile.
            yield from (data for data, _ in _pieces(older, begin, whole=True))
            begin = 0
    for data, end in _pieces(log.path, begin, whole=log.records):
        positions[log.path] = end
        yield data


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except FileNotFoundError:
        return 0


def _pieces(path: str, begin: int, *, whole: bool) -> Iterator[tuple[bytes, int]]:
    """The file from a position on, in pieces, as a log may be larger than the memory; each with its end.

    Args:
        whole: only whole lines.
    """
    try:
        with open(path, "rb") as stream:
            stream.seek(begin)
            while data := stream.read(_PIECE):
                if whole:
                    data = data[: data.rfind(b"\n") + 1]
                    if not data:
                        return
                begin += len(data)
                stream.seek(begin)
                yield data, begin
    except FileNotFoundError:
        return
