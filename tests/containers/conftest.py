"""Private engines, each started when a test first wants it and stopped when the session ends.

`PERDURE_TEST_ENGINES` picks: `docker`, `podman`, `docker,podman` (the default), or `none`, which skips these tests.
An engine that is wanted and cannot be had fails them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.containers.engines import KINDS, Engine, NoEngineError

_HERE = Path(__file__).parent
WANTED = [name.strip() for name in os.environ.get("PERDURE_TEST_ENGINES", "docker,podman").split(",") if name.strip()]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What wants an engine bears the marker, so that `-m "not containers"` leaves it out."""
    for item in items:
        if _HERE in item.path.parents and {"engine", "engines", "docker", "podman"} & set(item.fixturenames):
            item.add_marker("containers")


class Engines:
    """The session's engines."""

    def __init__(self) -> None:
        self._started: dict[str, Engine] = {}
        self._failed: dict[str, str] = {}

    def get(self, kind: str) -> Engine:
        """The engine of that kind, started where it is not."""
        if kind not in WANTED:
            pytest.skip(f"PERDURE_TEST_ENGINES={','.join(WANTED)} leaves {kind} out")
        if kind in self._failed:
            pytest.fail(self._failed[kind], pytrace=False)
        if kind not in self._started:
            engine = KINDS[kind]()
            try:
                engine.start()
            except BaseException as error:
                engine.stop()
                if not isinstance(error, (NoEngineError, AssertionError)):
                    raise
                self._failed[kind] = f"No private {kind} for the tests (PERDURE_TEST_ENGINES=none skips them): {error}"
                pytest.fail(self._failed[kind], pytrace=False)
            self._started[kind] = engine
        return self._started[kind]

    def stop(self) -> None:
        for engine in self._started.values():
            engine.stop()


@pytest.fixture(scope="session")
def engines() -> Iterator[Engines]:
    """`engines.get("docker")` for tests that want more than one kind, or one of their own choice."""
    found = Engines()
    yield found
    found.stop()


@pytest.fixture(params=["docker", "podman"])
def engine(request: pytest.FixtureRequest, engines: Engines) -> Iterator[Engine]:
    """Each private engine in turn; without containers after the test."""
    found = engines.get(request.param)
    yield found
    tidy(found)


@pytest.fixture
def docker(engines: Engines) -> Iterator[Engine]:
    """The private Docker daemon."""
    found = engines.get("docker")
    yield found
    tidy(found)


@pytest.fixture
def podman(engines: Engines) -> Iterator[Engine]:
    """The private Podman service."""
    found = engines.get("podman")
    yield found
    tidy(found)


def tidy(engine: Engine) -> None:
    """As the next test wants to find it, also where this one killed the daemon."""
    if not engine.answers():
        engine.restart()
    engine.clear()
