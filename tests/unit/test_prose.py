"""The check of the project's language refuses vague words and texts with too many pointing words."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_prose.py"
VAGUE = "who" + "ever"  # in two parts, because the check reads this file too
CLEAR = '"""The worker renews the lease; the store compares the fencing token before each write."""\n'


def check(project: Path, *files: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--project", str(project), *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_clear_text_passes(tmp_path: Path) -> None:
    write(tmp_path / "src" / "clear.py", CLEAR)
    result = check(tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert "0/14" in result.stdout


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("src/package/module.py", f"# The lock belongs to {VAGUE} comes first.\n"),
        ("src/package/message.py", f'text = "{VAGUE.upper()} holds the lock"\n'),
        ("src/package/name.py", f"class {VAGUE.capitalize()}Error(Exception): ...\n"),
        ("src/package/queries.sql", f"-- Rows of {VAGUE} asks.\nSELECT 1;\n"),
        ("docs/guarantees.md", f"The lock belongs to {VAGUE} comes first.\n"),
        ("tests/unit/test_name.py", f"def test_{VAGUE}_asks_is_answered() -> None: ...\n"),
        (f"tests/test_{VAGUE}.py", ""),
        ("README.md", f"For {VAGUE}'s sake.\n"),
        ("CHANGELOG.md", f"- {VAGUE.capitalize()} asks is answered.\n"),
    ],
)
def test_a_forbidden_word_is_refused_with_its_place(tmp_path: Path, name: str, text: str) -> None:
    write(tmp_path / name, text)
    result = check(tmp_path)
    assert result.returncode == 1
    assert name in result.stderr
    assert VAGUE in result.stderr.lower()


@pytest.mark.parametrize(
    "text",
    [
        '"""It does what they do."""\n',
        'class Store:\n    """Which is it?"""\n',
        "def commit() -> None:\n    '''Those are its.'''\n",
        "value = 1  # it is what it is\n",
        'value = 1\n"""It is what it is."""\n',
    ],
)
def test_too_many_pointing_words_are_refused(tmp_path: Path, text: str) -> None:
    write(tmp_path / "src" / "vague.py", text)
    result = check(tmp_path)
    assert result.returncode == 1
    assert "point elsewhere" in result.stderr


@pytest.mark.parametrize(
    "text",
    [
        'message = "it is what it is"\n',  # a message is no comment
        '"""The parameter `what` names the `it`."""\n',  # names in backticks
        '"""Example:\n\n>>> this(that, which)\n"""\n',  # code in a docstring
        "this = what = which = None  # noqa: it it it\n",  # names, and marks for tools
    ],
)
def test_code_does_not_count_as_words(tmp_path: Path, text: str) -> None:
    write(tmp_path / "src" / "code.py", CLEAR.replace('"""', "# ", 1).replace('"""', "") + text)
    assert check(tmp_path).returncode == 0


def test_named_files_are_checked_alone_and_show_their_worst_lines(tmp_path: Path) -> None:
    vague = write(tmp_path / "src" / "vague.py", "# it is what it is\n")
    clear = write(tmp_path / "src" / "clear.py", CLEAR)
    assert check(tmp_path, clear).returncode == 0
    result = check(tmp_path, clear, vague)
    assert result.returncode == 1
    assert "line 1: it what it" in result.stdout
