"""A caller who is not root: outputs of every user in the container are readable, and are removed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.containers.engines import IMAGE, Engine

FLOW = Path(__file__).resolve().parent / "flows" / "unprivileged.py"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("closed", [False, True])
def test_files_of_root_in_a_container_are_read_and_removed(engine: Engine, tmp_path: Path, closed: bool) -> None:
    """`closed`: with modes that keep everybody else out, so that the engine has to hand it over."""
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, 1000, 1000)
    for folder in (tmp_path, *tmp_path.parents):
        if folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    socket = Path(engine.url.removeprefix("unix://"))
    socket.chmod(0o666)
    socket.parent.chmod(0o755)
    script = "cd /var/outputs; mkdir -p d/sub; echo x > d/sub/f; ln -s sub/f d/link; echo 5 > n"
    if closed:
        script += "; chmod 600 d/sub/f n; chmod 700 d/sub d"
    done = subprocess.run(
        [sys.executable, str(FLOW), engine.url, IMAGE, script], cwd=home, capture_output=True, text=True, timeout=60,
        check=False, env={**os.environ, "HOME": str(home)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [["sub/f"], 5]
    assert engine.run_cli("ps", "-a", "--format", "{{.Names}}").split() == []
    if not closed:
        assert os.listdir(home / "perdure.db-containers") == []
