"""P9, P10: containers that a body in a pool process calls are run, and removed, by the process that drives the run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from tests.containers.engines import IMAGE, Engine

import perdure
from perdure.errors import TaskTimeoutError, UsageError


@pytest.fixture
def flows(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The tasks, in a project of their own; nothing of their containers is left afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IMAGE", IMAGE)
    perdure.init(tmp_path / "perdure.db", container_engine=engine.url)
    yield import_module("tests.containers.flows.pooled")
    perdure.init()
    assert engine.run_cli("ps", "-a", "--format", "{{.Names}}").split() == []
    root = tmp_path / "perdure.db-containers"
    assert not root.exists() or os.listdir(root) == []


def test_outputs_and_timeouts_come_back(flows: Any) -> None:
    assert perdure.run(flows.greets, "you").result == ["hello you", "late"]


def test_a_container_without_a_name_of_its_own_is_refused(flows: Any) -> None:
    with pytest.raises(UsageError, match="at module level"):
        perdure.run(flows.greets_inline, "you")


def test_a_container_ends_with_the_body_that_called_it(flows: Any) -> None:
    with pytest.raises(TaskTimeoutError):
        perdure.run(flows.waits_for_ever)
