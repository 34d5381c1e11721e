"""Flyte's models, as far as scripts name them."""

from __future__ import annotations

from ..api._names import random_run_name
from ._absent import absent_names
from ._context import ActionID, CheckpointPaths, GroupData, NullTaskContext, RawDataPath, TaskContext
from ._interface import NativeInterface
from ._phases import ActionPhase

MAX_INLINE_IO_BYTES = 10 * 1024 * 1024
NULL_TASK_CONTEXT = NullTaskContext()


def generate_random_name() -> str:
    """A readable random name."""
    return random_run_name()


def is_clustered_worker_env() -> bool:
    """Whether the process is a worker of a clustered task."""
    return False


__getattr__ = absent_names(
    "flyte.models",
    (
        "CallCounter", "CodeBundle", "Docstring", "PathRewrite", "SerializationContext", "extract_return_annotation",
        "literal_to_enum",
    ),
    "there is no cluster to describe tasks to",
)  # fmt: skip

__all__ = [
    "MAX_INLINE_IO_BYTES",
    "NULL_TASK_CONTEXT",
    "ActionID",
    "ActionPhase",
    "CheckpointPaths",
    "GroupData",
    "NativeInterface",
    "RawDataPath",
    "TaskContext",
    "generate_random_name",
    "is_clustered_worker_env",
]
