"""Runs over HTTP, for Starlette and FastAPI: `app.mount("/perdure", router([refund]))`.

- WB1 inputs and messages are read by the declared types before anything is stored.
- WB2 a router shows the runs of its own tasks only; any other run is answered as unknown.
- WB3 a page of another origin changes nothing: bodies are JSON, which a form cannot send, and the forms of the
  approval pages are taken from the same origin only.
- WB4 a reader of events is sent one event after the other: a slow reader costs one page of items (1 MiB, or one larger
  item), and a reader that is gone costs nothing after the next event or heartbeat.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any
from urllib.parse import quote

from ..api.convert import Unfit, from_afar, from_json, parsed_json
from ..api.given import described_inputs, given_inputs, given_message
from ..api.hosting import Source, served_tasks
from ..api.jsonable import jsonable
from ..api.messages import ConditionInfo, conditions
from ..api.run import Run
from ..api.submitting import with_runcontext
from ..api.task import Task
from ..core.ground.model import FINISHED, Kind, Status
from ..core.ground.values import INLINE_LIMIT
from ..errors import (
    AlreadySignalledError,
    PerdureError,
    RunConflictError,
    RunEndedError,
    RunMovedError,
    RunNotFoundError,
    StoreError,
    TaskNotFoundError,
    UsageError,
    ValueTooLargeError,
)
from . import _approval, _events
from ._absent import needed
from ._state import shown, state_of

with needed("web", "perdure.integrations.starlette"):
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route, Router

__all__ = ["router"]

LONGEST_BODY = 2 * INLINE_LIMIT
"""Bytes of a request: JSON may take more room than the stored value."""
LONGEST_WAIT = 60.0
"""The longest time in seconds for which a request waits for the end of a run."""

_KINDS = {Kind.CONDITION: "condition", Kind.RECEIVE: "mailbox"}
Handler = Callable[[Request], Awaitable[Response]]


def router(sources: Sequence[Source]) -> Router:
    """Routes for the runs of some tasks, to be mounted in an application of Starlette or FastAPI.

    The router checks no identity: put it behind the application's own authentication.

    Args:
        sources: files, modules and tasks, as for `perdure.Worker`.

    Raises:
        UsageError: there is no task, or two tasks have one name.
    """
    return _Runs(served_tasks(sources)).router()


class _Runs:
    """The handlers."""

    def __init__(self, tasks: dict[str, Task[..., Any]]) -> None:
        self._tasks = tasks

    def router(self) -> Router:
        routes: list[tuple[str, str, Handler]] = [
            ("GET", "/tasks", self._list),
            ("POST", "/tasks/{task}/runs", self._submit),
            ("GET", "/runs/{run}", self._status),
            ("GET", "/runs/{run}/result", self._result),
            ("POST", "/runs/{run}/cancel", self._cancel),
            ("GET", "/runs/{run}/conditions", self._conditions),
            ("POST", "/runs/{run}/conditions/{name:path}", partial(self._message, Kind.CONDITION)),
            ("POST", "/runs/{run}/mailboxes/{name:path}", partial(self._message, Kind.RECEIVE)),
            ("GET", "/runs/{run}/published", self._published),
            ("GET", "/runs/{run}/events/published", self._published_events),
            ("GET", "/runs/{run}/events/streams/{name:path}", self._stream_events),
            ("GET", "/approvals", self._approvals),
            ("GET", "/approvals/{run}/{name:path}", self._form),
            ("POST", "/approvals/{run}/{name:path}", self._decide),
        ]
        return Router([Route(path, _answering(handler), methods=[method]) for method, path, handler in routes])

    # -- tasks and runs ----------------------------------------------------------------------------------------

    async def _list(self, request: Request) -> Response:
        return JSONResponse({name: {"inputs": described_inputs(task)} for name, task in self._tasks.items()})

    async def _submit(self, request: Request) -> Response:
        name = request.path_params["task"]
        task = self._tasks.get(name)
        if task is None:
            raise TaskNotFoundError(f"no task is called {name!r} here; the tasks are {', '.join(sorted(self._tasks))}")
        data = await _json(request)
        args, inputs = await asyncio.to_thread(_read_inputs, task, data)
        context = with_runcontext(name=request.headers.get("idempotency-key"))
        run = await context.submit.aio(task, *args, **inputs)
        return JSONResponse(await asyncio.to_thread(shown, run), 202, {"Location": _path(request, run.name)})

    async def _status(self, request: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(lambda: shown(self._run(request))))

    async def _result(self, request: Request) -> Response:
        seconds = _number(request.query_params.get("wait", "0"), "wait", LONGEST_WAIT)
        run = await asyncio.to_thread(self._run, request)
        if seconds:
            try:
                await run.wait.aio(timeout=seconds)
            except TimeoutError:
                pass
        found = await asyncio.to_thread(state_of, run)
        return JSONResponse(found, 200 if Status(found["status"]) in FINISHED else 202)

    async def _cancel(self, request: Request) -> Response:
        given = await _json(request, default={})
        unknown = set(given) - {"reason", "grace"} if isinstance(given, dict) else {"the body"}
        if unknown:
            raise UsageError(f'cancel takes {{"reason": text, "grace": seconds}}, and not {", ".join(sorted(unknown))}')
        reason, grace = given.get("reason", ""), given.get("grace")
        if not isinstance(reason, str) or not isinstance(grace, (int, float, type(None))):
            raise UsageError(f'cancel takes {{"reason": text, "grace": seconds}}, not {given}')

        def cancel() -> dict[str, Any]:
            run = self._run(request)
            run.cancel(reason=reason, grace=grace)
            return shown(run)

        return JSONResponse(await asyncio.to_thread(cancel), 202)

    def _run(self, request: Request) -> Run:
        """The run of the request's path."""
        return self._named(request.path_params["run"])

    def _named(self, name: str) -> Run:
        run = Run.get(name)
        if run.task not in self._tasks:
            raise RunNotFoundError(f"no run is called {name!r} here")
        return run

    # -- messages ----------------------------------------------------------------------------------------------

    async def _message(self, kind: Kind, request: Request) -> Response:
        data, name = await _json(request), request.path_params["name"]
        key = request.headers.get("idempotency-key") if kind is Kind.RECEIVE else None
        await asyncio.to_thread(lambda: _send(self._run(request), kind, name, data, key))
        return JSONResponse({"run": request.path_params["run"], "kind": _KINDS[kind], "name": name})

    async def _conditions(self, request: Request) -> Response:
        def found() -> list[dict[str, Any]]:
            run = self._run(request)
            return [_condition(one) for one in conditions() if one.run == run.name]

        return JSONResponse(await asyncio.to_thread(found))

    # -- values and events -------------------------------------------------------------------------------------

    async def _published(self, request: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(lambda: jsonable(self._run(request).published())))

    async def _published_events(self, request: Request) -> Response:
        run = await asyncio.to_thread(self._run, request)
        return _events.response(_events.published(run, request.headers.get("last-event-id", "")))

    async def _stream_events(self, request: Request) -> Response:
        run = await asyncio.to_thread(self._run, request)
        last = request.headers.get("last-event-id", "0")
        if not last.isascii() or not last.isdigit() or len(last) > 18:
            raise UsageError(f"Last-Event-ID is the offset of an item, not {last!r}")
        return _events.response(_events.stream(run, request.path_params["name"], int(last)))

    # -- approval pages ----------------------------------------------------------------------------------------

    async def _approvals(self, request: Request) -> Response:
        def found() -> list[ConditionInfo]:
            waiting = [one for one in conditions() if one.waits and one.kind == "condition"]
            return [one for one in waiting if Run.get(one.run).task in self._tasks]

        return _approval.overview(await asyncio.to_thread(found), _base(request))

    async def _form(self, request: Request) -> Response:
        name = request.path_params["name"]
        return await asyncio.to_thread(lambda: _approval.form(self._run(request), name))

    async def _decide(self, request: Request) -> Response:
        _approval.refuse_other_origin(request)
        body = await _body(request)
        name = request.path_params["name"]

        def decide() -> Response:
            run = self._run(request)
            data = _approval.decision(run, name, body)
            try:
                _send(run, Kind.CONDITION, name, data, None)
            except UsageError as error:
                return _approval.refused(run, name, str(error), _code(error))
            return _approval.accepted(run, name)

        return await asyncio.to_thread(decide)


