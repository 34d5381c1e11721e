"""Figures of the store, and of a worker process, for Prometheus, in the text format: `/metrics`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

from .. import runtime
from ..api import looking, operate
from ..api.messages import conditions
from ..api.queues_known import queues
from ..api.scheduling import schedules
from ..core.ground.model import STORED_STATUSES
from ..core.process.serving import ServedRun, Server

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metric(NamedTuple):
    """Figures of one name, by the values of their labels."""

    name: str
    help: str
    labels: tuple[str, ...]
    values: Mapping[tuple[str, ...], float]
    type: str = "gauge"


Figures = Callable[[], list[Metric]]
"""Gives the figures of a process, as of now."""


class WorkerFigures:
    """The figures of a process that drives runs: hears what becomes of each run."""

    def __init__(self) -> None:
        self._ended: Counter[tuple[str, ...]] = Counter()

    def count(self, outcome: ServedRun) -> None:
        """A run has left the process."""
        self._ended[outcome.task, str(outcome.status)] += 1

    def of(self, server: Server) -> Figures:
        """The figures of the process of a server."""

        def figures() -> list[Metric]:
            writer = server.worker.writer
            return [
                Metric("perdure_worker_runs", "Runs in the memory of this worker.", (), {(): server.driven}),
                Metric("perdure_worker_places", "Runs that this worker holds at most.", (), {(): server.concurrency}),
                Metric(
                    "perdure_worker_left_total", "Runs that have left this worker, by the status that they left with.",
                    ("task", "status"), dict(self._ended), "counter",
                ),
                Metric(
                    "perdure_worker_commit_seconds", "The duration of the commits of this worker, smoothed.", (),
                    {(): writer.commit_ns / 1e9},
                ),
            ]  # fmt: skip

        return figures


def exposition(figures: Figures | None = None) -> str:
    """All figures of the store, and those of this process, as of now."""
    lines: list[str] = []
    found = _of_store() if looking.store_exists() else []
    for metric in found + (figures() if figures is not None else []):
        lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.type}"]
        for values, number in metric.values.items():
            pairs = ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(metric.labels, values, strict=True))
            lines.append(f"{metric.name}{f'{{{pairs}}}' if pairs else ''} {number}")
    return "".join(f"{line}\n" for line in lines)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _by(values: Mapping[str, float]) -> dict[tuple[str, ...], float]:
    return {(value,): number for value, number in values.items()}


def _of_store() -> list[Metric]:
    worker = runtime.worker()
    counts = worker.store.counts()
    workers = worker.store.workers()
    alive = sum(map(worker.lives, workers))
    listed = schedules(ahead=1)
    waits = [one for one in conditions() if one.waits]
    path = looking.store_path()
    lost = len(operate.interrupted())
    known = queues()
    found = [
        Metric(
            "perdure_runs", "Runs by stored status.", ("status",),
            _by({str(status): counts.get(status, 0) for status in STORED_STATUSES}),
        ),
        Metric("perdure_runs_interrupted", "RUNNING runs that no process drives.", (), {(): lost}),
        Metric("perdure_workers", "Workers that the store knows.", ("state",), _by({
            "alive": alive, "gone": len(workers) - alive,
        })),
        Metric("perdure_schedules", "Schedules by state.", ("state",), _by({
            "paused": sum(one.paused is not None for one in listed),
            "overdue": sum(one.overdue is not None for one in listed),
            "active": sum(one.paused is None and one.overdue is None for one in listed),
        })),
        Metric("perdure_waits", "Calls that wait for a message.", ("kind",), _by({
            "condition": sum(one.kind == "condition" for one in waits),
            "mailbox": sum(one.kind == "mailbox" for one in waits),
        })),
        Metric(
            "perdure_queue_running", "Runs that hold a slot of a queue.", ("queue",),
            _by({one.name: one.running for one in known}),
        ),
        Metric(
            "perdure_queue_waiting", "Runs that wait for a slot of a queue, or for their time.", ("queue",),
            _by({one.name: one.waiting for one in known}),
        ),
    ]  # fmt: skip
    if path is not None:
        size = {"database": os.path.getsize(path)}
        if os.path.exists(f"{path}-wal"):
            size["log"] = os.path.getsize(f"{path}-wal")
        found.append(Metric("perdure_store_bytes", "Size of the files of an SQLite store.", ("part",), _by(size)))
    return found
