"""Flyte"s AI helpers: absent."""

from __future__ import annotations

from .._absent import absent_names

__getattr__ = absent_names(
    "flyte.ai",
    ("Agent",),
    "call the model in a trace",
)
