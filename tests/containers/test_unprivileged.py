"""A caller who is not root: outputs of every user in the container are readable, and are removed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.containers.engines import IMAGE, Engine

from perdure.core.ground.trees import remove_tree

FLOW = Path(__file__).resolve().parent / "flows" / "unprivileged.py"


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory of the user 1000, below no directory that is closed to this user."""
    folder = tempfile.mkdtemp(prefix="perdure-home-")
    os.chown(folder, 1000, 1000)
    yield Path(folder)
    remove_tree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("closed", ["nothing", "files", "the outputs"])
def test_files_of_root_in_a_container_are_read_and_removed(engine: Engine, home: Path, closed: str) -> None:
    """`closed`: with modes that keep all other users out, so that the engine has to copy the files."""
    socket = Path(engine.url.removeprefix("unix://"))
    socket.chmod(0o666)
    socket.parent.chmod(0o755)
    script = "cd /var/outputs; mkdir -p d/sub; echo x > d/sub/f; ln -s sub/f d/link; echo 5 > n"
    if closed != "nothing":
        script += "; chmod 600 d/sub/f n; chmod 700 d/sub d"
    if closed == "the outputs":
        script += "; chown 0 .; chmod 700 ."
    done = subprocess.run(
        [sys.executable, str(FLOW), engine.url, IMAGE, script], cwd=home, capture_output=True, text=True, timeout=60,
        check=False, env={**os.environ, "HOME": str(home)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [["sub/f"], 5]
    assert engine.run_cli("ps", "-a", "--format", "{{.Names}}").split() == []
    if closed == "nothing":
        assert os.listdir(home / "perdure.db-containers") == []
