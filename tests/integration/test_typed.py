"""mypy and pyright see true types through every decorator, and refuse wrong arguments (tests/typed/cases.py)."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.waiting import PATIENCE

PROJECT = Path(__file__).parents[2]
CASES = PROJECT / "tests" / "typed" / "cases.py"
LINES = dict(enumerate(CASES.read_text().splitlines(), 1))
TYPES = {n: line.partition("  # ")[2] for n, line in LINES.items() if line.strip().startswith("reveal_type(")}
ERRORS = {n for n, line in LINES.items() if line.endswith("# error")}


def found_by_mypy() -> tuple[dict[int, str], dict[int, str]]:
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--disable-error-code", "unused-coroutine",
         "--config-file", os.devnull, "--cache-dir", os.devnull, str(CASES)],
        cwd=PROJECT, env={**os.environ, "MYPYPATH": "src"}, capture_output=True, text=True, check=False,
        timeout=3 * PATIENCE,
    )  # fmt: skip
    types, errors = {}, {}
    for line in done.stdout.splitlines():
        found = re.match(r".*cases\.py:(\d+): (\w+): (.*)", line)
        if found is None:
            continue
        revealed = re.match(r'Revealed type is "(.*)"', found[3])
        if revealed is not None:
            types[int(found[1])] = re.sub(r"\b(builtins|typing)\.", "", revealed[1])
        elif found[2] == "error":
            errors.setdefault(int(found[1]), found[3])
    assert types, done.stdout + done.stderr
    return types, errors


def found_by_pyright() -> tuple[dict[int, str], dict[int, str]]:
    if importlib.util.find_spec("basedpyright") is None and "CI" not in os.environ:
        pytest.skip("basedpyright is not installed: make venv")
    done = subprocess.run(
        [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable,
         str(CASES)],
        cwd=PROJECT / "tests" / "typed", capture_output=True, text=True, check=False, timeout=3 * PATIENCE,
    )  # fmt: skip
    types, errors = {}, {}
    for one in json.loads(done.stdout)["generalDiagnostics"]:
        line = one["range"]["start"]["line"] + 1
        revealed = re.match(r'Type of ".*" is "(.*)"', one["message"], re.DOTALL)
        if revealed is not None:
            types[line] = revealed[1]
        elif one["severity"] == "error":
            errors.setdefault(line, one["message"])
    assert types, done.stdout + done.stderr
    return types, errors


@pytest.mark.parametrize("find", [found_by_mypy, found_by_pyright])
def test_checkers_see_true_types_and_refuse_wrong_arguments(find: object) -> None:
    assert callable(find)
    types, errors = find()
    assert types == TYPES
    assert not {line: text for line, text in errors.items() if line not in ERRORS}
    assert not [LINES[line] for line in ERRORS - errors.keys()]
