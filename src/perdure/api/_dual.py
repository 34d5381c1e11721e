"""One public call in two colours: `f(...)` blocks, `await f.aio(...)` does not."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import update_wrapper
from typing import Any, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Dual(Generic[P, R]):
    """A function with an async form on it. Both forms share one implementation underneath."""

    def __init__(self, sync: Callable[P, R], aio: Callable[P, Coroutine[Any, Any, R]]) -> None:
        self._sync = sync
        self.aio = aio
        """The same call as a coroutine."""
        update_wrapper(self, sync)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._sync(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<{self._sync.__module__}.{self._sync.__qualname__}>"
