"""Runs over HTTP: `perdure.integrations.starlette` in an application of FastAPI and of Starlette, under a real server.

WB1, WB2, WB3, WB4, P12.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.waiting import PATIENCE, kill, running, wait_for

EXAMPLES = Path(__file__).parents[2] / "examples"

SHOP = """
import asyncio
import pathlib
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date

from starlette.applications import Starlette
from starlette.routing import Mount

import perdure
from perdure.integrations.starlette import router
from perdure.io import File

env = perdure.TaskEnvironment(name="shop")
other = perdure.TaskEnvironment(name="other")
HERE = pathlib.Path(__file__).parent


@dataclass
class Order:
    id: int
    day: date
    notes: list[str] = field(default_factory=list)


@env.task
async def sell(order: Order, count: int = 1) -> list[Order]:
    return [order] * count


@env.task
async def reads(file: File) -> int:
    return file.size


@env.task
async def collect(count: int) -> list[int]:
    return [await perdure.receive.aio("orders/new", int) for _ in range(count)]


@env.task
async def asks(kind: str) -> str:
    types = {"bool": bool, "int": int, "order": Order, "text": str}
    condition = await perdure.new_condition.aio("go", prompt="<b>Go?</b>", data_type=types[kind])
    return repr(await condition.wait.aio())


@env.task
async def fails() -> None:
    raise ValueError("no")


@perdure.trace
async def write(count: int, size: int) -> None:
    async with perdure.stream("numbers", str) as out:
        for number in range(count):
            await out.write.aio(str(number).ljust(size))
            if number == 4:
                while not (HERE / "on").exists():
                    await asyncio.sleep(0.01)


@env.task
async def writes(count: int, size: int = 0) -> None:
    await write(count, size)


@env.task
async def publishes() -> None:
    await perdure.publish.aio("progress", 0.5)
    await perdure.receive.aio("more")
    await perdure.publish.aio("progress", 1.0)


@other.task
async def hidden() -> bool:
    return await (await perdure.new_condition.aio("secret")).wait.aio()


@asynccontextmanager
async def lifespan(app):
    async with perdure.Worker([__name__]):
        await perdure.with_runcontext(name="hidden").submit.aio(hidden)
        yield


