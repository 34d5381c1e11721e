"""The conformance kit finds that perdure's stores keep P1 to P11, and that stores with planted faults do not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.postgres_server import server

from perdure.testing.conformance import PROMISES, PerdureSystem, check

PROJECT = Path(__file__).parents[2]
NOT_HERE = {"P9"}
"""The tests of containers attack P9; the kit does so where an image is named."""


@pytest.mark.parametrize(("kind", "sample"), [("sqlite", 100), ("postgres", 100), ("memory", 1)])
def test_the_kit_finds_no_violation_in_a_store_of_perdure(kind: str, sample: int, tmp_path: Path) -> None:
    """P1 to P11 hold, with one moment of each attack: `python -m perdure.testing.conformance URL` tries every
    moment."""
    urls = {
        "sqlite": lambda: f"sqlite:///{tmp_path}/c.db",
        "postgres": lambda: server().url(),
        "memory": lambda: "memory:",
    }
    # `make test` runs the crash suites on Postgres as well.
    promises = {"P1", "P3", "P7"} if kind == "postgres" else set(PROMISES)
    report = check(PerdureSystem(urls[kind]()), promises=promises, sample=sample)
    assert report.holds, report.table()
    tried = {finding.promise for finding in report.findings if finding.verdict == "held"}
    assert tried >= ({"P1", "P7", "P8", "P10"} if kind == "memory" else promises - NOT_HERE), report.table()


@pytest.mark.parametrize("fault", ["forgetful", "hasty", "shortened"])
def test_the_kit_finds_a_store_that_breaks_a_promise(fault: str, tmp_path: Path) -> None:
    """Family: a store that answers and does not do. The store forgets commits, answers before a commit, or reads less
    than was written: P1 is violated."""
    system = PerdureSystem(f"sqlite:///{tmp_path}/c.db", opener=f"tests.integration.planted_stores:{fault}")
    system.programs &= {"steps", "fan-out"}
    report = check(system, promises=["P1"], sample=100)
    [finding] = report.findings
    assert (report.holds, finding.verdict) == (False, "violated")
    assert finding.violations


def test_the_command_prints_a_table_and_its_exit_code_tells_of_a_violation(tmp_path: Path) -> None:
    url, opener = f"sqlite:///{tmp_path}/c.db", "tests.integration.planted_stores:forgetful"
    command = [sys.executable, "-m", "perdure.testing.conformance", url, "--only", "P6"]
    good = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, check=False)
    assert (good.returncode, "| **P6** Edit and resume | held |" in good.stdout) == (0, True), good.stdout + good.stderr
    bad = subprocess.run(
        [*command, "--open", opener, "--json"],
        capture_output=True,
        text=True,
        cwd=PROJECT,
        check=False,
    )
    assert bad.returncode == 1, bad.stderr
    assert json.loads(bad.stdout)["findings"][0]["verdict"] == "violated"
    for wrong in (["--only", "P99"], ["--open", "nowhere:opened"], ["--open", "json"]):
        refused = subprocess.run([*command, *wrong], capture_output=True, text=True, cwd=PROJECT, check=False)
        assert (refused.returncode, refused.stderr[:6]) == (2, "Error:"), refused
