"""`@perdure.trace`: helper functions with recorded outcomes.

Invariants of traced generators:
- GI1 all items that a consumer gets are items of one execution of the generator: a second execution hands out nothing
  before the second execution has given every recorded item once more, with the same content. Where the generator
  declares `resume`, the second execution gets the recorded items and continues.
- GI2 a generator whose end, failure or early close is recorded is not executed on replay.
- GI3 a retry discards the failure of a generator together with the items before the failure, unless the generator
  declares `resume`.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextvars import copy_context
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from ..core.body.branch import Branch, Call
from ..core.body.delivery import Outcome
from ..core.body.scope import SCOPE, TraceScope
from ..core.ground.model import Kind
from ..core.ground.spec import NO_RETRIES, Function, LimitUse, RetryStrategy
from ..core.ground.values import Signature, by_content, preview, tame
from ..core.run import calls
from ..core.run.interfaces import EXHAUSTED
from ..core.run.limits import cost_of
from ..errors import RunStopped, UsageError
from ._calling import INPUTS_SHOWN, caller, run_async, run_blocking, run_sync, warn_blocking
from ._names import qualified
from .declaring import distinct_name

if TYPE_CHECKING:
    from .limiting import Limit

P = ParamSpec("P")
R = TypeVar("R", covariant=True)
Q = ParamSpec("Q")
T = TypeVar("T")


class Trace(Generic[P, R]):
    """A traced function. Inside a task, the outcome is recorded once and replayed ever after; outside a run, or inside
    another trace, the call is a plain call of the function."""

    def __init__(
        self,
        fn: Callable[P, R],
        ignore: Sequence[str] = (),
        resume: str | None = None,
        retries: int | RetryStrategy = 0,
        limit: Limit | None = None,
        cost: Callable[..., float] | None = None,
    ) -> None:
        update_wrapper(self, fn)
        self.fn = fn
        self._resume = resume
        strategy = NO_RETRIES if type(retries) is int and not retries else _retries(fn, retries)
        if resume is not None:
            _check_resume(fn, resume)
            ignore = (*ignore, resume)
        name = distinct_name(fn)
        self._function = Function(
            kind=Kind.TRACE,
            fn=fn,
            name=name,
            is_async=inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn),
            signature=Signature.of(fn, ignore=ignore),
            qualified=lambda: qualified(fn, name),
            retries=strategy,
            limit=_limit_use(limit, cost, fn),
        )
        self._generator = inspect.isgeneratorfunction(fn)
        self._async_generator = inspect.isasyncgenfunction(fn)

    @property
    def function(self) -> Function:
        """The function as the core knows it."""
        return self._function

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Trace[P, R]: ...
    @overload
    def __get__(self: Trace[Concatenate[Any, Q], R], instance: object, owner: type | None = None) -> Trace[Q, R]: ...
    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else _BoundTrace(self, instance)

    def __repr__(self) -> str:
        return f"<perdure.trace {self._function.qualified()}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        where = caller(self._what)
        if type(where) is not Branch:
            if where is not None and self._function.limit is not None:
                return self._inside(where, args, kwargs, in_thread=False)  # type: ignore[no-any-return]
            return self.fn(*args, **kwargs)
        if self._resume is not None:
            self._refuse_items(args, kwargs)
        call = self._call(where, args, kwargs)
        if self._generator:
            return _items(self, call, args, kwargs)  # type: ignore[return-value]
        if self._async_generator:
            return _async_items(self, call, args, kwargs)  # type: ignore[return-value]
        protocol = calls.trace(call, self._function, args, kwargs)
        if asyncio._get_running_loop() is None:
            return run_blocking(protocol)  # type: ignore[no-any-return]
        if self._function.is_async:
            return run_async(protocol)  # type: ignore[return-value]
        warn_blocking(self._function.name)
        return run_sync(protocol)  # type: ignore[no-any-return]

    @overload
    def aio(self: Trace[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]: ...
    @overload
    def aio(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...
    def aio(self, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        """The call as a coroutine; a sync function then runs in a thread, and the event loop goes on meanwhile."""
        if self._generator or self._async_generator:
            raise UsageError(f"{self._function.name} is a generator; iterate over it instead of using .aio")
        where = caller(self._what)
        if where is None or isinstance(where, TraceScope):
            if where is not None and self._function.limit is not None:
                return self._inside(where, args, kwargs, in_thread=True)  # type: ignore[no-any-return]
            if self._function.is_async:
                return self.fn(*args, **kwargs)  # type: ignore[return-value]
            return asyncio.to_thread(self.fn, *args, **kwargs)
        return run_async(calls.trace(self._call(where, args, kwargs), self._function, args, kwargs))

    def _inside(self, scope: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, in_thread: bool) -> Any:
        """The call inside another trace: a plain call that holds a slot."""
        from .limiting import inside_trace, inside_trace_aio

        function = self._function
        assert function.limit is not None
        cost = cost_of(function, args, kwargs)
        if function.is_async:
            return inside_trace_aio(scope, function.limit, cost, lambda: self.fn(*args, **kwargs))
        if in_thread:
            return inside_trace_aio(scope, function.limit, cost, lambda: asyncio.to_thread(self.fn, *args, **kwargs))
        return inside_trace(scope, function.limit, cost, lambda: self.fn(*args, **kwargs))

    def _what(self) -> str:
        return f"trace {self._function.name}"

    def _refuse_items(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        resume = self._resume
        assert resume is not None
        if resume in kwargs or list(self._function.signature.parameters).index(resume) < len(args):
            raise UsageError(
                f"{self._function.name}: perdure passes {resume!r} inside a task, the items given so far; leave it out"
            )

    def _call(self, branch: Branch, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        function = self._function
        identity = function.signature.identity(args, kwargs)
        shown = identity if 1 < len(identity) <= INPUTS_SHOWN else None
        fp = function.fingerprint(identity)
        return branch.call(function.kind, function.name, fp, shown, function, identity)


class _BoundTrace:
    """A traced method on its instance."""

    def __init__(self, trace: Trace[Any, Any], instance: object) -> None:
        self._trace = trace
        self._instance = instance
        self.__wrapped__ = trace.fn

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._trace(self._instance, *args, **kwargs)

    def aio(self, *args: Any, **kwargs: Any) -> Any:
        """See `Trace.aio`."""
        return self._trace.aio(self._instance, *args, **kwargs)


@overload
def trace(fn: Callable[P, R], /) -> Trace[P, R]: ...
@overload
def trace(
    *,
    ignore: Sequence[str] = (),
    resume: str | None = None,
    retries: int | RetryStrategy = 0,
    limit: Limit | None = None,
    cost: Callable[..., float] | None = None,
) -> Callable[[Callable[P, R]], Trace[P, R]]: ...
def trace(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    ignore: Sequence[str] = (),
    resume: str | None = None,
    retries: int | RetryStrategy = 0,
    limit: Limit | None = None,
    cost: Callable[..., float] | None = None,
) -> Any:
    """Record the outcome of a helper function inside tasks.

    The function may be sync, async, a generator or an async generator. The result, or the raised exception, is on disk
    before the call returns, and is never produced again in the same run.

    A generator that was interrupted is executed again from its beginning, and has to give the recorded items once more:
    a difference stops the run with `GeneratorDivergedError`. With `resume` the generator continues by itself.

    Args:
        ignore: parameters without a part in the call's identity, which need not be encodable, such as `("self",)` or an
            open client.
        resume: the parameter of a generator that gets the items given so far, as a list: empty at first, the recorded
            items where an interrupted generator continues. The generator then yields only the items that follow.
        retries: how often a failed call is tried again inside a task, after a durable pause; an int, or a
            `RetryStrategy`. Only the last outcome is recorded. Crashes of the process do not count. Not for generators.
        limit: limits the calls over all processes of the store; a call waits for its slot.
        cost: gives what a call costs, a number: called with the arguments by their names. Without it a call costs 1.

    Raises:
        UsageError: `fn` is no function, `ignore` names no parameter of the function, `resume` no parameter of a
            generator with a default, `retries` has no meaning, or `limit` is given for a generator.
    """
    if fn is None:
        return lambda function: Trace(_function(function), ignore, resume, retries, limit, cost)
    return Trace(_function(fn), ignore, resume, retries, limit, cost)


def _retries(fn: Callable[..., Any], retries: int | RetryStrategy) -> RetryStrategy:
    from .settings import retry_strategy  # a late import: most traces have no retries

    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise UsageError(
            f"@perdure.trace(retries=...): {fn.__qualname__} is a generator, and its consumer has had items when it "
            "fails. Give the task retries=, or try again inside of the generator"
        )
    return retry_strategy(retries, f"trace {fn.__qualname__}")


def _limit_use(limit: Limit | None, cost: Any, fn: Callable[..., Any]) -> LimitUse | None:
    if limit is None and cost is None:
        return None
    from .limiting import limit_use  # a late import: most traces have no limit

    name = fn.__qualname__
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise UsageError(
            f"@perdure.trace(limit=...): {name} is a generator, whose consumer may take any time between two items. "
            "Hold the limit inside: `with limit.hold():` around each request"
        )
    return limit_use(limit, cost, f"trace {name}")


def _check_resume(fn: Callable[..., Any], resume: str) -> None:
    name = fn.__qualname__
    if not (inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn)):
        raise UsageError(f"@perdure.trace(resume={resume!r}): {name} is no generator, and has no items to resume with")
    parameter = inspect.signature(fn).parameters.get(resume)
    if parameter is None or parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
        raise UsageError(
            f"@perdure.trace(resume={resume!r}) names the parameter that gets the items given so far; {name} has no "
            f"such parameter. Add it: def {fn.__name__}(..., {resume}=())"
        )
    if parameter.default is parameter.empty:
        raise UsageError(
            f"@perdure.trace(resume={resume!r}): callers of {name} leave {resume!r} out, so it needs a default: "
            f"{resume}=()"
        )


def _function(fn: Any) -> Callable[..., Any]:
    if isinstance(fn, (staticmethod, classmethod)):
        raise UsageError(f"put @{type(fn).__name__} above @perdure.trace, not below it")
    if not inspect.isfunction(fn):
        raise UsageError(f"@perdure.trace goes on a function defined with def or async def, not on {fn!r}")
    return fn


# -- generators ------------------------------------------------------------------------------------------------


class _Source:
    """The user's generator behind a traced generator, as an effect that gives the next item (`ItemSource`).

    The generator is started only when the journal has no further item. Started again, the generator has to give every
    recorded item once more, which is compared and not handed out. A generator with `resume` gets the recorded items
    instead, and gives only what comes after.
    """

    def __init__(self, trace: Trace[Any, Any], call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.trace = trace
        self.call = call
        self.args = args
        self.kwargs = kwargs
        self.codec = trace._function.signature.yields
        self.item = 0
        self.numbers: list[int] = []
        self.iterator: Any = None
        self._recorded: deque[bytes] = deque()
        """Encoded items from the journal that the generator has not given in this life."""

    def passed(self, outcome: Outcome, *, live: bool) -> None:
        """See `ItemSource`."""
        self.item += 1
        if not live:
            assert outcome.value is not None
            self._recorded.append(outcome.value)
        if self.trace._resume is None:
            # A failed call is tried again as a whole, so that no outcome is spliced of two executions.
            self.numbers.append(outcome.n)

    def block(self) -> Any:
        """See `ItemSource`."""
        SCOPE.set(TraceScope(self.call.body, self.call.name))
        try:
            self._start()
            while self._recorded:
                self._compare(next(self.iterator))
            return next(self.iterator)
        except StopIteration:
            return self._end()
        except GeneratorExit as error:
            raise tame(error) from None
        except Exception as error:
            self._explain(error)
            raise

    def __await__(self) -> Any:
        return self._next().__await__()

    async def _next(self) -> Any:
        SCOPE.set(TraceScope(self.call.body, self.call.name))
        task = asyncio.current_task()
        try:
            self._start()
            while self._recorded:
                self._compare(await anext(self.iterator))
            return await anext(self.iterator)
        except StopAsyncIteration:
            return self._end()
        except GeneratorExit as error:
            if asyncio._get_running_loop() is None or asyncio.current_task() is not task:
                raise  # the garbage collector closes the coroutine
            raise tame(error) from None
        except Exception as error:
            self._explain(error)
            raise

    def _start(self) -> None:
        if self.iterator is not None:
            return
        kwargs = self.kwargs
        if self.trace._resume is not None:
            kwargs = {**kwargs, self.trace._resume: [self.codec.decode(data) for data in self._recorded]}
            self._recorded.clear()
        self.iterator = self.trace.fn(*self.args, **kwargs)

    def _compare(self, value: Any) -> None:
        data, recorded = self.codec.encode(value), self._recorded[0]
        if data != recorded:
            with by_content():
                same = self.codec.canonical(value) == self.codec.canonical(self.codec.decode(recorded))
            if not same:
                raise self._diverged(preview(data, ITEM_SHOWN))
        self._recorded.popleft()

    def _end(self) -> Any:
        if self._recorded:
            raise self._diverged("the end of the generator")
        return EXHAUSTED

    def _diverged(self, received: str) -> RunStopped:
        item = self.item - len(self._recorded)
        return calls.diverged(self.call, item, preview(self._recorded[0], ITEM_SHOWN), received)

    def _explain(self, error: Exception) -> None:
        if self._recorded:
            error.add_note(
                f"{self.call.name} was executed again to give the items after {self.item} recorded ones, and raised "
                f"this in place of item {self.item - len(self._recorded)}."
            )


ITEM_SHOWN = 200
"""Characters of an item in the message of a `GeneratorDivergedError`."""


class _Items:
    """A traced generator as its consumer sees it."""

    def __init__(self, items: Any, name: str) -> None:
        self._items = items
        self._name = name

    def __iter__(self) -> _Items:
        return self

    def __next__(self) -> Any:
        return next(self._items)

    def close(self) -> None:
        """Close the iteration early; recorded as complete at this point."""
        self._items.close()

    def throw(self, *args: Any) -> Any:
        """Refused, except for `GeneratorExit`: the code that handles the exception would have to be recorded, too."""
        error = _thrown(args)
        if isinstance(error, GeneratorExit):
            return self._items.throw(error)
        self._items.close()
        raise _no_throw(self._name, error) from error

    def send(self, value: Any) -> Any:
        """Refused: a sent value would have to be recorded, too."""
        raise UsageError(f"{self._name} is a traced generator; values cannot be sent into it")


def _items(trace: Trace[Any, Any], call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Items:
    return _Items(_drive_items(_Source(trace, call, args, kwargs)), trace._function.name)


def _drive_items(source: _Source) -> Any:
    call, function = source.call, source.trace._function
    if source.trace._resume is None:
        calls.open_generator(call)
    try:
        while True:
            value = run_sync(calls.trace(call, function, (), {}, source))
            if value is EXHAUSTED:
                return
            try:
                yield value
            except BaseException:
                calls.close_generator(call, source.item)
                raise
    finally:
        if source.iterator is not None:
            copy_context().run(_close, source)


def _close(source: _Source) -> None:
    SCOPE.set(TraceScope(source.call.body, source.call.name))
    source.iterator.close()


def _thrown(args: tuple[Any, ...]) -> BaseException:
    """The exception in the arguments of `throw`, which takes an exception or (the old form) type, value, traceback."""
    error = args[1] if len(args) > 1 and args[1] is not None else args[0]
    if isinstance(error, BaseException):
        return error
    kind = args[0]
    return kind() if error is kind else kind(error)  # type: ignore[no-any-return]


def _no_throw(name: str, error: BaseException) -> UsageError:
    return UsageError(
        f"{name} is a traced generator; exceptions cannot be thrown into it, as its except and finally would not be "
        f"recorded. (The exception was {type(error).__name__}: {error}.) For a context manager, write a plain "
        "@contextlib.contextmanager and call traced functions in it"
    )


class _AsyncItems:
    """A traced async generator as its consumer sees it."""

    def __init__(self, items: Any, name: str) -> None:
        self._items = items
        self._name = name

    def __aiter__(self) -> _AsyncItems:
        return self

    def __anext__(self) -> Any:
        return self._items.__anext__()

    def aclose(self) -> Any:
        """Close the iteration early; recorded as complete at this point."""
        return self._items.aclose()

    async def athrow(self, *args: Any) -> Any:
        """See `throw` of a sync generator."""
        error = _thrown(args)
        if isinstance(error, GeneratorExit):
            return await self._items.athrow(error)
        await self._items.aclose()
        raise _no_throw(self._name, error) from error

    async def asend(self, value: Any) -> Any:
        """Refused: a sent value would have to be recorded, too."""
        raise UsageError(f"{self._name} is a traced async generator; values cannot be sent into it")


def _async_items(trace: Trace[Any, Any], call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _AsyncItems:
    return _AsyncItems(_drive_async_items(_Source(trace, call, args, kwargs)), trace._function.name)


async def _drive_async_items(source: _Source) -> Any:
    call, function = source.call, source.trace._function
    if source.trace._resume is None:
        calls.open_generator(call)
    try:
        while True:
            value = await run_async(calls.trace(call, function, (), {}, source))
            if value is EXHAUSTED:
                return
            try:
                yield value
            except BaseException:
                calls.close_generator(call, source.item)
                raise
    finally:
        if source.iterator is not None:
            body = call.body
            before = SCOPE.get()
            SCOPE.set(TraceScope(body, call.name))
            try:
                await source.iterator.aclose()
            finally:
                SCOPE.set(before)
