"""A cluster for each test: an API server in this process, whose kubelet runs processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.bucket import endpoint

import perdure

from .api_server import ApiServer, Kubelet
from .kubelets import Inside, ProcessKubelet


def does_nothing(inside: Inside) -> int:
    """The program of a test that chooses none."""
    return 0


class Setup:
    """What a test has."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, kubelet: Kubelet | None = None) -> None:
        self.folder = folder
        self.kubelet = ProcessKubelet(does_nothing)
        self.server = ApiServer(kubelet or self.kubelet)
        self.bucket = endpoint().bucket()
        self.store = str(folder / "s.db")
        environment = endpoint().environment()
        self.server.add_secret(
            "bucket", {key: environment[key] for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
        )
        self.engine = "kubernetes://flows?copilot=perdure-copilot:1&bucket_secret=bucket&pending=20"
        self.environment = {
            **environment,
            "KUBECONFIG": str(self.server.kubeconfig(folder / "kubeconfig")),
            "PERDURE_CONTAINER_ENGINE": self.engine,
            "PERDURE_BLOBS": f"{self.bucket}/data",
            "PERDURE_STORE": self.store,
        }
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(folder)

    def init(self, more: str = "") -> None:
        """As a program does; `more` options of the engine's URL."""
        perdure.init(self.store, container_engine=self.engine + more)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Setup]:
    found = Setup(tmp_path, monkeypatch)
    found.init()
    yield found
    found.server.down = False
    perdure.init("memory://")
    found.server.close()
