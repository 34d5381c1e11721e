"""Results of perdure's threads, awaited on the event loop of the caller."""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import Future
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from ..core.body.scope import unscoped

_callers: set[object] = set()


class waiting:  # noqa: N801 - reads as a statement
    """Within the block, a caller outside of all runs waits for a run: a virtual clock may jump meanwhile."""

    __slots__ = ()

    def __enter__(self) -> None:
        _callers.add(self)

    def __exit__(self, *error: object) -> None:
        _callers.discard(self)


def callers_wait() -> bool:
    """Whether any caller waits for a run right now."""
    return bool(_callers)


class _Arrivals:
    """Results that come to an event loop from perdure's threads; the first of simultaneous results wakes the loop."""

    def __init__(self) -> None:
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._armed = False

    def put(self, waiter: asyncio.Future[None], _: Future[Any]) -> None:
        """From any thread."""
        self._waiters.append(waiter)
        if not self._armed:
            self._armed = True
            try:
                waiter.get_loop().call_soon_threadsafe(self._deliver, context=unscoped())
            except RuntimeError:
                pass  # the loop is closed, and with it every waiting task

    def _deliver(self) -> None:
        # First: a result that is added from here on wakes the loop again.
        self._armed = False
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)


_arrivals: WeakKeyDictionary[asyncio.AbstractEventLoop, _Arrivals] = WeakKeyDictionary()


async def arrival(done: Future[Any]) -> Any:
    """The result of `done`. Cancelling the wait does not touch `done`."""
    loop = asyncio.get_running_loop()
    arrivals = _arrivals.get(loop)
    if arrivals is None:
        arrivals = _arrivals[loop] = _Arrivals()
    waiter = loop.create_future()
    done.add_done_callback(partial(arrivals.put, waiter))
    await waiter
    return done.result()
