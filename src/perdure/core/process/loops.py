"""The event loops of a process, and how other threads hand work to a loop and wait for the work.

Most processes need one loop. A synchronous durable call on a loop's thread blocks the loop; another loop is made as
soon as every existing loop is blocked.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from ..body.interfaces import LoopPort
from ..body.loop import LoopThread
from ..body.scope import Slot
from ..ground.clock import result_within
from ..run.driver import Driver


class Loops:
    """See the module text. From any thread."""

    def __init__(self, threads: Any) -> None:
        """`threads`: see `body.interfaces.Threads`."""
        self._threads = threads
        self._lock = threading.Lock()
        self._loops: list[LoopThread] = []

    @property
    def main(self) -> LoopThread:
        """The main loop; made on first use."""
        if not self._loops:
            with self._lock:
                if not self._loops:
                    self._loops.append(LoopThread("perdure-loop", self._threads))
        return self._loops[0]

    def existing(self) -> list[LoopThread]:
        """The loops made so far."""
        return list(self._loops)

    def loop_for(self, driver: Driver) -> LoopThread:
        """A loop whose thread is not blocked by a synchronous durable call: the driver's own if possible."""
        return driver.loop if not driver.loop.blocked else self.free_loop()

    def free_loop(self) -> LoopThread:
        """A loop whose thread is not blocked by a synchronous durable call: the main one if possible."""
        if not self.main.blocked:
            return self.main
        with self._lock:
            for loop in self._loops:
                if not loop.blocked:
                    return loop
            loop = LoopThread(f"perdure-loop-{len(self._loops) + 1}", self._threads)
            self._loops.append(loop)
            return loop

    def call_on_loop(self, loop: LoopPort, make_task: Callable[[], asyncio.Task[Any]]) -> Future[Any]:
        """Make a task on that loop and have its outcome as a thread-safe future."""
        future: Future[Any] = Future()

        def done(task: asyncio.Task[Any]) -> None:
            if task.cancelled():
                future.set_exception(asyncio.CancelledError())
            elif (error := task.exception()) is not None:
                future.set_exception(error)
            else:
                future.set_result(task.result())

        def begin() -> None:
            try:
                make_task().add_done_callback(done, context=loop.loop.empty)
            except BaseException as error:
                future.set_exception(error)

        loop.soon(begin)
        return future

    def join(self, future: Future[Any], slot: Slot | None, timeout: float | None = None, *, shown: bool = False) -> Any:
        """Wait in a body's thread for work of the body elsewhere. The thread counts as waiting until the very moment at
        which the future is done, not until the thread has woken up. `shown`: known bodies or threads of the run show
        the work.

        Raises:
            TimeoutError: `timeout` seconds have passed.
        """
        if slot is None:
            return result_within(future, timeout)
        body = slot.branch.body
        if not shown:
            body.joins_unseen(1)
        body.thread_joins(future, slot)
        self._threads.parked()
        try:
            return result_within(future, timeout)
        finally:
            self._threads.resumed()
            body.thread_runs(slot, future)
            if not shown:
                body.joins_unseen(-1)

    def stop(self) -> None:
        """End all loops."""
        for loop in self._loops:
            loop.stop()
