"""The documentation as a site: it builds without a warning, holds every public name, and fetches nothing."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from tests.waiting import PATIENCE

import perdure

PROJECT = Path(__file__).parents[2]
MODULES = ["perdure"] + [
    f"perdure.{name}" for name in ("durable", "errors", "extras", "io", "report", "sql", "testing")
]
ASKED = re.compile(r'environ(?:\.get\(|\[)\s*"(PERDURE_[A-Z_]+)"')


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("mkdocs") is None and "CI" not in os.environ:
        pytest.skip("mkdocs is not installed: make venv")
    place = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(place)], cwd=PROJECT, check=False,
        capture_output=True, text=True, timeout=2 * PATIENCE, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return place


def test_the_site_fetches_nothing_from_elsewhere(site: Path) -> None:
    """Family: a script, a style sheet, a font or a picture of another host."""
    loads = re.compile(r'<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)="?(https?:)?//', re.IGNORECASE)
    for page in site.rglob("*.html"):
        assert not loads.search(page.read_text()), page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", sheet.read_text()), sheet


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_stands_in_the_reference(site: Path, module: str) -> None:
    page = (site / "reference" / f"{module.removeprefix('perdure.')}.html").read_text()
    loaded = importlib.import_module(module)
    names = [name for name in loaded.__all__ if not isinstance(getattr(loaded, name), ModuleType)]
    assert not [name for name in names if f'id="{module}.{name}"' not in page]


def test_every_command_stands_on_the_page_of_the_command_line() -> None:
    page = (PROJECT / "docs" / "cli.md").read_text()
    shown = subprocess.run(
        [sys.executable, "-m", "perdure", "--help"], capture_output=True, text=True, check=True
    ).stdout
    names = re.findall(r"^  (\w+) {2,}[A-Z]", shown.partition("Commands:")[2], re.MULTILINE)
    assert len(names) > 30
    assert not [name for name in names if f"perdure {name}" not in page]


def test_every_setting_stands_on_the_page_of_the_command_line() -> None:
    page = (PROJECT / "docs" / "cli.md").read_text()
    asked = {name for file in (PROJECT / "src").rglob("*.py") for name in ASKED.findall(file.read_text())}
    assert len(asked) > 5
    assert not [name for name in asked if f"`{name}`" not in page]


def test_the_links_of_pages_lead_to_files() -> None:
    """Also from the pages that the site shows without their links to files of the repository."""
    for page in (PROJECT / "docs").rglob("*.md"):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_version_of_the_package_is_that_of_the_project() -> None:
    assert f'version = "{perdure.__version__}"' in (PROJECT / "pyproject.toml").read_text()
