"""Checkpoints of a task's own making."""

from __future__ import annotations

from ._absent import absent_names

__getattr__ = absent_names("flyte", ("BaseCheckpoint", "Checkpoint", "latest_checkpoint"), "use a trace for each step")
