"""One public call in two colours: `f(...)` blocks, `await f.aio(...)` does not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import update_wrapper
from types import MethodType
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, cast, overload

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")


class Dual(Generic[P, R]):
    """A function with an async form. Both forms share one implementation underneath."""

    def __init__(self, sync: Callable[P, R], aio: Callable[P, Coroutine[Any, Any, R]]) -> None:
        self._sync = sync
        self.aio = aio
        """The same call as a coroutine."""
        update_wrapper(self, sync)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._sync(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<{self._sync.__module__}.{self._sync.__qualname__}>"


def dual(fn: Callable[P, R]) -> Dual[P, R]:
    """A blocking function in two colours; the async form works in a thread."""

    async def aio(*args: P.args, **kwargs: P.kwargs) -> R:
        return await asyncio.to_thread(fn, *args, **kwargs)

    return Dual(fn, aio)


class dual_method(Generic[S, P, R]):  # noqa: N801 - a decorator
    """A blocking method in two colours: `value.method(...)` and `await value.method.aio(...)`."""

    def __init__(self, fn: Callable[Concatenate[S, P], R]) -> None:
        self._fn = fn
        self.__doc__ = fn.__doc__

    @overload
    def __get__(self, owner: None, cls: type[S]) -> dual_method[S, P, R]: ...

    @overload
    def __get__(self, owner: S, cls: type[S]) -> Dual[P, R]: ...

    def __get__(self, owner: S | None, cls: type[S]) -> dual_method[S, P, R] | Dual[P, R]:
        return self if owner is None else dual(cast("Callable[P, R]", MethodType(self._fn, owner)))
