"""Images: chains of layers, recorded only, but for the base of a container task."""

from __future__ import annotations

from ..api.resources import Image

__all__ = ["Image"]
