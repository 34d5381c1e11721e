"""The threads of a pool child: the outer process gives the child the next body only when no job of the last is left."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from ..local import DaemonThreads


class CountingThreads(DaemonThreads):
    """Threads with a count of the jobs at work or waiting."""

    def __init__(self) -> None:
        super().__init__()
        self._count_lock = threading.Lock()
        self.jobs = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        # Counted here, not when a thread takes the job: a body may end in between.
        with self._count_lock:
            self.jobs += 1
        future = super().submit(self._counted, fn, args, kwargs)
        future.add_done_callback(self._uncount_cancelled)
        return future

    def _counted(self, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        try:
            return fn(*args, **kwargs)
        finally:
            with self._count_lock:
                self.jobs -= 1

    def _uncount_cancelled(self, future: Future[Any]) -> None:
        """No thread takes a job after the job was cancelled in the queue."""
        if future.cancelled():
            with self._count_lock:
                self.jobs -= 1
