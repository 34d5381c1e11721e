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

import perdure
from perdure import runtime
from perdure.testing import VirtualClock, virtual_time


@pytest.fixture
def clock() -> Iterator[VirtualClock]:
    """The clock of all stores, workers and loops. Each test makes the clock jump."""
    with virtual_time(auto=False) as clock:
        yield clock


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
