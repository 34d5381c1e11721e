"""Fixtures for the tests of scripts that say `import flyte`."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.flyte.scripts import Scripts


@pytest.fixture
def scripts(tmp_path: Path) -> Scripts:
    """A directory for scripts."""
    return Scripts(tmp_path)
