"""Tasks: typed functions with settings, each call of which is an action with attempts."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import timedelta
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from ..core.body.branch import Branch
from ..core.body.scope import TraceScope
from ..core.ground.model import Kind
from ..core.ground.spec import LimitUse, QueueSpec, RetryStrategy, TaskSpec
from ..core.ground.values import Coercion, Signature, by_content, find_file_types
from ..core.run import calls
from ..errors import InsideTraceError, UsageError
from ._calling import caller, on_loop, run_async, run_sync, warn_blocking
from .declaring import Home, home_of, register
from .settings import (
    CacheRequest,
    EnvironmentSettings,
    Timeout,
    cache_key,
    cache_signature,
    retry_strategy,
    timeout_seconds,
)

if TYPE_CHECKING:  # most programs have no schedules, and need neither a calendar nor time zones
    from ..core.process.schedule import Rule
    from .limiting import Limit
    from .queueing import Queue

P = ParamSpec("P")
R = TypeVar("R", covariant=True)
T = TypeVar("T")


class Task(Generic[P, R]):
    """A declared task. Inside a run, a call makes a child action; outside, a call is a plain call of the function.

    The full name at the declaration (environment and short name) identifies the task in journals and processes.
    """

    triggers: tuple[Rule, ...] = ()
    """The schedule; set by the environment."""
    declared: str
    """The full name at the declaration; `override` changes the name for people only."""
    home: Home
    """The module that declares the task."""

    coercion = Coercion()
    """What becomes of arguments from outside of a run."""

    def __init__(
        self,
        fn: Callable[P, R],
        environment: EnvironmentSettings,
        *,
        retries: int | RetryStrategy = 0,
        timeout: float | timedelta | Timeout | None = None,
        cache: CacheRequest = "disable",
        short_name: str | None = None,
        env_vars: Mapping[str, str] | None = None,
        queue: Queue | None = None,
        formerly: str | Sequence[str] = (),
        limit: Limit | None = None,
        cost: Callable[..., float] | None = None,
        overrides: Task[P, R] | None = None,
    ) -> None:
        update_wrapper(self, fn)
        self.fn = fn
        self.environment = environment
        self.name = f"{environment.name}.{short_name or fn.__name__}"
        declared: str = self.name if overrides is None else overrides.declared
        self.declared = declared
        home: Home = home_of(fn) if overrides is None else overrides.home
        self.home = home
        self._settings: dict[str, Any] = {
            "retries": retries,
            "timeout": timeout,
            "cache": cache,
            "short_name": short_name,
            "env_vars": env_vars,
            "queue": queue,
            "formerly": formerly,
            "limit": limit,
            "cost": cost,
        }
        self._cache_signature = cache_signature(cache, fn)
        self.spec = TaskSpec(
            kind=Kind.TASK,
            fn=fn,
            name=self.name,
            is_async=inspect.iscoroutinefunction(fn),
            signature=Signature.of(fn),
            qualified=lambda: declared,
            retries=retry_strategy(retries, self.name),
            timeout=timeout_seconds(timeout, self.name),
            cache_key=cache_key(cache, fn, declared),
            target=lambda: home.target(declared),
            queue=_queue_of(queue, self.name),
            limit=limit_of(limit, cost, self.name),
            module=home.module,
            env_vars={**environment.env_vars, **(env_vars or {})},
            executor=environment.executor,
            strict=environment.strict,
            formerly=_former(formerly, declared),
            resources=None if environment.resources is None else environment.resources.needs(),
        )
        if overrides is None:
            register(self, home)

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

    @overload
    def aio(self: Task[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]: ...
    @overload
    def aio(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...
    def aio(self, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        """The call as a coroutine, for sync and async functions alike."""
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
        env_vars: Mapping[str, str] | None = None,
    ) -> Task[P, R]:
        """The same task under other settings, without triggers; settings that are not given stay. A `short_name` here
        is a label for people: the identity stays the declared name. `env_vars` are added to the environment's."""
        given: dict[str, Any] = {"short_name": short_name, "retries": retries, "timeout": timeout}
        given |= {"cache": cache, "env_vars": env_vars}
        settings = self._settings | {name: value for name, value in given.items() if value is not None}
        return type(self)(self.fn, self.environment, **settings, overrides=self)

    def check_findable(self) -> None:
        """Raise `UsageError` for a task of another process's that the other process could not find."""
        if self.spec.process:
            _refuse_unfindable(self.name, self.home, self.spec.target())

    def protocol(self, branch: Branch, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The call from `branch`, as a protocol for a shell to drive."""
        spec = self.spec
        self.check_findable()
        identity = spec.signature.identity(args, kwargs)
        moved = spec if spec.formerly else None
        call = branch.call(spec.kind, self.name, spec.fingerprint(identity), None, moved, identity)
        if spec.cache_key is not None:
            spec.cache_key(b"")  # refuses code that cannot be hashed, before anything begins
            with by_content():
                identity = (self._cache_signature or spec.signature).identity(args, kwargs)
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


def _former(names: str | Sequence[str], declared: str) -> tuple[str, ...]:
    """The names that a task has had, checked."""
    found = tuple(names) if isinstance(names, (list, tuple)) else (names,)
    for name in found:
        if not isinstance(name, str) or "." not in name.strip(".") or not name.isprintable() or "::" in name:
            raise UsageError(
                f"task {declared}: formerly={name!r} is no name of a task. Give full names such as 'etl.fetch', with "
                "the module in front where that has changed as well: 'old_module.etl.fetch'"
            )
        if name == declared:
            raise UsageError(f"task {declared}: formerly={name!r} is the present name; give the names of earlier times")
    return found


def _queue_of(queue: Queue | None, where: str) -> QueueSpec | None:
    if queue is None:
        return None
    from .queueing import queue_of  # a late import: most tasks have no queue

    return queue_of(queue, where)


def limit_of(limit: Limit | None, cost: Callable[..., float] | None, where: str) -> LimitUse | None:
    """`limit=` and `cost=` of a task as the core takes them."""
    if limit is None and cost is None:
        return None
    from .limiting import limit_use  # a late import: most tasks have no limit

    return limit_use(limit, cost, f"task {where}")


def _refuse_unfindable(name: str, home: Home, target: str) -> None:
    in_file = not target.startswith("::")
    if in_file and home.code is not None:
        return
    where = "is defined inside a function" if in_file else "is in no file (a notebook or an interactive session)"
    raise UsageError(
        f"task {name} executes in another process (executor=...), but its code {where}, and that process could not "
        'load the code. Define the task at module level in a file, or give its environment executor="local".'
    )


def _import_file_types() -> None:
    from .. import io  # noqa: F401 - importing it makes File and Dir known


# A recorded File may be decoded before the user's code has imported `perdure.io`.
find_file_types(_import_file_types)
