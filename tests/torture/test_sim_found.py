"""What the simulation has found, shrunk to what each fault needs, on real threads."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

import perdure
from perdure.core.ground.model import Claim, CreateRun, NewRun, Status
from perdure.core.process.serving import Server
from perdure.core.process.submission import new_run
from perdure.core.process.worker import Worker
from perdure.errors import StoreUnavailableError
from perdure.executors.local import DaemonThreads
from perdure.extras import durable_sleep
from perdure.store.memory import MemoryLiveness, MemoryStore

env = perdure.TaskEnvironment(name="found")


# -- the store fails between two calls that belong together ------------------------------------------------------------


class FailingStore(MemoryStore):
    """A store in memory in which one call of one verb fails."""

    def __init__(self, verb: str, number: int) -> None:
        super().__init__()
        self._calls: Counter[str] = Counter()
        self.failed = threading.Event()

        def fails(*arguments: Any, **options: Any) -> Any:
            self._calls[verb] += 1
            if self._calls[verb] == number:
                self.failed.set()
                raise StoreUnavailableError(f"{verb} fails once")
            return whole(*arguments, **options)

        whole = getattr(self, verb)
        setattr(self, verb, fails)


@env.task
async def plain() -> str:
    return "done"


def _plain(name: str) -> NewRun:
    return new_run(plain.spec, (), {}, name=name, created_at=time.time_ns() // 1000)


def _served(store: MemoryStore, *, concurrency: int) -> dict[str, Status]:
    """The runs without a claim, after a worker has served the store until `r` has ended and no run is claimed."""
    worker = Worker(store, MemoryLiveness(), DaemonThreads(), clock=store.clock)
    server = Server(worker, {plain.spec.name: plain.spec}, concurrency=concurrency)
    thread = threading.Thread(target=server.serve, name="perdure-serve", daemon=True)
    thread.start()
    end = time.monotonic() + 60
    try:
        while True:
            runs = store.runs()
            ended = all(run.status is Status.SUCCEEDED for run in runs if run.name == "r")
            if (ended and all(run.token is None for run in runs)) or time.monotonic() > end:
                return {run.name: run.status for run in runs if run.token is None}
            time.sleep(0.02)
    finally:
        server.stop()
        thread.join(10)
        worker.lease.stop()
        worker.loops.stop()


@pytest.mark.parametrize(
    ("verb", "number"),
    [
        ("next_due", 1),
        ("next_due", 2),
        ("take_due", 1),
        ("version", 2),
        ("workers", 1),
        ("source_id", 1),
        ("commit", 2),
    ],
)
def test_a_queued_run_is_driven_although_the_store_fails_once(verb: str, number: int) -> None:
    """SV1, SV3. The store failed after a worker had claimed the run and before the run's driver was started, and the
    worker took the run for its own for ever."""
    store = FailingStore(verb, number)
    store.commit([CreateRun(_plain("r"), None)])
    assert _served(store, concurrency=1) == {"r": Status.SUCCEEDED}
    assert store.failed.is_set()


@pytest.mark.parametrize(
    ("verb", "number"),
    [("journal_length", 1), ("claim", 1), ("segments", 1), ("open_actions", 1), ("actions", 2), ("actions", 3)],
)
def test_a_run_left_behind_is_driven_although_the_store_fails_once(
    verb: str, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    """D4, SV3. A store that fails is no fault of perdure's own, so the log holds no error with a traceback."""
    store = FailingStore(verb, number)
    store.commit([CreateRun(_plain("r"), Claim(bytes(16), "a worker that is gone"))])
    with caplog.at_level(logging.ERROR, "perdure"):
        assert _served(store, concurrency=1) == {"r": Status.SUCCEEDED}
    assert store.failed.is_set()
    assert not caplog.records


def test_a_run_is_driven_although_claims_of_other_tasks_cannot_be_given_back() -> None:
    """SV1, SV4. Runs of another task with the same name are claimed along, and are given back at once."""
    store = FailingStore("release", 1)
    strangers = [_plain(f"stranger-{number}")._replace(target="other.py::other::found.plain") for number in range(2)]
    store.commit([CreateRun(new, None) for new in (*strangers, _plain("r"))])
    given_back = dict.fromkeys(("stranger-0", "stranger-1"), Status.RUNNING)
    assert _served(store, concurrency=10) == {"r": Status.SUCCEEDED, **given_back}
    assert store.failed.is_set()


# -- what a body leaves behind -----------------------------------------------------------------------------------------


@perdure.trace
async def slow() -> str:
    await asyncio.sleep(30)
    return "slow"


@perdure.trace
async def items() -> Any:
    await asyncio.sleep(30)
    yield "item"


@perdure.trace
async def quick() -> str:
    return "quick"


@env.task
async def slow_task() -> str:
    await asyncio.sleep(30)
    return "slow"


async def _first_item() -> str:
    async for item in items():
        return str(item)
    return ""


async def _entering() -> None:
    async with perdure.durable.timeout(30):
        await asyncio.sleep(30)


LEFT: dict[str, Callable[[], Awaitable[Any]]] = {
    "a trace": slow,
    "a generator": _first_item,
    "a task": slow_task,
    "a sleep": lambda: durable_sleep.aio(30),
    "a timeout": _entering,
}


@env.task
async def leaves(what: str, pause: float) -> str:
    """Cancels some work and returns without awaiting the work's end."""
    work = asyncio.ensure_future(LEFT[what]())
    await asyncio.sleep(pause)
    work.cancel()
    return await quick()


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """perdure logs no error."""
    with caplog.at_level(logging.ERROR, "perdure"):
        yield
    assert not caplog.get_records("call")


@pytest.mark.parametrize("what", LEFT)
@pytest.mark.parametrize("pause", [0.0, 0.02])
@pytest.mark.usefixtures("quiet")
def test_a_body_may_return_while_a_cancellation_is_on_its_way(what: str, pause: float) -> None:
    """B11. The body returned as the cancelled call's entry had been written and had not had its turn. The turn then met
    a future that asyncio had already cancelled, and the error struck the event loop of all runs."""
    perdure.init(store="memory://")
    assert perdure.run(leaves, what, pause).result == "quick"
