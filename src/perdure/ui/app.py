"""The routes: each page as HTML and as JSON, operations, and live events."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any
from urllib.parse import parse_qsl, quote

from jinja2 import Environment
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from .. import runtime
from ..api.convert import from_afar
from ..core.ground.digest import blake2b
from ..errors import InputError, PerdureError, RunNotFoundError, UsageError
from . import pages
from .acts import ACTS, back_from
from .compare import compare_page
from .files import content, file_page, picture
from .graph import graph_page
from .guard import Guard, Sessions
from .many import bulk_page
from .metrics import MEDIA_TYPE, Figures, exposition
from .pulse import Pulse
from .rendering import HERE, environment
from .settings import UiSettings

log = logging.getLogger("perdure")

LONGEST_FORM = 8 << 20
"""Bytes of a sent form."""

PLAIN_PAGES: dict[str, Callable[[UiSettings, pages.Query], dict[str, Any]]] = {
    "runs": pages.runs_page,
    "conditions": pages.conditions_page,
    "condition": pages.condition_page,
    "start": pages.start_page,
    "workers": pages.workers_page,
    "schedules": pages.schedules_page,
    "queues": pages.queues_page,
    "limits": pages.limits_page,
    "failures": pages.failures_page,
    "bulk": bulk_page,
    "file": file_page,
    "compare": compare_page,
    "graph": graph_page,
    "storage": pages.storage_page,
}
"""The pages with a fixed address, by name: the address, the template and the data."""


class Site:
    """The pages of a store."""

    def __init__(self, ui: UiSettings, figures: Figures | None = None) -> None:
        self.ui = ui
        self.figures = figures
        self.sessions = Sessions()
        self.pulse = Pulse()
        self._templates: Environment = environment()

    # -- responses ---------------------------------------------------------------------------------------------

    def respond(self, request: Request, template: str, data: dict[str, Any], status: int = 200) -> Response:
        """A page from its template, or its data."""
        if request.query_params.get("format") == "json":
            return JSONResponse(data, status)
        session = getattr(request.state, "session", None) or ""
        text = self._templates.get_template(f"{template}.html").render(
            **data, page=template, ui=self.ui, csrf=self.sessions.csrf(session), store=runtime.store_name(),
            told=self.sessions.told(session) if request.headers.get("x-follows") is None else [],
            here=request.url.path, query_string=request.url.query,
        )  # fmt: skip
        tag = f'"{blake2b(text.encode(), digest_size=12).hexdigest()}"'
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={"etag": tag})
        return HTMLResponse(text, status, {"etag": tag})

    def _failed(self, request: Request, error: PerdureError) -> Response:
        status = 404 if isinstance(error, RunNotFoundError) else 400 if isinstance(error, UsageError) else 503
        return self.respond(request, "error", {"problem": str(error), "status": status}, status)

    # -- pages -------------------------------------------------------------------------------------------------

    def plain(self, name: str) -> Callable[[Request], Response]:
        """The handler of a page with a fixed address."""

        def page(request: Request) -> Response:
            try:
                data = PLAIN_PAGES[name](self.ui, request.query_params)
                return self.respond(request, name, data, 400 if data.get("invalid") else 200)
            except PerdureError as error:
                return self._failed(request, error)

        return page

    def run(self, request: Request) -> Response:
        """The page of a run. The name may hold any printable character."""
        name = request.path_params.get("name", request.query_params.get("name", ""))
        try:
            return self.respond(request, "run", pages.run_page(self.ui, name, request.query_params))
        except PerdureError as error:
            return self._failed(request, error)

    def value(self, request: Request) -> Response:
        """The whole inputs or outcome of an action, as a download."""
        asked = request.query_params
        try:
            position = int(asked.get("at", "0"))
            text = pages.value_of(self.ui, asked.get("name", ""), position, asked.get("which", "outcome"))
        except (PerdureError, ValueError) as error:
            return self._failed(request, error if isinstance(error, PerdureError) else UsageError(str(error)))
        return Response(
            text, media_type="application/octet-stream",
            headers={"content-disposition": f'attachment; filename="value-{position}.json"'},
        )  # fmt: skip

    def content(self, request: Request) -> Response:
        """A file of a run's value, as a download of a neutral type."""
        try:
            found = content(self.ui, request.query_params)
        except PerdureError as error:
            return self._failed(request, error)
        name = quote(found.raw_name, safe="")
        return StreamingResponse(
            found.chunks, media_type="application/octet-stream",
            headers={
                "content-disposition": f"attachment; filename=\"file\"; filename*=UTF-8''{name}",
                "content-length": str(found.size),
            },
        )  # fmt: skip

    def picture(self, request: Request) -> Response:
        """A picture of a run's value, for the page with its preview."""
        try:
            found = picture(self.ui, request.query_params)
        except PerdureError as error:
            return self._failed(request, error)
        return Response(found.data, media_type=found.media_type)

    def metrics(self, request: Request) -> Response:
        """Figures for Prometheus."""
        return _metrics(self.figures)

    async def live(self, request: Request) -> Response:
        """Server-sent events: `change` whenever the store has changed."""
        return StreamingResponse(self.pulse.follow(), media_type="text/event-stream")

    # -- operations --------------------------------------------------------------------------------------------

    async def act(self, request: Request) -> Response:
        """An operation from a form."""
        if request.headers.get("content-type", "").partition(";")[0] != "application/x-www-form-urlencoded":
            raise HTTPException(415, "An operation is sent as a form.")
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > LONGEST_FORM:
                raise HTTPException(413, f"A form holds at most {LONGEST_FORM:,} bytes.")
        try:
            form = dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=1000))
        except ValueError:
            raise HTTPException(400, "The form cannot be read.") from None
        return await run_in_threadpool(self._act, request, form)

    def _act(self, request: Request, form: dict[str, str]) -> Response:
        session = request.state.session
        if not self.sessions.is_csrf(session, form.get("csrf", "")):
            raise HTTPException(403, "The form is not of this session, so nothing was done. Load the page again.")
        act, name = request.path_params["act"], request.query_params.get("name", "")
        if act == "link" and self.ui.token:
            link = f"{request.base_url}login?token={self.sessions.link_token()}"
            self.sessions.tell(session, f"This link opens one browser, once: {link}")
            return RedirectResponse("/storage", 303)
        operation = ACTS.get(act)
        if operation is None:
            raise HTTPException(404, f"There is no operation {act!r}.")
        try:
            # With a token the browser may be on another machine, which must not name files of this machine.
            with from_afar() if self.ui.token else nullcontext():
                done = operation(self.ui, name, form)
        except PerdureError as error:
            if act == "start" and isinstance(error, InputError | UsageError) and name in self.ui.tasks:
                data = pages.start_page(self.ui, {"task": name}, form, str(error))
                return self.respond(request, "start", data, 400)
            self.sessions.tell(session, f"Error: {error}")
            return RedirectResponse(back_from(act, name, form), 303)
        self.sessions.tell(session, done.text)
        return RedirectResponse(done.page, 303)


