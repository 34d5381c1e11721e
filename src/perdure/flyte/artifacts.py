"""Flyte"s artifacts: absent."""

from __future__ import annotations

from ._absent import absent_names

__getattr__ = absent_names(
    "flyte.artifacts",
    ("Artifact", "Metadata", "new"),
    "keep data in a File or Dir",
)
