"""Hears that runs have ended which other processes drive, so that a caller who waits need not look often."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol, TypeVar
from weakref import WeakKeyDictionary

from .. import runtime
from ..core.body.scope import unscoped
from ..core.ground.ports import Store


class Waker(Protocol):
    """What a caller waits for."""

    def set(self) -> None:
        """Wake the caller; from any thread."""


T = TypeVar("T", bound=Waker)

_lock = threading.Lock()
_waiting: WeakKeyDictionary[Store, set[Waker]] = WeakKeyDictionary()
"""The callers that wait for runs of a store in use. Guarded by `_lock`."""


class LoopEvent:
    """An event for a task of the running event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def set(self) -> None:
        """See `Waker`."""
        with suppress(RuntimeError):
            # The loop may have been closed meanwhile.
            self._loop.call_soon_threadsafe(self._event.set, context=unscoped())

    def clear(self) -> None:
        """Wait for the next ring from now on."""
        self._event.clear()

    async def wait_for(self, seconds: float) -> None:
        """Wait for a ring, for that many seconds at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()


@contextmanager
def heard(event: T) -> Iterator[T]:
    """Set the event, within the block, whenever runs of the store in use may have ended."""
    store = runtime.worker().store
    with _lock:
        waiting = _waiting.get(store)
        if waiting is None:
            waiting = _waiting[store] = set()
            new = True
        else:
            new = False
        waiting.add(event)
    if new:
        store.listen(lambda: _ring(waiting), ends=True)
    try:
        yield event
    finally:
        with _lock:
            waiting.discard(event)


def _ring(waiting: set[Waker]) -> None:
    with _lock:
        events = list(waiting)
    for event in events:
        event.set()
