"""`ContainerTask`: a program in an image as a typed task."""

from __future__ import annotations

import inspect
import keyword
import os
import re
import sys
import typing
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, cast

from ..core.ground.detached import Detached
from ..core.ground.model import Kind
from ..core.ground.spec import RetryStrategy, TaskSpec
from ..core.ground.values import Signature
from ..errors import UsageError
from ._names import qualified, target
from .resources import Image, Resources, Secret, check_reference, read_secrets, secret, size
from .settings import Cache, CacheRequest, Timeout, retry_strategy, timeout_seconds
from .task import Task

if TYPE_CHECKING:
    from ..containers.engine import Pull
    from .environment import TaskEnvironment

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_DECLARED = ("JSON", "YAML", "PROTO")


class ContainerTask(Task[..., Any]):
    """A program that lives in an image and knows nothing of perdure, as a typed task.

    Before it starts, each input lies in a file (or directory) of its name under `input_data_dir`; when it has ended
    with exit code 0, each output is read from the file of its name under `output_data_dir`. Call it like any task.
    One output gives its value, several a named tuple, none `None`.

    Args:
        name: the task's name.
        image: such as `"alpine:3.20"`, or an `Image`.
        command: what runs, in place of the image's entrypoint (of its command where `entrypoint` is given). In each
            element, `{{.inputs.NAME}}` is replaced by an input (a `File` or `Dir` by its path in the container), and
            `{{.inputPrefix}}`, `{{.outputPrefix}}` by the two directories; nothing passes through a shell.
        arguments: follow the command; the same replacements.
        inputs: types by names.
        outputs: types by names.
        input_data_dir: where the container finds its inputs; read-only.
        output_data_dir: where it leaves its outputs.
        metadata_format: all inputs also lie there as one `inputs.json`, `inputs.yaml` or `inputs.pb`.
        file_input_layout: `"DIRECT"`: a `File` is the file of the input's name. `"NAMED_DIR"`: it keeps its own name,
            in a directory of the input's name.
        local_logs: whether its log lines go to this terminal too, as they come.
        resources: limits of CPU and memory, and GPUs.
        env_vars: its environment variables.
        secrets: names of environment variables, or `Secret`s, that it gets and nobody else sees.
        retries: as for `@env.task`. Engines and machines that are lost do not count.
        timeout: as for `@env.task`; then it gets SIGTERM, ten seconds, SIGKILL.
        cache: `"auto"` shares its outputs between runs, by the image's digest, the rendered command and the inputs.
        network: the engine's network to join; `"none"` for no network.
        user: the user it runs as; the image's by default.
        workdir: its working directory; the image's by default.
        entrypoint: replaces the image's entrypoint.
        platform: such as `"linux/arm64"`.
        pull: when to pull the image: `"missing"`, `"always"` or `"never"`.
        pod_template: what its pod is to have on Kubernetes beside what it needs (node selectors, tolerations, volumes,
            further settings of the container `main`): a mapping like a pod's manifest, or the path of a YAML file.

    Raises:
        UsageError: the declaration makes no sense; says what and why.
    """

    def __init__(
        self,
        name: str,
        image: str | Image,
        command: Sequence[str] | None = None,
        arguments: Sequence[str] | None = None,
        inputs: Mapping[str, Any] | None = None,
        outputs: Mapping[str, Any] | None = None,
        *,
        input_data_dir: str = "/var/inputs",
        output_data_dir: str = "/var/outputs",
        metadata_format: Literal["JSON", "YAML", "PROTO"] = "JSON",
        file_input_layout: Literal["DIRECT", "NAMED_DIR"] = "DIRECT",
        local_logs: bool = True,
        resources: Resources | None = None,
        env_vars: Mapping[str, str] | None = None,
        secrets: Sequence[Secret | str] = (),
        retries: int | RetryStrategy = 0,
        timeout: float | timedelta | Timeout | None = None,
        cache: CacheRequest = "disable",
        network: str | None = None,
        user: str | None = None,
        workdir: str | None = None,
        entrypoint: Sequence[str] | None = None,
        platform: str | None = None,
        pull: Pull = "missing",
        pod_template: Mapping[str, Any] | str | os.PathLike[str] | None = None,
        _module: str | None = None,
    ) -> None:
        from ..containers.copilot import Interface, Template
        from ..containers.engine import ContainerSpec
        from ..containers.program import Program
        from .container_files import ContainerFiles, ReferenceFiles

        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise UsageError(
                f"ContainerTask: name must be letters, digits, _ and -, and begin with a letter, not {name!r}"
            )
        where = f"container task {name}"
        self._declared: dict[str, Any] = {
            "name": name, "image": image, "command": command, "arguments": arguments, "inputs": inputs,
            "outputs": outputs, "input_data_dir": input_data_dir, "output_data_dir": output_data_dir,
            "metadata_format": metadata_format, "file_input_layout": file_input_layout, "local_logs": local_logs,
            "resources": resources, "env_vars": env_vars, "secrets": secrets, "retries": retries,
            "timeout": timeout, "cache": cache, "network": network, "user": user, "workdir": workdir,
            "entrypoint": entrypoint, "platform": platform, "pull": pull, "pod_template": pod_template,
        }  # fmt: skip
        typed_inputs, typed_outputs = _types(inputs, "inputs", where), _types(outputs, "outputs", where)
        for each, what in ((user, "user"), (network, "network"), (workdir, "workdir"), (platform, "platform")):
            if each is not None and (not isinstance(each, str) or not each):
                raise UsageError(f"{where}: {what} must be text, not {each!r}")
        for folder, what in ((input_data_dir, "input_data_dir"), (output_data_dir, "output_data_dir")):
            if not isinstance(folder, str) or not os.path.isabs(folder) or os.path.normpath(folder) == "/":
                raise UsageError(f"{where}: {what} must be an absolute path in the container, not {folder!r}")
        first, second = os.path.normpath(input_data_dir), os.path.normpath(output_data_dir)
        if os.path.commonpath([first, second]) in (first, second):
            raise UsageError(f"{where}: input_data_dir and output_data_dir may not lie within one another")
        if metadata_format not in _DECLARED:
            raise UsageError(f"{where}: metadata_format must be one of {', '.join(_DECLARED)}, not {metadata_format!r}")
        if file_input_layout not in ("DIRECT", "NAMED_DIR"):
            raise UsageError(f"{where}: file_input_layout must be DIRECT or NAMED_DIR, not {file_input_layout!r}")
        if pull not in ("missing", "always", "never"):
            raise UsageError(f"{where}: pull must be 'missing', 'always' or 'never', not {pull!r}")
        if not isinstance(env_vars or {}, Mapping):
            raise UsageError(f"{where}: env_vars must map names to text, not {env_vars!r}")
        for key, value in dict(env_vars or {}).items():
            if not isinstance(key, str) or not isinstance(value, str) or not key or "=" in key or "\0" in key + value:
                raise UsageError(f"{where}: env_vars must map names to text; {key!r} does not")
        limits = resources if resources is not None else Resources()
        if not isinstance(limits, Resources):
            raise UsageError(f"{where}: resources must be a perdure.Resources, not {limits!r}")
        hidden = tuple(secret(each, where) for each in _sequence(secrets, "secrets", where))
        interface = Interface(
            typed_inputs,
            typed_outputs,
            metadata_format=metadata_format,
            layout=file_input_layout,
            files=ContainerFiles(),
        )
        fn = self._function(name, typed_inputs, typed_outputs, _module or _calling_module())
        self.fn = self._outside(fn)
        self.environment = cast("TaskEnvironment", None)
        self.name = name
        self.__name__ = self.__qualname__ = name
        self.__module__ = fn.__module__
        self.__doc__ = f"Container task {name}."
        self._cache_signature = None
        self.spec = TaskSpec(
            kind=Kind.CONTAINER,
            fn=fn,
            name=self.name,
            is_async=True,
            signature=Signature.of(fn),
            qualified=lambda: qualified(fn),
            retries=retry_strategy(retries, where),
            timeout=timeout_seconds(timeout, where),
            target=lambda: target(fn),
            dispose=_dispose,
        )
        self.program = Program(
            name=name,
            image=image.source if isinstance(image, Image) else check_reference(image, where),
            interface=interface,
            entrypoint=_texts(entrypoint, "entrypoint", where),
            command=None
            if command is None
            else Template(_sequence(command, "command", where), typed_inputs, f"{where}: command"),
            arguments=(
                None
                if arguments is None
                else Template(_sequence(arguments, "arguments", where), typed_inputs, f"{where}: arguments")
            ),
            input_dir=first,
            output_dir=second,
            local_logs=bool(local_logs),
            secrets=lambda: read_secrets(hidden, where),
            settings=ContainerSpec(
                image="",
                env=dict(env_vars or {}),
                workdir=workdir,
                user=user,
                network=network,
                platform=platform,
                cpu=limits.cores(),
                memory=size(limits.memory, "memory"),
                gpu=limits.gpu,
                shm=size(limits.shm, "shm"),
            ),
            pull=pull,
            cache_version=_cache_version(cache, typed_outputs, where),
            shape=self._shape,
            decode=lambda data: self.spec.signature.returns.decode(data),
            pod_template=_template(pod_template, where, first, second),
            references=ReferenceFiles,
        )

    def __repr__(self) -> str:
        return f"<perdure.ContainerTask {self.name}>"

    def within(self, environment: TaskEnvironment) -> None:
        """Make it a task of that environment (`TaskEnvironment.from_task`)."""
        if self.environment is not None and self.environment is not environment:
            raise UsageError(f"{self.name} is a task of environment {self.environment.name} already")
        self.environment = environment
        self.name = self.spec.name = f"{environment.name}.{self.__name__}"
        settings = self.program.settings
        # What the task says itself goes before what its environment says.
        settings = replace(settings, env={**environment.env_vars, **(self._declared["env_vars"] or {})})
        self.program = replace(self.program, settings=settings)

    def override(self, **settings: Any) -> ContainerTask:
        """The same program under other settings (`resources`, `timeout`, `image`, ...); what is not given stays."""
        settings.pop("short_name", None)
        unknown = settings.keys() - self._declared.keys() | settings.keys() & {"name"}
        if unknown:
            raise UsageError(f"container task {self.name}: override has no setting {', '.join(sorted(unknown))}")
        other = ContainerTask(**(self._declared | settings), _module=self.__module__)
        if self.environment is not None:
            other.within(cast("TaskEnvironment", self.environment))
        return other

    def _function(self, name: str, inputs: dict[str, Any], outputs: dict[str, Any], module: str) -> Any:
        """What stands for the program among Python's functions: its name, its parameters, its result."""
        returns: Any = None
        if len(outputs) == 1:
            (returns,) = outputs.values()
        elif outputs:
            make: Any = typing.NamedTuple
            returns = make(f"{name.replace('-', '_')}_outputs", list(outputs.items()))

        async def container(attempt: Detached, *args: Any, **kwargs: Any) -> Any:
            from .. import runtime

            values = dict(zip(inputs, args, strict=False)) | kwargs
            identity = self.spec.signature.identity((), values)
            return await runtime.containers().run(self.program, attempt, values, identity)

        parameters = [
            inspect.Parameter(each, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=kind)
            for each, kind in inputs.items()
        ]
        try:
            container.__signature__ = inspect.Signature(parameters, return_annotation=returns)  # type: ignore[attr-defined]
        except ValueError as error:
            raise UsageError(f"container task {name}: {error}") from None
        container.__name__ = container.__qualname__ = name
        container.__module__ = module
        container.__doc__ = f"The container task {name}."
        self._result = returns
        return container

    def _outside(self, fn: Any) -> Any:
        """What a call outside of any run gets."""

        def refused(*args: Any, **kwargs: Any) -> Any:
            raise UsageError(
                f"container task {self.name} needs a run: perdure.run({fn.__name__}, ...), or call it in a task"
            )

        refused.__name__, refused.__qualname__, refused.__module__ = fn.__name__, fn.__qualname__, fn.__module__
        return refused

    def _shape(self, found: tuple[Any, ...]) -> Any:
        if not found:
            return None
        return found[0] if len(found) == 1 else self._result(*found)


