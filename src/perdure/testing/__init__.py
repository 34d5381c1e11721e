"""Tools for testing: time that jumps (`virtual_time`), and the conformance kit, `perdure.testing.conformance`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .virtual import VirtualClock, virtual_time

__all__ = ["VirtualClock", "virtual_time"]

_PLACES = {"VirtualClock": "virtual", "virtual_time": "virtual"}


def __getattr__(name: str) -> Any:
    """Load a tool on first use: the conformance kit, which is below this package, imports nothing of perdure."""
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{place}"), name)
