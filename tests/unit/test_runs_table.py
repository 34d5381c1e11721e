"""The table of runs on terminals of any width: a long reason never cuts the name or the status of a run."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from perdure.cli.output import RunsTable

WHY = "The run is due since 2026-11-30 00:14:52 +0000, and no worker is alive: start one with `perdure serve`."


def info(name: str, status: str, why: str, inputs: bytes = b"\x80") -> Any:
    return SimpleNamespace(
        name=name, task="shop.order", status=status, created_at=1_795_000_000_000_000, started_at=None, ended_at=None,
        inputs=inputs, why=why,
    )  # fmt: skip


def drawn(width: int, *runs: Any) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(RunsTable(runs))
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [64, 72, 80, 100, 120, 200, 100_000])
def test_a_long_reason_pushes_out_no_other_column(width: int) -> None:
    """Family: reasons of any length beside names, statuses and times."""
    lines = drawn(width, info("f1", "QUEUED", WHY), info("a-longer-name", "INTERRUPTED", "short"))
    assert all(len(line) <= width for line in lines)
    for word in ("NAME", "TASK", "STATUS", "CREATED"):
        assert word in lines[0]
    assert "f1 " in lines[1]
    assert "QUEUED" in lines[1]
    assert "shop.order" in lines[2]
    assert "INTERRUPTED" in lines[2]
    assert ("STATE" in lines[0]) == (width >= 100)
    assert (WHY in lines[1]) == (width >= 200)


def test_a_list_without_reasons_keeps_its_columns() -> None:
    [heading, _] = drawn(100, info("f1", "SUCCEEDED", ""))
    assert heading.split() == ["NAME", "TASK", "STATUS", "CREATED", "TOOK", "INPUTS", "STATE"]
