"""Flyte"s notifications: absent."""

from __future__ import annotations

from ._absent import absent_names

__getattr__ = absent_names(
    "flyte.notify",
    ("Email", "NamedDelivery", "NamedRule", "Notification", "Slack", "Teams", "Webhook"),
    "send the message in a trace",
)
