"""The README's first program, as printed, killed once in the middle."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

from tests.containers.engines import IMAGE, Engine
from tests.stores import deadlines
from tests.waiting import kill, wait_for

README = Path(__file__).resolve().parents[2] / "README.md"


def test_the_first_program_as_printed(podman: Engine, tmp_path: Path) -> None:
    """On Podman, whose containers have the machine's network here; the image is a stand-in of the same name."""
    podman.run_cli("tag", IMAGE, "alpine:3.20")
    program = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert program is not None
    assert "ContainerTask" in program[1]
    (tmp_path / "words.py").write_text(program[1])
    (tmp_path / "words.txt").write_text("the\na\nthe\nof\nthe\n")
    command = "run words.py main --name tuesday --text words.txt"
    assert f"$ perdure {command}" in README.read_text()
    environ = {**os.environ, **podman.environ(), "PYTHONDONTWRITEBYTECODE": "1"}
    words = [sys.executable, "-m", "perdure", *command.split()]
    started = time.monotonic()
    killed = subprocess.Popen(words, cwd=tmp_path, env=environ, stderr=subprocess.DEVNULL)
    wait_for(lambda: deadlines(tmp_path / ".perdure" / "perdure.db"))
    kill(killed)
    done = subprocess.run(words, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "the\n"), done.stderr
    assert 10 <= time.monotonic() - started < 30
    assert podman.run_cli("ps", "-a", "--format", "{{.Names}}").split() == []
