"""`perdure logs`: the output of a run's containers, from disk and live."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

from ..api import looking
from ..core.ground.harmless import harmless_log
from ..core.ground.model import Status
from .output import Output

PAUSE = 0.2
"""Seconds between two looks while following."""
_UNDER_WAY = (Status.QUEUED, Status.RUNNING, Status.SLEEPING, Status.WAITING)
_PIECE = 1 << 20


def print_logs(output: Output, run: str, action: str | None, *, follow: bool) -> None:
    """Print the logs of a run's containers to stdout; with several, a line on stderr names the next container."""
    positions: dict[str, int] = {}
    last = ""
    while True:
        # The status is asked for first: lines from before the end are then read in this round.
        over = not follow or looking.status(run) not in _UNDER_WAY
        files = looking.log_files(run, None if follow and not positions and not over else action)
        for log in files:
            for data in _pieces(log.path, positions.get(log.path, 0)):
                if last != log.path and (len(files) > 1 or log.attempt > 1):
                    output.note(f"== {log.name}, action {log.action}, attempt {log.attempt}")
                last = log.path
                positions[log.path] = positions.get(log.path, 0) + len(data)
                sys.stdout.buffer.write(harmless_log(data) if sys.stdout.isatty() else data)
                sys.stdout.buffer.flush()
        if over:
            break
        time.sleep(PAUSE)
    if not positions:
        output.note(f"the containers of run {run} have written nothing" if files else f"run {run} has no containers")


def _pieces(path: str, begin: int) -> Iterator[bytes]:
    """The file from a position on, in pieces, as a log may be larger than the memory."""
    try:
        with open(path, "rb") as stream:
            stream.seek(begin)
            while data := stream.read(_PIECE):
                yield data
    except FileNotFoundError:
        return
