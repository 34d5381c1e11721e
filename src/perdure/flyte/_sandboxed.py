"""Sandboxed tasks: they can be declared and called with `forward`; perdure has no sandbox to run them in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ._absent import Absent

WHY = "run code that you do not trust in a ContainerTask, and your own code in a task of @env.task"


class Sandboxed(Absent):
    """A declared sandboxed task. Each use but `forward` raises `UsageError`."""

    task_type = "sandboxed-python"

    def __init__(self, name: str, fn: Callable[..., Any] | None = None) -> None:
        super().__init__(f"sandboxed task {name}", WHY)
        self.name = name
        self.fn = fn

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The function itself, without a sandbox and without an action."""
        if self.fn is None:
            raise NotImplementedError(f"sandboxed task {self.name} is a string of code: it has no function to call")
        return self.fn(*args, **kwargs)


class Orchestrators:
    """`env.sandbox`: declares sandboxed tasks in an environment."""

    def __init__(self, environment: str, tasks: dict[str, Any]) -> None:
        self._environment = environment
        self._tasks = tasks

    def orchestrator(
        self,
        _func_or_source: Any = None,
        /,
        *,
        tasks: Any = None,
        inputs: Any = None,
        output: Any = None,
        timeout_ms: int = 30000,
        max_memory: int = 52428800,
        max_stack_depth: int = 256,
        type_check: bool = True,
        name: str | None = None,
        cache: Any = None,
        retries: int = 0,
    ) -> Any:
        """Declare a sandboxed task from a function or from a string of code."""

        def declared(given: Any) -> Sandboxed:
            fn = None if isinstance(given, str) else given
            task = Sandboxed(name or f"{self._environment}.{getattr(given, '__name__', 'orchestrator')}", fn)
            self._tasks[task.name] = task
            return task

        return declared if _func_or_source is None else declared(_func_or_source)


def orchestrator_from_str(
    source: str,
    *,
    inputs: Any,
    output: Any = None,
    tasks: Any = None,
    name: str = "sandboxed-code",
    timeout_ms: int = 30000,
    cache: Any = "disable",
    retries: int = 0,
    image: Any = None,
) -> Sandboxed:
    """Declare a sandboxed task from a string of code."""
    return Sandboxed(name)
