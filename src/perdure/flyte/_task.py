"""Flyte's tasks."""

from __future__ import annotations

import inspect
from collections.abc import Coroutine, Generator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ParamSpec, Protocol, TypeVar, get_args, runtime_checkable

from ..api.task import Task
from ..core.body.branch import Branch
from ..core.ground.values import Coercion, Signature
from . import _values  # noqa: F401 - makes plain classes and functions known
from ._failures import with_failures
from ._interface import NativeInterface
from ._notes import note
from ._settings import cache_request, retry_strategy, task_timeout

P = ParamSpec("P")
R = TypeVar("R")

_RESULTS = Coercion(utc=True)
WITHOUT_EFFECT = (
    "resources", "reusable", "secrets", "service_account", "max_inline_io_bytes", "pod_template", "queue",
    "interruptible", "entrypoint", "produces_artifacts", "links", "plugin_config", "image",
)  # fmt: skip
"""Settings of a task that are recorded only."""


@dataclass(frozen=True)
class Documentation:
    """A description for people."""

    description: str


@runtime_checkable
class Link(Protocol):
    """A link that Flyte's user interface shows."""

    def get_link(self, *args: Any, **kwargs: Any) -> str:
        """The address."""


class AsyncFunctionTaskTemplate(Task[P, R]):
    """A task with the attributes of Flyte's. Settings of a cluster are attributes without an effect."""

    report: bool = False
    docs: Documentation | None = None
    task_type = "python"
    coercion = Coercion(names=True, utc=True, defaults=True)

    def __init__(self, fn: Any, environment: Any, **settings: Any) -> None:
        settings["cache"] = cache_request(settings.get("cache", "disable"), fn)
        super().__init__(fn, environment, **settings)
        self.short_name = settings.get("short_name") or fn.__name__
        self.retries = self._settings["retries"]
        self.timeout = self._settings["timeout"]
        self.cache = self._settings["cache"]
        for name in WITHOUT_EFFECT:
            setattr(self, name, getattr(environment, name, None))
        self.env_vars = self.spec.env_vars

    @property
    def func(self) -> Any:
        """The function."""
        return self.fn

    @property
    def interface(self) -> NativeInterface:
        """Inputs and outputs by name and type."""
        return NativeInterface.from_callable(self.fn)

    native_interface = interface

    @property
    def json_schema(self) -> dict[str, Any]:
        """The inputs as a JSON schema."""
        return self.interface.json_schema

    @property
    def source_file(self) -> str | None:
        """The file of the function."""
        code = getattr(inspect.unwrap(self.fn), "__code__", None)
        return code.co_filename if code is not None else None

    @property
    def parent_env_name(self) -> str:
        """The name of the environment."""
        return self.environment.name

    def parent_env(self) -> Any:
        """The environment."""
        return self.environment

    def protocol(self, branch: Branch, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """See `Task.protocol`; failures are raised as Flyte does, and dicts become instances in runs too."""
        args, kwargs = self.spec.signature.coerced(args, kwargs, self.coercion)
        return with_failures(_with_result(super().protocol(branch, args, kwargs), self.spec.signature))

    def forward(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The function itself, in the caller's action: no action of the task's own."""
        return self.fn(*args, **kwargs)

    def execute(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """As `forward`."""
        return self.fn(*args, **kwargs)

    def override(
        self,
        *,
        short_name: str | None = None,
        resources: Any = None,
        cache: Any = None,
        retries: Any = 0,
        timeout: Any = None,
        reusable: Any = None,
        env_vars: Mapping[str, str] | None = None,
        secrets: Any = None,
        service_account: str | None = None,
        max_inline_io_bytes: int | None = None,
        pod_template: Any = None,
        queue: str | None = None,
        interruptible: bool | None = None,
        entrypoint: bool | None = None,
        produces_artifacts: bool | None = None,
        links: Any = (),
        plugin_config: Any = None,
        **kwargs: Any,
    ) -> AsyncFunctionTaskTemplate[P, R]:
        """The task under other settings; a setting that is not given stays."""
        if "name" in kwargs:
            raise ValueError("a task's name cannot be overridden: it is the task's identity; short_name is a label")
        if kwargs:
            raise TypeError(f"override() got an unexpected keyword argument {next(iter(kwargs))!r}")
        given: dict[str, Any] = {"resources": resources, "reusable": reusable, "secrets": secrets}
        given |= {"service_account": service_account, "max_inline_io_bytes": max_inline_io_bytes}
        given |= {"pod_template": pod_template, "queue": queue, "interruptible": interruptible}
        given |= {"entrypoint": entrypoint, "produces_artifacts": produces_artifacts, "links": links or None}
        given |= {"plugin_config": plugin_config}
        task: Any = super().override(
            short_name=short_name,
            retries=retry_strategy(retries) if retries else None,
            timeout=task_timeout(timeout),
            cache=cache,
            env_vars=env_vars,
        )
        task.report, task.docs = self.report, self.docs
        for name, before in ((name, getattr(self, name)) for name in WITHOUT_EFFECT):
            value = given.get(name)
            setattr(task, name, before if value is None else value)
            if value is not None:
                note(name, f"{self.name}.override")
        return task  # type: ignore[no-any-return]

    def aio(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, Any]:
        """The call as a coroutine."""
        return super().aio(*args, **kwargs)


def result_for_callers(value: Any, signature: Signature) -> Any:
    """A recorded result as Flyte returns results: a datetime without a time zone is in UTC."""
    return signature.coerced_result(value, _RESULTS) if _mentions_datetime(signature.returns.annotation) else value


def _mentions_datetime(tp: Any) -> bool:
    return tp is datetime or any(_mentions_datetime(part) for part in get_args(tp))


def _with_result(protocol: Generator[Any, Any, Any], signature: Signature) -> Generator[Any, Any, Any]:
    return result_for_callers((yield from protocol), signature)


TaskTemplate = AsyncFunctionTaskTemplate
