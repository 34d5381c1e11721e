"""The blocks of pages, run in order in one directory: Python as written, commands with what they print.

A Python block begins with the name of its file. The file is written and run; a module of tasks alone does nothing. In
a console block each line behind `$` is a command, and the lines below it are what the command prints. A command with
`&` goes on in the background, until `kill`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tests.waiting import PATIENCE, kill_group, wait_for

PAGES = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^( *)```(python|console)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


PAGE_NAMES = [
    "operations.md",
    "messages.md",
    "testing.md",
    "checks.md",
    "debugging.md",
    "approval.md",
    "agents.md",
    "applications.md",
    "limits.md",
    "upgrading-code.md",
    "sagas.md",
    "outbox.md",
    "mcp.md",
    "logs.md",
    "notify.md",
    "quickstart.md",
    "moving-from-temporal.md",
    "moving-from-dbos.md",
    "moving-from-prefect.md",
    "tasks.md",
    "notebooks.md",
    "deploying.md",
    "concepts.md",
    "containers.md",
    "executors.md",
    "scaling.md",
    "schedules.md",
    "workers.md",
]
ELSEWHERE = {
    "docs/databases.md": "tests/sql/test_pages.py",
    "README.md": "tests/containers/test_readme.py",
}
"""Pages whose Python blocks other tests run."""
STAND_INS = {"concepts.md": {"model.py": "model = None\n"}}
"""Modules that the programs of a page import, and that the page does not show."""
NOT_TYPED = {"containers.md", "scaling.md", "schedules.md", "workers.md", "concepts.md"}
"""Pages whose commands are examples of a shell, with files that the page does not show."""
LOOKS = ("perdure conditions", "perdure ls", "perdure show", "curl -s http")
"""Commands that change nothing: what they print may come a moment later than a person would type them."""


@pytest.mark.parametrize("page", PAGE_NAMES)
def test_every_block_of_the_page_works_as_printed(page: str, tmp_path: Path) -> None:
    blocks = [(kind, textwrap.dedent(text)) for _, kind, text in BLOCK.findall((PAGES / page).read_text())]
    assert any(kind == "python" for kind, _ in blocks)
    for name, text in STAND_INS.get(page, {}).items():
        (tmp_path / name).write_text(text)
    with contextlib.closing(_Shell(tmp_path)) as shell:
        for kind, text in blocks:
            if kind == "console" and page in NOT_TYPED:
                continue
            if kind == "console":
                shell.commands(text)
                continue
            first = re.match(r"# ([\w.]+\.py)\n", text)
            assert first is not None, f"a block without the name of its file:\n{text}"
            (tmp_path / first[1]).write_text(text)
            done = shell.run([sys.executable, first[1]])
            assert done.returncode == 0, f"{text}\n{done.stderr}"


def test_every_page_with_python_blocks_is_run() -> None:
    """A new page with Python blocks belongs into `PAGE_NAMES`, or a test of its own into `ELSEWHERE`."""
    project = PAGES.parent
    pages = [*PAGES.rglob("*.md"), *project.glob("*.md"), *(project / "examples").rglob("*.md")]
    with_python = {
        str(page.relative_to(project)) for page in pages if re.search(r"^ *```python$", page.read_text(), re.M)
    }
    assert with_python <= {f"docs/{page}" for page in PAGE_NAMES} | set(ELSEWHERE)
    for page, test in ELSEWHERE.items():
        assert Path(page).name in (project / test).read_text(), f"{test} does not run {page}"


class _Shell:
    """The terminal of the page: a directory, and at most one process in the background (`%1`)."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._env = {key: value for key, value in os.environ.items() if not key.startswith("PERDURE")}
        self._env["PYTHONDONTWRITEBYTECODE"] = "1"
        self._env["PATH"] = os.pathsep.join((os.path.dirname(sys.executable), self._env.get("PATH", "")))
        self._background: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = str(probe.getsockname()[1])

    def close(self) -> None:
        """End the process in the background."""
        if self._background is not None:
            kill_group(self._background)

    def commands(self, text: str) -> None:
        """Type the commands of a block, and look for what the block says that they print."""
        for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
            command, _, expected = part.replace("8000", self._port).partition("\n")
            words = shlex.split(command, comments=True)
            if words[0] == "kill":
                self._kill(hard="-9" in words)
            elif words[-1] == "&":
                self._start(words[:-1])
            elif command.startswith(LOOKS):
                wait_for(functools.partial(self._prints, words, expected), story=lambda words=words: self.run(words))
            else:
                code = 1 if "# exit code 1" in command else 0
                assert self._prints(words, expected, code), f"{command}\n{expected}\n{self.run(words)}"

    def _prints(self, words: list[str], expected: str, code: int = 0) -> bool:
        done = self.run(words)
        return done.returncode == code and expected.strip() in done.stdout + done.stderr

    def _kill(self, hard: bool) -> None:
        assert self._background is not None
        self._background.send_signal(signal.SIGKILL if hard else signal.SIGTERM)
        self._background.wait(PATIENCE)
        self._background = None

    def _start(self, words: list[str]) -> None:
        log = self._directory / "background.log"
        with log.open("wb") as stderr:
            self._background = subprocess.Popen(
                self._words(words), cwd=self._directory, env=self._env, stdout=stderr, stderr=stderr,
                start_new_session=True,
            )  # fmt: skip
        wait_for(lambda: any(ready in log.read_text() for ready in ("serving", "Uvicorn running")), story=log.read_text)

    @staticmethod
    def _words(words: list[str]) -> list[str]:
        assert words[0] in ("perdure", "pytest", "uvicorn", "curl", "cat", "python")
        if words[0] == "pytest":  # with the plugin that an installed perdure has
            words = ["pytest", "-p", "no:perdure", "-p", "perdure.testing.plugin", *words[1:]]
        if words[0] == "python":
            return [sys.executable, *words[1:]]
        return [sys.executable, "-m", *words] if words[0] in ("perdure", "pytest", "uvicorn") else words

    def run(self, words: list[str]) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        words = words if words[0] == sys.executable else self._words(words)
        return subprocess.run(
            words, cwd=self._directory, env=self._env, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
