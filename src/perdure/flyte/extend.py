"""Flyte"s extension points."""

from __future__ import annotations

from ._absent import absent_names

__getattr__ = absent_names(
    "flyte.extend",
    ("AsyncFunctionTaskTemplate", "TaskTemplate"),
    "perdure has extension points of its own",
)
