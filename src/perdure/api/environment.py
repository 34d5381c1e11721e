"""`TaskEnvironment`: tasks that share settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, overload

from ..core.ground.spec import RetryStrategy
from ..errors import UsageError
from .settings import CacheRequest, Timeout
from .task import Task, declare

if TYPE_CHECKING:
    from .container import ContainerTask
    from .resources import Resources
    from .triggers import Triggers

P = ParamSpec("P")
R = TypeVar("R")

Executor = Literal["local", "process", "ray"]


def refuse_resources(name: str, executor: str, resources: Any) -> None:
    """Raise `UsageError` for what would have no effect."""
    if getattr(resources, "needs", None) is None:
        raise UsageError(f"environment {name}: resources must be Resources, not {type(resources).__name__}")
    if executor != "ray":
        raise UsageError(
            f'environment {name}: resources=... is for executor="ray", which places bodies by them; nothing would come '
            f"of it with executor={executor!r}"
        )
    if resources.shm is not None:
        raise UsageError(
            f"environment {name}: Resources(shm=...) is for containers; a body on Ray has its node's /dev/shm"
        )


class TaskEnvironment:
    """Settings for a group of tasks.

    Args:
        name: the first part of its tasks' names (`etl` in `etl.fetch`).
        env_vars: environment variables for its tasks. Local bodies run in this process, so they are set in it before
            the first body of the environment starts, and stay set. Processes of their own get them when they start.
        executor: where bodies run. `"local"`: in this process. `"process"`: in a pool of child processes, as wide as
            the machine has cores (`PERDURE_PROCESSES`), so that they compute at the same time, can be killed when
            their `timeout` has passed, and take nothing down with them when they crash. `"ray"`: in tasks of a Ray
            cluster (`perdure.init(ray_address=...)`).
        resources: what each of its bodies needs on a node: with `executor="ray"` only. (A `ContainerTask` has its own.)
        cache: the default for its tasks.
        depends_on: other environments whose tasks its tasks call. Bodies find each other through Python's imports;
            this is for tools that look at the whole.
        description: for people.
    """

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

    @classmethod
    def from_task(cls, name: str, *tasks: ContainerTask, **settings: Any) -> TaskEnvironment:
        """An environment for container tasks, which become its own; `settings` as for any environment.

        Raises:
            UsageError: one of them is no container task, or belongs to another environment.
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
    ) -> Callable[[Callable[P, R]], Task[P, R]]: ...
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
    ) -> Any:
        """Declare a task.

        Args:
            retries: how often a failed attempt is tried again; an int, or a `RetryStrategy` with a backoff. Crashes
                of the process do not count.
            timeout: limit of live time for one attempt: seconds, `timedelta` or `Timeout`.
            cache: `"disable"`, `"auto"` or `Cache(...)`; the environment's by default.
            short_name: the second part of the task's name; the function's by default.
            triggers: when it is to run by itself: a `Cron`, a `FixedRate`, a `Trigger`, or several of them.

        Raises:
            UsageError: a setting has no meaning, or `fn` cannot be a task.
        """
        settings = {
            "retries": retries,
            "timeout": timeout,
            "cache": self.cache if cache is None else cache,
            "short_name": short_name,
            "triggers": triggers,
        }
        if fn is None:
            return lambda function: declare(function, self, settings)
        return declare(fn, self, settings)
