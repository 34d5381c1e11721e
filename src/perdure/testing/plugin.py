"""The plugin for pytest, which pytest finds by itself: fixtures, and the trees of runs where a test fails.

Nothing of perdure is loaded before a test uses a fixture.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ..api.hosting import HostedWorker
    from .virtual import VirtualClock

    StartWorker = Callable[..., HostedWorker]


@pytest.fixture
def perdure_store() -> Iterator[str]:
    """A store in memory for this test alone; gives its URL. The settings of `perdure.init` come back afterwards. Each
    process of pytest-xdist has stores of its own. A clock, a random number, a UUID or a file that a body reads outside
    of a trace is warned about (`PERDURE_STRICT=0` turns that off)."""
    from .. import runtime
    from ..errors import PerdureError
    from .strict import watching

    before = runtime.process().settings
    with watching():
        runtime.init(store="memory://")
        yield "memory://"
    if runtime.is_open():
        worker = runtime.worker()
        drivers = list(worker.drivers.values())
        for driver in drivers:
            driver.stop(PerdureError("the test has ended"))
        for driver in drivers:
            driver.done.exception(STOP_SECONDS)
    runtime.init(
        store=before.store,
        durability=before.durability,
        container_engine=before.container_engine,
        blobs=before.blobs,
        ray_address=before.ray,
    )


STOP_SECONDS = 10.0
"""How long a run that a test has left behind may take to unwind."""


@pytest.fixture
def perdure_worker(perdure_store: str) -> Iterator[StartWorker]:
    """Starts a worker in this process: `perdure_worker(shop, "etl.py", concurrency=5)`. The arguments are those of
    `perdure.Worker`, with the sources one by one. The worker ends with the test."""
    from ..api.hosting import HostedWorker

    with ExitStack() as stack:

        def start(*sources: Any, **options: Any) -> HostedWorker:
            return stack.enter_context(HostedWorker(list(sources), **{"drain": 1.0, **options}))

        yield start


@pytest.fixture
def virtual_time(perdure_store: str) -> Iterator[VirtualClock]:
    """The clock of `perdure.testing.virtual_time`, for this test and its store."""
    from .virtual import virtual_time as jumping

    with jumping() as clock:
        yield clock


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the trees of the last runs where a test fails."""
    report = yield
    if report.when == "call" and report.failed and "perdure.runtime" in sys.modules:
        from .showing import text_of_runs

        try:
            text = text_of_runs()
        except Exception as error:
            text = f"the runs cannot be shown: {error!r}"
        if text:
            report.sections.append(("perdure runs", text))
    return report
