"""Recorded runs as tests: today's code has to ask for what was recorded, and a run has to survive every crash."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from glob import glob
from typing import Any, Literal

from .. import runtime
from ..api.declaring import all_tasks
from ..api.loading import load_source, spec_of_loaded, tasks_in
from ..api.run import Run, run
from ..api.task import Task
from ..core.ground.model import RunRow, Status
from ..core.ground.ports import Store
from ..core.ground.spec import TaskSpec, parsed
from ..core.process.worker import Worker
from ..errors import UsageError
from ..executors.local import DaemonThreads
from ..store.memory import MemoryLiveness, MemoryStore
from ..upkeep.exporting import read, recorded_run
from ..upkeep.rehearsing import Fate, Recorded, Rehearsal
from .virtual import virtual_time

__all__ = ["assert_replays", "assert_survives", "replay"]

SHOWN = 5
"""Differences that a failed assertion shows."""
SAMPLE = 10
"""Moments that `at="random"` tries."""


def replay(*files: str | os.PathLike[str], source: str | os.PathLike[str] | None = None) -> int:
    """Replay recorded runs, as `perdure export RUN > run.json` writes them, against today's code, without effects and
    without a store. Gives the number of runs.

    Args:
        files: paths of JSON files; `*` and `**` stand for names.
        source: the file or module with the tasks. By default the tasks that the test has imported.

    Raises:
        AssertionError: a run asks for something else than is recorded. The message shows the first difference.
        UsageError: no file, or a file that is no recorded run.
    """
    paths = sorted({path for given in files for path in _found(os.fspath(given))})
    recorded = []
    for path in paths:
        with open(path, encoding="utf-8") as file:
            recorded.append(read(file.read(), path))
    _expect_unchanged(recorded, lambda row: _spec(row, source))
    return len(recorded)


def _found(pattern: str) -> list[str]:
    found = glob(pattern, recursive=True)
    if not found:
        raise UsageError(f"replay: there is no file {pattern}; write one with: perdure export RUN > {pattern}")
    return found


def _spec(row: RunRow, source: str | os.PathLike[str] | None) -> TaskSpec:
    if source is None:
        loaded = spec_of_loaded(row.target) or _loaded_by_name(row)
        if loaded is not None:
            return loaded
        target = parsed(row.target)
        raise UsageError(
            f"run {row.name}: its task, {target.name} of module {target.module}, is not imported. Import the module in "
            f"the test, or name the file: replay(..., source={target.file!r})"
        )
    wanted = parsed(row.target).name
    tasks = tasks_in(load_source(os.fspath(source)))
    for task in tasks.values():
        if wanted in task.spec.names:
            return task.spec
    raise UsageError(f"run {row.name}: {source} holds no task {wanted}; its tasks are: {', '.join(tasks) or 'none'}")


def _loaded_by_name(row: RunRow) -> TaskSpec | None:
    """The imported task of that name and module, whose file may lie elsewhere on this machine."""
    wanted = parsed(row.target)
    for task in all_tasks():
        if task.spec.is_task_of(wanted):
            return task.spec  # type: ignore[no-any-return]
    return None


def _expect_unchanged(recorded: Sequence[Recorded], spec: Callable[[RunRow], TaskSpec]) -> None:
    rehearsal = Rehearsal()
    try:
        found = [one for one in rehearsal.rehearse(recorded, spec) if one.verdict is not Fate.UNCHANGED]
    finally:
        rehearsal.close()
    if found:
        more = f"\n... and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise AssertionError("\n".join(one.text() for one in found[:SHOWN]) + more)


class _Snapshots(MemoryStore):
    """A store in memory that keeps a copy of itself after each write."""

    def __init__(self) -> None:
        super().__init__()
        self.copies: list[MemoryStore] = []

    def commit(self, writes: Any) -> Any:
        answers = super().commit(writes)
        self.copies.append(self.copy())
        return answers


@contextmanager
def _using(store: MemoryStore) -> Iterator[None]:
    """Have this process use that store within the block."""
    before = runtime.process().settings
    runtime.init(store="memory://")
    worker = Worker(store, MemoryLiveness(), DaemonThreads(), clock=store.clock)
    worker.elsewhere = runtime.process().elsewhere
    runtime.process().adopt(worker, "")
    try:
        yield
    finally:
        runtime.init(
            store=before.store, durability=before.durability, container_engine=before.container_engine,
            blobs=before.blobs, ray_address=before.ray,
        )  # fmt: skip


def _ended(task: Task[..., Any], inputs: Mapping[str, Any]) -> Any:
    """The result of a run of the task, or its error."""
    try:
        return run(task, **inputs).result
    except Exception as error:
        return error


def _recorded_once(task: Task[..., Any], inputs: Mapping[str, Any]) -> tuple[Any, list[MemoryStore]]:
    store = _Snapshots()
    with _using(store):
        result = _ended(task, inputs)
    return result, store.copies


def assert_replays(task: Task[..., Any], inputs: Mapping[str, Any] | None = None) -> None:
    """Run the task once, in a store in memory on a clock that jumps, and replay what was recorded from every prefix of
    the journal, without effects. A body that depends on anything else than recorded outcomes fails.

    Args:
        task: the task; its traces are executed once. Replace them with `fake` where that must not be.
        inputs: the arguments by their names.

    Raises:
        AssertionError: a replay asks for something else than is recorded. The message shows the first difference.
    """
    with virtual_time():
        _, copies = _recorded_once(task, inputs or {})
        recorded = [_only_run(copy) for copy in copies]
    _expect_unchanged(recorded, lambda row: task.spec)


def _only_run(store: Store) -> Recorded:
    [row] = store.runs()
    return recorded_run(store, row)


def assert_survives(
    task: Task[..., Any],
    inputs: Mapping[str, Any] | None = None,
    *,
    at: Literal["every_write", "random"] = "every_write",
    seed: int | None = None,
) -> int:
    """Run the task once, and then once for each of its writes: the run goes on, in this process, from what was on disk
    at that moment, as after a crash. The result has to be the same each time. Steps that were not recorded by then are
    executed again, so use this with steps that may be, or with fakes. Gives the number of crashes.

    Args:
        task: the task. It runs in stores in memory, on a clock that jumps.
        inputs: the arguments by their names.
        at: `"every_write"`, or `"random"` for ten of the writes.
        seed: repeats a choice of `"random"`.

    Raises:
        AssertionError: a run that went on gave another result. The message names the write.
    """
    with virtual_time():
        expected, copies = _recorded_once(task, inputs or {})
        moments = list(enumerate(copies, 1))
        if at == "random":
            seed = random.randrange(1 << 32) if seed is None else seed
            moments = sorted(random.Random(seed).sample(moments, min(SAMPLE, len(moments))), key=lambda one: one[0])
        elif at != "every_write":
            raise UsageError(f'assert_survives takes at="every_write" or at="random", not {at!r}')
        for number, copy in moments:
            found = _goes_on(copy)
            if not _equal(found, expected):
                more = "" if seed is None else f" (seed={seed})"
                raise AssertionError(
                    f"{task.name}, crashed after write {number} of {len(copies)}{more} and resumed:\n"
                    f"  expected: {expected!r}\n  received: {found!r}"
                )
    return len(moments)


def _goes_on(store: MemoryStore) -> Any:
    [row] = store.runs()
    with _using(store):
        try:
            found = Run.get(row.name)
            return (found if found.status == Status.SUCCEEDED else found.resume()).result
        except Exception as error:
            return error


def _equal(found: Any, expected: Any) -> bool:
    if isinstance(expected, BaseException):
        return type(found) is type(expected) and str(found) == str(expected)
    return bool(found == expected)
