"""The warm hosts of the crash tests, which fork one real process for each trial, and their places in memory."""

from __future__ import annotations

from tests.crash.conftest import hosts, place

__all__ = ["hosts", "place"]
