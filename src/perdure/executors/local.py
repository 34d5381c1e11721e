"""Daemon threads on demand, as a `concurrent.futures.Executor`.

Sync bodies and `asyncio.to_thread` run here. Two differences to the standard pool matter: a thread that cannot be
interrupted never keeps the process from ending, and a body that waits for something durable holds no place, so that
tasks nested deeper than `width` cannot deadlock.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

Job = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class DaemonThreads(Executor):
    """At most `width` jobs at work at once, without counting waiting jobs (`parked`)."""

    def __init__(self, width: int = 64, idle_seconds: float = 10.0) -> None:
        self._width = width
        self._idle_seconds = idle_seconds
        self._lock = threading.Lock()
        self._jobs: deque[Job] = deque()
        self._wake = threading.Condition(self._lock)
        self._idle = 0
        self._working = 0
        self._count = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run `fn` in a thread; its result or error comes back in the future."""
        future: Future[Any] = Future()
        with self._lock:
            self._jobs.append((future, fn, args, kwargs))
            self._staff()
        return future

    def _staff(self) -> None:
        # Called with the lock held.
        room = min(self._width - self._working, len(self._jobs))
        if room <= 0:
            return
        if self._idle:
            self._wake.notify(min(room, self._idle))
        for _ in range(room - self._idle):
            self._count += 1
            threading.Thread(target=self._main, name=f"perdure-body-{self._count}", daemon=True).start()
            self._working += 1

    def _main(self) -> None:
        while True:
            with self._lock:
                job = self._next()
                if job is None:
                    return
            future, fn, args, kwargs = job
            if future.set_running_or_notify_cancel():
                try:
                    result = fn(*args, **kwargs)
                except BaseException as error:
                    future.set_exception(error)
                    del error
                else:
                    future.set_result(result)
                    del result
            del job, future, fn, args, kwargs

    def _next(self) -> Job | None:
        # Called with the lock held, by a thread that counts as working.
        if self._jobs and self._working <= self._width:
            return self._jobs.popleft()
        self._working -= 1
        self._idle += 1
        try:
            while True:
                if self._jobs and self._working < self._width:
                    break
                if not self._wake.wait(self._idle_seconds) and not (self._jobs and self._working < self._width):
                    return None
        finally:
            self._idle -= 1
        self._working += 1
        return self._jobs.popleft()

    @property
    def at_work(self) -> bool:
        """Whether a job is at work or queued, without waiting jobs."""
        with self._lock:
            return self._working > 0 or bool(self._jobs)

    def parked(self) -> None:
        """The calling job begins to wait for a durable outcome and frees its place."""
        with self._lock:
            self._working -= 1
            self._staff()

    def resumed(self) -> None:
        """The calling job goes on. The job does not queue for a place, so the width may be exceeded for a while."""
        with self._lock:
            self._working += 1

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Nothing to do: the threads are daemons and end by themselves when idle."""
