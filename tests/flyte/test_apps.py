"""Scripts that serve an app on their own machine with `with_servecontext(mode="local")`."""

from __future__ import annotations

import socket

import pytest
from tests.flyte.scripts import Scripts

SERVED = """
import asyncio
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from flyte.app import AppEnvironment, Port

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *args):
        pass

def read(app):
    with urllib.request.urlopen(app.endpoint) as answer:
        return answer.read().decode()

by_function = AppEnvironment(name="by_function", port=Port(port=FIRST))
by_command = AppEnvironment(
    name="by_command", port=SECOND, command=f"python -m http.server SECOND --bind 127.0.0.1", requires_auth=False
)

@by_function.on_startup
def before():
    print("before")

@by_function.on_shutdown
async def after():
    print("after")

@by_function.server
def serve():
    HTTPServer(("127.0.0.1", by_function.get_port().port), Handler).serve_forever()

@env.task
def ask(name: str) -> str:
    mark("asked")
    return f"{name}, {read(by_function)}"

async def shortly(app):
    async with app.ephemeral_ctx():
        return "Directory listing" in read(app)

if __name__ == "__main__":
    serving = flyte.with_servecontext(mode="local")
    app = serving.serve(by_function).activate(wait=True)
    print(flyte.run(ask, "ada").outputs()[0], app.is_active())
    app.deactivate(wait=True)
    print(app.is_deactivated())
    app = serving.serve(by_command)
    print(asyncio.run(shortly(app)), app.is_active())
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def served(body: str) -> str:
    return body.replace("FIRST", str(free_port())).replace("SECOND", str(free_port()))


@pytest.mark.parametrize("kill_at", [0, 1])
def test_a_function_and_a_command_are_served_on_this_machine(scripts: Scripts, kill_at: int) -> None:
    """The family: a function, a command, hooks, a task that asks the app, and a script that is killed and run again."""
    scripts.write(served(SERVED))
    if kill_at:
        scripts.run("script.py", kill_at=kill_at)
    lines = [line for line in scripts.run("script.py").splitlines() if not line.startswith("Serving HTTP")]
    assert lines == ["before", "ada, hello True", "after", "True", "True False"]


def test_an_asgi_app_is_served_on_this_machine_and_runs_tasks(scripts: Scripts) -> None:
    pytest.importorskip("uvicorn")
    scripts.write(
        served("""
        import urllib.request
        from flyte.app.extras import FastAPIAppEnvironment

        @env.task
        async def double(x: int) -> int:
            return x * 2

        async def app(scope, receive, send):
            if scope["type"] == "http":
                doubled = await flyte.with_runcontext(mode=flyte.app.ctx().mode).run.aio(double, x=21)
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": str(doubled.outputs()[0]).encode()})

        environment = FastAPIAppEnvironment(name="doubler", app=app, port=FIRST, requires_auth=False)
        with flyte.with_servecontext("local").serve(environment).ephemeral_ctx_sync() as served:
            print(urllib.request.urlopen(served.endpoint).read().decode())
    """)
    )
    assert scripts.run("script.py").splitlines() == ["42"]


def test_an_app_that_cannot_be_served_says_why(scripts: Scripts) -> None:
    """The family: no mode, the mode of a cluster, nothing to serve, a program that ends at once, a port in use."""
    scripts.write(
        served("""
        import threading
        from http.server import BaseHTTPRequestHandler, HTTPServer
        from flyte.app import AppEnvironment

        other = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
        threading.Thread(target=other.serve_forever, daemon=True).start()
        taken = AppEnvironment(name="taken", port=other.server_port, command="true")
        empty = AppEnvironment(name="empty", port=FIRST)
        silent = AppEnvironment(name="silent", port=SECOND, command=["python", "-c", ""])
        local = flyte.with_servecontext(mode="local", activate_timeout=0.2)
        for use in (
            lambda: flyte.with_servecontext().serve(empty),
            lambda: flyte.with_servecontext(mode="remote").serve(empty),
            lambda: local.serve(empty),
            lambda: local.serve(silent).activate(wait=True),
            lambda: local.serve(taken),
        ):
            try:
                use()
            except Exception as error:
                print(type(error).__name__, error)
    """)
    )
    first, second, third, fourth, fifth = scripts.run("script.py").splitlines()
    assert first == second == 'UsageError app empty: perdure serves apps on this machine only; pass mode="local"'
    assert third == "UsageError app empty has nothing to serve: give command=..., or a function under @empty.server"
    assert fourth.startswith("TimeoutError app silent does not answer at http://localhost:")
    assert fifth.startswith("UsageError app taken: another server answers at http://localhost:")
