"""The programs of the conformance kit for a Restate server and its Python service, as its documentation writes them.

One life is a server, with everything that it keeps in the directory of the trial, and a service, in one process group:
a kill takes both, as the loss of a machine does. Each life registers the service and asks for the one invocation by its
idempotency key.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import restate
from hypercorn.asyncio import serve
from hypercorn.config import Config
from outside import FOLDER, failure, note, result
from restate import Context, TerminalError

HOST = "127.0.0.1"
PATIENCE = 50.0
flow = restate.Service("flow")


def step(context: Context, name: str, value: Any = None, seconds: float = 0.0) -> Any:
    async def work() -> Any:
        note("begin", name)
        await asyncio.sleep(seconds)
        note("end", name)
        return value

    return context.run_typed(name, work)


def seen(name: str, value: Any) -> Any:
    note("seen", name, value)
    return value


@flow.handler("steps")
async def steps(context: Context, _: int) -> Any:
    return [seen(f"s{n}", await step(context, f"s{n}", n * 10)) for n in range(5)]


@flow.handler("slow_steps")
async def slow_steps(context: Context, _: int) -> Any:
    return [seen(f"s{n}", await step(context, f"s{n}", n * 10, 0.25)) for n in range(4)]


@flow.handler("values")
async def values(context: Context, _: int) -> Any:
    async def raises() -> None:
        note("begin", "raises")
        raise TerminalError("of the step")

    found: list[Any] = []
    given: list[Any] = [None, 0, "", False, []]
    for n, value in enumerate(given):
        found.append(seen(f"v{n}", await step(context, f"v{n}", value)))
    try:
        await context.run_typed("raises", raises)
    except TerminalError as error:  # the one kind of exception that a step of restate may end with
        found.append(seen("raises", f"ValueError: {error.message}"))
    await step(context, "last")
    return found


@flow.handler("half")
async def half(context: Context, n: int) -> int:
    seen(f"c{n}a", await step(context, f"c{n}a", n))
    return int(seen(f"c{n}b", await step(context, f"c{n}b", n + 1)))


@flow.handler("child")
async def child(context: Context, _: int) -> Any:
    found = [seen(f"child{n}", await context.service_call(half, n)) for n in (1, 2)]
    return [*found, seen("own", await step(context, "own", 7))]


@flow.handler("sleep")
async def sleep(context: Context, _: int) -> Any:
    seen("before", await step(context, "before", 1))
    note("at", "asleep")
    await context.sleep(timedelta(seconds=3))
    note("at", "awake")
    return seen("behind", await step(context, "behind", 2))


def ports() -> list[int]:
    """Four ports of the loopback, the same for every life of the trial."""
    place = Path(FOLDER, "ports")
    if not place.exists():
        sockets = [socket.create_server((HOST, 0)) for _ in range(4)]
        place.write_text(json.dumps([each.getsockname()[1] for each in sockets]))
        for each in sockets:
            each.close()
    found: list[int] = json.loads(place.read_text())
    return found


def request(port: int, path: str, body: Any, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(HOST, port, timeout=PATIENCE)
    connection.request("POST", path, json.dumps(body), {"content-type": "application/json", **headers})
    answer = connection.getresponse()
    return answer.status, answer.read()


def until(path: str, port: int, body: Any, **headers: str) -> bytes:
    """The answer, as soon as the server is there and gives one."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            status, answer = request(port, path, body, **headers)
            if status in (200, 201):
                return answer
        except (OSError, http.client.HTTPException) as error:
            answer = str(error).encode()
        if time.monotonic() > end:
            raise SystemExit(f"{path}: {answer.decode(errors='replace')}")
        time.sleep(0.05)


def server(binary: str, node: int, admin: int, ingress: int) -> subprocess.Popen[bytes]:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("RESTATE_", "OTEL_"))},
        "DO_NOT_TRACK": "1",
        "RESTATE_ADMIN__BIND_ADDRESS": f"{HOST}:{admin}",
        "RESTATE_BASE_DIR": str(Path(FOLDER, "restate")),
        "RESTATE_BIND_ADDRESS": f"{HOST}:{node}",
        "RESTATE_ADVERTISED_ADDRESS": f"http://{HOST}:{node}/",
        "RESTATE_DISABLE_TELEMETRY": "true",
        "RESTATE_INGRESS__BIND_ADDRESS": f"{HOST}:{ingress}",
        "RESTATE_LISTEN_MODE": "tcp",
        "RESTATE_LOG_FILTER": "warn",
        "RESTATE_NODE_NAME": "attacked",
    }
    return subprocess.Popen([binary, "--no-logo"], stdin=subprocess.DEVNULL, env=environment, cwd=FOLDER)


def asked(program: str, run: str, admin: int, ingress: int, service: int) -> Any:
    until("/deployments", admin, {"uri": f"http://{HOST}:{service}", "force": True})
    return json.loads(until(f"/flow/{program.replace('-', '_')}", ingress, 0, **{"idempotency-key": run}))


async def main() -> None:
    binary, program, run = sys.argv[1:]
    node, admin, ingress, service = ports()
    started = server(binary, node, admin, ingress)
    config = Config()
    config.bind = [f"{HOST}:{service}"]
    serving = asyncio.create_task(serve(restate.app([flow]), config, mode="asgi"))
    note("at", "process")
    try:
        result(await asyncio.to_thread(asked, program, run, admin, ingress, service))
    except BaseException as error:
        failure(error)
        raise
    finally:
        serving.cancel()
        started.kill()


if __name__ == "__main__":
    code = 1
    try:
        asyncio.run(main())
        code = 0
    finally:
        os._exit(code)
