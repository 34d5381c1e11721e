"""Durable time, as Flyte names it."""

from __future__ import annotations

from ..durable import now, sleep, time

__all__ = ["now", "sleep", "time"]
