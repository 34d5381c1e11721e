"""Flyte's models, as far as scripts name them."""

from __future__ import annotations

from ._context import ActionID, CheckpointPaths, GroupData, RawDataPath, TaskContext
from ._interface import NativeInterface
from ._phases import ActionPhase

MAX_INLINE_IO_BYTES = 10 * 1024 * 1024

__all__ = [
    "MAX_INLINE_IO_BYTES",
    "ActionID",
    "ActionPhase",
    "CheckpointPaths",
    "GroupData",
    "NativeInterface",
    "RawDataPath",
    "TaskContext",
]
