"""What several files share."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.integration.shell import Shell
from tests.postgres_server import Server, server


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """The command, in a directory with a workflow file."""
    return Shell(tmp_path)


@pytest.fixture
def postgres() -> Server:
    """This process's server."""
    return server()
