"""Flyte"s reports."""

from __future__ import annotations

from ._absent import absent_names

__getattr__ = absent_names(
    "flyte.report",
    ("Report", "Timeline", "abbreviate", "current_report", "duration_ms", "flush", "get_tab", "log", "replace"),
    "not yet",
)
