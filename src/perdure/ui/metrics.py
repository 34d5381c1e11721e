"""Figures of the store for Prometheus, in the text format: `/metrics`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from .. import runtime
from ..api import looking, operate
from ..api.messages import conditions
from ..api.scheduling import schedules
from ..core.ground.model import STORED_STATUSES

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metric(NamedTuple):
    """A gauge with its values by label."""

    name: str
    help: str
    label: str
    values: Mapping[str, int]


def exposition() -> str:
    """All figures, as of now."""
    lines: list[str] = []
    for metric in _metrics() if looking.store_exists() else ():
        lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} gauge"]
        for value, number in metric.values.items():
            label = f'{{{metric.label}="{value}"}}' if metric.label else ""
            lines.append(f"{metric.name}{label} {number}")
    return "".join(f"{line}\n" for line in lines)


def _metrics() -> list[Metric]:
    worker = runtime.worker()
    counts = worker.store.counts()
    workers = worker.store.workers()
    alive = sum(map(worker.lives, workers))
    listed = schedules(ahead=1)
    waits = [one for one in conditions() if one.waits]
    path = looking.store_path()
    lost = len(operate.interrupted())
    found = [
        Metric("perdure_runs", "Runs by stored status.", "status", {str(s): counts.get(s, 0) for s in STORED_STATUSES}),
        Metric("perdure_runs_interrupted", "RUNNING runs that no process drives.", "", {"": lost}),
        Metric("perdure_workers", "Workers that the store knows.", "state", {
            "alive": alive, "gone": len(workers) - alive,
        }),
        Metric("perdure_schedules", "Schedules by state.", "state", {
            "paused": sum(one.paused is not None for one in listed),
            "overdue": sum(one.overdue is not None for one in listed),
            "active": sum(one.paused is None and one.overdue is None for one in listed),
        }),
        Metric("perdure_waits", "Calls that wait for a message.", "kind", {
            "condition": sum(one.kind == "condition" for one in waits),
            "mailbox": sum(one.kind == "mailbox" for one in waits),
        }),
    ]  # fmt: skip
    if path is not None:
        size = {"database": os.path.getsize(path)}
        if os.path.exists(f"{path}-wal"):
            size["log"] = os.path.getsize(f"{path}-wal")
        found.append(Metric("perdure_store_bytes", "Size of the files of an SQLite store.", "part", size))
    return found
