"""Flyte's `extras`: containers as tasks, durable sleep and durable time, under the names of Flyte's page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .durable import sleep as durable_sleep
from .durable import time as durable_time

if TYPE_CHECKING:
    from .api.container import ContainerTask

__all__ = ["ContainerTask", "durable_sleep", "durable_time"]


def __getattr__(name: str) -> Any:
    # A late import: programs without containers do not pay for loading them.
    if name != "ContainerTask":
        raise AttributeError(f"module 'perdure.extras' has no attribute {name!r}")
    from .api.container import ContainerTask

    globals()[name] = ContainerTask
    return ContainerTask
