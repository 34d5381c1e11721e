"""The engine as one process uses it, with an engine in memory that goes away and comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import stays_true

from perdure.containers import life
from perdure.containers.engine import ContainerEngine, ContainerSpec
from perdure.containers.memory import MemoryEngine, Running
from perdure.containers.place import LABEL, About
from perdure.containers.service import Containers
from perdure.core.ground.ports import Store
from perdure.errors import EngineUnavailableError


class Setup:
    """`Containers` over a twin in memory."""

    def __init__(self, root: Path) -> None:
        async def endless(running: Running) -> int:
            await running.signals.get()
            return 0

        self.engine = MemoryEngine(endless)
        self.connections = 0
        self.containers = Containers(str(root / "c"), str(root / "l"), no_store, self.connect, life.run)

    async def connect(self) -> ContainerEngine:
        self.connections += 1
        return Connection(self.engine)  # type: ignore[return-value]


class Connection:
    """One of several ways to one engine: closing it does the engine nothing."""

    def __init__(self, engine: MemoryEngine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def close(self) -> None:
        """Nothing to close."""


def no_store() -> Store:
    raise AssertionError("not asked for")


@pytest.fixture
def setup(tmp_path: Path) -> Iterator[Setup]:
    found = Setup(tmp_path)
    yield found
    found.engine.recover()
    found.containers.close()


def test_an_engine_that_is_away_for_a_while_gets_its_container_removed(setup: Setup) -> None:
    """A process may live for months before another one sweeps."""
    containers, engine = setup.containers, setup.engine
    place = containers.place(b"u" * 16, 1, 1)
    place.make(About(1, (b"u" * 16).hex(), "r", 1, 1, "memory", "memory://"))

    async def begin() -> None:
        found = await containers.engine()
        await found.create("c", ContainerSpec("memory:image", labels={LABEL: place.key}))
        await found.start("c")
        engine.outage()

    containers.call(begin()).result(10)
    removing = containers.remove(place.key)
    stays_true(lambda: not removing.done(), 0.3)
    containers._loop.call_soon_threadsafe(engine.recover)  # type: ignore[union-attr]
    removing.result(10)
    assert engine._containers == {}
    assert place.about() is None


def test_containers_of_an_absent_engine_stay_until_the_engine_is_back(setup: Setup) -> None:
    containers = setup.containers
    place = containers.place(b"u" * 16, 1, 1)
    place.make(About(1, (b"u" * 16).hex(), "r", 1, 1, "another", "unix:///another.sock"))
    containers.remove(place.key).result(10)
    assert place.about() is not None


def test_a_new_connection_of_another_caller_is_kept(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that fails late speaks of the connection that it was made on."""
    containers = setup.containers

    async def late() -> None:
        old = await containers.engine()
        fail = asyncio.Event()

        async def info() -> None:
            await fail.wait()
            raise EngineUnavailableError("gone")

        monkeypatch.setattr(old, "info", info, raising=False)
        asking = asyncio.ensure_future(containers.info())
        await asyncio.sleep(0)
        containers._engine = None  # as another call does whose request failed at once
        new = await containers.engine()
        fail.set()
        with pytest.raises(EngineUnavailableError):
            await asking
        assert await containers.engine() is new

    containers.call(late()).result(10)


def test_a_removal_waits_for_every_creation_under_way(setup: Setup) -> None:
    """That of an attempt that was given up, and that of the one that begins again."""
    containers = setup.containers
    order: list[str] = []

    async def slow(name: str, pause: float) -> str:
        await asyncio.sleep(pause)
        order.append(name)
        return name

    async def both() -> None:
        place = containers.place(b"u" * 16, 1, 1)
        first = asyncio.ensure_future(containers.whole(place.key, slow("first", 0.1)))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(containers.whole(place.key, slow("second", 0.4)))
        await first
        await containers._remove(place.key)
        order.append("removed")
        await second

    containers.call(both()).result(10)
    assert order == ["first", "second", "removed"]


def test_no_engine_is_asked_for_an_attempt_that_never_began(setup: Setup, caplog: pytest.LogCaptureFixture) -> None:
    """Without a directory there is no container: nothing is left behind, and no warning says so."""
    setup.engine.outage()
    setup.containers.remove("0" * 24).result(20)
    assert setup.connections == 0
    assert caplog.text == ""
