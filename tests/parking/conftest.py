"""Each test has a store of its own, on a clock that jumps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

# The plugin of hypothesis would load hypothesis when all tests are over. On Python 3.11 `ast.parse` fails where garbage
# that is collected meanwhile, such as a body that swallows its end, has its traceback written, as that parses code too.
import hypothesis  # noqa: F401
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
