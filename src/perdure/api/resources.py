"""Resources, secrets and the image of a container."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..containers.program import Build, Secrets
from ..core.ground.digest import blake2b
from ..errors import UsageError

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?", re.IGNORECASE)
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
FLYTE_SECRETS = "/etc/flyte/secrets"
"""The directory under which Flyte mounts secrets as files."""
FLYTE_IMAGE = f"ghcr.io/flyteorg/flyte:py{sys.version_info.major}.{sys.version_info.minor}-v2.12.1"
"""Flyte 2.12.1's default image, for `image="auto"`."""


@dataclass(frozen=True, slots=True)
class Resources:
    """Limits of a container, or the needs of a body on a Ray node; a value that is not given is not limited.

    Args:
        cpu: cores: a number, or millicores as text such as `"500m"`.
        memory: bytes, or text such as `"512Mi"` or `"2G"`; a container that uses more is killed (`OOMError`).
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
        """The resources in the form that executors take."""
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
    """A value that a container needs and that perdure writes nowhere: not to the journal, nor to logs or labels.

    The value is read when the container is created, from an environment variable of the process that drives the run,
    or from `file`. The variable is the first that is set of: the key itself (where no group is given); group and key
    in upper case, with `_` for `-`; `as_env_var`. The order of the parameters, and the variable in the container, are
    Flyte's: `Secret("api-key", "prod")` becomes `PROD_API_KEY`.

    Args:
        key: the name of the secret.
        group: the group of secrets that the key belongs to.
        mount: the path of a file in the container that holds the value, in place of a variable. Below Flyte's
            `/etc/flyte/secrets`, the file of the key, in a directory of the group's name.
        as_env_var: the environment variable in the container.
        file: a file of this machine that holds the value.
    """

    key: str
    group: str | None = None
    mount: str | os.PathLike[str] | None = None
    as_env_var: str | None = None
    file: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.key, str) or not self.key:
            raise UsageError(f"Secret: key must be a name, not {self.key!r}")
        if self.group is not None and (not isinstance(self.group, str) or not self.group):
            raise UsageError(f"Secret {self.key}: group must be a name, not {self.group!r}")
        if self.group is not None and os.sep in self.group:
            raise UsageError(f"Secret {self.key}: {self.group!r} is no group: name a file with file=...")
        if self.mount is None and not _ENV_NAME.fullmatch(self.variable):
            raise UsageError(
                f"Secret {self.key}: {self.variable!r} cannot name an environment variable: give as_env_var or mount"
            )
        if self.mount is None:
            return
        if not os.path.isabs(self.mount):
            raise UsageError(f"Secret {self.key}: mount must be an absolute path in the container, not {self.mount!r}")
        if self.as_env_var is not None:
            raise UsageError(f"Secret {self.key}: give as_env_var or mount, not both")

    @property
    def variable(self) -> str:
        """The environment variable in the container."""
        if self.as_env_var is not None:
            return self.as_env_var
        return "_".join(part for part in (self.group, self.key) if part).upper().replace("-", "_")

    @property
    def path(self) -> str | None:
        """The file in the container; `None`: the secret is an environment variable."""
        if self.mount is None:
            return None
        path = os.path.normpath(os.fspath(self.mount))
        if path != FLYTE_SECRETS:
            return path
        return os.path.join(path, *(part for part in (self.group, self.key) if part))

    def read(self, task: str) -> bytes:
        """The value."""
        if self.file is not None:
            try:
                with open(os.path.expanduser(self.file), "rb") as stream:
                    return stream.read()
            except OSError as error:
                raise UsageError(
                    f"{task}: secret {self.key} cannot be read from {os.fspath(self.file)}: {error.strerror}"
                ) from None
        own = "_".join(part for part in (self.group, self.key) if part).upper().replace("-", "_")
        candidates = [*([self.key] if self.group is None else []), own, *([self.as_env_var] if self.as_env_var else [])]
        for name in candidates:
            value = os.environ.get(name)
            if value is not None:
                return value.encode("utf-8", "surrogateescape")
        names = " or ".join(dict.fromkeys(candidates))
        raise UsageError(
            f"{task}: secret {self.key} is not here: set the environment variable {names}, "
            f"or name a file with Secret({self.key!r}, file=...)"
        )


def secrets_of(value: Any, where: str) -> tuple[Secret, ...]:
    """`secrets=` as `Secret`s; a single secret needs no list, as in Flyte."""
    if isinstance(value, (str, Secret)):
        value = [value]
    if isinstance(value, bytes) or not isinstance(value, Sequence):
        raise UsageError(f"{where}: secrets must be a list, not {value!r}")
    found = []
    for each in value:
        if not isinstance(each, (str, Secret)):
            raise UsageError(f"{where}: secrets are names or Secret(...), not {each!r}")
        found.append(Secret(each) if isinstance(each, str) else each)
    return tuple(found)


def read_secrets(secrets: tuple[Secret, ...], task: str) -> Secrets:
    """The values of all secrets, as a container gets them."""
    env: dict[str, str] = {}
    files: dict[str, bytes] = {}
    for each in secrets:
        data = each.read(task)
        if each.path is not None:
            files[each.path] = data
        else:
            # A file usually ends with a newline that is not part of the secret.
            text = data.decode("utf-8", "surrogateescape")
            env[each.variable] = text.rstrip("\r\n") if each.file is not None else text
    return Secrets(env, files)


@dataclass(frozen=True, slots=True)
class Image:
    """An image: by name, or built from a Dockerfile when a container needs the image."""

    source: str | Build

    @staticmethod
    def from_base(reference: str) -> Image:
        """The image of that name, such as `"alpine:3.20"`."""
        return Image(check_reference(reference, "Image.from_base"))

    @staticmethod
    def from_dockerfile(file: str | os.PathLike[str], *, context: str | os.PathLike[str] | None = None) -> Image:
        """An image that the engine builds; unchanged steps come from the engine's cache.

        Args:
            file: the Dockerfile.
            context: the directory that `COPY` refers to; the Dockerfile's own by default.
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
    """The name of an image; `auto` is Flyte's default image."""
    if not isinstance(reference, str) or not reference.strip() or any(c.isspace() for c in reference):
        raise UsageError(f"{where}: an image is named like 'alpine:3.20', not {reference!r}")
    return FLYTE_IMAGE if reference == "auto" else reference
