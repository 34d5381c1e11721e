"""Tools for tests: time that jumps (`virtual_time`), fakes in place of steps (`fake`), fixtures for pytest (`plugin`),
and the conformance kit, `perdure.testing.conformance`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .fakes import Fake, FakeCall, fake
    from .replaying import assert_replays, assert_survives, replay
    from .virtual import VirtualClock, virtual_time

__all__ = [
    "Fake",
    "FakeCall",
    "VirtualClock",
    "assert_replays",
    "assert_survives",
    "fake",
    "replay",
    "virtual_time",
]

_PLACES = {
    "assert_replays": "replaying",
    "assert_survives": "replaying",
    "replay": "replaying",
    "Fake": "fakes",
    "FakeCall": "fakes",
    "VirtualClock": "virtual",
    "fake": "fakes",
    "virtual_time": "virtual",
}


def __getattr__(name: str) -> Any:
    """Load a tool on first use: the conformance kit, which is below this package, imports nothing of perdure."""
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{place}"), name)
