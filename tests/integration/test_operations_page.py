"""The blocks of pages, run in order in one directory: Python as written, commands with what they print.

A Python block begins with the name of its file. The file is written and run; a module of tasks alone does nothing. In
a console block each line behind `$` is a command, and the lines below it are what the command prints.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tests.waiting import PATIENCE

PAGES = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```(python|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", ["operations.md", "messages.md", "testing.md"])
def test_every_block_of_the_page_works_as_printed(page: str, tmp_path: Path) -> None:
    blocks = BLOCK.findall((PAGES / page).read_text())
    assert len(blocks) > 2
    for kind, text in blocks:
        if kind == "console":
            _commands(text, tmp_path)
            continue
        first = re.match(r"# ([\w.]+\.py)\n", text)
        assert first is not None, f"a block without the name of its file:\n{text}"
        (tmp_path / first[1]).write_text(text)
        done = _run([sys.executable, first[1]], tmp_path)
        assert done.returncode == 0, f"{text}\n{done.stderr}"


def _commands(text: str, directory: Path) -> None:
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        words = shlex.split(command, comments=True)
        assert words[0] in ("perdure", "pytest")
        if words[0] == "pytest":
            # As an installed perdure has it.
            words[1:1] = ["-p", "no:perdure", "-p", "perdure.testing.plugin"]
        done = _run([sys.executable, "-m", *words], directory)
        assert done.returncode == 0, done.stderr
        shown = done.stdout + done.stderr
        assert expected.strip() in shown, shown


def _run(words: list[str], directory: Path) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if not key.startswith("PERDURE")}
    return subprocess.run(
        words, cwd=directory, env={**env, "PYTHONDONTWRITEBYTECODE": "1"}, capture_output=True, text=True,
        timeout=PATIENCE, check=False,
    )  # fmt: skip
