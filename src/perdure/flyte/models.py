"""Flyte's models, as far as scripts name them."""

from __future__ import annotations

from ._phases import ActionPhase

__all__ = ["ActionPhase"]
