"""Steps whose effect in your database and whose recorded outcome are one commit (P13), for SQLAlchemy and psycopg.

Nothing of SQLAlchemy or psycopg is imported here: the caller has imported what the caller passes.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, Protocol, TypeAlias, TypeVar, overload

from ..api._calling import caller, run_async, run_blocking, run_sync, warn_blocking
from ..api.trace import Trace
from ..core.body.branch import Branch, Call
from ..core.body.scope import TraceScope
from ..core.ground.spec import Function
from ..core.ground.steps import Steps, run_now, run_soon
from ..core.run import calls
from ..errors import InsideTraceError, UsageError
from ._pruning import prune
from ._steps import Execution, StepTarget
from ._units import database_of

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy import Connection, Engine
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker
    from sqlalchemy.orm import Session, sessionmaker

__all__ = ["Transaction", "prune", "transaction"]

P = ParamSpec("P")
R = TypeVar("R")
Coro: TypeAlias = Coroutine[Any, Any, R]
S = TypeVar("S", bound="Session")
A = TypeVar("A", bound="AsyncSession")
"""The kind of session that a sessionmaker makes."""

_PLACEHOLDER: Final = None
"""Stands for the connection until the step is executed."""


class Pool(Protocol):
    """A pool of psycopg (`psycopg_pool.ConnectionPool`)."""

    def getconn(self) -> Any:
        """A connection."""

    def connection(self) -> AbstractContextManager[psycopg.Connection[Any]]:
        """A connection for a block."""


class AsyncPool(Protocol):
    """An asynchronous pool of psycopg (`psycopg_pool.AsyncConnectionPool`)."""

    async def getconn(self) -> Any:
        """A connection."""

    def connection(self) -> AbstractAsyncContextManager[psycopg.AsyncConnection[Any]]:
        """A connection for a block."""


class Transaction(Trace[P, R]):
    """A function under `@perdure.transaction`. Inside a task, the effect in the database and the recorded outcome are
    one commit; outside a run, the call is the function in a transaction of its own."""

    def __init__(self, fn: Callable[..., R], database: Any) -> None:
        parameter = _first_parameter(fn)
        super().__init__(fn, ignore=(parameter,))
        is_async = self._function.is_async
        self._target = StepTarget(database_of(database, is_async=is_async, what=fn.__qualname__), is_async=is_async)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        if instance is None:
            return self
        raise UsageError(
            f"{self._function.name} is a method: @perdure.transaction goes on functions, whose first parameter is the "
            "connection. Move it out of the class, or put @staticmethod above"
        )

    def __repr__(self) -> str:
        return f"<perdure.transaction {self._function.qualified()}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        where = self._caller()
        if where is None:
            steps = self._alone(args, kwargs)
            return run_soon(steps) if self._function.is_async else run_now(steps)  # type: ignore[return-value]
        protocol = self._protocol(where, args, kwargs)
        if asyncio._get_running_loop() is None:
            return run_blocking(protocol)  # type: ignore[no-any-return]
        if self._function.is_async:
            return run_async(protocol)  # type: ignore[return-value]
        warn_blocking(self._function.name)
        return run_sync(protocol)  # type: ignore[no-any-return]

    def aio(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, Any]:
        """The call as a coroutine; a sync function then runs in a thread, and the event loop goes on meanwhile."""
        where = self._caller()
        if where is None:
            steps = self._alone(args, kwargs)
            return run_soon(steps) if self._function.is_async else asyncio.to_thread(run_now, steps)
        return run_async(self._protocol(where, args, kwargs))

    def _caller(self) -> Branch | None:
        where = caller(self._what)
        if isinstance(where, TraceScope):
            raise InsideTraceError(
                f"transaction {self._function.name} was called inside trace {where.name}, whose second execution would "
                "commit a second time. Call it in the task itself, or call the function within your own transaction: "
                f"{self._function.name}.fn(connection, ...)"
            )
        return where

    def _what(self) -> str:
        return f"transaction {self._function.name}"

    def _protocol(self, where: Branch, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        call = self._call(where, (_PLACEHOLDER, *args), kwargs)
        known = self._function
        here = Function(
            kind=known.kind,
            fn=partial(self._execute, call),
            name=known.name,
            is_async=known.is_async,
            signature=known.signature,
            qualified=known.qualified,
        )
        return calls.trace(call, here, args, kwargs)

    def _execute(self, call: Call, *args: Any, **kwargs: Any) -> Any:
        """Execute the step; a coroutine for an async function."""
        run = lambda given: self.fn(given, *args, **kwargs)  # noqa: E731 - args of this call
        steps = Execution(self._target, call, self._function, run).whole()
        return run_soon(steps) if self._function.is_async else run_now(steps)

    def _alone(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Steps[Any]:
        """Outside a run: the function in a transaction, without a recorded outcome."""
        unit = yield from self._target.database.open()
        try:
            yield from unit.begin()
            value = yield self.fn(unit.given, *args, **kwargs)
            yield from unit.commit()
        finally:
            yield from unit.close()
        return value


@overload
def transaction(database: Engine, /) -> Callable[[Callable[Concatenate[Connection, P], R]], Transaction[P, R]]: ...
@overload
def transaction(
    database: AsyncEngine, /
) -> Callable[[Callable[Concatenate[AsyncConnection, P], Coro[R]]], Transaction[P, Coro[R]]]: ...
@overload
def transaction(database: sessionmaker[S], /) -> Callable[[Callable[Concatenate[S, P], R]], Transaction[P, R]]: ...
@overload
def transaction(
    database: async_sessionmaker[A], /
) -> Callable[[Callable[Concatenate[A, P], Coro[R]]], Transaction[P, Coro[R]]]: ...
@overload
def transaction(
    database: psycopg.Connection[Any] | Pool | Callable[[], psycopg.Connection[Any]], /
) -> Callable[[Callable[Concatenate[psycopg.Connection[Any], P], R]], Transaction[P, R]]: ...
@overload
def transaction(
    database: psycopg.AsyncConnection[Any] | AsyncPool | Callable[[], Awaitable[psycopg.AsyncConnection[Any]]], /
) -> Callable[
    [Callable[Concatenate[psycopg.AsyncConnection[Any], P], Coro[R]]],
    Transaction[P, Coro[R]],
]: ...
def transaction(database: Any, /) -> Any:
    """Make a function a step whose effect in your database and whose outcome are one commit (P13).

    The function gets a connection, or a session, as its first argument, inside a transaction. Callers leave that
    argument out. perdure commits; a function that raises is rolled back. The result, or the exception, is recorded as
    that of a trace. Serialization failures, deadlocks and lost connections are retried a few times.

    Args:
        database: what gives the first argument of the function:
            `sqlalchemy.Engine`: a `Connection`; `AsyncEngine`: an `AsyncConnection`; `sessionmaker`: a `Session`;
            `async_sessionmaker`: an `AsyncSession`; a connection of psycopg, a pool of psycopg, or a function that
            connects: a `psycopg.Connection` or `psycopg.AsyncConnection`.

    Raises:
        UsageError: `database` is none of these, the function has no parameter for the connection, or is of the other
            colour (`async def` needs an asynchronous database).
    """
    return lambda fn: Transaction(fn, database)


def _first_parameter(fn: Any) -> str:
    if not inspect.isfunction(fn):
        raise UsageError(f"@perdure.transaction goes on a function defined with def or async def, not on {fn!r}")
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise UsageError(f"{fn.__qualname__} is a generator, and a transaction has one outcome: return a list")
    for parameter in inspect.signature(fn).parameters.values():
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            if parameter.name in ("self", "cls"):
                break
            return parameter.name
        break
    raise UsageError(
        f"@perdure.transaction passes a connection as the first argument: def {fn.__name__}(connection, ...)"
    )
