"""Triggers in Flyte's order of parameters."""

from __future__ import annotations

from typing import Any

from ..api.triggers import Cron, FixedRate, Trigger, TriggerTime
from ._absent import absent_names

__all__ = ["Cron", "FixedRate", "Trigger", "TriggerTime", "declared_triggers"]


def declared_triggers(value: Any) -> Any:
    """`triggers=` as perdure takes it."""
    return value


__getattr__ = absent_names(
    "flyte",
    ("OnArtifact", "TriggeredArtifact", "TriggeredPartition"),
    "artifacts live in a Flyte cluster; start the run with perdure.submit when the data is there",
)
