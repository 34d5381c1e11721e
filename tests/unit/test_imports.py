"""No import circle in `src`, imports for type checkers included, and no two classes of one name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_imports.py"


def check(project: Path, files: dict[str, str]) -> subprocess.CompletedProcess[str]:
    for name, text in files.items():
        path = project / "src" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    command = [sys.executable, str(SCRIPT), "--project", str(project)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


TYPE_CHECKING = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    "


@pytest.mark.parametrize(
    "files",
    [
        {"p/__init__.py": "", "p/a.py": "from . import b\n", "p/b.py": "from p import a\n"},
        {"p/__init__.py": "", "p/a.py": "from .b import x\n", "p/b.py": f"{TYPE_CHECKING}from .a import y\n"},
        {"p/__init__.py": "", "p/a.py": "import p.b\n", "p/b.py": "def f():\n    import p.a\n"},
        {"p/__init__.py": "from .a import x\n", "p/a.py": "import p\n"},
        {
            "p/__init__.py": "",
            "p/a.py": "from .q.b import x\n",
            "p/q/__init__.py": "",
            "p/q/b.py": "from .c import x\n",
            "p/q/c.py": f"{TYPE_CHECKING}from ..a import y\n",
        },
    ],
)
def test_an_import_circle_is_refused_and_shown(tmp_path: Path, files: dict[str, str]) -> None:
    result = check(tmp_path, files)
    assert result.returncode == 1
    assert "in a circle" in result.stderr
    assert " -> " in result.stderr


def test_two_classes_of_one_name_are_refused(tmp_path: Path) -> None:
    result = check(tmp_path, {"p/a.py": "class Twin: ...\n", "p/b.py": "class Twin: ...\n"})
    assert result.returncode == 1
    assert "class Twin is defined 2 times: p.a:1, p.b:1" in result.stderr


def test_a_tree_of_imports_passes(tmp_path: Path) -> None:
    files = {
        "p/__init__.py": "",
        "p/a.py": "from .b import x\nfrom .c import y\nclass A: ...\nclass _Own: ...\n",
        "p/b.py": "from .c import y\nclass B: ...\nclass _Own: ...\n",
        "p/c.py": "import os\n",
    }
    result = check(tmp_path, files)
    assert (result.returncode, result.stderr) == (0, "")


def test_the_project_has_neither() -> None:
    result = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
