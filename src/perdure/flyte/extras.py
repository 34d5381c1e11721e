"""Flyte's extras."""

from __future__ import annotations

from ..extras import ContainerTask, durable_sleep, durable_time

__all__ = ["ContainerTask", "durable_sleep", "durable_time"]
