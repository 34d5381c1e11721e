"""The warm hosts of the crash tests, which fork one real process for each trial."""

from __future__ import annotations

from tests.crash.conftest import hosts

__all__ = ["hosts"]
