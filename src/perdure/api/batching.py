"""`Batch`: one call of a function for the inputs of many runs.

- BT1 every run of a batch has its own outcome, recorded as the outcome of a trace in the run. Nothing of a batch is
  shared between runs in the store: a crash loses the items whose outcomes are not recorded, and those are executed
  again, in another batch.
- BT2 an item waits at most `within` seconds for others, and no call gets more than `size` items.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import typing
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from ..core.ground.values import decode_error, encode_error, tame
from ..errors import UsageError
from .trace import Trace


@dataclass(frozen=True, slots=True)
class Batch:
    """A task that is called once for many runs: `@env.task(batch=Batch(size=100, within=2.0))`.

    The function takes one list and gives a list of as many results, in the same order; an exception in place of a
    result fails the run of that item alone. A submission, or a call, gives one item and gets its own result. The runs
    that one worker process drives at the same time share calls.

    Args:
        size: the function gets at most so many items.
        within: an item waits at most so long for others (seconds or a `timedelta`).

    Raises:
        UsageError: a setting means nothing.
    """

    size: int = 100
    within: float | timedelta = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.size, bool) or not isinstance(self.size, int) or not 1 <= self.size <= 100_000:
            raise UsageError(f"Batch: size must be an int from 1 to 100000, not {self.size!r}")
        seconds = self.seconds
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds <= 3600:
            raise UsageError(f"Batch: within must be seconds from 0 to an hour, or a timedelta, not {self.within!r}")

    @property
    def seconds(self) -> float:
        """The longest wait for others."""
        return self.within.total_seconds() if isinstance(self.within, timedelta) else self.within


def single(fn: Callable[..., Any], batch: Any, executor: str) -> Callable[..., Any]:
    """The function for one item that stands for the function for many.

    Raises:
        UsageError: the function does not take one list and give a list, or the setting means nothing.
    """
    where = f"@env.task(batch=...) on {fn.__qualname__}"
    if not isinstance(batch, Batch):
        raise UsageError(f"{where}: batch must be a perdure.Batch, not {batch!r}")
    if executor != "local":
        raise UsageError(f"{where}: runs share calls within one process, so the environment needs executor='local'")
    parameters = list(inspect.signature(fn).parameters.values())
    if len(parameters) != 1 or parameters[0].kind not in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    ):
        raise UsageError(f"{where}: the function must take one argument, the list of items")
    hints = typing.get_type_hints(fn, include_extras=True)
    name = parameters[0].name
    item, result = _element(hints.get(name, list), where), _element(hints.get("return", list), where)
    calls = _Calls(fn, batch)

    async def of_one(*args: Any, **kwargs: Any) -> Any:
        (value,) = (*args, *kwargs.values())
        return await calls.add(value)

    _dress(of_one, fn, name, item, result)
    recorded: Trace[..., Any] = Trace(of_one)

    async def of_run(*args: Any, **kwargs: Any) -> Any:
        return await recorded(*args, **kwargs)

    _dress(of_run, fn, name, item, result)
    return of_run


def _element(hint: Any, where: str) -> Any:
    """The type of the items of a declared list; `Any` for a bare list."""
    if hint is list:
        return Any
    found = typing.get_args(hint)
    if typing.get_origin(hint) is not list or len(found) != 1:
        raise UsageError(f"{where}: the argument and the result must be declared as lists, such as list[str]")
    return found[0]


def _dress(function: Any, fn: Callable[..., Any], name: str, item: Any, result: Any) -> None:
    """Give the function for one item the name and the place of `fn`, and the types of one item."""
    function.__name__, function.__qualname__, function.__module__ = fn.__name__, fn.__qualname__, fn.__module__
    function.__doc__ = fn.__doc__
    function.__annotations__ = {name: item, "return": result}
    function.__signature__ = inspect.Signature(
        [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=item)],
        return_annotation=result,
    )


@dataclass(slots=True)
class _Item:
    value: Any
    done: Future[Any]


class _Calls:
    """The items that wait in this process, and the calls of the function. From any thread."""

    def __init__(self, fn: Callable[..., Any], batch: Batch) -> None:
        self._fn = fn
        self._batch = batch
        self._lock = threading.Lock()
        self._waiting: list[_Item] = []
        self._turn = 0
        """How many calls have begun: a timer of an earlier call does nothing."""

    async def add(self, value: Any) -> Any:
        """Wait with an item for others, and give the result of the item."""
        item = _Item(value, Future())
        with self._lock:
            self._waiting.append(item)
            first, turn = len(self._waiting) == 1, self._turn
            full = self._take() if len(self._waiting) >= self._batch.size else None
        if full is not None:
            self._start(full)
        elif first:
            timer = threading.Timer(self._batch.seconds, self._late, (turn,))
            timer.daemon = True
            timer.start()
        try:
            return await asyncio.wrap_future(item.done)
        except asyncio.CancelledError:
            with self._lock:
                if item in self._waiting:
                    self._waiting.remove(item)
            raise

    def _take(self) -> list[_Item]:
        taken, self._waiting = self._waiting, []
        self._turn += 1
        return taken

    def _late(self, turn: int) -> None:
        with self._lock:
            taken = self._take() if turn == self._turn else []
        if taken:
            self._start(taken)

    def _start(self, items: list[_Item]) -> None:
        threading.Thread(target=self._call, args=(items,), name="perdure-batch", daemon=True).start()

    def _call(self, items: list[_Item]) -> None:
        # In a thread of its own, outside of every run: no run owns the call.
        try:
            found: Any = self._fn([item.value for item in items])
            if inspect.isawaitable(found):
                found = asyncio.run(_awaited(found))
            if not isinstance(found, (list, tuple)) or len(found) != len(items):
                raise UsageError(
                    f"{self._fn.__qualname__} got {len(items)} items and has to give a list of as many results, not "
                    f"{f'{len(found)} results' if isinstance(found, (list, tuple)) else type(found).__name__}"
                )
        except BaseException as error:
            found = [error] * len(items)
        for item, result in zip(items, found, strict=True):
            if not item.done.set_running_or_notify_cancel():
                continue
            if isinstance(result, BaseException):
                # A copy for each run: runs mark the exceptions that they record.
                item.done.set_exception(decode_error(encode_error(tame(result))))
            else:
                item.done.set_result(result)


async def _awaited(found: Any) -> Any:
    return await found
