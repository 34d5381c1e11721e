"""No function of `src` is longer than 60 lines, except for a reason that its docstring gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_functions.py"


def check(project: Path, text: str) -> subprocess.CompletedProcess[str]:
    path = project / "src" / "p" / "a.py"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    command = [sys.executable, str(SCRIPT), "--project", str(project)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def function(lines: int, *, head: str = "def long():", docstring: str = "", indent: str = "") -> str:
    """A function with that many lines, its docstring not counted."""
    body = [f'    """{docstring}"""'] if docstring else []
    body += ["    x = 1"] * (lines - 1)
    return "".join(f"{indent}{line}\n" for line in [head, *body])


@pytest.mark.parametrize(
    "text",
    [
        function(61),
        function(61, head="async def long():"),
        "class A:\n" + function(61, indent="    "),
        "def outer():\n" + function(61, indent="    "),
        function(61, docstring="Does many things."),
        "@decorator\n" + function(61),
    ],
)
def test_a_function_of_more_than_60_lines_is_refused(tmp_path: Path, text: str) -> None:
    result = check(tmp_path, text)
    assert result.returncode == 1
    assert "function long has 61 lines" in result.stderr


@pytest.mark.parametrize(
    "text",
    [
        function(60),
        function(60, docstring="One thing.\n\n" + "    A line.\n" * 20 + "    "),
        function(61, docstring="A table. Longer than 60 lines because\n    every state has a row.\n    "),
        "class Long:\n" + "    x = 1\n" * 100,
        "@decorator\n@another\n" + function(60),
    ],
)
def test_a_short_function_or_a_reason_passes(tmp_path: Path, text: str) -> None:
    result = check(tmp_path, text)
    assert (result.returncode, result.stderr) == (0, "")


def test_the_project_has_no_longer_function_without_a_reason() -> None:
    result = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
