"""Flyte"s look at a git repository."""

from __future__ import annotations

from ._absent import absent_names

__getattr__ = absent_names(
    "flyte.git",
    ("GitStatus", "config_from_root"),
    "there is no cluster to deploy to",
)
