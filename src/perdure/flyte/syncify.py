"""Async functions that can be called from sync code: `f(...)` blocks, `await f.aio(...)` does not."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextvars import copy_context
from functools import update_wrapper
from types import MethodType
from typing import Any


class _Background:
    """An event loop in a thread of its own, begun on first use."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name=f"perdure-{self._name}", daemon=True).start()
            return self._loop

    def call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """The result of a coroutine that runs on the loop, under the caller's context variables."""
        loop = self._running()
        if asyncio._get_running_loop() is loop:
            coroutine.close()
            raise RuntimeError(f"a function of {self._name} called another one in a blocking way: await its .aio(...)")
        context = copy_context()
        done = threading.Event()
        tasks: list[asyncio.Task[Any]] = []

        def begin() -> None:
            task = loop.create_task(coroutine, context=context)
            tasks.append(task)
            task.add_done_callback(lambda _: done.set())

        loop.call_soon_threadsafe(begin)
        done.wait()
        return tasks[0].result()


class _Sync:
    """An async function, or an async generator function, in two colours."""

    def __init__(self, fn: Callable[..., Any], background: _Background) -> None:
        update_wrapper(self, fn)
        self.fn = fn
        self._background = background

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if inspect.isasyncgenfunction(self.fn):
            return self._items(self.fn(*args, **kwargs))
        return self._background.call(self.fn(*args, **kwargs))

    def aio(self, *args: Any, **kwargs: Any) -> Any:
        """The call as a coroutine, or as an async iterator."""
        return self.fn(*args, **kwargs)

    def _items(self, items: AsyncIterator[Any]) -> Iterator[Any]:
        async def following() -> tuple[bool, Any]:
            try:
                return True, await anext(items)
            except StopAsyncIteration:
                return False, None

        while True:
            more, value = self._background.call(following())
            if not more:
                return
            yield value

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        bound = self.fn.__get__(instance, owner) if instance is not None else self.fn
        return _Sync(bound, self._background) if isinstance(bound, MethodType) else self


class _SyncClassMethod:
    """A class method in two colours."""

    def __init__(self, method: classmethod[Any, Any, Any] | staticmethod[Any, Any], background: _Background) -> None:
        self._method = method
        self._background = background

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return _Sync(self._method.__get__(instance, owner), self._background)


class Syncify:
    """A decorator; the functions of one `Syncify` share a background thread."""

    def __init__(self, name: str = "flyte_syncify") -> None:
        self._background = _Background(name)

    def __call__(self, obj: Any) -> Any:
        """Decorate an async function, an async generator function, or a class or static method of these kinds.

        Raises:
            TypeError: another kind of object.
        """
        if isinstance(obj, (classmethod, staticmethod)):
            return _SyncClassMethod(obj, self._background)
        if inspect.iscoroutinefunction(obj) or inspect.isasyncgenfunction(obj):
            return _Sync(obj, self._background)
        raise TypeError(f"syncify takes async functions, async generator functions and methods of these, not {obj!r}")


syncify = Syncify()

__all__ = ["Syncify", "syncify"]
