"""Accelerators, as `Resources(gpu=...)` takes them: recorded only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DeviceClass = Literal["GPU", "TPU", "NEURON", "AMD_GPU", "HABANA_GAUDI", "APPLE_SILICON"]


@dataclass(frozen=True, slots=True)
class Device:
    """A number of accelerators of one kind."""

    quantity: int
    device_class: DeviceClass
    device: str | None = None
    partition: str | None = None

    def __post_init__(self) -> None:
        if self.quantity < 1:
            raise ValueError(f"a device needs a quantity of 1 or more, not {self.quantity}")


def GPU(device: str, quantity: int, partition: str | None = None) -> Device:  # noqa: N802 - Flyte's name
    """Nvidia GPUs of a model, possibly a partition."""
    return Device(quantity, "GPU", device, partition)


def TPU(device: str, partition: str | None = None) -> Device:  # noqa: N802 - Flyte's name
    """A slice of TPUs."""
    return Device(1, "TPU", device, partition)


def Neuron(device: str) -> Device:  # noqa: N802 - Flyte's name
    """An AWS accelerator."""
    return Device(1, "NEURON", device)


def AMD_GPU(device: str) -> Device:  # noqa: N802 - Flyte's name
    """An AMD GPU."""
    return Device(1, "AMD_GPU", device)


def HABANA_GAUDI(device: str) -> Device:  # noqa: N802 - Flyte's name
    """A Gaudi accelerator."""
    return Device(1, "HABANA_GAUDI", device)


def APPLE_SILICON() -> Device:  # noqa: N802 - Flyte's name
    """An Apple processor."""
    return Device(1, "APPLE_SILICON", "AppleSilicon")
