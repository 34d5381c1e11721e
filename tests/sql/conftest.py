"""What the tests of steps in databases share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.postgres_server import server
from tests.sql.databases import Database, Host, Project


@pytest.fixture(scope="session")
def host() -> Iterator[Host]:
    found = Host()
    yield found
    found.close()


Make = Callable[..., Project]


@pytest.fixture
def project(host: Host, tmp_path: Path) -> Make:
    """A project: the kind of database, what `transaction` is given, the colour, the kind of store."""

    def make(kind: str, place: str = "engine", colour: str = "sync", store: str = "sqlite") -> Project:
        url = server().url() if store == "postgres" else str(tmp_path / "perdure.db")
        return Project(host, tmp_path, Database(kind, tmp_path), url, place, colour)

    return make
