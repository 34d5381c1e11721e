"""Each test has a store of its own, on a clock that jumps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.parking import serving
from tests.parking.serving import Watched
from tests.virtual_time import VirtualClock

import perdure
from perdure import runtime


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> VirtualClock:
    """The clock of all stores, workers and loops."""
    return VirtualClock.install(monkeypatch)


@pytest.fixture(autouse=True)
def watched(tmp_path: Path, clock: VirtualClock) -> Iterator[Watched]:
    """A new store, and a look at whether a run is parked beyond its deadline."""
    perdure.init(store=tmp_path / "perdure.db")
    found = Watched(runtime.worker().store)
    for kept in (serving.seen, serving.counts, serving.counts_by_run, serving.gates):
        kept.clear()
    yield found
    perdure.init()
    assert found.late == []
