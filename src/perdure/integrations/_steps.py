"""Calls of other libraries as durable calls of the body that makes the calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from ..api.context import ctx
from ..api.trace import trace
from ..core.body.scope import SCOPE, is_body


def in_body() -> bool:
    """Whether the caller is the body of a task: outside of runs, and inside of traces, nothing is durable by itself."""
    return is_body(SCOPE.get())


@trace(ignore=("work",))
async def step(name: str, work: Callable[[], Awaitable[Any]]) -> Any:
    """Some work of a library. The name is the identity of the call; several calls of a name are told apart by order."""
    return await work()


_counts: WeakKeyDictionary[Any, Counter[str]] = WeakKeyDictionary()


class Unique(NamedTuple):
    """A name that occurs once in a run."""

    run: str
    """The name of the run."""
    name: str
    number: int
    """The position among the unique names of the same beginning, from 1."""


def unique(beginning: str) -> Unique:
    """A unique name in the run, the same when the body is executed again."""
    count, where = _counts.setdefault(SCOPE.get(), Counter()), ctx()
    assert where is not None
    count[beginning] += 1
    number = count[beginning]
    return Unique(where.run_name, f"{beginning}:{where.action}:{number}", number)
