"""The engine as this process uses it: one connection on an event loop of its own, whoever asks, and the removal of
what attempts leave behind.

- S1 a container and the directory of its attempt are removed only when the outcome of the attempt, or its
  cancellation, is on disk, or its run is over: until then a process that resumes the run may need them.
- S2 whatever a crash leaves is found again by its directory (`place`), and removed by the next process that uses this
  store (`sweep`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from ..core.attempts import ENDED
from ..core.clock import SystemClock, seconds
from ..core.model import FINISHED, Run
from ..core.ports import Store
from ..errors import EngineUnavailableError, PerdureError, StoreError
from .engine import ContainerEngine, EngineInfo
from .place import Place, key_of, places

log = logging.getLogger("perdure")
T = TypeVar("T")

GRACE = 10.0
"""Seconds between SIGTERM and SIGKILL for a container that has no purpose any more."""
PATIENCE = 60.0
"""Seconds for which an engine that was there and no longer answers is waited for."""
RETRY_SECONDS = 0.5
LABEL = "perdure.attempt"
RUN_LABEL = "perdure.run"


class Containers:
    """See the module text. Everything public may be called from any thread."""

    def __init__(
        self,
        root: str,
        log_root: str,
        store: Callable[[], Store],
        connect: Callable[[], Awaitable[ContainerEngine]],
        *,
        lasting: bool = True,
    ) -> None:
        self.root = root
        self.log_root = log_root
        self._lasting = lasting
        self._store = store
        self._connect = connect
        self._lock = threading.RLock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._engine: ContainerEngine | None = None
        self._connecting: asyncio.Lock | None = None
        self._unbroken: dict[str, set[asyncio.Task[Any]]] = {}
        self._leaving: dict[str, Future[None]] = {}
        self._closing = False
        self.known = False
        """Whether an engine has answered this process before, so that it may well do so again."""

    # -- the loop ----------------------------------------------------------------------------------------------

    def call(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Have a coroutine run on the engine's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._running())

    async def ask(self, work: Coroutine[Any, Any, T]) -> T:
        """The same from a coroutine on whatever loop."""
        return await asyncio.wrap_future(self.call(work))

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Have something that blocks done in a thread."""
        self._running()
        assert self._pool is not None
        return await asyncio.wrap_future(self._pool.submit(work))

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                loop = self._loop = asyncio.new_event_loop()
                self._pool = ThreadPoolExecutor(8, thread_name_prefix="perdure-copilot")
                threading.Thread(target=loop.run_forever, name="perdure-engine", daemon=True).start()
            return self._loop

    # -- the engine (on its loop) ------------------------------------------------------------------------------

    async def engine(self) -> ContainerEngine:
        """The engine, connected to on first use."""
        if self._connecting is None:
            self._connecting = asyncio.Lock()
        async with self._connecting:
            if self._engine is None:
                self._engine = await self._connect()
                self.known = True
            return self._engine

    async def info(self) -> EngineInfo:
        """Which engine answers. Where none does, the next call looks for it anew."""
        engine = await self.engine()
        try:
            return await engine.info()
        except EngineUnavailableError:
            await self._drop(engine)
            raise

    async def _drop(self, engine: ContainerEngine | None) -> None:
        """Close a connection. Not one that others have made meanwhile: they would all have to begin again."""
        if engine is not None and self._engine is engine:
            self._engine = None
            with suppress(EngineUnavailableError):
                await engine.close()

    async def whole(self, key: str, work: Coroutine[Any, Any, T]) -> T:
        """Do something for an attempt that leaves something behind: whoever gives up on it, it comes to its end, and
        only then does anybody look for what is to be removed."""
        task = asyncio.ensure_future(work)
        under_way = self._unbroken.setdefault(key, set())
        under_way.add(task)

        def done(task: asyncio.Task[T]) -> None:
            under_way.discard(task)
            if not task.cancelled():
                task.exception()  # whoever gave up on it has no use for that
            if not under_way:
                self._unbroken.pop(key, None)

        task.add_done_callback(done)
        return await asyncio.shield(task)

    # -- removal -----------------------------------------------------------------------------------------------

    def remove(self, place: Place, id: str | None = None) -> Future[None]:
        """Stop and remove the containers of an attempt, then its directory. `id`: the one known to be there."""
        with self._lock:
            known = self._leaving.get(place.key)
            if known is not None and not known.done():
                return known
            # Noted before it can end, which takes the lock.
            future = self._leaving[place.key] = self.call(self._remove(place, id))
            return future

    async def _remove(self, place: Place, id: str | None) -> None:
        until = seconds() + PATIENCE
        try:
            while True:
                engine: ContainerEngine | None = None
                try:
                    creating = self._unbroken.get(place.key)
                    if creating:
                        await asyncio.wait(set(creating))
                    engine = await self.engine()
                    await self._remove_containers(engine, place, id)
                    break
                except EngineUnavailableError as error:
                    # This process may live for months before another one sweeps, and the container as long.
                    await self._drop(engine)
                    if not self.known or self._closing or seconds() > until:
                        log.warning(
                            "a container is left behind until its engine is there again (%s): %s", place.key, error
                        )
                        return
                await asyncio.sleep(RETRY_SECONDS)
            await self._clear(place)
        except PerdureError as error:
            log.warning("a container is left behind (%s): %s", place.key, error)
        except OSError as error:
            log.warning("files of a container are left behind: %s", error)
        finally:
            with self._lock:
                self._leaving.pop(place.key, None)

    async def _remove_containers(self, engine: ContainerEngine, place: Place, id: str | None) -> None:
        about = place.about()
        if about is not None:
            info = await engine.info()
            if info.id != about.engine and info.url != about.url:
                raise PerdureError(f"it is at {about.url}, and the engine that answers now is {info.url}")
        found = {seen.id: seen.state for seen in await engine.find({LABEL: place.key})} if id is None else {id: ""}
        for each, state in found.items():
            if state == "running":
                await engine.stop(each, GRACE)
            await engine.remove(each)

    async def _clear(self, place: Place) -> None:
        assert self._pool is not None
        try:
            clearing = asyncio.get_running_loop().run_in_executor(self._pool, place.clear)
        except RuntimeError:
            # The interpreter is shutting down, and pools take no more work. Nothing else waits for this loop then.
            place.clear()
        else:
            await clearing

    async def gone(self, place: Place) -> None:
        """Wait until nothing of an attempt is on its way out any more."""
        future = self._leaving.get(place.key)
        if future is not None:
            await asyncio.wrap_future(future)

    def drain(self, timeout: float = GRACE + 5.0) -> None:
        """Wait until everything that has no purpose any more is removed, for `timeout` seconds at most."""
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

    def sweep(self, uid: bytes | None = None) -> list[Future[None]]:
        """Remove what attempts have left that have their outcome: of one run, or of all runs of this store."""
        removing: list[Future[None]] = []
        for place in places(self.root):
            about = place.about()
            if about is None:
                # Nothing was created for it yet; its process made the directory just now, or died at that.
                if _age(place.path) > 60:
                    with suppress(OSError):
                        place.clear()
            elif uid is None or about.uid == uid.hex():
                try:
                    over = self._is_over(about.run, about.uid, about.action, about.attempt)
                except StoreError as error:
                    log.warning("what containers have left is not looked at: %s", error)
                    return removing
                if over:
                    removing.append(self.remove(place))
        return removing

    def _is_over(self, number: int, uid: str, action: int, attempt: int) -> bool:
        store = self._store()
        run = store.run_by_id(number)
        if run is None or run.uid.hex() != uid or run.status in FINISHED:
            return True
        # Not whether the journal has an outcome: that may be an earlier attempt's, which its caller's retry discarded.
        row = next((row for row in store.actions(number) if row.action == action), None)
        return row is not None and (row.attempt > attempt or (row.attempt == attempt and row.state == ENDED))

    def ended(self, run: Run, fresh: bool) -> None:
        """A run is over: what earlier processes have left of it goes too."""
        if not fresh and os.path.isdir(self.root):
            self.sweep(run.uid)

    def place(self, uid: bytes, action: int, attempt: int) -> Place:
        """The directory of an attempt."""
        key = key_of(uid, action, attempt)
        return Place(key, os.path.join(self.root, key))

    def close(self) -> None:
        """Give the connection back and end the loop."""
        loop = self._loop
        if loop is None:
            return
        self._closing = True
        if not self._lasting:
            # No other process will ever know of them.
            for place in places(self.root):
                self.remove(place)
        self.drain()
        with suppress(PerdureError, TimeoutError, Exception):
            self.call(self._drop(self._engine)).result(5)
        if not self._lasting:
            for folder in (self.root, self.log_root):
                shutil.rmtree(folder, ignore_errors=True)
        self._closing = False
        loop.call_soon_threadsafe(loop.stop)
        self._loop = None


def _age(path: str) -> float:
    try:
        return SystemClock().wall() / 1_000_000 - os.stat(path).st_mtime
    except OSError:
        return 0.0
