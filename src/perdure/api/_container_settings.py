"""The settings of a `ContainerTask`, checked one by one where the task is declared."""

from __future__ import annotations

import inspect
import keyword
import os
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, TypeVar

from ..core.ground.spec import RetryStrategy
from ..errors import UsageError
from .resources import Resources, Secret, size
from .settings import Cache, CacheRequest, Timeout

if TYPE_CHECKING:
    from ..containers.engine import ContainerSpec, Pull
    from .limiting import Limit

C = TypeVar("C", bound=str)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,199}")


class Options(TypedDict, total=False):
    """Settings of a `ContainerTask` by keyword; the class documents each."""

    resources: Resources | None
    env_vars: Mapping[str, str] | None
    secrets: Sequence[Secret | str] | Secret | str
    retries: int | RetryStrategy
    timeout: float | timedelta | Timeout | None
    cache: CacheRequest
    limit: Limit | None
    cost: Callable[..., float] | None
    network: str | None
    user: str | None
    workdir: str | None
    entrypoint: Sequence[str] | None
    platform: str | None
    pull: Pull
    pod_template: Mapping[str, Any] | str | os.PathLike[str] | None


def option_names() -> frozenset[str]:
    """The names of all keyword settings."""
    return frozenset(Options.__annotations__)


def declared_name(name: Any) -> str:
    """The task's name, if letters, digits, `_`, `-` and `.` make up all of it."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UsageError(
            f"ContainerTask: name must be letters, digits, _, - and ., and begin with a letter, not {name!r}"
        )
    return name


def texts(value: Any, what: str, where: str) -> Sequence[Any]:
    """A list of texts; the elements are checked by position."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise UsageError(f"{where}: {what} must be a list, not {value!r}")
    for position, each in enumerate(value):
        if not isinstance(each, str):
            raise UsageError(
                f"{where}: {what}[{position}] is {each!r}, not a string: write it as one, such as {str(each)!r}"
            )
    return value


def one_of(value: Any, what: str, known: tuple[C, ...], where: str) -> C:
    """A setting with few values."""
    if value not in known:
        raise UsageError(f"{where}: {what} must be one of {', '.join(known)}, not {value!r}")
    found: C = value
    return found


class Types(NamedTuple):
    """The declared types of inputs and outputs, by names that Python can call them by."""

    inputs: dict[str, Any]
    outputs: dict[str, Any]

    @staticmethod
    def declared(inputs: Any, outputs: Any, where: str) -> Types:
        """Check both mappings."""
        return Types(_types(inputs, "inputs", where), _types(outputs, "outputs", where))


def _types(value: Any, what: str, where: str) -> dict[str, Any]:
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


class Folders(NamedTuple):
    """The two data directories in the container, as normal absolute paths."""

    inputs: str
    outputs: str

    @staticmethod
    def declared(inputs: Any, outputs: Any, where: str) -> Folders:
        """Check both directories, and that neither lies within the other."""
        found = Folders(_folder(inputs, "input_data_dir", where), _folder(outputs, "output_data_dir", where))
        if os.path.commonpath(found) in found:
            raise UsageError(f"{where}: input_data_dir and output_data_dir may not lie within one another")
        return found


def _folder(value: Any, what: str, where: str) -> str:
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(path, str) or not os.path.isabs(path) or os.path.normpath(path) == "/" or "\0" in path:
        raise UsageError(f"{where}: {what} must be an absolute path in the container, not {value!r}")
    return os.path.normpath(path)


def settings_of(declared: Mapping[str, Any], where: str) -> ContainerSpec:
    """The part of the container's specification that does not depend on the inputs."""
    from ..containers.engine import ContainerSpec

    given = declared.get("resources")
    limits = Resources() if given is None else given
    if not isinstance(limits, Resources):
        raise UsageError(f"{where}: resources must be a perdure.Resources, not {limits!r}")
    return ContainerSpec(
        image="",
        env=_variables(declared.get("env_vars"), where),
        workdir=_text(declared, "workdir", where),
        user=_text(declared, "user", where),
        network=_text(declared, "network", where),
        platform=_text(declared, "platform", where),
        cpu=limits.cores(),
        memory=size(limits.memory, "memory"),
        gpu=limits.gpu,
        shm=size(limits.shm, "shm"),
    )


def _text(declared: Mapping[str, Any], what: str, where: str) -> str | None:
    value = declared.get(what)
    if value is not None and (not isinstance(value, str) or not value):
        raise UsageError(f"{where}: {what} must be text, not {value!r}")
    return value


def _variables(value: Any, where: str) -> dict[str, str]:
    if not isinstance(value or {}, Mapping):
        raise UsageError(f"{where}: env_vars must map names to text, not {value!r}")
    found = dict(value or {})
    for key, text in found.items():
        if not isinstance(key, str) or not isinstance(text, str) or not key or "=" in key or "\0" in key + text:
            raise UsageError(f"{where}: env_vars must map names to text; {key!r} does not")
    return found


def cache_version(value: CacheRequest, outputs: dict[str, Any], where: str) -> str | None:
    """The part of the cache key that the declaration decides; `None`: outcomes are not shared between runs."""
    declared = ", ".join(f"{name}: {inspect.formatannotation(kind)}" for name, kind in outputs.items())
    if isinstance(value, Cache):
        if value.ignored_inputs:
            raise UsageError(f"{where}: a container's inputs all count; ignored_inputs is for Python tasks")
        return None if value.behavior == "disable" else f"{value.version_override or ''}\0{value.salt}\0{declared}"
    if value not in ("auto", "disable"):
        raise UsageError(f"{where}: cache must be 'auto', 'disable' or a Cache, not {value!r}")
    return declared if value == "auto" else None
