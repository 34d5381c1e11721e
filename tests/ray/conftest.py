"""One real Ray cluster of several nodes on this machine for all tests here, and this process connected to it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.processes.test_killed import Project

import perdure

PROJECT = Path(__file__).with_name("project")
# As a user's script finds what lies beside it.
sys.path.insert(0, str(PROJECT))


class Cluster:
    """The process that holds the cluster, from outside."""

    def __init__(self) -> None:
        # Ray puts sockets there, whose paths may be 107 characters long.
        self.directory = Path(tempfile.mkdtemp(prefix="perdure-ray-", dir="/tmp"))
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("cluster.py")), self.directory],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=(self.directory / "said").open("w"), text=True,
        )  # fmt: skip

    def begin(self) -> None:
        """Wait until it is there."""
        self.address: str = self._answer()

    def add(self, name: str, **settings: Any) -> int:
        """A node, in which `NODE` is its name; its number."""
        settings["env_vars"] = {"NODE": name, **settings.get("env_vars", {})}
        number: int = self._ask("add", settings)
        return number

    def kill(self, number: int) -> None:
        """A node, with SIGKILL."""
        self._ask("kill", number)

    def _ask(self, name: str, argument: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([name, argument]) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, (self.directory / "said").read_text()
        return json.loads(line)

    def end(self) -> None:
        """See `cluster.py`."""
        self._process.communicate(timeout=60)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One process of pytest's has all of them (`--dist loadgroup`), so that there is one cluster."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("ray"))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        # Ray's word for: the loopback will do.
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", str(Path(perdure.__file__).parents[1]))
        found = Cluster()
        try:
            found.begin()
            found.add("broad", num_cpus=4)
            yield found
        finally:
            if "ray" in sys.modules:
                sys.modules["ray"].shutdown()
            found.end()


@pytest.fixture
def store(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A new store, and the cluster for what is driven here."""
    monkeypatch.delenv("PERDURE_RAY_ADDRESS", raising=False)
    monkeypatch.setenv("PERDURE_PROCESSES", "1")
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "perdure.db"
    perdure.init(store=path, ray_address=cluster.address)
    yield path
    perdure.init()


@pytest.fixture
def project(tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A run `r` of `remote_flows`, driven by processes of its own."""
    monkeypatch.setenv("PERDURE_RAY_ADDRESS", cluster.address)
    found = Project(tmp_path)
    found.script = PROJECT / "remote_flows.py"
    yield found
    for process in found.started:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=10)
