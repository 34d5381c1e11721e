"""An API server in a thread of this process: the endpoints that perdure asks, with their rules, over objects in memory.

It keeps what clients rely on: names are unique, every change has a version, watches go on from a version or are told
that it is gone (410), a deletion takes its time, preconditions and JSON patches are looked at. What is posted as a pod
is checked against the official OpenAPI schema. Scheduling, controllers and admission are not there; what kubelets do is
in `kubelets.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import threading
import traceback
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml
from aiohttp import web

VERSION = "1.33"
Kubelet = Callable[["ApiServer", dict[str, Any]], Awaitable[None]]
"""Runs a pod to its end."""


class ApiServer:
    """See the module text. Public methods may be called from any thread, those with `_` on its loop only."""

    def __init__(self, kubelet: Kubelet) -> None:
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.logs: dict[str, list[bytes]] = {}
        """By the uid of a pod: what its main container has written."""
        self.asked: list[str] = []
        """Every request, as `METHOD path?query`."""
        self.posted: list[dict[str, Any]] = []
        """Every pod that was created, as it was posted."""
        self.answers: list[Callable[[web.Request], web.Response | None]] = []
        """Looked at first: may answer in place of the server, or raise."""
        self.down = False
        self.token = "let-me-in"
        self._kubelet = kubelet
        self._version = 100
        self._compacted = 0
        self._events: list[tuple[int, str, dict[str, Any]]] = []
        self._changed = asyncio.Event()
        self._streams: set[asyncio.Task[Any]] = set()
        self._kubelets: dict[str, asyncio.Task[None]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.url = self._on_loop(self._start())

    # -- from tests --------------------------------------------------------------------------------------------

    def kubeconfig(self, path: Path, namespace: str = "flows") -> Path:
        """A kubeconfig that leads here."""
        found = {
            "apiVersion": "v1", "kind": "Config", "current-context": "test", "preferences": {},
            "clusters": [{"name": "c", "cluster": {"server": self.url}}],
            "users": [{"name": "u", "user": {"token": self.token}}],
            "contexts": [{"name": "test", "context": {"cluster": "c", "user": "u", "namespace": namespace}}],
        }  # fmt: skip
        path.write_text(yaml.safe_dump(found))
        return path

    def pods(self) -> list[dict[str, Any]]:
        """As they are now."""
        return [copy.deepcopy(found) for (kind, _), found in list(self.objects.items()) if kind == "pods"]

    def add_secret(self, name: str, data: dict[str, str]) -> None:
        """One that a user has made."""
        self.objects["secrets", name] = {"metadata": {"name": name, "uid": str(uuid.uuid4())}, "stringData": data}

    def add_event(self, reason: str, message: str) -> None:
        """A warning about every pod that is asked for."""
        event = {"metadata": {"name": str(uuid.uuid4())}, "reason": reason, "message": message, "type": "Warning"}
        self.objects["events", event["metadata"]["name"]] = event  # type: ignore[index]

    def change(self, name: str, change: Callable[[dict[str, Any]], None]) -> None:
        """Change a pod, as its kubelet or a person does."""
        self._on_loop(self._async(lambda: self._change(name, change)))

    def break_streams(self) -> None:
        """Every watch and every log that is open breaks off."""

        def cut() -> None:
            for task in self._streams:
                task.cancel()

        self._loop.call_soon_threadsafe(cut)

    def compact(self) -> None:
        """What was before now can be watched no longer."""

        def forget() -> None:
            self._version += 10
            self._compacted = self._version

        self._loop.call_soon_threadsafe(forget)

    def close(self) -> None:
        """End it, and all kubelets."""
        self._on_loop(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _on_loop(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _async(self, work: Callable[[], Any]) -> Any:
        return work()

    async def _start(self) -> str:
        app = web.Application(middlewares=[self._first])
        for kind in ("pods", "secrets", "events"):
            base = f"/api/v1/namespaces/flows/{kind}"
            app.router.add_get(base, self._list)
            app.router.add_post(base, self._create)
            app.router.add_get(base + "/{name}", self._get)
            app.router.add_delete(base + "/{name}", self._delete)
        app.router.add_patch("/api/v1/namespaces/flows/pods/{name}", self._patch)
        app.router.add_get("/api/v1/namespaces/flows/pods/{name}/log", self._log)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _stop(self) -> None:
        tasks = [*self._kubelets.values(), *self._streams]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._runner.cleanup()

    # -- requests ----------------------------------------------------------------------------------------------

    @web.middleware
    async def _first(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.path_qs}")
        if self.down:
            assert request.transport is not None
            request.transport.abort()
            raise web.HTTPServiceUnavailable
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return _failed(401, "Unauthorized", "Unauthorized")
        for answer in list(self.answers):
            found = answer(request)
            if found is not None:
                return found
        found = await handler(request)
        assert isinstance(found, web.StreamResponse)
        return found

    async def _create(self, request: web.Request) -> web.Response:
        kind, body = _kind(request), await request.json()
        if kind == "pods":
            self.posted.append(copy.deepcopy(body))
            try:
                kubernetes_validate.validate(body, VERSION, strict=True)
            except jsonschema.ValidationError as error:
                return _failed(422, "Invalid", str(error.message))
        name = body["metadata"]["name"]
        if (kind, name) in self.objects:
            return _failed(409, "AlreadyExists", f'{kind} "{name}" already exists')
        body["metadata"]["uid"] = str(uuid.uuid4())
        if kind == "pods":
            body["status"] = {"phase": "Pending"}
        self._put(kind, name, body, "ADDED")
        return web.json_response(body, status=201)

    async def _get(self, request: web.Request) -> web.Response:
        found = self.objects.get((_kind(request), request.match_info["name"]))
        return web.json_response(found) if found is not None else _missing(request)

    async def _delete(self, request: web.Request) -> web.Response:
        kind, name = _kind(request), request.match_info["name"]
        found = self.objects.get((kind, name))
        options = await request.json() if request.can_read_body else {}
        if found is None:
            return _missing(request)
        wanted = (options.get("preconditions") or {}).get("uid")
        if wanted not in (None, found["metadata"]["uid"]):
            return _failed(409, "Conflict", "the UID in the precondition is another one")
        if kind == "pods":
            self._delete_pod(name, options.get("gracePeriodSeconds", 30))
        else:
            del self.objects[kind, name]
        return web.json_response(found)

    def _delete_pod(self, name: str, grace: float) -> None:
        found = self.objects["pods", name]
        running = self._kubelets.get(found["metadata"]["uid"])
        found["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        self._put("pods", name, found, "MODIFIED")
        if running is None or running.done() or grace == 0:
            self._remove(name)
        else:
            running.cancel()
            running.add_done_callback(lambda _: self._remove(name))

    def _remove(self, name: str) -> None:
        found = self.objects.pop(("pods", name), None)
        if found is None:
            return
        owner = found["metadata"]["uid"]
        for (kind, other), one in list(self.objects.items()):
            if any(ref["uid"] == owner for ref in one["metadata"].get("ownerReferences") or ()):
                del self.objects[kind, other]
        self._note("DELETED", found)

    async def _patch(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        found = self.objects.get(("pods", name))
        if found is None:
            return _missing(request)
        assert request.content_type == "application/json-patch+json"
        changed = copy.deepcopy(found)
        for step in await request.json():
            *path, last = step["path"].strip("/").split("/")
            place = changed
            for part in path:
                place = place[part]
            if step["op"] == "test" and place.get(last) != step["value"]:
                return _failed(422, "Invalid", "the server rejected our request due to an error in our request")
            if step["op"] == "replace":
                place[last] = step["value"]
        if changed["spec"].get("schedulingGates") == []:
            del changed["spec"]["schedulingGates"]
        self._put("pods", name, changed, "MODIFIED")
        return web.json_response(changed)

    async def _list(self, request: web.Request) -> web.StreamResponse:
        kind = _kind(request)
        labels = dict(part.split("=") for part in request.query.get("labelSelector", "").split(",") if part)
        fields = dict(part.split("=") for part in request.query.get("fieldSelector", "").split(",") if part)

        def fits(found: dict[str, Any]) -> bool:
            meta = found["metadata"]
            return (
                fields.get("metadata.name") in (None, meta["name"])
                and labels.items() <= (meta.get("labels") or {}).items()
            )

        if request.query.get("watch"):
            return await self._watch(request, fits)
        items = [found for (each, _), found in self.objects.items() if each == kind and fits(found)]
        return web.json_response({"metadata": {"resourceVersion": str(self._version)}, "items": items})

    async def _watch(self, request: web.Request, fits: Callable[[dict[str, Any]], bool]) -> web.StreamResponse:
        version = int(request.query["resourceVersion"])
        response = web.StreamResponse()
        await response.prepare(request)

        async def say(type: str, object: dict[str, Any]) -> None:
            await response.write(json.dumps({"type": type, "object": object}).encode() + b"\n")

        with self._streaming():
            while True:
                if version < self._compacted:
                    await say("ERROR", {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"})
                    return response
                for number, type, found in [event for event in self._events if event[0] > version]:
                    version = number
                    if fits(found):
                        await say(type, found)
                await self._changed.wait()
        return response

    async def _log(self, request: web.Request) -> web.StreamResponse:
        found = self.objects.get(("pods", request.match_info["name"]))
        if found is None:
            return _missing(request)
        if request.query["container"] not in {each["name"] for each in found["spec"]["containers"]}:
            return _failed(400, "BadRequest", "no such container")
        uid = found["metadata"]["uid"]
        response = web.StreamResponse()
        await response.prepare(request)
        sent = 0
        with self._streaming():
            while True:
                for line in self.logs.get(uid, [])[sent:]:
                    sent += 1
                    await response.write(line + b"\n")
                state = _main(self.objects.get(("pods", request.match_info["name"])) or found)
                if "running" not in state:
                    return response
                await asyncio.sleep(0.02)
        return response

    @contextlib.contextmanager
    def _streaming(self) -> Iterator[None]:
        task = asyncio.current_task()
        assert task is not None
        self._streams.add(task)
        try:
            yield
        except ConnectionError:
            pass  # the client has gone
        finally:
            self._streams.discard(task)

    # -- state -------------------------------------------------------------------------------------------------

    def _change(self, name: str, change: Callable[[dict[str, Any]], None]) -> None:
        found = copy.deepcopy(self.objects["pods", name])
        change(found)
        self._put("pods", name, found, "MODIFIED")

    def _put(self, kind: str, name: str, found: dict[str, Any], type: str) -> None:
        self.objects[kind, name] = found
        if kind == "pods":
            self._note(type, found)
            uid = found["metadata"]["uid"]
            if not found["spec"].get("schedulingGates") and uid not in self._kubelets:
                running = self._kubelets[uid] = asyncio.ensure_future(self._kubelet(self, copy.deepcopy(found)))
                running.add_done_callback(_told)

    def _note(self, type: str, found: dict[str, Any]) -> None:
        self._version += 1
        found["metadata"]["resourceVersion"] = str(self._version)
        self._events.append((self._version, type, copy.deepcopy(found)))
        self._changed.set()
        self._changed = asyncio.Event()


def _told(running: asyncio.Task[None]) -> None:
    if not running.cancelled() and running.exception() is not None:
        traceback.print_exception(running.exception())


def _main(pod: dict[str, Any]) -> dict[str, Any]:
    statuses = (pod.get("status") or {}).get("containerStatuses") or [{}]
    state: dict[str, Any] = statuses[0].get("state") or {}
    return state


def _kind(request: web.Request) -> str:
    return request.path.split("/")[5]


def _missing(request: web.Request) -> web.Response:
    return _failed(404, "NotFound", f'{_kind(request)} "{request.match_info["name"]}" not found')


def _failed(code: int, reason: str, message: str) -> web.Response:
    body = {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}
    return web.json_response(body, status=code)
