"""The programs on docs/databases.md do what the page says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.waiting import PATIENCE

PAGE = Path(__file__).resolve().parents[2] / "docs" / "databases.md"
BLOCKS = {
    found[1]: found[2] for found in re.finditer(r"```python\n# (\w+\.py)\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
}


def execute(directory: Path, name: str) -> str:
    for file, text in BLOCKS.items():
        (directory / file).write_text(text, "utf-8")
    done = subprocess.run(
        [sys.executable, name], cwd=directory, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_program_of_the_page_has_a_name() -> None:
    assert PAGE.read_text("utf-8").count("```python") == len(BLOCKS)


def test_money_moves_once_however_often_the_program_runs(tmp_path: Path) -> None:
    for _ in range(2):
        assert "ann has 380 left" in execute(tmp_path, "transfer.py")
    assert "1 rows removed" not in execute(tmp_path, "prune.py")  # younger than a week


def test_the_outbox_sends_the_message_of_the_order(tmp_path: Path) -> None:
    assert "sent 1: ordered: tea\n1\n" in execute(tmp_path, "outbox.py")


@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_a_program_of_the_page_compiles(name: str) -> None:
    compile(BLOCKS[name], name, "exec")


def test_a_run_submitted_in_a_transaction_is_there_after_the_commit_alone(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "perdure", "store", "migrate"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=PATIENCE)
    assert execute(tmp_path, "signup.py") == "['welcome-ann']\n"
