"""Code for two colours of a library, written once as a generator that yields the answers of the library.

A synchronous library has answered already. An asynchronous library gives something to await. `run_now` and `run_soon`
drive the generator in either colour.
"""

from __future__ import annotations

import inspect
from collections.abc import Generator
from typing import Any, TypeVar

T = TypeVar("T")
Steps = Generator[Any, Any, T]


def run_now(steps: Steps[T]) -> T:
    """Drive a generator whose answers are there already."""
    answer: Any = None
    while True:
        try:
            answer = steps.send(answer)
        except StopIteration as stop:
            value: T = stop.value
            return value


async def run_soon(steps: Steps[T]) -> T:
    """Drive a generator in the current task; what can be awaited is awaited."""
    try:
        answer = steps.send(None)
        while True:
            try:
                if inspect.isawaitable(answer):
                    answer = await answer
            except GeneratorExit:
                raise  # the garbage collector closes the coroutine, and nothing can be awaited any more
            except BaseException as error:
                answer = steps.throw(error)
            else:
                answer = steps.send(answer)
    except StopIteration as stop:
        value: T = stop.value
        return value
