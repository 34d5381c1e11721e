"""Flyte"s models."""

from __future__ import annotations

from ._absent import absent_names

__getattr__ = absent_names(
    "flyte.models",
    ("ActionPhase",),
    "there is no cluster",
)
