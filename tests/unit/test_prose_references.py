"""The check of references refuses a citation of a document or an anchor that does not exist."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_references.py"
PAGE = "# Title\n\n## What `commit` does (P1)\n\n## Twice\n\n## Twice\n\n```\n# no heading\n```\n"

CODE = """X = 1
def f(): ...
class C:
    slot: int
    def method(self):
        self.field = 1
"""


def check(project: Path, name: str, text: str) -> subprocess.CompletedProcess[str]:
    (project / "docs").mkdir()
    (project / "docs" / "guarantees.md").write_text(PAGE)
    (project / "src" / "perdure").mkdir(parents=True)
    (project / "src" / "perdure" / "code.py").write_text(CODE)
    path = project / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    command = [sys.executable, str(SCRIPT), "--project", str(project)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "docs/index.md",
            "[anchor](guarantees.md#what-commit-does-p1), [second](guarantees.md#twice-1)",
        ),
        ("docs/development/index.md", "[up](../guarantees.md#twice), [outside](https://example.org/x.md#y)"),
        ("docs/index.md", "# Here\n[this page](#here)\n```\n[no link](in-code.md)\n```"),
        ("README.md", "[page](docs/guarantees.md)"),
        (
            "docs/index.md",
            "`code.py:f`, `code.py:C`, `code.py:C.method`, `code.py:C.field`, `code.py:C.slot`, `code.py:X`",
        ),
        ("src/module.py", "# See docs/" + "guarantees.md#twice."),
    ],
)
def test_references_that_resolve_pass(tmp_path: Path, name: str, text: str) -> None:
    result = check(tmp_path, name, text)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("docs/index.md", "[gone](gone.md)", "gone.md does not exist"),
        ("docs/index.md", "[anchor](guarantees.md#gone)", "no heading with that anchor"),
        ("docs/index.md", "[code](guarantees.md#no-heading)", "no heading with that anchor"),
        ("docs/index.md", "[this page](#gone)", "no heading with that anchor"),
        ("docs/index.md", "[out](../../x.md)", "does not exist"),
        ("README.md", "[page](docs/gone" + ".md)", "does not exist"),
        ("docs/index.md", "`code.py:gone`", "`code.py:gone` does not exist"),
        ("docs/index.md", "`code.py:C.gone`", "`code.py:C.gone` does not exist"),
        ("docs/index.md", "`gone.py:f`", "`gone.py:f` does not exist"),
        ("docs/index.md", "`core/gone.py`", "`core/gone.py` does not exist"),
        ("src/module.py", "# See docs/gone" + ".md.", "does not exist"),
        ("src/module.py", "# See docs/" + "guarantees.md#gone.", "no heading with that anchor"),
        ("tests/test_x.py", "# See the design, \N{SECTION SIGN}4.", "cites a section by number"),
        ("pyproject.toml", "# See docs/gone" + ".md.", "does not exist"),
    ],
)
def test_a_reference_to_nothing_is_refused_with_its_place(tmp_path: Path, name: str, text: str, why: str) -> None:
    result = check(tmp_path, name, text)
    assert result.returncode == 1
    assert f"{name}:1: " in result.stderr
    assert why in result.stderr


def test_the_project_cites_only_what_exists() -> None:
    result = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
