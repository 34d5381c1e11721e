"""A project directory with one run of a container workflow, whose processes may be killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.containers.engines import Engine
from tests.waiting import PATIENCE, wait_for

FLOWS = Path(__file__).resolve().parent / "flows"


class Victims:
    """Processes that drive the run "r" of one task, one after the other."""

    def __init__(self, engine: Engine, directory: Path, task: str, **inputs: Any) -> None:
        self.engine = engine
        self.directory = directory
        self.task = task
        self.inputs = inputs
        self.shared = directory / "shared"
        self.shared.mkdir(mode=0o777)
        self.shared.chmod(0o777)
        self.environ = {
            **os.environ, **engine.environ(), "SHARED": str(self.shared), "IMAGE": engine.image,
            "PYTHONDONTWRITEBYTECODE": "1",
        }  # fmt: skip

    def begin(self, point: str = "never") -> subprocess.Popen[str]:
        """A process on its way."""
        return subprocess.Popen(
            [sys.executable, str(FLOWS / "victim.py"), str(FLOWS / "jobs.py"), self.task, point,
             json.dumps(self.inputs)],
            cwd=self.directory, env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, point: str = "never", timeout: float = PATIENCE) -> tuple[int, Any, str]:
        """A whole process: exit code, what it answered, what it wrote to stderr."""
        process = self.begin(point)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"hung: {out}\n{err[-4000:]}") from None
        return process.returncode, json.loads(out) if out.strip() else None, err

    def ran(self) -> list[str]:
        """What containers have written to the shared directory."""
        file = self.shared / "ran"
        return file.read_text().split() if file.exists() else []

    def notes(self) -> list[str]:
        """What steps have written there."""
        file = self.shared / "notes"
        return file.read_text().split() if file.exists() else []

    def left(self) -> list[str]:
        """What is left of containers: in the engine, and on disk."""
        found = self.engine.run_cli("ps", "-a", "--format", "{{.Names}}").split()
        root = self.directory / ".perdure" / "perdure.db-containers"
        return found + (os.listdir(root) if root.exists() else [])

    def wait_for(self, count: int) -> None:
        """Until containers have left so many marks."""
        wait_for(lambda: len(self.ran()) >= count, story=self.ran)
