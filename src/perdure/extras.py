"""Flyte's `extras`: durable sleep and durable time under the names of its page."""

from __future__ import annotations

from .durable import sleep as durable_sleep
from .durable import time as durable_time

__all__ = ["durable_sleep", "durable_time"]
