"""Which container engine is used, and what is said where there is none."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure.containers import discovery
from perdure.containers.discovery import open_engine
from perdure.errors import EngineUnavailableError, UsageError


class Listener:
    """Answers as Docker or Podman on a Unix socket, as far as looking for an engine goes."""

    def __init__(self, path: Path, kind: str) -> None:
        self.kind = kind
        self.socket = socket.socket(socket.AF_UNIX)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.socket.bind(str(path))
        self.socket.listen()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                try:
                    path = connection.recv(65536).split(b" ")[1].decode()
                    connection.sendall(self._answer(path))
                except (OSError, IndexError):
                    pass  # it only looked for a listener

    def _answer(self, path: str) -> bytes:
        headers = "Libpod-Api-Version: 4.3.1\r\n" if self.kind == "podman" else ""
        body = '{"ID": "x", "Id": "y", "Name": "elsewhere", "ServerVersion": "1"}'
        if path.endswith("libpod/info"):
            body = (
                '{"host": {"hostname": "elsewhere", "kernel": "1", "security": {"rootless": true}}, '
                '"store": {"graphRoot": "/g"}, "version": {"Version": "4.3.1"}}'
            )
        if self.kind == "stranger":
            return b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
        return (
            f"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\n{headers}Content-Type: application/json\r\n"
            f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        ).encode()

    def close(self) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join(5)


class Machine:
    """A machine as far as discovery sees it, in a short directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.docker = root / "docker.sock"
        self.podman = root / "podman.sock"
        self.rootless = root / "run/podman/podman.sock"
        self.environ = {"PATH": str(root / "bin"), "XDG_RUNTIME_DIR": str(root / "run"), "HOME": str(root)}
        self.listeners: list[Listener] = []

    def listen(self, path: Path, kind: str) -> str:
        self.listeners.append(Listener(path, kind))
        return f"unix://{path}"

    def open(self, wanted: str | None = None) -> tuple[str, str]:
        async def scenario() -> tuple[str, str]:
            engine = await open_engine(wanted, self.environ)
            try:
                info = await engine.info()
                return info.kind, info.url
            finally:
                await engine.close()

        return asyncio.run(scenario())


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    import shutil
    import tempfile

    root = Path(tempfile.mkdtemp(prefix="pd-", dir="/tmp"))  # a socket's path may have 107 characters
    found = Machine(root)
    monkeypatch.setattr(discovery, "DOCKER_SOCKETS", (str(found.docker),))
    monkeypatch.setattr(discovery, "PODMAN_SOCKETS", (str(found.podman), "$XDG_RUNTIME_DIR/podman/podman.sock"))
    yield found
    for listener in found.listeners:
        listener.close()
    shutil.rmtree(root)


def test_the_order(machine: Machine) -> None:
    rootless = machine.listen(machine.rootless, "podman")
    assert machine.open() == ("podman", rootless)
    podman = machine.listen(machine.podman, "podman")
    assert machine.open() == ("podman", podman)
    docker = machine.listen(machine.docker, "docker")
    assert machine.open() == ("docker", docker)
    assert machine.open("podman") == ("podman", podman)
    host = machine.environ["DOCKER_HOST"] = machine.listen(machine.root / "other.sock", "docker")
    assert machine.open() == ("docker", host)
    assert machine.open("docker") == ("docker", host)
    wanted = machine.listen(machine.root / "wanted.sock", "docker")
    assert machine.open(wanted) == ("docker", wanted)
    assert machine.open("podman") == ("podman", podman)


def test_a_missing_engine_is_reported_with_the_places_and_a_remedy(machine: Machine) -> None:
    with pytest.raises(EngineUnavailableError) as caught:
        machine.open()
    text = str(caught.value)
    for part in (
        "DOCKER_HOST: not set",
        f"{machine.docker}: no such socket",
        f"{machine.podman}: no such socket",
        "a program `podman`: none in PATH",
        "apt-get install podman",
        "PERDURE_CONTAINER_ENGINE",
    ):
        assert part in text
    with pytest.raises(EngineUnavailableError, match=r"No Docker was found(.|\n)*apt-get install docker\.io") as caught:
        machine.open("docker")
    assert "podman.sock" not in str(caught.value).split("Install")[0]


def test_a_socket_without_a_listener(machine: Machine) -> None:
    machine.listen(machine.docker, "docker")
    machine.listeners.pop().close()
    with pytest.raises(EngineUnavailableError, match=r"docker\.sock: the socket is there, but no process listens"):
        machine.open()
    podman = machine.listen(machine.podman, "podman")
    assert machine.open() == ("podman", podman), "the next one is used"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can play another user")
def test_a_socket_without_permission(machine: Machine) -> None:
    machine.listen(machine.docker, "docker")
    machine.docker.chmod(0o600)
    machine.root.chmod(0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(EngineUnavailableError, match=r"permission denied; add yourself to the group docker"):
            machine.open()
    finally:
        os.seteuid(0)


def test_an_engine_named_by_the_user_is_not_replaced(machine: Machine) -> None:
    machine.listen(machine.docker, "docker")
    machine.environ["DOCKER_HOST"] = f"unix://{machine.root}/none.sock"
    with pytest.raises(EngineUnavailableError, match=r"none\.sock cannot be used: no such socket"):
        machine.open()
    with pytest.raises(EngineUnavailableError, match=r"unix:///none/at/all"):
        machine.open("unix:///none/at/all")
    with pytest.raises(EngineUnavailableError, match=r"tcp://127\.0\.0\.1:1 does not answer"):
        machine.open("tcp://127.0.0.1:1")


@pytest.mark.parametrize("wanted", ["dokcer", "ssh://host", "unix://", "/var/run/docker.sock"])
def test_a_wish_that_makes_no_sense(machine: Machine, wanted: str) -> None:
    with pytest.raises(UsageError, match="has to be docker, podman, or a URL"):
        machine.open(wanted)


def test_something_else_listens(machine: Machine) -> None:
    url = machine.listen(machine.root / "web.sock", "stranger")
    with pytest.raises(EngineUnavailableError, match="no container engine"):
        machine.open(url)


def test_a_podman_that_does_not_come_up(machine: Machine) -> None:
    program = machine.root / "bin/podman"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho no storage >&2\nexit 125\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    before = set(Path("/tmp").glob("perdure-podman-*"))
    with pytest.raises(EngineUnavailableError, match=r"podman system service .*(.|\n)*no storage"):
        machine.open()
    assert set(Path("/tmp").glob("perdure-podman-*")) == before
