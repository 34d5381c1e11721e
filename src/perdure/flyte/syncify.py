"""Flyte"s syncify."""

from __future__ import annotations

from ._absent import absent_names

__getattr__ = absent_names(
    "flyte.syncify",
    ("Syncify", "syncify"),
    "not yet",
)
