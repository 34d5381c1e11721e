"""Flyte's extras: containers as tasks, batches, durable time, and `Sleep`."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ...extras import durable_sleep, durable_time
from .._absent import absent_names
from .._batching import BatchStats, CostEstimator, DynamicBatcher, Prompt, TokenBatcher, TokenEstimator

if TYPE_CHECKING:
    from .._containers import ContainerTask
    from .._task import AsyncFunctionTaskTemplate as SleepTask


@dataclass
class Sleep:
    """A `plugin_config` for tasks whose pod a cluster leaves out. Here, as in Flyte's local mode, the function runs."""


_absent = absent_names(
    "flyte.extras",
    ("model_streamer", "serialize", "serialize_env", "webhooks"),
    "perdure has no cluster and no web applications; a container's command is a ContainerTask",
)


def __getattr__(name: str) -> Any:
    # Late: programs without containers do not pay for loading them.
    if name == "ContainerTask":
        from .. import _containers

        return _containers.ContainerTask
    if name == "SleepTask":
        from .. import _task

        return _task.AsyncFunctionTaskTemplate
    if name == "shell":
        return import_module(".shell", __name__)
    return _absent(name)


__all__ = [
    "BatchStats",
    "ContainerTask",
    "CostEstimator",
    "DynamicBatcher",
    "Prompt",
    "Sleep",
    "SleepTask",
    "TokenBatcher",
    "TokenEstimator",
    "durable_sleep",
    "durable_time",
]
