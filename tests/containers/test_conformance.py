"""The conformance kit attacks P9 where an image is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.containers.engines import IMAGE, Engine

from perdure.testing.conformance import PerdureSystem, check


def test_the_kit_kills_a_process_while_its_container_runs(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P9: the kill comes when the program of the container has begun, however long the engine takes for that."""
    for name, value in engine.environ().items():
        monkeypatch.setenv(name, value)
    report = check(PerdureSystem(f"sqlite:///{tmp_path}/c.db", image=IMAGE), promises=["P9"])
    [finding] = report.findings
    assert (finding.verdict, finding.histories, finding.kills) == ("held", 1, 1), report.table()
