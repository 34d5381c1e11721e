"""A rehearsal of the live runs of a store, in several processes. Only reads the store."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from .. import runtime
from ..api.status import derived_status
from ..core.ground.model import FINISHED, RunRow, Status
from ..core.ground.spec import TaskSpec, parsed
from ..errors import StoreError, UsageError
from ..runtime.settings import process_count
from .exporting import recorded_run
from .rehearsing import Fate, Recorded, Rehearsal, Rehearsed

LIVE = (Status.SLEEPING, Status.WAITING, Status.RUNNING, Status.INTERRUPTED)
"""The runs that go on under the code of a deployment."""
PAGE = 500
"""Runs that are read from the store in one go."""
FEW = 300
"""So many runs are rehearsed in one process: a process takes about as long to begin."""


def rehearsed(
    sources: Collection[str],
    tasks: Mapping[str, Any],
    *,
    task: str | None = None,
    statuses: Collection[Status] = LIVE,
) -> Iterator[Rehearsed]:
    """What would become of the live runs of these tasks under today's code.

    Args:
        sources: the files and modules of the tasks, for further processes.
        tasks: the tasks, by their full names.
        task: runs of this task alone.
        statuses: runs of these statuses alone.

    Raises:
        UsageError: there is no such task.
        StoreError: the store cannot be read.
    """
    if task is not None and task not in tasks:
        raise UsageError(f"{', '.join(sources)}: no task {task!r}; the tasks there are: {', '.join(sorted(tasks))}")
    wanted = {name for known, one in tasks.items() if task in (None, known) for name in one.spec.names}
    rows = _rows(wanted, statuses)
    width = process_count()
    if len(rows) <= FEW or width == 1 or runtime.store_url() == "memory://":
        yield from rehearse_rows(rows, tasks)
        return
    yield from _in_processes(sources, rows, width)


def _rows(tasks: Collection[str], statuses: Collection[Status]) -> list[RunRow]:
    store = runtime.worker().store
    stored = {Status.RUNNING if status is Status.INTERRUPTED else status for status in statuses}
    stored |= {Status.RUNNING} if stored & {Status.SLEEPING, Status.WAITING} else set()
    found: list[RunRow] = []
    below = None
    while page := store.runs(limit=PAGE, statuses=stored, below=below):
        below = page[-1].id
        found += [row for row in page if row.task in tasks]
    # A RUNNING run may be asleep in the memory of a worker, or be left by its worker.
    return [row for row in found if (row.status if row.status is not Status.RUNNING else _status(row)) in statuses]


def _status(row: RunRow) -> Status:
    return derived_status(row)


def rehearse_rows(rows: Iterable[RunRow], tasks: Mapping[str, Any]) -> Iterator[Rehearsed]:
    """The same for these runs, in this process."""
    rehearsal = Rehearsal()
    broken: list[Rehearsed] = []
    try:
        yield from rehearsal.rehearse(_readable(rows, broken), lambda row: _spec(row, tasks))
    finally:
        rehearsal.close()
    yield from broken


def _readable(rows: Iterable[RunRow], broken: list[Rehearsed]) -> Iterator[Recorded]:
    store = runtime.worker().store
    for row in rows:
        try:
            recorded = recorded_run(store, row)
        except StoreError as error:
            known = (row.name, row.task, str(row.status))
            broken.append(Rehearsed(*known, Fate.BROKEN, why=f"{type(error).__name__}: {error}"))
            continue
        again = store.run_by_id(row.id)
        if again is not None and (again.status == row.status or again.status not in FINISHED):
            yield recorded


def _spec(row: RunRow, tasks: Mapping[str, Any]) -> TaskSpec:
    wanted = parsed(row.target).name
    found = [task.spec for task in tasks.values() if parsed(task.spec.target()).name == wanted]
    found += [task.spec for task in tasks.values() if row.task in task.spec.names]
    return found[0]  # type: ignore[no-any-return]


def _in_processes(sources: Collection[str], rows: list[RunRow], width: int) -> Iterator[Rehearsed]:
    line = [
        sys.executable,
        "-m",
        "perdure",
        "rehearse",
        *sources,
        "--json",
        "--store",
        runtime.store_url(),
        "--these",
        "-",
    ]
    parts = [rows[part::width] for part in range(width)]
    children = [
        subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")
        for _ in parts
    ]
    try:
        for child, part in zip(children, parts, strict=True):
            assert child.stdin is not None
            child.stdin.write("\n".join(row.name for row in part))
            child.stdin.close()
        for child, part in zip(children, parts, strict=True):
            assert child.stdout is not None
            found = [json.loads(text) for text in child.stdout]
            child.wait()
            if child.returncode not in (0, 1) or len(found) > len(part):
                raise StoreError(f"a process of the rehearsal ended with exit code {child.returncode}")
            for one in found:
                yield Rehearsed(**one | {"verdict": Fate(one["verdict"])})
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
                child.wait()
            assert child.stdout is not None
            child.stdout.close()


def named(names: Iterable[str]) -> list[RunRow]:
    """The rows of runs by their names, without the runs that are gone."""
    store = runtime.worker().store
    return [row for name in names if (row := store.run(name)) is not None]


class Misfits:
    """Looks whether single runs would go on unchanged, for a worker. In the thread of the worker."""

    def __init__(self, tasks: Mapping[str, Any]) -> None:
        self._tasks = tasks
        self._rehearsal = Rehearsal()

    def why(self, row: RunRow) -> str | None:
        """Why that run would not go on unchanged; `None`: it would."""
        broken: list[Rehearsed] = []
        found = list(self._rehearsal.rehearse(_readable([row], broken), lambda row: _spec(row, self._tasks)))
        return next((one.text() for one in (*found, *broken) if one.verdict is not Fate.UNCHANGED), None)
