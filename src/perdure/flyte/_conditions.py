"""Conditions: questions to people."""

from __future__ import annotations

from ._absent import absent_names

__getattr__ = absent_names(
    "flyte", ("ConditionWebhook", "new_condition"), "there is no console that asks people; poll in a trace"
)
