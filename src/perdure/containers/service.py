"""Container engines of one machine, as this process uses the engines: one connection, and a directory for each attempt.

The directory of an attempt is made before the container and removed after the container, and marks the attempt after
a crash (`background`, BG2).
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Protocol

from ..core.ground.clock import SystemClock
from ..core.ground.detached import Detached
from ..core.ground.ports import Store
from ..core.ground.trees import remove_tree
from ..errors import EngineUnavailableError, PerdureError, StoreError
from .background import GRACE, Background
from .engine import ContainerEngine, EngineInfo
from .place import LABEL, Place, key_of, places
from .program import Program

log = logging.getLogger("perdure")


class ContainerLiving(Protocol):
    """The life of one attempt (`life.run`), handed in by the composition root."""

    def __call__(
        self, program: Program, containers: Containers, attempt: Detached, values: dict[str, Any], identity: bytes, /
    ) -> Coroutine[Any, Any, Any]: ...


class Containers(Background):
    """See the module text. Everything public may be called from any thread."""

    def __init__(
        self,
        root: str,
        log_root: str,
        store: Callable[[], Store],
        connect: Callable[[], Awaitable[ContainerEngine]],
        live: ContainerLiving,
        *,
        lasting: bool = True,
    ) -> None:
        super().__init__(root, log_root, store)
        self._lasting = lasting
        self._connect = connect
        self._live = live
        self._engine: ContainerEngine | None = None
        self._connecting: asyncio.Lock | None = None

    async def run(self, program: Program, attempt: Detached, values: dict[str, Any], identity: bytes) -> Any:
        return await self._live(program, self, attempt, values, identity)

    # -- the engine (on the loop) ------------------------------------------------------------------------------

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
        """The engine that answers. Where no engine does, the next call searches again."""
        engine = await self.engine()
        try:
            return await engine.info()
        except EngineUnavailableError:
            await self._drop(engine)
            raise

    async def _drop(self, engine: ContainerEngine | None) -> None:
        """Close a connection, unless other callers have made another connection meanwhile."""
        if engine is not None and self._engine is engine:
            self._engine = None
            with suppress(EngineUnavailableError):
                await engine.close()

    async def _disconnect(self) -> None:
        await self._drop(self._engine)

    # -- removal -----------------------------------------------------------------------------------------------

    async def _remove_all(self, key: str) -> None:
        place = self._place(key)
        if not await self.in_thread(lambda: self.may_be_left(key)):
            # The directory is made before the container: without a directory there is no container.
            await self.last_output(key)
            return
        engine = await self.engine()
        try:
            await self._remove_containers(engine, place)
        except EngineUnavailableError:
            await self._drop(engine)
            raise
        await self.in_thread(place.clear)

    async def _remove_containers(self, engine: ContainerEngine, place: Place) -> None:
        about = place.about()
        if about is not None:
            info = await engine.info()
            if info.id != about.engine and info.url != about.url:
                raise PerdureError(
                    f"the container is at {about.url}, and the engine at {info.url} answers now: start the first"
                )
        for seen in await engine.find({LABEL: place.key}):
            if seen.state == "running":
                await engine.stop(seen.id, GRACE)
            await self.last_output(place.key)
            await engine.remove(seen.id)
        await self.last_output(place.key)

    def sweep(self, uid: bytes | None = None) -> list[Future[None]]:
        removing: list[Future[None]] = []
        for place in places(self.root):
            about = place.about()
            if about is None:
                # Nothing was created for the attempt yet: the directory was made just now, or the process died then.
                if _age(place.path) > 60:
                    with suppress(OSError):
                        place.clear()
            elif uid is None or about.uid == uid.hex():
                try:
                    over = self._is_over(about)
                except StoreError as error:
                    log.warning("leftovers of containers are not removed now: %s", error)
                    return removing
                if over:
                    removing.append(self.remove(place.key))
        return removing

    def place(self, uid: bytes, action: int, attempt: int) -> Place:
        """The directory of an attempt."""
        return self._place(key_of(uid, action, attempt))

    def may_be_left(self, key: str) -> bool:
        return os.path.exists(self._place(key).path)

    def _place(self, key: str) -> Place:
        return Place(key, os.path.join(self.root, key))

    def _abandon(self) -> None:
        if not self._lasting:
            for place in places(self.root):
                self.remove(place.key)

    def close(self) -> None:
        used = self._loop is not None
        super().close()
        if used and not self._lasting:
            for folder in (self.root, self.log_root):
                with suppress(OSError):
                    remove_tree(folder)


def _age(path: str) -> float:
    try:
        return SystemClock().wall() / 1_000_000 - os.stat(path).st_mtime
    except OSError:
        return 0.0