def _read_inputs(task: Task[..., Any], data: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    with from_afar():
        return given_inputs(task, data)


def _send(run: Run, kind: Kind, name: str, data: Any, key: str | None) -> None:
    with from_afar():
        value, data_type = given_message(run, kind, name, partial(from_json, data))
    if kind is Kind.CONDITION:
        run.signal(name, value, data_type=data_type)
    else:
        run.send(name, value, key=key, data_type=data_type)


# -- answers -------------------------------------------------------------------------------------------------------


def _condition(one: ConditionInfo) -> dict[str, Any]:
    fields = ("kind", "name", "prompt", "description", "type", "waits", "unread")
    return {"run": one.run, **{field: getattr(one, field) for field in fields}}


def _base(request: Request) -> str:
    """The path under which the router is mounted."""
    return str(request.scope.get("root_path", ""))


def _path(request: Request, run: str) -> str:
    return f"{_base(request)}/runs/{quote(run, safe='')}"


# -- requests --------------------------------------------------------------------------------------------------


async def _body(request: Request) -> bytes:
    """The body of a request, within the limit."""
    found = bytearray()
    async for part in request.stream():
        found += part
        if len(found) > LONGEST_BODY:
            raise HTTPException(413, f"a body has at most {LONGEST_BODY} bytes")
    return bytes(found)


async def _json(request: Request, default: Any = None) -> Any:
    """The JSON of a request. `default`: in place of an empty body."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HTTPException(415, f"send JSON, with Content-Type: application/json, not {kind or 'nothing'}")
    body = await _body(request)
    if not body and default is not None:
        return default
    try:
        return parsed_json(body)
    except ValueError as error:
        raise HTTPException(400, f"the body is no JSON: {error}") from None


def _number(text: str, name: str, most: float) -> float:
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found <= most:
        raise UsageError(f"{name} is a number of seconds from 0 to {most:g}, not {text!r}")
    return found


def _answering(handler: Handler) -> Handler:
    """A handler whose errors of perdure's are answers."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except HTTPException as error:
            return JSONResponse({"error": "HTTPError", "message": error.detail}, error.status_code)
        except (PerdureError, Unfit) as error:
            return JSONResponse({"error": type(error).__name__, "message": str(error)}, _code(error))

    return answer


def _code(error: Exception) -> int:
    codes: tuple[tuple[type[Exception], int], ...] = (
        (RunNotFoundError, 404), (TaskNotFoundError, 404), (AlreadySignalledError, 409), (RunConflictError, 409),
        (RunEndedError, 409), (RunMovedError, 410), (ValueTooLargeError, 413), (UsageError, 422), (Unfit, 422),
        (StoreError, 503),
    )  # fmt: skip
    return next((code for kind, code in codes if isinstance(error, kind)), 500)
