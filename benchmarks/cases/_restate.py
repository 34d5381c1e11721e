"""A Restate server and a Python service of it, both on the loopback and both ended with the block.

The server is the binary of the npm package, started with nothing tuned but where it listens and works: its log is
fsynced, as it is by default. The service is a process of its own behind hypercorn, which its documentation recommends;
it speaks HTTP/2 with the server, both ways at once, for as long as a handler runs.

Telemetry and traces are off. For one look outside the server has no switch: at its start it asks whether there is a
newer one. So on Linux the whole case leaves the network for one that has nothing but a loopback.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import http.client
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

from _common import workdir

SERVICE = Path(__file__).with_name("_restate_service.py")
HOST = "127.0.0.1"
PATIENCE = 60.0  # seconds until the server and the service must stand

# linux/sched.h, linux/sockios.h, linux/if.h
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--server", type=Path, required=True, help="the binary restate-server")


def leave_the_network() -> bool:
    """Nothing but a loopback from here on, for this process and what it starts; False where the system has no such."""
    if sys.platform != "linux":
        return False
    unshare = ctypes.CDLL(None, use_errno=True).unshare
    if unshare(CLONE_NEWNET) != 0 and unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
    return True


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server((HOST, 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def listens(port: int) -> bool:
    socket.create_connection((HOST, port)).close()
    return True


def request(port: int, method: str, path: str, body: object = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(HOST, port, timeout=600)
    try:
        text = None if body is None else json.dumps(body)
        connection.request(method, path, text, {"content-type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def call(ingress: int, handler: str, body: object) -> object:
    """Invoke a handler and wait for its result."""
    status, answer = request(ingress, "POST", f"/bench/{handler}", body)
    if status != 200:
        raise SystemExit(f"{handler}: {status} {answer.decode(errors='replace')}")
    return json.loads(answer)


def until(what: str, ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    limit = monotonic() + PATIENCE
    while True:
        try:
            if ready():
                return
        except (OSError, http.client.HTTPException):
            pass
        if process.poll() is not None or monotonic() > limit:
            print(log.read_text(errors="replace")[-2000:], file=sys.stderr)
            raise SystemExit(f"{what} does not answer")
        sleep(0.05)


@contextmanager
def process(command: Sequence[str], log: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        started = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, cwd=log.parent
        )
        try:
            yield started
        finally:
            started.kill()
            started.wait()


@contextmanager
def served(options: argparse.Namespace) -> Iterator[int]:
    """The port at which handlers are invoked."""
    leave_the_network()
    with workdir(options.dir) as directory:
        node, admin, ingress, service = free_ports(4)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("RESTATE_", "OTEL_"))},
            "DO_NOT_TRACK": "1",
            "RESTATE_ADMIN__BIND_ADDRESS": f"{HOST}:{admin}",
            "RESTATE_BASE_DIR": str(directory / "restate"),
            "RESTATE_BIND_ADDRESS": f"{HOST}:{node}",
            "RESTATE_ADVERTISED_ADDRESS": f"http://{HOST}:{node}/",
            "RESTATE_DISABLE_TELEMETRY": "true",
            "RESTATE_INGRESS__BIND_ADDRESS": f"{HOST}:{ingress}",
            "RESTATE_LISTEN_MODE": "tcp",
            "RESTATE_LOG_FILTER": "warn",
            "RESTATE_NODE_NAME": "bench",
        }
        serve = [sys.executable, str(SERVICE), "--port", str(service)]
        log = directory / "server.log"
        with (
            process([str(options.server), "--no-logo"], log, environment) as server,
            process(serve, directory / "service.log", environment) as python,
        ):
            until("the server", lambda: request(admin, "GET", "/health")[0] == 200, server, log)
            until("the ingress", lambda: request(ingress, "GET", "/restate/health")[0] == 200, server, log)
            until("the service", lambda: listens(service), python, log)
            status, answer = request(admin, "POST", "/deployments", {"uri": f"http://{HOST}:{service}"})
            if status != 201:
                raise SystemExit(f"the service could not be registered: {status} {answer.decode(errors='replace')}")
            until("the handler", lambda: request(ingress, "POST", "/bench/empty", 0)[0] == 200, server, log)
            yield ingress
