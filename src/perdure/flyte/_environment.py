"""Flyte's `TaskEnvironment`: its parameters in its order."""

from __future__ import annotations

from typing import Any

from ..api.environment import TaskEnvironment as PerdureEnvironment
from ..api.task import Task
from ..errors import UsageError
from ._image import Image
from ._notes import note
from ._resources import Resources, ReusePolicy
from ._sandboxed import Orchestrators, Sandboxed
from ._settings import cache_from_request, retry_strategy, task_timeout
from ._task import WITHOUT_EFFECT, AsyncFunctionTaskTemplate
from ._triggers import rules_for

_RECORDED = (
    "pod_template", "secrets", "resources", "interruptible", "image", "include", "service_account", "reusable",
    "plugin_config", "queue",
)  # fmt: skip
_DEFAULTS: dict[str, Any] = {"interruptible": False, "image": "auto", "include": ()}


class TaskEnvironment(PerdureEnvironment):
    """Settings for a group of tasks.

    `env_vars`, `cache`, `depends_on` and `description` are perdure's own. The other parameters describe pods of a
    cluster: they are kept as attributes, and without an effect.
    """

    _task_class = AsyncFunctionTaskTemplate

    def __init__(
        self,
        name: str,
        depends_on: Any = None,
        pod_template: Any = None,
        description: str | None = None,
        secrets: Any = None,
        env_vars: dict[str, str] | None = None,
        resources: Any = None,
        interruptible: bool = False,
        image: Any = "auto",
        include: tuple[str, ...] = (),
        service_account: str | None = None,
        cache: Any = "disable",
        reusable: Any = None,
        plugin_config: Any = None,
        queue: Any = None,
    ) -> None:
        _check_types(name, image=image, resources=resources, reusable=reusable, env_vars=env_vars)
        if reusable is not None and plugin_config is not None:
            raise ValueError(f"environment {name}: plugin_config and reusable exclude each other")
        super().__init__(
            name,
            # A value may come from an environment variable that is not set.
            env_vars={key: value for key, value in (env_vars or {}).items() if value is not None},
            cache=cache_from_request(cache) if cache != "disable" else cache,
            depends_on=depends_on or (),
            description=description,
        )
        self.depends_on = list(depends_on or ())  # type: ignore[assignment]
        self.pod_template = pod_template
        self.secrets = secrets
        self.resources = resources
        self.interruptible = interruptible
        self.image = image
        self.include = include
        self.service_account = service_account
        self.reusable = reusable
        self.plugin_config = plugin_config
        self.queue = queue
        self._tasks: dict[str, Task[..., Any]] = {}
        for setting in _RECORDED:
            if getattr(self, setting) not in (None, _DEFAULTS.get(setting)):
                note(setting, f"environment {name}")

    @property
    def tasks(self) -> dict[str, Any]:
        """The tasks of the environment by their full names."""
        return dict(self._tasks)

    @property
    def sandbox(self) -> Orchestrators:
        """Declares sandboxed tasks, which have a `forward` and cannot be run."""
        return Orchestrators(self.name, self._tasks)

    def add_dependency(self, *env: Any) -> None:
        """Add environments whose tasks these tasks call."""
        for each in env:
            if each is self:
                raise UsageError(f"environment {self.name} cannot depend on itself")
            if each not in self.depends_on:
                self.depends_on.append(each)  # type: ignore[attr-defined]

    async def prewarm(self, *ignored: Any, **more: Any) -> None:
        """Nothing: there are no containers to begin with."""

    def clone_with(
        self,
        name: str,
        image: Any = None,
        resources: Any = None,
        env_vars: dict[str, str] | None = None,
        secrets: Any = None,
        depends_on: Any = None,
        description: str | None = None,
        interruptible: bool | None = None,
        include: tuple[str, ...] | None = None,
        service_account: str | None = None,
        **kwargs: Any,
    ) -> TaskEnvironment:
        """Another environment with the same settings, but for the given ones; without the tasks."""
        settings: dict[str, Any] = {
            "image": image, "resources": resources, "env_vars": env_vars, "secrets": secrets, "depends_on": depends_on,
            "description": description, "interruptible": interruptible, "include": include,
            "service_account": service_account,
        }  # fmt: skip
        own: dict[str, Any] = {setting: getattr(self, setting) for setting in _RECORDED}
        own |= {"env_vars": dict(self.env_vars), "cache": self.cache, "description": self.description}
        own["depends_on"] = list(self.depends_on)
        own |= {setting: value for setting, value in settings.items() if value is not None}
        own |= kwargs
        return type(self)(name, **own)

    @classmethod
    def from_task(cls, name: str, *tasks: Any, depends_on: Any = None) -> TaskEnvironment:  # type: ignore[override]
        """An environment that takes in container tasks, and sandboxed tasks by their names."""
        contained = [task for task in tasks if not isinstance(task, Sandboxed)]
        environment = super().from_task(name, *contained, depends_on=depends_on)
        for task in tasks:
            environment._tasks[task.name] = task  # type: ignore[attr-defined]
        return environment  # type: ignore[return-value]

    def task(  # type: ignore[override]
        self,
        _func: Any = None,
        *,
        short_name: str | None = None,
        cache: Any = None,
        retries: Any = 0,
        timeout: Any = 0,
        docs: Any = None,
        pod_template: Any = None,
        report: bool = False,
        interruptible: bool | None = None,
        max_inline_io_bytes: int | None = None,
        queue: Any = None,
        service_account: str | None = None,
        triggers: Any = (),
        links: Any = (),
        task_resolver: Any = None,
        entrypoint: bool = False,
        produces_artifacts: bool = False,
        formerly: Any = (),
    ) -> Any:
        """Declare a task."""
        recorded = {
            "pod_template": pod_template, "interruptible": interruptible, "max_inline_io_bytes": max_inline_io_bytes,
            "queue": queue, "service_account": service_account, "links": links or None,
            "entrypoint": entrypoint or None, "produces_artifacts": produces_artifacts or None,
        }  # fmt: skip
        declare = super().task(
            retries=retry_strategy(retries),
            timeout=task_timeout(timeout),
            cache=cache,
            short_name=short_name,
            formerly=formerly,
        )

        def declared(function: Any) -> Any:
            task: Any = declare(function)
            task.report, task.docs = report, docs
            task.triggers = rules_for(triggers, task.spec)
            for setting in WITHOUT_EFFECT:
                if recorded.get(setting) is not None:
                    setattr(task, setting, recorded[setting])
                    note(setting, f"task {task.name}")
            self._tasks[task.name] = task
            return task

        return declared if _func is None else declared(_func)


def _check_types(name: str, **settings: Any) -> None:
    """Raise `TypeError`, as Flyte does, for a setting of the wrong type."""
    expected: dict[str, Any] = {
        "image": (str, Image),
        "resources": Resources,
        "reusable": ReusePolicy,
        "env_vars": dict,
    }
    for setting, value in settings.items():
        kinds = expected[setting]
        if value is not None and not isinstance(value, kinds):
            wanted = " or ".join(kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))
            raise TypeError(f"environment {name}: {setting} must be {wanted}, not {type(value).__name__}")


Environment = TaskEnvironment
