"""What a container gets: resources, secrets, an image."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from typing import Any

from ..containers.program import Build, Secrets
from ..core.ground.digest import blake2b
from ..errors import UsageError

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?", re.IGNORECASE)
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Resources:
    """What a container may use, or what a body needs on a Ray node; what is not given is not limited.

    Args:
        cpu: cores: a number, or millicores as text such as `"500m"`.
        memory: bytes, or text such as `"512Mi"` or `"2G"`; more than that gets it killed (`OOMError`).
        gpu: how many GPUs.
        shm: the size of /dev/shm, as `memory`.
    """

    cpu: float | str | None = None
    memory: int | str | None = None
    gpu: int = 0
    shm: int | str | None = None

    def __post_init__(self) -> None:
        self.cores()
        size(self.memory, "memory")
        size(self.shm, "shm")
        if isinstance(self.gpu, bool) or not isinstance(self.gpu, int) or self.gpu < 0:
            raise UsageError(f"Resources: gpu must be a number of GPUs, not {self.gpu!r}")

    def cores(self) -> float | None:
        """`cpu` as a number of cores."""
        value = self.cpu
        if value is None:
            return None
        try:
            if isinstance(value, str):
                number = float(value[:-1]) / 1000 if value.endswith("m") else float(value)
            else:
                number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if isinstance(value, bool) or not 0 < number < 100_000:
            raise UsageError(f"Resources: cpu must be a number of cores above 0, or text such as '500m', not {value!r}")
        return number

    def needs(self) -> Any:
        """The same for an executor."""
        from ..executors._frames import Needs  # most programs have none

        return Needs(cpu=self.cores(), memory=size(self.memory, "memory"), gpu=self.gpu)


def size(value: int | str | None, what: str) -> int | None:
    """A size in bytes."""
    if value is None:
        return None
    found: float = 0
    if isinstance(value, int) and not isinstance(value, bool):
        found = value
    elif isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
        found = float(match[1]) * _UNITS.get(match[2].upper(), 0)
    if found < 1:
        raise UsageError(f"Resources: {what} must be bytes, or text such as '512Mi' or '2G', not {value!r}")
    return int(found)


@dataclass(frozen=True, slots=True)
class Secret:
    """Something that a container needs and that is written nowhere: not to the journal, not to logs, not to labels.

    It is read when the container is created, from the environment variable `key` of the process that drives the run,
    or from `file`.

    Args:
        key: its name; the environment variable that holds it.
        file: a file that holds it instead.
        as_env_var: the container's environment variable that it becomes; `key` by default.
        mount: the path of a file in the container that it becomes instead.
    """

    key: str
    file: str | None = None
    as_env_var: str | None = None
    mount: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.key, str) or not self.key:
            raise UsageError(f"Secret: key must be a name, not {self.key!r}")
        name = self.as_env_var or (None if self.mount else self.key)
        if name is not None and not _ENV_NAME.fullmatch(name):
            raise UsageError(
                f"Secret {self.key}: {name!r} cannot name an environment variable: give as_env_var or mount"
            )
        if self.mount is not None and not os.path.isabs(self.mount):
            raise UsageError(f"Secret {self.key}: mount must be an absolute path in the container, not {self.mount!r}")
        if self.mount is not None and self.as_env_var is not None:
            raise UsageError(f"Secret {self.key}: give as_env_var or mount, not both")

    def read(self, task: str) -> bytes:
        """Its value."""
        if self.file is not None:
            try:
                with open(os.path.expanduser(self.file), "rb") as stream:
                    return stream.read()
            except OSError as error:
                raise UsageError(
                    f"{task}: secret {self.key} cannot be read from {self.file}: {error.strerror}"
                ) from None
        value = os.environ.get(self.key)
        if value is None:
            raise UsageError(
                f"{task}: secret {self.key} is not here: set the environment variable {self.key}, or name a file with "
                f"Secret({self.key!r}, file=...)"
            )
        return value.encode("utf-8", "surrogateescape")


def secret(value: Secret | str, where: str) -> Secret:
    """An item of `secrets=`."""
    if isinstance(value, str):
        return Secret(value)
    if not isinstance(value, Secret):
        raise UsageError(f"{where}: secrets are names or Secret(...), not {value!r}")
    return value


def read_secrets(secrets: tuple[Secret, ...], task: str) -> Secrets:
    """Their values, as a container gets them."""
    env: dict[str, str] = {}
    files: dict[str, bytes] = {}
    for each in secrets:
        data = each.read(task)
        if each.mount is not None:
            files[each.mount] = data
        else:
            # A file usually ends with a newline that is no part of the secret.
            text = data.decode("utf-8", "surrogateescape")
            env[each.as_env_var or each.key] = text.rstrip("\r\n") if each.file is not None else text
    return Secrets(env, files)


@dataclass(frozen=True, slots=True)
class Image:
    """An image: one that is there or can be pulled, or one that is built from a Dockerfile when it is needed."""

    source: str | Build

    @staticmethod
    def from_base(reference: str) -> Image:
        """The image of that name, such as `"alpine:3.20"`."""
        return Image(check_reference(reference, "Image.from_base"))

    @staticmethod
    def from_dockerfile(file: str | os.PathLike[str], *, context: str | os.PathLike[str] | None = None) -> Image:
        """An image that the engine builds; what has not changed it takes from its cache.

        Args:
            file: the Dockerfile.
            context: the directory that `COPY` in it refers to; the one it lies in by default.
        """
        path = os.path.abspath(file)
        if not os.path.isfile(path):
            raise UsageError(f"Image.from_dockerfile: {os.fspath(file)}: no such file")
        folder = os.path.abspath(context) if context is not None else os.path.dirname(path)
        if not os.path.isdir(folder):
            raise UsageError(f"Image.from_dockerfile: {folder}: no such directory")
        name = blake2b(f"{path}\0{folder}".encode("utf-8", "surrogateescape"), digest_size=6).hexdigest()
        return Image(Build(path, folder, f"perdure-build:{name}"))


def check_reference(reference: object, where: str) -> str:
    """The name of an image."""
    if not isinstance(reference, str) or not reference.strip() or any(c.isspace() for c in reference):
        raise UsageError(f"{where}: an image is named like 'alpine:3.20', not {reference!r}")
    return reference
