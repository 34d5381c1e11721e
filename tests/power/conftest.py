"""The warm hosts of the crash tests, for those that carry on after a power cut."""

from __future__ import annotations

from tests.crash.conftest import hosts

__all__ = ["hosts"]
