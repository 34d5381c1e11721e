"""Flyte's `map`."""

from __future__ import annotations

from ..api.mapping import map

__all__ = ["map"]
