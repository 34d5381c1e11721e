"""`perdure logs`: what a run's containers have written, as it is on disk, and as it comes."""

from __future__ import annotations

import os
import sys
import time

from ..api import looking
from ..core.ground.model import Status
from .output import Output

PAUSE = 0.2
"""Seconds between two looks while following."""
_UNDER_WAY = (Status.QUEUED, Status.RUNNING, Status.SLEEPING)


def print_logs(output: Output, run: str, action: str | None, *, follow: bool) -> None:
    """Print the logs of a run's containers to stdout; with several, a line on stderr says whose follow."""
    positions: dict[str, int] = {}
    last = ""
    while True:
        # Asked first: what is written before the end is then read in this very round.
        over = not follow or looking.status(run) not in _UNDER_WAY
        files = looking.log_files(run, None if follow and not positions and not over else action)
        for log in files:
            begin = positions.get(log.path, 0)
            data = _read(log.path, begin)
            if not data:
                continue
            if last != log.path and (len(files) > 1 or log.attempt > 1):
                output.note(f"== {log.name}, action {log.action}, attempt {log.attempt}")
            last = log.path
            positions[log.path] = begin + len(data)
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        if over:
            break
        time.sleep(PAUSE)
    if not positions:
        output.note(f"the containers of run {run} have written nothing" if files else f"run {run} has no containers")


def _read(path: str, begin: int) -> bytes:
    try:
        with open(path, "rb") as stream:
            stream.seek(begin, os.SEEK_SET)
            return stream.read()
    except FileNotFoundError:
        return b""
