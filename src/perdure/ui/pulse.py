"""Watches the store for changes, once for all browsers that follow a page."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.concurrency import run_in_threadpool

from .. import runtime
from ..api.looking import store_exists
from ..core.ground.clock import seconds
from ..errors import PerdureError

LOOK_SECONDS = 0.25
"""Between two looks at the store."""
ANYWAY_SECONDS = 2.0
"""After which a page is made again without a change of the store: the death of a process changes no row."""
BEAT_SECONDS = 15.0
"""Between two signs of life on a connection without changes."""


class Pulse:
    """Counts the changes of the store while a browser follows."""

    def __init__(self) -> None:
        self._beat = 0
        self._followers = 0
        self._watch: asyncio.Task[None] | None = None
        self._changed: asyncio.Event = asyncio.Event()
        self.stopping = False

    def stop(self) -> None:
        """End all live connections, so that the server can end."""
        self.stopping = True

    async def _look(self) -> None:
        version, looked = -1, seconds()
        while self._followers and not self.stopping:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                now = await run_in_threadpool(_version)
            except PerdureError:
                now = -1  # the page that is made again tells the failure
            if now != version or seconds() - looked > ANYWAY_SECONDS:
                version, looked = now, seconds()
                self._tell()
        self._watch = None
        self._tell()

    def _tell(self) -> None:
        self._beat += 1
        self._changed.set()
        self._changed = asyncio.Event()

    async def follow(self) -> AsyncIterator[str]:
        """Server-sent events: `change` after each change of the store, and comments as signs of life."""
        self._followers += 1
        if self._watch is None:
            self._watch = asyncio.get_running_loop().create_task(self._look())
        beat = self._beat
        try:
            yield "retry: 1000\n\n"
            while not self.stopping:
                changed = self._changed
                if self._beat == beat:
                    try:
                        async with asyncio.timeout(BEAT_SECONDS):
                            await changed.wait()
                    except TimeoutError:
                        yield ": still here\n\n"
                        continue
                beat = self._beat
                yield f"event: change\ndata: {beat}\n\n"
        finally:
            self._followers -= 1


def _version() -> int:
    return runtime.worker().store.version() if store_exists() else 0
