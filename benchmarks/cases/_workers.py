"""Workers as processes of their own, for the cases that need some."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter, sleep

from perdure import runtime


@contextmanager
def workers(file: str, store: str, count: int, *options: str) -> Iterator[list[int]]:
    """So many `perdure serve` on that store, up when the block begins and gone when it ends; their pids."""
    command = [sys.executable, "-m", "perdure", "serve", file, "--store", store, "-q", *options]
    started = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(count)]
    pids = [process.pid for process in started]
    try:
        end = perf_counter() + 60
        while not set(pids) <= {row.pid for row in runtime.worker().store.workers()}:
            if perf_counter() > end or any(process.poll() is not None for process in started):
                raise SystemExit("a worker did not start")
            sleep(0.02)
        yield pids
    finally:
        for process in started:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGTERM)
        for process in started:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def resident(pid: int) -> int:
    """Bytes of memory that a process holds."""
    with open(f"/proc/{pid}/status") as status:
        for line in status:
            if line.startswith("VmRSS"):
                return int(line.split()[1]) * 1024
    raise SystemExit(f"process {pid} has no memory to measure")
