"""One pair of warm hosts for all crash tests, and a count of what they did."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.crash.harness import Hosts

_COUNTS = pytest.StashKey[str]()


@pytest.fixture(scope="session")
def hosts(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Hosts]:
    """Warm processes that fork one child per trial."""
    found = Hosts(tmp_path_factory.mktemp("hosts"))
    yield found
    found.close()
    request.config.stash[_COUNTS] = (
        f"crash tests: {found.processes} processes, {found.kills} killed with SIGKILL, {found.cpu:.0f} s of CPU"
    )


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say how many kills there were."""
    if _COUNTS in config.stash:
        terminalreporter.write_line(config.stash[_COUNTS])


@pytest.fixture
def place() -> Iterator[Path]:
    """Where the trials of one test have their projects: in memory where that is possible. SIGKILL leaves to the files
    what was written, fsynced or not, so a slow disk would add nothing but its slowness (see `slow` in `host.py`)."""
    memory = "/dev/shm"
    path = tempfile.mkdtemp(prefix="perdure-crash-", dir=memory if os.access(memory, os.W_OK) else None)
    yield Path(path)
    shutil.rmtree(path)
