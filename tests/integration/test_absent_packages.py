"""Integrations whose package is not installed: one message with the extra's name, and perdure itself works."""

from __future__ import annotations

import subprocess
import sys

import pytest

ABSENT = """
import sys
from importlib.abc import MetaPathFinder

class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {packages!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
import perdure
import perdure.cli
assert not {packages!r} & {{name.partition(".")[0] for name in sys.modules}}
try:
    import {module}
except perdure.errors.UsageError as error:
    print(error)
"""

NEEDED = [
    ("perdure.integrations.mcp", "mcp_types", "mcp"),
    ("perdure.integrations.opentelemetry", "opentelemetry", "otel"),
    ("perdure.integrations.openai_agents", "agents", "openai-agents"),
    ("perdure.integrations.pydantic_ai", "pydantic_ai", "pydantic-ai"),
    ("perdure.integrations.starlette", "starlette", "web"),
]


@pytest.mark.parametrize(("module", "package", "extra"), NEEDED)
def test_a_missing_package_is_one_message_with_the_name_of_the_extra(module: str, package: str, extra: str) -> None:
    program = ABSENT.format(packages={package}, module=module)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{module} needs {package}, which is not installed: pip install 'perdure[{extra}]'"
