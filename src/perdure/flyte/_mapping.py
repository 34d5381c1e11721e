"""`flyte.map`: perdure's, with exceptions as values by default, and Flyte's rule for partials."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Iterable, Iterator
from functools import partial
from typing import Any

from ..api import mapping


def _check(func: Any) -> None:
    """Raise `TypeError` for a partial that leaves another number of parameters than one, or not the first one."""
    if not isinstance(func, partial):
        return
    task = func.func
    names = list(inspect.signature(getattr(task, "fn", task)).parameters)
    given = {*names[: len(func.args)], *func.keywords}
    left = [name for name in names if name not in given]
    if len(left) != 1:
        name = getattr(task, "name", task)
        raise TypeError(
            f"a partial function must leave exactly one parameter for map; this one of {name} leaves {len(left)}"
            f"{': ' + ', '.join(left) if left else ''}"
        )
    if names.index(left[0]) != len(func.args):
        raise TypeError(
            f"map gives its items by position, so the parameter {left[0]!r} that the partial function leaves must "
            "come first among those that are not given by position"
        )


class _Map:
    def __call__(
        self,
        func: Any,
        *args: Iterable[Any],
        group_name: str | None = None,
        concurrency: int = 0,
        return_exceptions: bool = True,
    ) -> Iterator[Any]:
        """Call a task, or a partial of a task, with the items of the iterables; give the results in input order.

        Args:
            func: the task, or a `functools.partial` of the task that leaves one parameter.
            args: the iterables.
            group_name: a label for `perdure show`.
            concurrency: how many calls may be under way at once; 0 means all.
            return_exceptions: give the exception of a failed call as its result, which is Flyte's default.
        """
        _check(func)
        return mapping.map(
            func, *args, group_name=group_name, concurrency=concurrency, return_exceptions=return_exceptions
        )

    def aio(
        self,
        func: Any,
        *args: Iterable[Any],
        group_name: str | None = None,
        concurrency: int = 0,
        return_exceptions: bool = True,
    ) -> AsyncIterator[Any]:
        """The same as an async iterator."""
        _check(func)
        return mapping.map.aio(
            func, *args, group_name=group_name, concurrency=concurrency, return_exceptions=return_exceptions
        )


map = _Map()