def _template(value: Any, where: str, input_dir: str, output_dir: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    # Not loaded by who has none.
    from ..containers.kubernetes.template import check_template, read_template

    found = read_template(value, where)
    check_template(found, where, input_dir, output_dir)
    return found


def _dispose(attempt: Detached) -> None:
    from .. import runtime

    with suppress(UsageError):  # nothing can have been begun where no engine is named that makes sense
        runtime.containers().dispose(attempt)


def _sequence(value: Any, what: str, where: str) -> Sequence[Any]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise UsageError(f"{where}: {what} must be a list, not {value!r}")
    return value


def _types(value: Any, what: str, where: str) -> dict[str, Any]:
    """Inputs or outputs: types by names that Python can call them by."""
    if not isinstance(value or {}, Mapping):
        raise UsageError(f"{where}: {what} must map names to types, such as {{'n': int}}, not {value!r}")
    found = dict(value or {})
    for name in found:
        if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
            raise UsageError(
                f"{where}: {name!r} among its {what} cannot name a Python value: use letters, digits and _, begin with "
                "a letter, and take no keyword"
            )
    return found


def _texts(value: Any, what: str, where: str) -> tuple[str, ...] | None:
    if value is None:
        return None
    for each in _sequence(value, what, where):
        if not isinstance(each, str):
            raise UsageError(f"{where}: {what} must be a list of strings; {each!r} is none")
    return tuple(value)


def _cache_version(value: CacheRequest, outputs: dict[str, Any], where: str) -> str | None:
    declared = ", ".join(f"{name}: {inspect.formatannotation(kind)}" for name, kind in outputs.items())
    if isinstance(value, Cache):
        if value.ignored_inputs:
            raise UsageError(f"{where}: a container's inputs all count; ignored_inputs is for Python tasks")
        return None if value.behavior == "disable" else f"{value.version_override or ''}\0{value.salt}\0{declared}"
    if value not in ("auto", "disable"):
        raise UsageError(f"{where}: cache must be 'auto', 'disable' or a Cache, not {value!r}")
    return declared if value == "auto" else None


def _calling_module() -> str:
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    return str(frame.f_globals.get("__name__", "__main__"))
