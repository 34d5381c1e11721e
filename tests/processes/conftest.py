"""What several files share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import perdure


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A new store in a new working directory, and a pool of two children."""
    monkeypatch.setenv("PERDURE_PROCESSES", "2")
    monkeypatch.chdir(tmp_path)
    perdure.init(store=tmp_path / "perdure.db")
    yield
    perdure.init()
