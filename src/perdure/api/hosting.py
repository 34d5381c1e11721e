"""Workers: the tasks of files and modules served by `perdure serve`, or by an application (`perdure.Worker`)."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from datetime import timedelta
from types import ModuleType, TracebackType
from typing import Any, Self

from .. import runtime
from ..core.ground.model import RunRow, Status
from ..core.process import worker as processes
from ..core.process.serving import ServedRun, Server
from ..errors import PerdureError, StoreUnavailableError, UsageError
from .arrivals import arrival
from .loading import load_source, tasks_in
from .task import Task
from .triggers import schedule_for

log = logging.getLogger("perdure")

Source = str | os.PathLike[str] | ModuleType | Task[..., Any]
"""A file, a module by name or as an object, or a task."""


def served_tasks(
    sources: Sequence[Source], left_out: Callable[[PerdureError], None] | None = None
) -> dict[str, Task[..., Any]]:
    """The tasks to serve, by their full names.

    Args:
        sources: the places of the tasks.
        left_out: gets the error of a source that cannot be loaded while others can; by default the error is raised.

    Raises:
        UsageError: there is nothing to serve, or two tasks have one name.
        CodeNotLoadedError: a source cannot be loaded.
    """
    found: dict[str, Task[..., Any]] = {}
    broken = 0
    for source in sources:
        try:
            tasks = _tasks_of(source)
        except PerdureError as error:
            # A file that declares what perdure refuses, such as another file's task name, is an error of the caller.
            refused = type(error) is UsageError and os.path.exists(str(source))
            if left_out is None or len(sources) == 1 or refused:
                raise
            left_out(error)
            broken += 1
            continue
        for task in tasks:
            known = found.setdefault(task.name, task)
            if known.fn is not task.fn:
                raise UsageError(
                    f"two tasks are called {task.name}, in {known.fn.__module__} and {task.fn.__module__}: a run would "
                    "fit either; give them other environments, or serve them apart with stores of their own"
                )
    names = ", ".join(str(getattr(source, "__name__", source)) for source in sources)
    if sources and broken == len(sources):
        raise UsageError(f"none of {names} could be loaded, so there is nothing to serve")
    if not found:
        raise UsageError(f"there are no tasks to serve in {names or 'an empty list'}; declare one with @env.task")
    return found


def _tasks_of(source: Source) -> Iterable[Task[..., Any]]:
    if isinstance(source, Task):
        source.check_findable()
        return (source,)
    if isinstance(source, (str, os.PathLike)):
        source = load_source(os.fspath(source))
    if not isinstance(source, ModuleType):
        raise UsageError(f"a worker serves files, modules and tasks, not {source!r}")
    return tasks_in(source).values()


def server_for(
    worker: processes.Worker,
    tasks: Mapping[str, Task[..., Any]],
    concurrency: int,
    park_after: float,
    tell: Callable[[ServedRun], None],
    misfit: Callable[[RunRow], str | None] | None = None,
) -> Server:
    """What drives the runs of these tasks, with their triggers. `misfit`: see `Server`."""
    return Server(
        worker, {name: task.spec for name, task in tasks.items()}, concurrency=concurrency, park_after=park_after,
        schedule=schedule_for(worker.store, tasks.values()), tell=tell, misfit=misfit,
    )  # fmt: skip


class HostedWorker:
    """A worker inside an application: drives the runs of its tasks that are due, and runs that were left behind.

    Use as `with perdure.Worker([shop]):` or `async with`. The worker runs in threads of its own, on perdure's event
    loops, from any thread of the application. No signal handler is installed. At the end of the block nothing new is
    begun; sleeping runs are parked, and others are let go as soon as what was executing is recorded. A process has one
    worker at a time.

    Args:
        sources: files, modules (by name or as objects) and tasks.
        concurrency: at most so many runs in memory.
        park_after: runs that sleep for longer leave memory until their wake time; seconds or a `timedelta`.
        drain: how long the end waits for runs under way; seconds or a `timedelta`. Then the rest is let go as it is:
            what was executing is executed again elsewhere.

    Raises:
        UsageError: there is nothing to serve, or this process has a worker already.
        StoreError: the store cannot be used from the start.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        concurrency: int = 100,
        park_after: float | timedelta = 60.0,
        drain: float | timedelta = 30.0,
    ) -> None:
        if isinstance(sources, (str, ModuleType, Task)) or not isinstance(sources, Sequence):
            raise UsageError(f"perdure.Worker takes a list of files, modules and tasks, not {sources!r}")
        if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
            raise UsageError(f"concurrency must be a number of runs from 1 up, not {concurrency!r}")
        self._sources = sources
        self._concurrency = concurrency
        self._park_after = _length(park_after, "park_after")
        self._drain = _length(drain, "drain")
        self._server: Server | None = None
        self._ended: Future[int] | None = None

    @property
    def driven(self) -> int:
        """How many runs are in memory."""
        return 0 if self._server is None else self._server.driven

    def start(self) -> Self:
        """Begin to serve; `stop` ends what this begins. The blocks `with` and `async with` do both."""
        process = runtime.process()
        tasks = served_tasks(self._sources)
        process.begin_serving()
        try:
            worker = process.worker()
            worker.lease.attend()
            self._server = server_for(worker, tasks, self._concurrency, self._park_after, _log_end)
            ended: Future[int] = Future()
            self._ended = ended
            threading.Thread(target=self._serve, args=(self._server, ended), name="perdure-worker", daemon=True).start()
        except BaseException:
            process.end_serving()
            raise
        return self

    def _serve(self, server: Server, ended: Future[int]) -> None:
        left = 0
        try:
            server.serve()
            left = server.drain(self._drain)
        except BaseException as error:
            runtime.process().end_serving()
            log.exception("the worker has ended, because serving failed")
            ended.set_exception(error)
            return
        runtime.process().end_serving()
        if left:
            log.warning("%d runs came to no point to be let go at; what they executed is executed again", left)
        ended.set_result(left)

    def stop(self) -> None:
        """End the worker in good order, and wait for the end."""
        ended = self._stop()
        if ended is not None:
            ended.result()

    def _stop(self) -> Future[int] | None:
        if self._server is not None:
            self._server.stop()
        return self._ended

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        started: Future[Self] = Future()

        def start() -> None:
            try:
                started.set_result(self.start())
            except BaseException as error:
                started.set_exception(error)

        # Loading code and opening the store block.
        threading.Thread(target=start, name="perdure-worker-start", daemon=True).start()
        try:
            return await arrival(started)  # type: ignore[no-any-return]
        except BaseException:
            # The caller may have been cancelled while the worker begins.
            started.add_done_callback(lambda done: done.exception() is None and done.result()._stop())
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        ended = self._stop()
        if ended is not None:
            await arrival(ended)


Worker = HostedWorker
"""The public name. The core has a class `Worker` as well, a process that drives runs."""


def _length(value: float | timedelta, name: str) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < 1e10:
        raise UsageError(f"{name} must be seconds from 0 up, or a timedelta, not {value!r}")
    return float(seconds)


def _log_end(outcome: ServedRun) -> None:
    if outcome.status == Status.FAILED:
        log.warning(
            "run %s (%s) failed: %s: %s", outcome.run, outcome.task, type(outcome.error).__name__, outcome.error
        )
    elif outcome.again is not None and not isinstance(outcome.error, StoreUnavailableError):
        log.warning(
            "run %s (%s) cannot be driven; it is tried again in %g s: %s",
            outcome.run, outcome.task, outcome.again, outcome.error,
        )  # fmt: skip
