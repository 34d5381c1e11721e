"""`executor="ray"` where something does not fit: the cluster, what its nodes have installed, the declaration."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import remote_flows as flows
from tests.ray.conftest import PROJECT, Cluster
from tests.waiting import Stall

import perdure
from perdure import errors
from perdure.executors import on_ray

PYTHON = f"Python {sys.version_info[0]}.{sys.version_info[1]}"


def test_a_node_with_another_version_of_perdure_is_refused(store: Path, cluster: Cluster, tmp_path: Path) -> None:
    """The Ray task itself needs no perdure there."""
    other = tmp_path / "other" / "perdure"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text('__version__ = "0.0.1"\n')
    number = cluster.add("other", num_cpus=1, num_gpus=1, env_vars={"PYTHONPATH": str(other.parent)})
    try:
        with pytest.raises(errors.UsageError) as caught:
            perdure.run(flows.on_special_node)
    finally:
        cluster.kill(number)
    mine = f"{PYTHON} with perdure {perdure.__version__}"
    assert str(caught.value) == (
        f"Ray's node runs {PYTHON} with perdure 0.0.1, this process {mine}: install the same on both"
    )


def body_of(session: Any) -> on_ray.RayBody:
    return on_ray.RayBody(SimpleNamespace(address=None), session)  # type: ignore[arg-type]


def test_other_code_on_the_nodes_is_refused() -> None:
    """N4."""
    body = body_of(SimpleNamespace(spec=flows.prints.spec))
    runs, shipped, brought = on_ray.what_runs(), str(PROJECT), None
    same = on_ray._digest(str(PROJECT / "remote_flows.py"))

    def refuse(digest: str, root: str | None) -> None:
        body._refuse(on_ray.Greeting(runs, digest), on_ray.Connected(None, None, root))  # type: ignore[arg-type]

    refuse(same, brought)
    refuse("edited since", shipped)
    with pytest.raises(errors.UsageError, match=r"remote_flows.py is another one on Ray's node: leave"):
        refuse("another", brought)
    with pytest.raises(errors.UsageError, match=r"remote_flows.py is not on Ray's node: leave"):
        refuse("", shipped)


def test_one_process_has_one_cluster_and_ships_one_directory() -> None:
    connected: Future[Any] = Future()
    connected.set_result(on_ray.Connected(None, None, "/one"))  # type: ignore[arg-type]
    found: Any = SimpleNamespace(connected=connected, _address="one:1", _root="/one")
    on_ray.RayCluster.refuse(found, "one:1", "/one", "t")
    with pytest.raises(errors.UsageError, match=r"connected to Ray at one:1, not other:1: call ray.shutdown"):
        on_ray.RayCluster.refuse(found, "other:1", "/one", "t")
    with pytest.raises(errors.UsageError, match=r"code of t lies in /other, but /one was given to Ray's nodes"):
        on_ray.RayCluster.refuse(found, "one:1", "/other", "t")


def test_a_cancelled_body_does_not_wait_for_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    never = SimpleNamespace(connected=Future())
    monkeypatch.setattr(on_ray, "cluster", lambda *_: never)
    session: Any = SimpleNamespace(spec=flows.prints.spec, over=False)
    thread = threading.Thread(target=body_of(session).main)
    thread.start()
    thread.join(0.5)
    assert thread.is_alive()
    session.over = True
    thread.join(5)
    assert not thread.is_alive()


def test_a_node_without_perdure_reports_the_missing_package() -> None:
    """The task as a node executes it, in an interpreter that has the standard library only."""
    listener = on_ray.Listener("127.0.0.1")
    token = "7" * on_ray.TOKEN
    expected = listener.expect(token)
    call = f"print(on_node({listener.address!r}, {on_ray.what_runs()!r}, {token!r}, '/nowhere', 'flow.py', {{}}))"
    code = Path(on_ray._ray_node.__file__).read_text() + call
    node = subprocess.Popen([sys.executable, "-I", "-S", "-c", code], stdout=subprocess.PIPE, text=True)
    sock, greeting = expected.result(20)
    with pytest.raises(subprocess.TimeoutExpired):
        node.wait(0.5)  # until the greeting has been read, as a task that has ended is not listened to
    sock.close()
    assert node.communicate(timeout=20)[0] == "0\n"
    assert greeting.runs == f"{PYTHON} with no perdure"


class Silent:
    """Listens, and gives the same answer to any request."""

    def __init__(self, answer: bytes) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._answer = answer
        threading.Thread(target=self._main, daemon=True).start()

    def _main(self) -> None:
        connection, _ = self._socket.accept()
        connection.recv(100)
        connection.sendall(self._answer)
        while connection.recv(1000):  # until the other side goes
            pass


def drive(tmp_path: Path, address: str, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "perdure", "run", str(PROJECT / "remote_flows.py"), "prints", "--name", "r", *more],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, env={**os.environ, "PERDURE_RAY_ADDRESS": address},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "said"), [(None, "refused"), (b"HTTP/1.1 400 Bad Request\r\n", "what answers at"), (b"", "timed out")]
)
def test_without_a_cluster_the_run_stays_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes | None, said: str
) -> None:
    """N5."""
    monkeypatch.setattr(on_ray, "ANSWERING", 0.5)
    if answer is None:
        address = "127.0.0.1:1"
    else:
        address = Silent(answer).address
    with pytest.raises(errors.ClusterUnavailableError, match=said):
        on_ray.refuse_silent(address)


def test_the_command_line_reports_a_missing_cluster_in_one_line_and_resumes_with_a_cluster(
    store: Path, cluster: Cluster, tmp_path: Path
) -> None:
    """N5."""
    with Stall() as stall:
        ended = drive(tmp_path, "127.0.0.1:1", "--text", "hello from a node")
    assert stall.took < stall.bound(15.0, work=3.0)
    assert ended.returncode == 1
    assert "no Ray cluster answers at 127.0.0.1:1: [Errno 111] Connection refused" in ended.stderr
    assert "Traceback" not in ended.stderr
    ended = drive(tmp_path, cluster.address, "--text", "hello from a node")
    assert (ended.returncode, "hello from a node" in ended.stdout) == (0, True), ended.stderr


@pytest.mark.parametrize("address", ["ray://example.org:10001", "example.org", "example.org:x", ":6379"])
def test_an_invalid_cluster_address_is_refused(address: str) -> None:
    with pytest.raises(errors.UsageError, match="ray_address must be HOST:PORT"):
        perdure.init(ray_address=address)


def test_without_ray_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    perdure.init(store=tmp_path / "perdure.db")
    try:
        with pytest.raises(errors.UsageError, match=r"pip install 'perdure\[ray\]'"):
            perdure.with_runcontext(name="r").run(flows.prints, "text")
        assert perdure.Run.get("r").status.name == "INTERRUPTED"
    finally:
        perdure.init()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"executor": "spark"}, "executor must be 'local', 'process' or 'ray', not 'spark'"),
        ({"resources": perdure.Resources(cpu=1)}, 'resources=... is for executor="ray"'),
        ({"executor": "process", "resources": perdure.Resources(cpu=1)}, 'resources=... is for executor="ray"'),
        ({"executor": "ray", "resources": {"cpu": 1}}, "resources must be Resources"),
        ({"executor": "ray", "resources": perdure.Resources(shm="1Gi")}, "shm"),
    ],
)
def test_an_invalid_declaration_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(errors.UsageError, match="environment e: ") as caught:
        perdure.TaskEnvironment("e", **settings)
    assert said in str(caught.value)


def test_programs_without_ray_tasks_do_not_load_ray() -> None:
    code = "import sys, perdure; perdure.TaskEnvironment('e', executor='ray', resources=perdure.Resources(cpu=1)); "
    code += (
        "print([name for name in sys.modules if name == 'ray' or name.startswith(('ray.', 'perdure.executors.on'))])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