def create_app(site: Site, *, host: str, port: int, hosts: tuple[str, ...] = ()) -> Guard:
    """The ASGI application: the site behind its guard."""
    routes: list[Any] = [
        Route("/", lambda request: RedirectResponse("/runs"), methods=["GET"]),
        Route("/login", lambda request: RedirectResponse("/runs", 303), methods=["GET"]),
        Route("/live", site.live, methods=["GET"]),
        Route("/metrics", site.metrics, methods=["GET"]),
        Route("/value", site.value, methods=["GET"]),
        Route("/content", site.content, methods=["GET"]),
        Route("/picture", site.picture, methods=["GET"]),
        Route("/act/{act}", site.act, methods=["POST"]),
        Mount("/static", StaticFiles(directory=os.path.join(HERE, "static"))),
    ]
    routes += [Route(f"/{name}", site.plain(name), methods=["GET"]) for name in PLAIN_PAGES]
    routes += [Route("/run", site.run, methods=["GET"]), Route("/run/{name:path}", site.run, methods=["GET"])]

    def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return site.respond(request, "error", {"problem": error.detail, "status": error.status_code}, error.status_code)

    app = Starlette(routes=routes, exception_handlers={HTTPException: refused})
    return Guard(
        JsonSuffix(app), site.sessions, host=host, port=port, token=site.ui.token, read_only=site.ui.read_only,
        hosts=hosts,
    )  # fmt: skip


def metrics_app(figures: Figures | None, *, host: str, port: int, hosts: tuple[str, ...] = ()) -> Guard:
    """The ASGI application of `/metrics` alone."""
    app = Starlette(routes=[Route("/metrics", lambda request: _metrics(figures), methods=["GET"])])
    return Guard(app, Sessions(), host=host, port=port, token=False, read_only=True, hosts=hosts)


def _metrics(figures: Figures | None) -> Response:
    try:
        return Response(exposition(figures), media_type=MEDIA_TYPE)
    except PerdureError as error:
        return Response(f"# {error}\n".encode(), 503, media_type="text/plain")


class JsonSuffix:
    """Serves each page as JSON under the address with `.json` behind. A run's name may end so, too: then
    `?format=json` asks for JSON."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("path", "")
        if scope["type"] == "http" and path.endswith(".json") and not path.startswith("/static/"):
            name = path.removeprefix("/run/")
            exact = path.startswith("/run/") and await run_in_threadpool(_is_run, name)
            if not exact:
                query = scope.get("query_string", b"")
                scope = {**scope, "path": path[:-5], "query_string": (query + b"&" if query else b"") + b"format=json"}
                scope.pop("raw_path", None)
        await self._app(scope, receive, send)


def _is_run(name: str) -> bool:
    try:
        return runtime.worker().store.run(name) is not None
    except PerdureError:
        return False
