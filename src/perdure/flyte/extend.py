"""Flyte's extension points: the classes of tasks; the others are absent."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Literal

from ._absent import absent_names
from ._task import AsyncFunctionTaskTemplate, TaskTemplate

Architecture = Literal["linux/amd64", "linux/arm64"]
PRIMARY_CONTAINER_DEFAULT_NAME = "primary"


def is_initialized() -> bool:
    """Whether `flyte.init` was called: it need not be."""
    return True


def lazy_module(module_name: str) -> ModuleType:
    """The module of that name."""
    return import_module(module_name)


__getattr__ = absent_names(
    "flyte.extend",
    (
        "ImageBuildEngine", "ImageBuilder", "ImageChecker", "RuntimeTaskTemplate", "TaskPluginRegistry",
        "download_code_bundle", "get_proto_extended_resources", "get_proto_resources", "pod_spec_from_resources",
    ),
    "there is no cluster; perdure has ports of its own for stores, containers and executors",
)  # fmt: skip

__all__ = [
    "PRIMARY_CONTAINER_DEFAULT_NAME",
    "Architecture",
    "AsyncFunctionTaskTemplate",
    "TaskTemplate",
    "is_initialized",
    "lazy_module",
]
