"""`TaskEnvironment`: tasks that share settings."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, overload

from ..core.ground.spec import RetryStrategy
from ..errors import UsageError
from .settings import CacheRequest, Executor, Timeout
from .task import Task

if TYPE_CHECKING:
    from .batching import Batch
    from .limiting import Limit
    from .queueing import Queue
    from .resources import Resources
    from .triggers import Triggers

P = ParamSpec("P")
R = TypeVar("R")
Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


class _Within(Protocol):
    """A task that an environment takes in after its declaration: a `ContainerTask`."""

    def within(self, environment: TaskEnvironment) -> None: ...


def refuse_resources(name: str, executor: str, resources: Any) -> None:
    """Raise `UsageError` for resources without an effect."""
    if getattr(resources, "needs", None) is None:
        raise UsageError(f"environment {name}: resources must be Resources, not {type(resources).__name__}")
    if executor != "ray":
        raise UsageError(
            f'environment {name}: resources=... is for executor="ray", which places bodies by them; the setting has no '
            f"effect with executor={executor!r}"
        )
    if resources.shm is not None:
        raise UsageError(
            f"environment {name}: Resources(shm=...) is for containers; a body on Ray has its node's /dev/shm"
        )


class TaskEnvironment:
    """Settings for a group of tasks.

    Args:
        name: the first part of its tasks' names (`etl` in `etl.fetch`).
        env_vars: environment variables for the tasks. Local bodies share this process: the variables are set here
            before the first body of the environment starts, and stay set. Other processes get the variables at their
            start.
        executor: where bodies run. `"local"`: in this process. `"process"`: in a pool of child processes, by default
            one for each core (`PERDURE_PROCESSES`): bodies compute at the same time, are killed when their `timeout`
            has passed, and a crash ends no other body. `"ray"`: in tasks of a Ray cluster
            (`perdure.init(ray_address=...)`).
        resources: the needs of each body on a node: with `executor="ray"` only. (A `ContainerTask` has its own.)
        cache: the default for the tasks.
        depends_on: other environments whose tasks these tasks call. Bodies find each other through Python's imports;
            the setting is for tools that show the whole program.
        description: for people.
        strict: runs of these tasks stop with `NonDeterminismError` at any difference between code and journal, also
            where the source has changed. By default changed code goes on (P6).
    """

    _task_class: type[Task[Any, Any]] = Task
    """The class of the tasks that the environment declares."""

    def __init__(
        self,
        name: str,
        *,
        env_vars: Mapping[str, str] | None = None,
        cache: CacheRequest = "disable",
        depends_on: Sequence[TaskEnvironment] = (),
        executor: Executor = "local",
        resources: Resources | None = None,
        description: str | None = None,
        strict: bool = False,
    ) -> None:
        if not isinstance(name, str) or not name.strip():
            raise UsageError(f"a TaskEnvironment needs a name, not {name!r}")
        pairs: Mapping[Any, Any] = env_vars or {}
        for key, value in pairs.items():
            if not isinstance(key, str) or not isinstance(value, str):
                found = type(value).__name__
                raise UsageError(f"environment {name}: env_vars must map str to str; {key!r} maps to {found}")
        if executor not in ("local", "process", "ray"):
            raise UsageError(f"environment {name}: executor must be 'local', 'process' or 'ray', not {executor!r}")
        if resources is not None:
            refuse_resources(name, executor, resources)
        self.name = name
        self.executor = executor
        self.resources = resources
        self.env_vars = dict(env_vars or {})
        self.cache = cache
        self.depends_on = tuple(depends_on)
        self.description = description
        self.strict = strict

    @classmethod
    def from_task(cls, name: str, *tasks: _Within, **settings: Any) -> TaskEnvironment:
        """An environment that takes in container tasks; `settings` as for any environment.

        Raises:
            UsageError: a task is no container task, or belongs to another environment.
        """
        environment = cls(name, **settings)
        for task in tasks:
            if not isinstance(task, Task) or not hasattr(task, "within"):
                raise UsageError(f"environment {name}: from_task takes container tasks, not {task!r}")
            task.within(environment)
        return environment

    def __repr__(self) -> str:
        return f"<perdure.TaskEnvironment {self.name}>"

    @overload
    def task(self, fn: Callable[P, R], /) -> Task[P, R]: ...
    @overload
    def task(
        self,
        *,
        retries: int | RetryStrategy = 0,
        timeout: float | timedelta | Timeout | None = None,
        cache: CacheRequest | None = None,
        short_name: str | None = None,
        triggers: Triggers = (),
        queue: Queue | None = None,
        formerly: str | Sequence[str] = (),
        batch: None = None,
        limit: Limit | None = None,
        cost: Callable[..., float] | None = None,
    ) -> Callable[[Callable[P, R]], Task[P, R]]: ...
    @overload
    def task(
        self,
        *,
        batch: Batch,
        retries: int | RetryStrategy = 0,
        timeout: float | timedelta | Timeout | None = None,
        cache: CacheRequest | None = None,
        short_name: str | None = None,
        triggers: Triggers = (),
        queue: Queue | None = None,
        formerly: str | Sequence[str] = (),
    ) -> Callable[
        [Callable[[list[Item]], Awaitable[list[Outcome]] | list[Outcome]]], Task[..., Awaitable[Outcome]]
    ]: ...
    def task(  # type: ignore[misc]
        self,
        fn: Callable[..., Any] | None = None,
        /,
        *,
        retries: int | RetryStrategy = 0,
        timeout: float | timedelta | Timeout | None = None,
        cache: CacheRequest | None = None,
        short_name: str | None = None,
        triggers: Triggers = (),
        queue: Queue | None = None,
        formerly: str | Sequence[str] = (),
        batch: Batch | None = None,
        limit: Limit | None = None,
        cost: Callable[..., float] | None = None,
    ) -> Any:
        """Declare a task.

        Args:
            retries: how often a failed attempt is tried again; an int, or a `RetryStrategy` with a backoff. Crashes
                of the process do not count.
            timeout: limit of live time for each attempt: seconds, `timedelta` or `Timeout`.
            cache: `"disable"`, `"auto"` or `Cache(...)`; the environment's by default.
            short_name: the second part of the task's name; the function's by default. The full name is the task's
                identity in journals.
            triggers: a schedule for the task: a `Cron`, a `FixedRate`, a `Trigger`, or several of them.
            queue: the limits under which workers take submitted runs of the task, scheduled runs included.
            formerly: the full names that the task had before it was renamed, such as `"etl.fetch"`; where its module
                has been renamed as well, with the old module in front: `"old_module.etl.fetch"`. Runs and calls that
                are recorded under these names go on.
            batch: the function is called once for the inputs of many runs, with a list.
            limit: limits the attempts of the task, however the task is called, over all processes of the store. An
                attempt waits for its slot, and gives the slot back when its code has ended or the run is parked.
            cost: gives what an attempt costs, a number: called with the arguments by their names. Without it an attempt
                costs 1.

        Raises:
            UsageError: a setting has no meaning, `fn` cannot be a task, or another task has the name.
        """
        settings = {
            "retries": retries,
            "timeout": timeout,
            "cache": self.cache if cache is None else cache,
            "short_name": short_name,
            "queue": queue,
            "formerly": formerly,
            "limit": limit,
            "cost": cost,
        }

        def declare(function: Any) -> Task[Any, Any]:
            _refuse_non_task(function, self.name)
            if batch is not None:
                from .batching import single  # a late import: most tasks have no batch

                function = single(function, batch, self.executor)
            task = self._task_class(function, self, **settings)  # type: ignore[arg-type]
            if triggers:
                from .triggers import rules_of  # a late import: most tasks have no triggers

                task.triggers = rules_of(triggers, task.spec)
            return task

        return declare if fn is None else declare(fn)


def _refuse_non_task(fn: Any, environment: str) -> None:
    """Raise `UsageError` for an object that cannot be a task."""
    if isinstance(fn, Task):
        raise UsageError(f"{fn.name} is a task already; declare it in one environment only")
    if not inspect.isfunction(fn):
        raise UsageError(f"@{environment}.task goes on a function defined with def or async def, not on {fn!r}")
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise UsageError(f"{fn.__qualname__} is a generator and cannot be a task; @perdure.trace takes generators")
