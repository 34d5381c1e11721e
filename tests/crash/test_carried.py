"""Context variables that go with a run: the bodies of all its lives see them, in every place and process (CV1, CV2)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.stores import ON_POSTGRES, store_url

WORKFLOW = Path(__file__).parent / "workflows" / "carried.py"
SUBMIT = """
import sys
import perdure, carried
carried.tenant.set("acme")
carried.user.set(carried.User("Ada", ("ops", "finance")))
carried.plain.set("stays here")
perdure.with_runcontext(name=sys.argv[1]).submit(getattr(carried, sys.argv[2]))
"""
ALL = "acme Ada ops finance"


class Project:
    """A directory with a store, and processes in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        shutil.copy(WORKFLOW, directory)
        self.env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(directory), *sys.path])}
        if (url := store_url()) is not None:
            self.env["PERDURE_STORE"] = url

    def python(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *words], cwd=self.directory, env=self.env, capture_output=True, text=True, timeout=100,
            check=False,
        )  # fmt: skip

    def perdure(self, *words: str) -> str:
        found = self.python("-m", "perdure", *words)
        assert found.returncode == 0, found.stdout + found.stderr
        return found.stdout

    def serve(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "perdure", "serve", "carried.py"], cwd=self.directory, env=self.env,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def finished(project: Project, name: str) -> str:
    """Serve the store until the run has ended; its result as `perdure wait` prints it."""
    server = project.serve()
    try:
        return project.perdure("wait", name)
    finally:
        server.terminate()
        server.communicate(timeout=60)


def test_all_lives_of_a_run_see_the_submitters_variables(project: Project) -> None:
    """CV1, CV2. The family: the places of a run (its body, a trace of each colour, a child, a thread, a process), and
    the lives (the first, one behind a SIGKILL of the worker)."""
    found = project.python("-c", SUBMIT, "r", "main")
    assert found.returncode == 0, found.stderr
    first = project.serve()
    assert first.wait(100) == -9, first.communicate()[0]
    first.communicate()
    assert finished(project, "r").count(ALL) == 8
    shown = project.perdure("show", "r", "--json")
    assert "stays here" not in shown


def test_a_rerun_and_a_fork_begin_with_the_variables_of_the_run(project: Project) -> None:
    """CV2."""
    assert project.python("-c", SUBMIT, "r", "sets").returncode == 0
    assert finished(project, "r").count("of the body Ada ops finance") == 3
    rerun = "import perdure; print(perdure.Run.get('r').rerun(name='again').result)"
    found = project.python("-c", rerun)
    assert found.stdout.count("of the body Ada ops finance") == 3, found.stderr


@pytest.mark.skipif(ON_POSTGRES, reason="about code, not about stores")
def test_two_variables_of_one_name_are_refused(project: Project) -> None:
    (project.directory / "other.py").write_text(WORKFLOW.read_text())
    submit = SUBMIT.replace("import perdure, carried", "import perdure, carried, other")
    submit = submit.replace("getattr(carried, sys.argv[2])", "getattr(other, sys.argv[2])")
    found = project.python("-c", submit, "r", "sets")
    assert "two context variables are named 'tenant'" in found.stderr
