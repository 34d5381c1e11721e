"""One store with its processes, and one browser, for all tests of a process."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from tests.ui.site import Site, Visitor


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A store with runs of every kind, and a worker."""
    found = Site(tmp_path_factory.mktemp("site"))
    try:
        found.seed()
        found.serve()
        yield found
    finally:
        found.close()


@pytest.fixture(scope="session")
def url(site: Site) -> str:
    """The address of the web page, without a slash at the end."""
    return site.ui().rstrip("/")


@pytest.fixture(scope="session")
def visitor(url: str) -> Visitor:
    """A session, once the worker has parked the runs that wait."""
    found = Visitor(url)
    for name, status in (("ask-1", "WAITING"), ("ask-2", "WAITING"), ("mail-1", "WAITING"), ("nap-1", "SLEEPING")):
        found.until(name, status)
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium, for one module: the driver keeps an event loop running in the thread of the tests."""
    path = next((found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("Chromium is not installed; `make debian` installs it, or: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(
            executable_path=path, args=["--no-sandbox"] if os.geteuid() == 0 else [], timeout=120_000
        )
        yield found
        found.close()
