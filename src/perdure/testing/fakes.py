"""Fakes in place of tasks and traces, with a record of their calls."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, NamedTuple

from ..api.container import ContainerTask
from ..api.task import Task
from ..api.trace import Trace
from ..core.ground.spec import Function, TaskSpec
from ..errors import UsageError

__all__ = ["Fake", "FakeCall", "fake"]

_ABSENT: Any = object()


class FakeCall(NamedTuple):
    """A call of a fake."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    arguments: dict[str, Any]
    """The values by the names of the parameters, defaults included."""


class Fake:
    """A fake in place of a task or a trace, for the length of a `with` block; see `fake`."""

    def __init__(self, wrapper: Any, function: Function, answer: Callable[..., Any]) -> None:
        self._wrapper = wrapper
        self._function = function
        self._real = function.fn
        self._answer = answer
        self._lock = threading.Lock()
        self._dispose = function.dispose if isinstance(function, TaskSpec) else None
        # The function of a container task takes more than the inputs of the task.
        self._signature = inspect.signature(self._real) if hasattr(wrapper, "fn") else None
        self.calls: list[FakeCall] = []
        """The calls that were executed, in order. A replayed call is not executed."""

    @property
    def called(self) -> bool:
        """Whether the fake was executed at all."""
        return bool(self.calls)

    def __repr__(self) -> str:
        return f"<perdure.testing.fake {self._function.name}, {len(self.calls)} calls>"

    def __enter__(self) -> Fake:
        stand_in = self._stand_in()
        self._function.fn = stand_in
        if isinstance(self._function, TaskSpec):
            self._function.dispose = None
        if hasattr(self._wrapper, "fn"):
            self._wrapper.fn = stand_in
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._function.fn = self._real
        if isinstance(self._function, TaskSpec):
            self._function.dispose = self._dispose
        if hasattr(self._wrapper, "fn"):
            self._wrapper.fn = self._real

    def _note(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._signature is None:
            arguments = dict(zip(self._function.signature.parameters, args, strict=False)) | kwargs
        else:
            bound = self._signature.bind(*args, **kwargs)
            bound.apply_defaults()
            arguments = dict(bound.arguments)
        with self._lock:
            self.calls.append(FakeCall(args, kwargs, arguments))

    def _stand_in(self) -> Callable[..., Any]:
        """A function of the same colour as the real function."""
        real, answer = self._real, self._answer

        async def coroutine(*args: Any, **kwargs: Any) -> Any:
            self._note(args, kwargs)
            value = answer(*args, **kwargs)
            return await value if inspect.isawaitable(value) else value

        def plain(*args: Any, **kwargs: Any) -> Any:
            self._note(args, kwargs)
            return answer(*args, **kwargs)

        async def async_items(*args: Any, **kwargs: Any) -> Any:
            self._note(args, kwargs)
            for item in answer(*args, **kwargs):
                yield item

        def items(*args: Any, **kwargs: Any) -> Any:
            self._note(args, kwargs)
            yield from answer(*args, **kwargs)

        if inspect.isasyncgenfunction(real):
            return async_items
        if inspect.isgeneratorfunction(real):
            return items
        return coroutine if self._function.is_async else plain


def fake(
    target: Any,
    *,
    returns: Any = _ABSENT,
    raises: BaseException | type[BaseException] | None = None,
    calls: Callable[..., Any] | None = None,
) -> Fake:
    """Within the block, calls of a task or a trace have another outcome: `with fake(charge, returns="ok") as charged:`.
    Everything else stays: the types, the record of the outcome, retries, replay. `charged.calls` holds the calls.

    Args:
        target: a task, a container task or a trace.
        returns: the value of each call; of a generator, its items.
        raises: the exception of each call.
        calls: a function that is called instead, with the same arguments.

    Raises:
        UsageError: the target is none of these, or not exactly one outcome is given.
    """
    if (returns is not _ABSENT) + (raises is not None) + (calls is not None) != 1:
        raise UsageError("fake takes exactly one of returns=, raises= and calls=")
    function = _function_of(target)
    if isinstance(function, TaskSpec) and function.process:
        raise UsageError(
            f"task {function.name} executes in another process (executor={function.executor!r}), beyond a fake; "
            'give its environment executor="local" in tests'
        )

    def raising(*args: Any, **kwargs: Any) -> Iterable[Any]:
        assert raises is not None
        raise raises

    def returning(*args: Any, **kwargs: Any) -> Any:
        return returns

    return Fake(target, function, calls or (raising if raises is not None else returning))


def _function_of(target: Any) -> Function:
    if isinstance(target, Trace):
        return target.function
    if isinstance(target, (Task, ContainerTask)):
        return target.spec
    raise UsageError(f"fake takes a task, a container task or a trace, not {target!r}")
