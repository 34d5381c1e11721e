"""Flyte"s clustered tasks: absent."""

from __future__ import annotations

from ._absent import absent_names

__getattr__ = absent_names(
    "flyte.clustered",
    ("ClusterFailurePolicy", "Runtime"),
    "there is no cluster",
)