app = Starlette(routes=[Mount("/p", router([sell, reads, collect, asks, fails, writes, publishes]))], lifespan=lifespan)
"""


class Server:
    """A uvicorn process, which can be killed and started again on the same port."""

    def __init__(self, app: str, directory: Path, mount: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._app = app
        self._directory = directory
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}{mount}", timeout=PATIENCE)

    @contextmanager
    def up(self) -> Iterator[Any]:
        env = {key: value for key, value in os.environ.items() if not key.startswith("PERDURE")}
        words = [sys.executable, "-m", "uvicorn", self._app, "--port", str(self.port), "--app-dir"]
        words += [str(EXAMPLES if self._app.startswith("approvals") else self._directory), "--log-level", "warning"]
        log = (self._directory / "server.log").open("a")
        with running(*words, cwd=self._directory, env=env, stdout=log, stderr=log) as process:
            wait_for(lambda: process.poll() is not None or self._answers())
            assert process.poll() is None, (self._directory / "server.log").read_text()
            self._pid = process.pid
            yield process

    def memory(self) -> int:
        """Bytes of memory that the process has."""
        status = Path(f"/proc/{self._pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024

    def _answers(self) -> bool:
        try:
            return self.http.get("/tasks").status_code == 200
        except httpx.TransportError:
            return False

    def submit(self, task: str, inputs: Any, key: str | None = None) -> Any:
        headers = {} if key is None else {"Idempotency-Key": key}
        return self.http.post(f"/tasks/{task}/runs", json=inputs, headers=headers)

    def ended(self, run: str) -> Any:
        return wait_for(lambda: self._finished(run))

    def _finished(self, run: str) -> Any:
        answer = self.http.get(f"/runs/{run}/result", params={"wait": 5})
        return answer.json() if answer.status_code == 200 else None

    def waits(self, run: str) -> Any:
        return wait_for(lambda: [one for one in self.http.get(f"/runs/{run}/conditions").json() if one["waits"]])

    def events(self, path: str, last: str | None = None) -> Iterator[tuple[str, str, Any]]:
        """The kind, the id and the data of each event, until the connection ends."""
        headers = {} if last is None else {"Last-Event-ID": last}
        with self.http.stream("GET", path, headers=headers) as answer:
            assert answer.status_code == 200, answer.read()
            found = {"event": "message", "id": "", "data": ""}
            for line in answer.iter_lines():
                if line:
                    name, _, value = line.partition(":")
                    found[name] = value.strip()
                elif found["data"]:
                    yield found["event"], found["id"], json.loads(found["data"])
                    found = {"event": "message", "id": "", "data": ""}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("shop")
    (directory / "webshop.py").write_text(SHOP)
    server = Server("webshop:app", directory, "/p")
    with server.up():
        yield server


def test_a_phone_approves_and_the_run_goes_on_after_two_kills_of_the_server(tmp_path: Path) -> None:
    server = Server("approvals:app", tmp_path, "/perdure")
    seen: list[tuple[str, str, Any]] = []
    with server.up() as process:
        answer = server.submit("approvals.refund", {"amount": 400}, key="order-1")
        assert (answer.status_code, answer.headers["location"]) == (202, "/perdure/runs/order-1")
        for event in server.events("/runs/order-1/events/streams/thoughts"):
            seen.append(event)
            if len(seen) == 3:
                break
        server.waits("order-1")
        kill(process)
    with server.up() as process:
        assert server.submit("approvals.refund", {"amount": 400}, key="order-1").json()["run"] == "order-1"
        server.waits("order-1")
        seen += server.events("/runs/order-1/events/streams/thoughts", last=seen[-1][1])
        assert [data["value"] for kind, _, data in seen if kind == "message"] == [
            "The",
            "customer",
            "paid",
            "400",
            "EUR",
            "twice.",
        ]
        assert seen[-1][0] == "end"
        assert "/perdure/approvals/order-1/approve" in server.http.get("/approvals").text
        page = server.http.get("/approvals/order-1/approve").text
        assert "Refund 400 EUR?" in page
        assert 'name="field.ok"' in page
        form = {"field.ok": "true", "field.why": ""}
        sent = server.http.post("/approvals/order-1/approve", data=form, headers={"Sec-Fetch-Site": "same-origin"})
        assert "Thank you" in sent.text
        kill(process)
    with server.up():
        assert server.ended("order-1")["result"] == "paid 400 EUR"
        assert server.http.get("/runs/order-1/published").json() == {"progress": "paying"}
        again = server.http.post("/approvals/order-1/approve", data=form, headers={"Sec-Fetch-Site": "same-origin"})
        assert again.status_code == 404


@pytest.mark.parametrize(
    ("task", "inputs", "told"),
    [
        ("sell", {}, "needs the input 'order'.*count: int = 1"),
        ("sell", {"order": {"id": 1, "day": "2026-01-01"}, "coun": 2}, "no input 'coun'"),
        ("sell", {"order": {"id": "x", "day": "2026-01-01"}}, "input 'order' of shop.sell is .*Order: at .id"),
        ("sell", {"order": {"id": 1, "day": "no"}}, "at .day: expected date"),
        ("sell", {"order": {"id": 1, "day": "2026-01-01", "who": 1}}, "unknown field"),
        ("sell", [1], "are a JSON object"),
        ("reads", {"file": "/etc/passwd"}, "cannot be named from elsewhere"),
        ("reads", {"file": "file:///etc/passwd"}, "cannot be named from elsewhere"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_with_the_type_and_store_nothing(
    shop: Server, task: str, inputs: Any, told: str
) -> None:
    """WB1: missing, unknown, ill-typed and nested inputs, and inputs that name files of the server."""
    import re

    answer = shop.submit(f"shop.{task}", inputs, key="refused")
    assert (answer.status_code, answer.json()["error"]) == (422, "InputError")
    assert re.search(told, answer.json()["message"]), answer.json()
    assert shop.http.get("/runs/refused").status_code == 404


def test_inputs_are_read_by_the_declared_types(shop: Server) -> None:
    order = {"id": 7, "day": "2026-01-31", "notes": ["a"]}
    run = shop.submit("shop.sell", {"order": order, "count": 2}).json()["run"]
    assert shop.ended(run)["result"] == [order, order]
    failed = shop.ended(shop.submit("shop.fails", {}).json()["run"])
    assert (failed["status"], failed["error"]) == ("FAILED", {"type": "ValueError", "message": "no"})


def test_one_key_is_one_run_and_other_inputs_are_a_conflict(shop: Server) -> None:
    order = {"id": 7, "day": "2026-01-31", "notes": []}
    first = shop.submit("shop.sell", {"order": order}, key="one").json()["run"]
    assert shop.submit("shop.sell", {"order": order}, key="one").json()["run"] == first == "one"
    assert shop.submit("shop.sell", {"order": order, "count": 3}, key="one").status_code == 409


def test_runs_of_other_tasks_are_unknown_to_the_router(shop: Server) -> None:
    """WB2: looking, signalling, sending, cancelling, following and approving."""
    assert "hidden" not in shop.http.get("/approvals").text
    for path in ("", "/result", "/conditions", "/published", "/events/published", "/events/streams/x"):
        assert shop.http.get(f"/runs/hidden{path}").status_code == 404, path
    for path in ("/conditions/secret", "/mailboxes/x", "/cancel"):
        assert shop.http.post(f"/runs/hidden{path}", json={}).status_code == 404, path
    assert shop.http.get("/approvals/hidden/secret").status_code == 404
    assert shop.submit("other.hidden", {}).status_code == 404


def test_messages_with_one_key_are_received_once(shop: Server) -> None:
    run = shop.submit("shop.collect", {"count": 2}).json()["run"]
    shop.waits(run)
    box = f"/runs/{run}/mailboxes/orders/new"
    refused = shop.http.post(box, json="seven")
    assert (refused.status_code, refused.json()["error"]) == (422, "ValueMismatchError")
    for _ in range(3):
        assert shop.http.post(box, json=7, headers={"Idempotency-Key": "evt-7"}).status_code == 200
    assert shop.http.post(box, json=8, headers={"Idempotency-Key": "evt-7"}).status_code == 409
    shop.http.post(box, json=8)
    assert shop.ended(run)["result"] == [7, 8]
    assert shop.http.post(box, json=9).status_code == 409


def test_a_signal_is_read_by_the_type_that_the_run_waits_for(shop: Server) -> None:
    run = shop.submit("shop.asks", {"kind": "order"}).json()["run"]
    shop.waits(run)
    refused = shop.http.post(f"/runs/{run}/conditions/go", json={"id": "x"})
    assert refused.status_code == 422
    assert "takes `" in refused.json()["message"]
    shop.http.post(f"/runs/{run}/conditions/go", json={"id": 1, "day": "2026-01-01"})
    assert "Order(id=1" in shop.ended(run)["result"]


def test_a_cancelled_run_is_shown_as_cancelled(shop: Server) -> None:
    run = shop.submit("shop.asks", {"kind": "bool"}).json()["run"]
    shop.waits(run)
    assert shop.http.post(f"/runs/{run}/cancel", json={"grace": "soon"}).status_code == 422
    assert shop.http.post(f"/runs/{run}/cancel", json={"reason": "too late"}).status_code == 202
    ended = shop.ended(run)
    assert ended["status"] == "CANCELLED"
    assert "too late" in ended["error"]["message"]


@pytest.mark.parametrize(
    ("kind", "form", "result"),
    [
        ("bool", {"value": "true"}, "True"),
        ("int", {"value": "7"}, "7"),
        ("text", {"value": "7"}, "'7'"),
        ("order", {"field.id": "1", "field.day": "2026-01-01", "field.notes": ""}, "Order(id=1"),
    ],
)
def test_a_form_asks_for_the_type_of_the_condition(shop: Server, kind: str, form: Any, result: str) -> None:
    run = shop.submit("shop.asks", {"kind": kind}).json()["run"]
    shop.waits(run)
    page = shop.http.get(f"/approvals/{run}/go")
    assert "&lt;b&gt;Go?&lt;/b&gt;" in page.text
    assert all(f'name="{name}"' in page.text for name in form)
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    origin = f"http://127.0.0.1:{shop.port}"
    sent = shop.http.post(f"/approvals/{run}/go", data=form, headers={"Origin": origin})
    assert sent.status_code == 200, sent.text
    assert result in shop.ended(run)["result"]


@pytest.mark.parametrize(
    "headers", [{}, {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
                {"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "none"}]
)  # fmt: skip
def test_a_page_of_another_origin_cannot_answer_nor_submit(shop: Server, headers: dict[str, str]) -> None:
    """WB3: forms from elsewhere, and requests that a form can send to the other routes."""
    run = shop.submit("shop.asks", {"kind": "bool"}, key="guarded").json()["run"]
    shop.waits(run)
    assert shop.http.post(f"/approvals/{run}/go", data={"value": "true"}, headers=headers).status_code == 403
    for kind in ("application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x"):
        plain = {"Content-Type": kind, **headers}
        for path in (f"/runs/{run}/conditions/go", f"/runs/{run}/cancel", "/tasks/shop.fails/runs"):
            assert shop.http.post(path, content=b"true", headers=plain).status_code == 415
    assert shop.http.get(f"/runs/{run}").json()["status"] == "WAITING"


def test_published_values_are_followed_and_a_reader_that_comes_back_gets_only_news(shop: Server) -> None:
    run = shop.submit("shop.publishes", {}).json()["run"]
    path = f"/runs/{run}/events/published"
    kind, last, data = next(iter(shop.events(path)))
    assert (kind, data) == ("message", {"progress": 0.5})
    shop.http.post(f"/runs/{run}/mailboxes/more", json=1)
    found = list(shop.events(path, last=last))
    assert [(kind, data) for kind, _, data in found] == [
        ("message", {"progress": 1.0}), ("end", {"status": "SUCCEEDED"}),
    ]  # fmt: skip
    assert [kind for kind, _, _ in shop.events(path, last=found[0][1])] == ["end"]


def test_a_slow_reader_and_a_reader_that_leaves_cost_the_run_nothing(shop: Server, tmp_path: Path) -> None:
    """WB4: while one reader never reads and another has gone, the run ends, and the server stays small."""
    (shop._directory / "on").write_text("")
    count, size = 4_000, 8_000
    run = shop.submit("shop.writes", {"count": count, "size": size}).json()["run"]
    path = f"/runs/{run}/events/streams/numbers"
    with socket.create_connection(("127.0.0.1", shop.port)) as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.sendall(f"GET /p{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert next(iter(shop.events(path)))[1] == "1"  # and leaves
        assert shop.ended(run)["status"] == "SUCCEEDED"
        items = [data["value"].strip() for kind, _, data in shop.events(path) if kind == "message"]
        assert items == [str(number) for number in range(count)]
        assert slow.recv(15) == b"HTTP/1.1 200 OK"


def test_slow_readers_of_large_items_cost_one_mib_each(shop: Server) -> None:
    """WB4. The family: few large items, many small ones, one over the limit (the store's contract has the others)."""
    (shop._directory / "on").write_text("")
    count, size, readers = 48, 1_000_000, 4
    run = shop.submit("shop.writes", {"count": count, "size": size}).json()["run"]
    assert shop.ended(run)["status"] == "SUCCEEDED"
    path = f"/runs/{run}/events/streams/numbers"
    assert next(iter(shop.events(path)))[1] == "1"
    before = shop.memory()
    with ExitStack() as stack:
        for _ in range(readers):
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", shop.port)))
            slow.settimeout(PATIENCE)
            slow.sendall(f"GET /p{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            # With the first event on its way, the server has read its page.
            taken = 0
            while taken < size:
                taken += len(slow.recv(1 << 16))
        grown = shop.memory() - before
    # All items would be 48 MB for each reader, and as much again once decoded.
    assert grown < readers * 12 * size, f"{grown / 1e6:.0f} MB"


def test_a_wrong_request_gets_one_message(shop: Server) -> None:
    kind = {"Content-Type": "application/json"}
    bad = shop.http.post("/tasks/shop.fails/runs", content=b"{", headers=kind)
    assert (bad.status_code, "no JSON" in bad.json()["message"]) == (400, True)
    big = shop.http.post(
        "/tasks/shop.fails/runs", content=b" " * 22_000_000, headers={"Content-Type": "application/json"}
    )
    assert big.status_code == 413
    run = shop.submit("shop.asks", {"kind": "bool"}).json()["run"]
    wrong = shop.http.get(f"/runs/{run}/events/streams/x", headers={"Last-Event-ID": "x"})
    assert (wrong.status_code, "offset" in wrong.json()["message"]) == (422, True)
    assert shop.http.get(f"/runs/{run}/result", params={"wait": "nan"}).status_code == 422
    assert shop.http.get(f"/runs/{run}/result").status_code == 202
    shop.http.post(f"/runs/{run}/conditions/go", json=True)
