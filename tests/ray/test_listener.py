"""The listener for processes on Ray's nodes, with real sockets: what strangers cost, and what a node may name (N3).

The kind: every byte before authentication comes from a stranger, and every frame comes from a machine that may be in
other hands. Members here: silent connections, connections that send slowly, too much, the wrong token, a token only,
bytes behind the greeting; frames that name files, modules, links and environment variables.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.waiting import wait_for

from perdure import errors
from perdure.executors import _frames as frames
from perdure.executors import on_ray

RIGHT = "a" * on_ray.TOKEN
GREETING = json.dumps({"runs": "r", "digest": "d"}).encode() + b"\n"


@pytest.fixture
def listener() -> on_ray.Listener:
    return on_ray.Listener("127.0.0.1")


def hung_up(sock: socket.socket, seconds: float = 10) -> bool:
    sock.settimeout(seconds)
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@contextlib.contextmanager
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_1500_silent_connections_cost_a_bounded_number_of_descriptors_and_threads(listener: on_ray.Listener) -> None:
    """A node gets in meanwhile and afterwards."""
    expected = listener.expect(RIGHT)
    threads, before = threading.active_count(), descriptors()
    with many_descriptors(), contextlib.ExitStack() as silent:
        for _ in range(1500):
            silent.enter_context(socket.create_connection(listener.address))
        wait_for(lambda: descriptors() - before - 1500 <= on_ray.STRANGERS + 1)
        assert threading.active_count() <= threads
        node = silent.enter_context(socket.create_connection(listener.address))
        node.sendall(RIGHT.encode() + GREETING)
        sock, greeting = expected.result(10)
        sock.close()
        assert greeting == on_ray.Greeting("r", "d")


@pytest.mark.parametrize(
    "sent",
    [
        b"b" * on_ray.TOKEN, b"b" * on_ray.TOKEN + GREETING, RIGHT[:-1].encode() + b"b",
        b"GET / HTTP/1.1\r\nHost: n\r\n" * 9,
        RIGHT.encode() + b"x" * 5000, RIGHT.encode() + b"{}\n", RIGHT.encode() + b"\xff\n",
        RIGHT.encode() + GREETING + b"\0\0", "é".encode() * on_ray.TOKEN,
    ],
)  # fmt: skip
def test_a_connection_without_token_or_greeting_is_closed_at_once(listener: on_ray.Listener, sent: bytes) -> None:
    expected = listener.expect(RIGHT)
    with socket.create_connection(listener.address) as stranger:
        stranger.sendall(sent)
        assert hung_up(stranger, on_ray.CALLING / 2)
    assert not expected.done()


@pytest.mark.parametrize("sent", [b"", b"a", RIGHT.encode(), RIGHT.encode() + GREETING[:-1]])
def test_a_connection_that_does_not_finish_its_greeting_is_closed_at_the_deadline(
    listener: on_ray.Listener, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(on_ray, "CALLING", 0.5)
    listener.expect(RIGHT)
    with socket.create_connection(listener.address) as stranger:
        stranger.sendall(sent)
        assert not hung_up(stranger, 0.1)
        assert hung_up(stranger)


def test_a_byte_now_and_then_does_not_move_the_deadline(
    listener: on_ray.Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_ray, "CALLING", 0.5)
    begun = time.monotonic()
    with socket.create_connection(listener.address) as slow, contextlib.suppress(OSError):
        while time.monotonic() - begun < 20:
            slow.sendall(b"a")
            time.sleep(0.05)
    assert time.monotonic() - begun < 20


def test_a_node_that_sends_its_token_in_pieces_is_let_in(listener: on_ray.Listener) -> None:
    expected = listener.expect(RIGHT)
    with socket.create_connection(listener.address) as node:
        node.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in RIGHT.encode() + GREETING:
            node.sendall(bytes((byte,)))
        sock, greeting = expected.result(10)
        with sock:
            assert greeting.runs == "r"
            sock.sendall(b"blocking")
            assert node.recv(8) == b"blocking"
            assert sock.gettimeout() is None


def test_a_token_counts_once_and_not_after_it_was_forgotten(listener: on_ray.Listener) -> None:
    expected = listener.expect(RIGHT)
    with socket.create_connection(listener.address) as node, socket.create_connection(listener.address) as again:
        node.sendall(RIGHT.encode() + GREETING)
        expected.result(10)[0].close()
        again.sendall(RIGHT.encode() + GREETING)
        assert hung_up(again)
    listener.forget(listener.expect(RIGHT) and RIGHT)
    with socket.create_connection(listener.address) as late:
        late.sendall(RIGHT.encode() + GREETING)
        assert hung_up(late)


def test_the_listener_survives_a_process_without_free_descriptors(listener: on_ray.Listener) -> None:
    """The connections without authentication are given up first."""
    expected = listener.expect(RIGHT)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = []
    with socket.create_connection(listener.address), contextlib.ExitStack() as stack:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors() + 30, hard))
            node = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                while True:
                    held.append(os.open("/dev/null", os.O_RDONLY))
            node.connect(listener.address)
            node.sendall(RIGHT.encode() + GREETING)
        finally:
            for fd in held:
                os.close(fd)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        expected.result(10)[0].close()


def test_an_announced_length_alone_takes_no_memory() -> None:
    """A node announces 2^40 bytes, and the end of the connection is noticed as always."""
    ours, theirs = socket.socketpair()
    channel = frames.Channel(ours, frames.ToParent)
    theirs.sendall((2**40).to_bytes(8, "big") + b"x" * 100)
    theirs.close()
    with pytest.raises(frames.Closed):
        channel.receive()
    channel.close()


def test_a_long_frame_arrives_whole() -> None:
    ours, theirs = socket.socketpair()
    near, far = frames.Channel(ours, frames.ToParent), frames.Channel(theirs, frames.ToParent)
    sent = frames.Stop(bytes(range(256)) * 40_000)
    far.send(sent)
    assert near.receive(60) == sent
    near.close()
    far.close()


# -- the code that a frame names ---------------------------------------------------------------------------------------


def delegate(target: Path | str, module: str = "", **more: Any) -> frames.Delegate:
    given: dict[str, Any] = {"env_vars": {}, "executor": "process", "variable": "", "name": "t", **more}
    return frames.Delegate(
        ticket=1, action=None, inputs=b"", floor=0, recorded=False, within=[], target=f"{target}::x::y",  # type: ignore[arg-type]
        module=module, retries=frames.Retries(0, None), timeout=None, resources=None, **given,
    )  # fmt: skip


class Project:
    """A project with a task in a package, a file beside the project, and a Ray pool."""

    def __init__(self, at: Path) -> None:
        self.root = at / "project"
        package = self.root / "pack" / "inner"
        package.mkdir(parents=True)
        for folder in (package, package.parent):
            (folder / "__init__.py").touch()
        self.flow = package / "flow.py"
        self.beside = self.root / "beside.py"
        self.outside = at / "outside.py"
        for file in (self.flow, self.beside, self.outside):
            file.touch()
        self.pool = on_ray.RayPool(store_id="", store_url="", blobs="", find=None, address=None)  # type: ignore[arg-type]
        self.caller: Any = SimpleNamespace(name="caller", target=lambda: f"{self.flow}::pack.inner.flow::caller")

    def call(self, target: Path | str, module: str = "", **more: Any) -> None:
        self.pool.refuse_call(self.caller, delegate(target, module, **more))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_a_frame_names_code_below_the_code_root_or_loaded_already(project: Project) -> None:
    for module in ("", "flow", "inner.flow", "pack.inner.flow"):
        project.call(project.flow, module)
    project.call(project.beside, "beside")
    project.call(os.path.abspath(__file__), __name__)
    link = project.root / "link.py"
    link.symlink_to(project.beside)
    project.call(link, "link")


def test_a_frame_that_names_other_code_is_refused(project: Project) -> None:
    link = project.root / "link.py"
    link.symlink_to(project.outside)
    folder = project.root / "folder"
    folder.symlink_to(project.root.parent)
    plain = project.root / "data.txt"
    plain.touch()
    for target, module in [
        (project.outside, ""), (link, ""), (folder / "outside.py", ""), (f"{project.root}/../outside.py", ""),
        (f"{project.root}-too/x.py", ""), ("beside.py", ""), (plain, ""), ("", ""), (json.__file__, "other"),
        (project.flow, "xml.flow"), (project.flow, "os.pack.inner.flow"), (project.beside, "json.beside"),
    ]:  # fmt: skip
        with pytest.raises(errors.UsageError, match=r"is not below the code root of caller \(.*project\): import that"):
            project.call(target, module)
    assert "xml.flow" not in sys.modules


@pytest.mark.parametrize("name", ["LD_PRELOAD", "LD_AUDIT", "DYLD_INSERT_LIBRARIES", "PYTHONPATH", "PYTHONHOME"])
def test_a_frame_does_not_name_code_by_environment_variables(project: Project, name: str) -> None:
    with pytest.raises(errors.UsageError, match=rf"which code a process loads \({name}\): set them for the program"):
        project.call(project.flow, env_vars={name: "/tmp/x", "DRESS": "blue"})
    project.call(project.flow, env_vars={"DRESS": "blue"})
    project.call(project.flow, env_vars={name: "/tmp/x"}, executor="ray")
