"""Resources, reuse and secrets: recorded on environments."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, get_args

from ..api.resources import Secret
from ..errors import UsageError
from ._devices import Device

SecretRequest = str | Secret | list[str | Secret]

_DEVICE = re.compile(r"([A-Za-z][\w ]*)(?::([1-9]\d*))?")
_CLASSES = {
    r"Trn\d": "NEURON", r"Inf\d": "NEURON", r"MI\d": "AMD_GPU", "Gaudi": "HABANA_GAUDI",
    "AppleSilicon": "APPLE_SILICON",
}  # fmt: skip
"""The class of a device by the beginning of its name; other devices are GPUs."""


@dataclass(frozen=True, slots=True)
class Resources:
    """Requests and limits of a pod; a pair is a range from request to limit.

    Args:
        cpu: cores, or text such as `"500m"`.
        memory: text such as `"512Mi"`.
        gpu: a number, text such as `"T4:1"`, or a `Device`.
        disk: text such as `"10Gi"`.
        shm: text such as `"1Gi"`, or `"auto"`.
    """

    cpu: Any = None
    memory: Any = None
    gpu: Any = None
    disk: str | None = None
    shm: str | Literal["auto"] | None = None

    def __post_init__(self) -> None:
        for setting in ("cpu", "memory"):
            value = getattr(self, setting)
            for each in value if isinstance(value, tuple) else (value,):
                if isinstance(each, (int, float)) and (setting == "memory" or each < 0):
                    wanted = "text such as '512Mi'" if setting == "memory" else "cores from 0 up, or text"
                    raise ValueError(f"Resources: {setting} must be {wanted}, not {each!r}")
            if isinstance(value, tuple) and len(value) != 2:
                raise ValueError(f"Resources: a range of {setting} is a pair, not {value!r}")
        self.get_device()

    def get_device(self) -> Device | None:
        """`gpu` as a `Device`."""
        value = self.gpu
        if value is None or value == 0 or isinstance(value, Device):
            return value or None
        if isinstance(value, int):
            if value < 0:
                raise ValueError(f"Resources: gpu must be 0 or more, not {value}")
            return Device(value, "GPU")
        found = _DEVICE.fullmatch(value) if isinstance(value, str) else None
        if found is None:
            raise ValueError(f"Resources: gpu must be a number, a Device, or text such as 'T4:1', not {value!r}")
        kind = next((kind for prefix, kind in _CLASSES.items() if re.match(prefix, found[1])), "GPU")
        return Device(int(found[2] or 1), kind, found[1])  # type: ignore[arg-type]

    def get_shared_memory(self) -> str | None:
        """`shm`, with `""` for `"auto"`."""
        return "" if self.shm == "auto" else self.shm

    def needs(self) -> None:
        """No needs for perdure's executors: the settings are recorded only."""
        return None


@dataclass
class ReusePolicy:
    """How containers of a cluster are reused between actions.

    Args:
        replicas: how many containers, or a pair of least and most.
        idle_ttl: seconds without work after which all containers end.
        concurrency: how many actions share a container.
        scaledown_ttl: seconds without work after which one container ends.
        scope: whether runs share containers.
    """

    replicas: int | tuple[int, int] = 2
    idle_ttl: int | timedelta = 30
    concurrency: int = 1
    scaledown_ttl: int | timedelta = 30
    scope: Literal["global", "run"] = "global"

    def __post_init__(self) -> None:
        if isinstance(self.replicas, int):
            self.replicas = (self.replicas, self.replicas)
        if not isinstance(self.replicas, tuple) or len(self.replicas) != 2:
            raise ValueError(f"ReusePolicy: replicas is a number or a pair, not {self.replicas!r}")
        if isinstance(self.idle_ttl, int):
            self.idle_ttl = timedelta(seconds=self.idle_ttl)
        if self.scope not in get_args(Literal["global", "run"]):
            raise UsageError(f"ReusePolicy: scope is 'global' or 'run', not {self.scope!r}")

    @property
    def min_replicas(self) -> int:
        """The least number of containers."""
        return self.replicas[0]  # type: ignore[index]

    @property
    def max_replicas(self) -> int:
        """The greatest number of containers."""
        return self.replicas[1]  # type: ignore[index]

    def get_scaledown_ttl(self) -> timedelta | None:
        """`scaledown_ttl` as a `timedelta`."""
        ttl = self.scaledown_ttl
        return timedelta(seconds=ttl) if isinstance(ttl, int) else ttl


__all__ = ["Resources", "ReusePolicy", "Secret", "SecretRequest"]
