"""`ContainerTask`: a program in an image as a typed task."""

from __future__ import annotations

import inspect
import os
import typing
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, Unpack, cast

from ..core.body.branch import Branch
from ..core.ground.detached import Detached
from ..core.ground.model import Kind
from ..core.ground.spec import TaskSpec
from ..core.ground.values import Signature, by_content
from ..errors import UsageError
from ._calling import outside
from ._container_settings import Folders, Options, Types, cache_version, declared_name, one_of, option_names
from ._container_settings import settings_of as _settings_of
from ._container_settings import texts as _texts
from .declaring import Home, home_of, register
from .resources import Image, check_reference, read_secrets, secrets_of
from .settings import retry_strategy, timeout_seconds
from .task import Task, limit_of

if TYPE_CHECKING:
    from ..containers.program import Program


class ContainerGroup(Protocol):
    """The environment of a container task, as far as the task reads it."""

    name: str
    env_vars: dict[str, str]


class ContainerTask(Task[..., Any]):
    """A program in an image as a typed task; the program knows nothing of perdure.

    Before the program starts, each input lies in a file (or directory) of the input's name under `input_data_dir`.
    After exit code 0, each output is read from the file of the output's name under `output_data_dir`. A container
    task is called like any task. One output gives a value, several give a named tuple, none gives `None`. The order
    of the positional parameters is Flyte's.

    Args:
        name: the task's name.
        image: such as `"alpine:3.20"`, or an `Image`; `"auto"` is Flyte's default image.
        command: the program's arguments, after the image's entrypoint (or after `entrypoint`, where given). In each
            element, `{{.inputs.NAME}}` is replaced by an input (a `File` or `Dir` by the path in the container), and
            `{{.inputPrefix}}`, `{{.outputPrefix}}` by the two directories; nothing passes through a shell.
        inputs: types by names.
        arguments: follow the command; the same replacements.
        outputs: types by names.
        input_data_dir: the directory of the inputs in the container; read-only.
        output_data_dir: the directory of the outputs in the container.
        metadata_format: all inputs also lie together in one `inputs.json`, `inputs.yaml` or `inputs.pb`.
        local_logs: whether log lines are also written to this terminal, live.
        file_input_layout: `"DIRECT"`: a `File` is the file of the input's name. `"NAMED_DIR"`: a `File` keeps its own
            name, in a directory of the input's name.
        resources: limits of CPU and memory, and GPUs.
        env_vars: environment variables of the container.
        secrets: names of secrets, or `Secret`s, for the container alone.
        retries: as for `@env.task`. Lost engines and machines do not count.
        timeout: as for `@env.task`; then SIGTERM, ten seconds, SIGKILL.
        cache: `"auto"` shares outputs between runs, by the image's digest, the rendered command and the inputs.
        limit: as for `@env.task`. A container that is joined after a crash waits for its slot while it runs on.
        cost: as for `@env.task`.
        network: the engine's network to join; `"none"` for no network.
        user: the user of the program; the image's by default.
        workdir: the working directory; the image's by default.
        entrypoint: replaces the image's entrypoint.
        platform: such as `"linux/arm64"`.
        pull: when to pull the image: `"missing"`, `"always"` or `"never"`.
        pod_template: additions to the pod on Kubernetes (node selectors, tolerations, volumes, further settings of
            the container `main`): a mapping like a pod's manifest, or the path of a YAML file.

    Raises:
        UsageError: the declaration makes no sense; the message names the setting and the remedy.
    """

    _identified = False
    """Whether the identity is taken already: by the task that this one overrides, or at the first call."""

    def __init__(
        self,
        name: str,
        image: str | Image,
        command: Sequence[str] | None = None,
        inputs: Mapping[str, Any] | None = None,
        arguments: Sequence[str] | None = None,
        outputs: Mapping[str, Any] | None = None,
        input_data_dir: str | os.PathLike[str] = "/var/inputs",
        output_data_dir: str | os.PathLike[str] = "/var/outputs",
        metadata_format: Literal["JSON", "YAML", "PROTO"] = "JSON",
        local_logs: bool = True,
        file_input_layout: Literal["DIRECT", "NAMED_DIR"] = "DIRECT",
        **options: Unpack[Options],
    ) -> None:
        self._declared: dict[str, Any] = {
            "name": name, "image": image, "command": command, "inputs": inputs, "arguments": arguments,
            "outputs": outputs, "input_data_dir": input_data_dir, "output_data_dir": output_data_dir,
            "metadata_format": metadata_format, "local_logs": local_logs, "file_input_layout": file_input_layout,
            **options,
        }  # fmt: skip
        where = f"container task {declared_name(name)}"
        if unknown := options.keys() - option_names():
            raise UsageError(f"{where}: there is no setting {', '.join(sorted(unknown))}")
        types = Types.declared(inputs, outputs, where)
        self.declared = name
        self._result = _result_type(name, types.outputs)
        self.spec = self._spec_of(name, where, types, options)
        self.program = self._program(where, types)
        self.environment = cast(Any, None)
        self.name = name
        self.__name__ = self.__qualname__ = name
        self.__doc__ = f"Container task {name}."
        self._cache_signature = None
        module = str(outside()[0].f_globals.get("__name__", "__main__"))
        self.spec.fn.__module__ = module
        self._live_at(module, home_of(self.spec.fn))

    def __repr__(self) -> str:
        return f"<perdure.ContainerTask {self.name}>"

    def within(self, environment: ContainerGroup) -> None:
        """Make the task a member of that environment (`TaskEnvironment.from_task`)."""
        if self.environment is not None and self.environment is not environment:
            raise UsageError(f"{self.name} is a task of environment {self.environment.name} already")
        self.environment = cast(Any, environment)
        self.name = self.spec.name = f"{environment.name}.{self.__name__}"
        if not self._identified:
            self.declared = self.name
            self._identify()
        settings = self.program.settings
        # The task's own variables go before the environment's.
        settings = replace(settings, env={**environment.env_vars, **(self._declared.get("env_vars") or {})})
        self.program = replace(self.program, settings=settings)

    def override(self, **settings: Any) -> ContainerTask:
        """The same program under other settings (`resources`, `timeout`, `image`, ...); settings not given stay."""
        settings.pop("short_name", None)
        known = self._declared.keys() | option_names()
        unknown = settings.keys() - known | settings.keys() & {"name"}
        if unknown:
            raise UsageError(f"container task {self.name}: override has no setting {', '.join(sorted(unknown))}")
        other = type(self)(**(self._declared | settings))
        other._identified = True
        other.declared = self.declared
        other._live_at(self.__module__, self.home)
        if self.environment is not None:
            other.within(self.environment)
        return other

    # -- declaration -------------------------------------------------------------------------------------------

    def _spec_of(self, name: str, where: str, types: Types, options: Options) -> TaskSpec:
        fn = self._function(name, types)
        return TaskSpec(
            kind=Kind.CONTAINER,
            fn=fn,
            name=name,
            is_async=True,
            signature=Signature.of(fn),
            qualified=lambda: self.declared,
            retries=retry_strategy(options.get("retries", 0), where),
            timeout=timeout_seconds(options.get("timeout"), where),
            target=lambda: self.home.target(self.declared),
            limit=limit_of(options.get("limit"), options.get("cost"), where),
            dispose=_dispose,
        )

    def _program(self, where: str, types: Types) -> Program:
        from ..containers.copilot import Interface, Template
        from ..containers.program import Program
        from .container_files import ContainerFiles, ReferenceFiles

        get = self._declared.get
        folders = Folders.declared(get("input_data_dir"), get("output_data_dir"), where)
        hidden = secrets_of(get("secrets", ()), where)
        image = get("image")

        def template(what: str) -> Template | None:
            value = get(what)
            return None if value is None else Template(_texts(value, what, where), types.inputs, f"{where}: {what}")

        return Program(
            name=get("name", ""),
            image=image.source if isinstance(image, Image) else check_reference(image, where),
            interface=Interface(
                types.inputs,
                types.outputs,
                metadata_format=one_of(get("metadata_format"), "metadata_format", ("JSON", "YAML", "PROTO"), where),
                layout=one_of(get("file_input_layout"), "file_input_layout", ("DIRECT", "NAMED_DIR"), where),
                files=ContainerFiles(),
            ),
            entrypoint=None if get("entrypoint") is None else tuple(_texts(get("entrypoint"), "entrypoint", where)),
            command=template("command"),
            arguments=template("arguments"),
            input_dir=folders.inputs,
            output_dir=folders.outputs,
            local_logs=bool(get("local_logs")),
            secrets=lambda: read_secrets(hidden, where),
            settings=_settings_of(self._declared, where),
            pull=one_of(get("pull", "missing"), "pull", ("missing", "always", "never"), where),
            cache_version=cache_version(get("cache", "disable"), types.outputs, where),
            shape=self._shape,
            decode=lambda data: self.spec.signature.returns.decode(data),
            pod_template=_pod_template(get("pod_template"), where, folders),
            references=ReferenceFiles,
        )

    def cache_identity(self, values: Mapping[str, Any]) -> bytes:
        """Canonical bytes of the inputs, for the cache. The name of a file counts where the program sees the name."""
        named = self._declared.get("file_input_layout") == "NAMED_DIR"
        with nullcontext() if named else by_content():
            return self.spec.signature.identity((), values)

    def _function(self, name: str, types: Types) -> Any:
        """The program's stand-in among Python's functions, with its name, parameters and result."""

        async def container(attempt: Detached, *args: Any, **kwargs: Any) -> Any:
            from .. import runtime

            values = dict(zip(types.inputs, args, strict=False)) | kwargs
            return await runtime.containers().run(self.program, attempt, values, self.cache_identity(values))

        parameters = [
            inspect.Parameter(each, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=kind)
            for each, kind in types.inputs.items()
        ]
        try:
            container.__signature__ = inspect.Signature(parameters, return_annotation=self._result)  # type: ignore[attr-defined]
        except ValueError as error:
            raise UsageError(f"container task {name}: {error}") from None
        container.__name__ = container.__qualname__ = name
        container.__doc__ = f"The container task {name}."
        return container

    def protocol(self, branch: Branch, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The call from `branch`, as a protocol for a shell to drive."""
        self._identify()
        return super().protocol(branch, args, kwargs)

    def _identify(self) -> None:
        """Take the declared name as the identity, once: in an environment, or at the first call without one."""
        if self._identified:
            return
        self._identified = True
        try:
            register(self, self.home)
        except UsageError:
            raise UsageError(
                f"two tasks are called {self.name}. A task's name is its identity in the journal and in other "
                "processes: give one of them another name"
            ) from None

    def _live_at(self, module: str, home: Home) -> None:
        """Set the module of the stand-in, and the module that declares the task."""
        fn = self.spec.fn
        fn.__module__ = self.__module__ = module
        self.home = home
        self.spec.module = home.module

        def refused(*args: Any, **kwargs: Any) -> Any:
            raise UsageError(
                f"container task {self.name} needs a run: perdure.run({fn.__name__}, ...), or call it in a task"
            )

        refused.__name__, refused.__qualname__, refused.__module__ = fn.__name__, fn.__qualname__, module
        # Called outside of any run.
        self.fn = refused

    def _shape(self, found: tuple[Any, ...]) -> Any:
        match found:
            case ():
                return None
            case (only,):
                return only
        return self._result(*found)


def _result_type(name: str, outputs: dict[str, Any]) -> Any:
    match list(outputs.items()):
        case []:
            return None
        case [(_, only)]:
            return only
        case several:
            make: Any = typing.NamedTuple
            return make(f"{name.replace('-', '_').replace('.', '_')}_outputs", several)


def _pod_template(value: Any, where: str, folders: Folders) -> Mapping[str, Any]:
    if value is None:
        return {}
    # Loaded only where a template is given.
    from ..containers.kubernetes.template import check_template, read_template

    found = read_template(value, where)
    check_template(found, where, folders.inputs, folders.outputs)
    return found


def _dispose(attempt: Detached) -> None:
    from .. import runtime

    with suppress(UsageError):  # without a usable engine nothing can have been begun
        runtime.containers().dispose(attempt)
