"""The runner of attempts outside of this process: an event loop of its own, and the removal of leftovers.

- BG1 an attempt's belongings are removed only when the outcome, or the cancellation, is on disk, or the run is over:
  until then a resuming process may need them.
- BG2 the next process that uses the store finds and removes the leftovers of a crash (`sweep`).
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from ..core.ground.clock import seconds
from ..core.ground.detached import Detached
from ..core.ground.model import FINISHED
from ..core.ground.ports import Store
from ..core.run.attached import ENDED
from ..errors import EngineUnavailableError, PerdureError, UsageError
from .logs import LogSink, last_lines, log_path
from .place import About, key_of
from .program import Program, Secrets
from .redaction import Redactor

log = logging.getLogger("perdure")
T = TypeVar("T")

GRACE = 10.0
"""Seconds between SIGTERM and SIGKILL for a container without a purpose."""
PATIENCE = 60.0
"""Seconds to wait for a known engine that no longer answers."""
RETRY_SECONDS = 0.5
AGAIN_SECONDS = 0.25
LINGER_SECONDS = 2.0
"""Seconds for which the log of an abandoned attempt is followed without a removal."""


class SharedOutcome(NamedTuple):
    """The outcome of another run, from the cache."""

    value: Any


class _Lingering(NamedTuple):
    """The log of an abandoned attempt whose container is not yet removed."""

    following: Future[None]
    sink: LogSink


class _Loop(asyncio.SelectorEventLoop):
    """Goes on during interpreter shutdown, when pools take no more work. No other task waits for the loop then, so
    that a look at a file, or for a host's address, may block the loop."""

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Any, *args: Any
    ) -> asyncio.Future[Any]:
        try:
            return super().run_in_executor(executor, func, *args)
        except RuntimeError:
            future = self.create_future()
            try:
                future.set_result(func(*args))
            except Exception as error:
                future.set_exception(error)
            return future


