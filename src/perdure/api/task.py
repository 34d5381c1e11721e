"""Tasks: typed functions with settings, each call of which is an action with attempts."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from datetime import timedelta
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from ..core.body.scope import TraceScope
from ..core.ground.model import Kind
from ..core.ground.spec import RetryStrategy, TaskSpec
from ..core.ground.values import Signature
from ..core.run import calls
from ..errors import InsideTraceError, UsageError
from ._calling import Branch, Call, caller, on_loop, run_async, run_sync, warn_blocking
from ._names import qualified, target
from .settings import CacheRequest, Timeout, cache_key, cache_signature, retry_strategy, timeout_seconds

if TYPE_CHECKING:
    from ..core.process.schedule import Rule
    from .environment import TaskEnvironment
    from .triggers import Triggers

P = ParamSpec("P")
R = TypeVar("R")


class Task(Generic[P, R]):
    """A declared task. Inside a run, calling it makes a child action; outside, it is just the function."""

    triggers: tuple[Rule, ...] = ()
    """When it is to run by itself."""

    def __init__(
        self,
        fn: Callable[P, R],
        environment: TaskEnvironment,
        *,
        retries: int | RetryStrategy,
        timeout: float | timedelta | Timeout | None,
        cache: CacheRequest,
        short_name: str | None = None,
        triggers: Triggers = (),
    ) -> None:
        update_wrapper(self, fn)
        self.fn = fn
        self.environment = environment
        self.name = f"{environment.name}.{short_name or fn.__name__}"
        self._settings: dict[str, Any] = {
            "retries": retries,
            "timeout": timeout,
            "cache": cache,
            "short_name": short_name,
        }
        self._cache_signature = cache_signature(cache, fn)
        self.spec = TaskSpec(
            kind=Kind.TASK,
            fn=fn,
            name=self.name,
            is_async=inspect.iscoroutinefunction(fn),
            signature=Signature.of(fn),
            qualified=lambda: qualified(fn),
            retries=retry_strategy(retries, self.name),
            timeout=timeout_seconds(timeout, self.name),
            cache_key=cache_key(cache, fn, self.name),
            target=lambda: target(fn),
            env_vars=environment.env_vars,
            executor=environment.executor,
            resources=None if environment.resources is None else environment.resources.needs(),
        )
        if triggers:
            from .triggers import rules_of  # most tasks have none

            self.triggers = rules_of(triggers, self.spec)

    def __repr__(self) -> str:
        return f"<perdure.task {self.name}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        where = caller(self._what)
        if where is None:
            return self.fn(*args, **kwargs)
        protocol = self._protocol(where, args, kwargs)
        if on_loop():
            if self.spec.is_async:
                return run_async(protocol)  # type: ignore[return-value]
            warn_blocking(self.name)
        return run_sync(protocol)  # type: ignore[no-any-return]

    def aio(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, Any]:
        """The call as a coroutine, whatever the function's own colour."""
        where = caller(self._what)
        if where is None:
            if self.spec.is_async:
                return self.fn(*args, **kwargs)  # type: ignore[return-value]
            return asyncio.to_thread(self.fn, *args, **kwargs)
        return run_async(self._protocol(where, args, kwargs))

    def override(
        self,
        *,
        short_name: str | None = None,
        retries: int | RetryStrategy | None = None,
        timeout: float | timedelta | Timeout | None = None,
        cache: CacheRequest | None = None,
    ) -> Task[P, R]:
        """The same function under other settings, without triggers; what is not given stays."""
        given = {"short_name": short_name, "retries": retries, "timeout": timeout, "cache": cache}
        settings = self._settings | {name: value for name, value in given.items() if value is not None}
        return Task(self.fn, self.environment, **settings)

    def check_findable(self) -> None:
        """Raise `UsageError` if its body is to execute in a process that could not load it."""
        if self.spec.process:
            from .loading import refuse_unfindable

            refuse_unfindable(self.name, self.spec.target())

    def protocol(self, branch: Branch, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The call from `branch`, as a protocol for a shell to drive."""
        spec = self.spec
        self.check_findable()
        identity = spec.signature.identity(args, kwargs)
        call = Call(branch, spec.kind, self.name, spec.fingerprint(identity), None)
        if self._cache_signature is not None:
            identity = self._cache_signature.identity(args, kwargs)
        return calls.child_task(call, spec, spec.signature.encode_inputs(args, kwargs), identity)

    def _protocol(self, where: Branch | TraceScope, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if isinstance(where, TraceScope):
            raise InsideTraceError(
                f"task {self.name} was called inside trace {where.name}. A trace is recorded as one unit and can hold "
                f"no actions of its own: call the task from a task, or make {where.name} a task."
            )
        return self.protocol(where, args, kwargs)

    def _what(self) -> str:
        return f"task {self.name}"


def declare(fn: Any, environment: TaskEnvironment, settings: dict[str, Any]) -> Task[Any, Any]:
    """A task, or a message that says what cannot be one."""
    if isinstance(fn, Task):
        raise UsageError(f"{fn.name} is a task already; declare it in one environment only")
    if not inspect.isfunction(fn):
        raise UsageError(f"@{environment.name}.task goes on a function defined with def or async def, not on {fn!r}")
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise UsageError(f"{fn.__qualname__} is a generator and cannot be a task; @perdure.trace takes generators")
    return Task(fn, environment, **settings)
