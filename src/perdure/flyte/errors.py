"""Flyte's errors."""

from __future__ import annotations