class Background:
    """See the module text. Everything public may be called from any thread."""

    def __init__(self, root: str, log_root: str, store: Callable[[], Store]) -> None:
        self.root = root
        self.log_root = log_root
        self._store = store
        self._lock = threading.RLock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._unbroken: dict[str, set[asyncio.Task[Any]]] = {}
        self._leaving: dict[str, Future[None]] = {}
        self._lingering: dict[str, _Lingering] = {}
        self._closing = False
        self.known = False
        """Whether the engine has answered this process before, and is worth a wait."""

    # -- what each kind does in its own way --------------------------------------------------------------------

    async def run(self, program: Program, attempt: Detached, values: dict[str, Any], identity: bytes) -> Any:
        """One attempt, begun or joined: the task's value. `identity`: canonical bytes of the values.

        Raises:
            ContainerError, OOMError, OutputMissingError, OutputParseError, ImageNotFoundError, EngineUnavailableError:
            as the names say.
            AttemptLost: the machine or engine was lost.
        """
        raise NotImplementedError

    async def _remove_all(self, key: str) -> None:
        """Stop and remove an attempt's belongings. On the loop. `EngineUnavailableError`: try again."""
        raise NotImplementedError

    async def _disconnect(self) -> None:
        """Give the connection back. On the loop."""
        raise NotImplementedError

    def sweep(self, uid: bytes | None = None) -> list[Future[None]]:
        """Remove the leftovers of attempts with an outcome: of one run, or of all runs of this store."""
        raise NotImplementedError

    def secrets_of(self, program: Program, attempt: Detached) -> Secrets:
        """The secrets of an attempt's container, read now."""
        try:
            return program.secrets()
        except UsageError as error:
            if attempt.state is None:
                raise
            # The container has the secrets, and this process could not strike them out of log lines.
            attempt.suspend(error)

    async def sink(self, program: Program, attempt: Detached, redactor: Redactor) -> LogSink:
        """The sink for the log lines of an attempt."""
        path = log_path(self.log_root, attempt.run.uid, attempt.action, attempt.attempt)
        prefix = f"[{program.name}] " if program.local_logs else None
        # In a thread: the lines of an earlier process are read back, and may be many.
        return await self.in_thread(lambda: LogSink(path, prefix, redactor))

    async def ready(self, uid: bytes, action: int, attempt: int) -> None:
        """Wait until an attempt may begin or be joined: no removal of the attempt is under way, no earlier attempt's
        container runs (the outcome is on disk), and the log file has no other writer."""
        if attempt > 1:
            before = key_of(uid, action, attempt - 1)
            if await self.in_thread(lambda: self.may_be_left(before)):
                self.remove(before)
            await self.gone(before)
        key = key_of(uid, action, attempt)
        await self.gone(key)
        await self.ask(self.last_output(key, at_once=True))

    def may_be_left(self, key: str) -> bool:
        """Whether something of an attempt may not have been removed yet. Blocks."""
        raise NotImplementedError

    # -- log lines after the end of an attempt -----------------------------------------------------------------

    def linger(self, key: str, following: Future[None] | None, sink: LogSink) -> bool:
        """Continue the log of an abandoned attempt until the container has ended. `False`: no log is being followed."""
        if following is None or following.done() or self._loop is None:
            return False
        with self._lock:
            self._lingering[key] = _Lingering(following, sink)
        self._loop.call_soon_threadsafe(self._watch_lingering, key)
        return True

    def _watch_lingering(self, key: str) -> None:
        """Where no removal begins, the run was interrupted, and another process may follow the container."""

        def drop() -> None:
            if key not in self._leaving:
                self.call(self.last_output(key, at_once=True))

        asyncio.get_running_loop().call_later(LINGER_SECONDS, drop)

    async def last_output(self, key: str, *, at_once: bool = False) -> None:
        """Take the last lines of a container that has ended, and close its log. On the loop.

        Args:
            key: the attempt.
            at_once: do not wait for more lines.
        """
        with self._lock:
            left = self._lingering.pop(key, None)
        if left is None:
            return
        if not at_once:
            await last_lines(asyncio.wrap_future(left.following), key)
        left.following.cancel()
        with suppress(Exception, asyncio.CancelledError):
            await asyncio.wrap_future(left.following)
        left.sink.close()

    # -- the loop ----------------------------------------------------------------------------------------------

    def call(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Have a coroutine run on the engine's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._running())

    async def ask(self, work: Coroutine[Any, Any, T]) -> T:
        """The same from a coroutine on any loop."""
        return await asyncio.wrap_future(self.call(work))

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run a blocking function in a thread."""
        self._running()
        assert self._pool is not None
        try:
            future = self._pool.submit(work)
        except RuntimeError:  # as in `_Loop`
            return work()
        return await asyncio.wrap_future(future)

    async def patiently(self, name: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Have the engine do idempotent work; a known engine is waited for."""
        until = seconds() + PATIENCE
        warned = False
        while True:
            try:
                return await self.ask(work())
            except EngineUnavailableError as error:
                if not self.known or seconds() > until:
                    raise
                if not warned:
                    warned = True
                    log.warning("%s: waiting for the container engine: %s", name, error)
            await asyncio.sleep(AGAIN_SECONDS)

    async def whole(self, key: str, work: Coroutine[Any, Any, T]) -> T:
        """Bring an attempt's work to its end, also where the caller gives up; removals wait for the end."""
        task = asyncio.ensure_future(work)
        under_way = self._unbroken.setdefault(key, set())
        under_way.add(task)

        def done(task: asyncio.Task[T]) -> None:
            under_way.discard(task)
            if not task.cancelled():
                task.exception()  # the caller has given up
            if not under_way:
                self._unbroken.pop(key, None)

        task.add_done_callback(done)
        return await asyncio.shield(task)

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                loop = self._loop = _Loop()
                self._pool = ThreadPoolExecutor(8, thread_name_prefix="perdure-copilot")
                threading.Thread(target=loop.run_forever, name="perdure-engine", daemon=True).start()
            return self._loop

    # -- removal -----------------------------------------------------------------------------------------------

    def dispose(self, attempt: Detached) -> None:
        """The attempt has an outcome on disk: remove the attempt's belongings."""
        self.remove(key_of(attempt.run.uid, attempt.action, attempt.attempt))

    def remove(self, key: str) -> Future[None]:
        """Stop and remove the belongings of an attempt."""
        with self._lock:
            known = self._leaving.get(key)
            if known is not None and not known.done():
                return known
            # Noted before the removal can end, which takes the lock.
            future = self._leaving[key] = self.call(self._remove(key))
            return future

    async def _remove(self, key: str) -> None:
        until = seconds() + PATIENCE
        try:
            while True:
                try:
                    creating = self._unbroken.get(key)
                    if creating:
                        await asyncio.wait(set(creating))
                    await self._remove_all(key)
                    return
                except EngineUnavailableError as error:
                    # This process may live for months before another process sweeps, and the container as long.
                    if not self.known or self._closing or seconds() > until:
                        log.warning("a container is left behind until its engine is there again (%s): %s", key, error)
                        return
                await asyncio.sleep(RETRY_SECONDS)
        except PerdureError as error:
            log.warning("a container is left behind (%s): %s", key, error)
        except OSError as error:
            log.warning("files of a container are left behind: %s", error)
        finally:
            with self._lock:
                self._leaving.pop(key, None)

    async def gone(self, key: str) -> None:
        """Wait until no removal of an attempt is under way."""
        future = self._leaving.get(key)
        if future is not None:
            await asyncio.wrap_future(future)

    def drain(self, timeout: float = GRACE + 5.0) -> None:
        """Wait for all removals, for `timeout` seconds at most."""
        until = seconds() + timeout
        while True:
            with self._lock:
                waiting = list(self._leaving.values())
            if not waiting:
                return
            for future in waiting:
                with suppress(Exception):
                    future.result(max(0.0, until - seconds()))
            if seconds() >= until:
                return

    def _is_over(self, about: About) -> bool:
        store = self._store()
        run = store.run_by_id(about.run)
        if run is None or run.uid.hex() != about.uid or run.status in FINISHED:
            return True
        # Not the journal's outcome: an earlier attempt may have left the outcome, discarded by the caller's retry.
        row = next((row for row in store.actions(about.run) if row.action == about.action), None)
        attempt = about.attempt
        return row is not None and (row.attempt > attempt or (row.attempt == attempt and row.state == ENDED))

    def close(self) -> None:
        """Give the connection back and end the loop."""
        loop = self._loop
        if loop is None:
            return
        self._closing = True
        self._abandon()
        self.drain()
        for key in list(self._lingering):
            with suppress(TimeoutError):
                self.call(self.last_output(key, at_once=True)).result(5)
        with suppress(PerdureError, TimeoutError, Exception):
            self.call(self._disconnect()).result(5)
        self._closing = False
        loop.call_soon_threadsafe(loop.stop)
        self._loop = None

    def _abandon(self) -> None:
        """Remove, before closing, the belongings that no other process will ever know of."""
