"""Tasks as tools of the Model Context Protocol: `perdure mcp FILE`.

- MC1 a call of a tool is a run. A call that is repeated under the name of the run, also after the server was killed,
  joins the run.
- MC2 a condition is answered by the person at the client (elicitation), never by the model.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import aclosing
from functools import partial
from inspect import Parameter
from typing import Any

from .. import __version__
from ..api._names import random_run_name
from ..api.convert import from_afar, from_json, parsed_json
from ..api.given import declared_types, given_inputs, given_message
from ..api.hosting import HostedWorker, Source, served_tasks
from ..api.messages import conditions, wait_for_box
from ..api.run import Run
from ..api.streaming import changes
from ..api.submitting import with_runcontext
from ..api.task import Task
from ..core.ground.clock import seconds
from ..core.ground.model import FINISHED, Kind, Status
from ..core.run.mailbox import box_of
from ..errors import InputError, PerdureError, RunNotFoundError
from ._absent import needed
from ._state import state_of

with needed("mcp", "perdure.integrations.mcp"):
    import mcp_types as types
    from mcp.server import Server, ServerRequestContext
    from mcp.server.stdio import stdio_server
    from pydantic import TypeAdapter

__all__ = ["serve"]

RESULT = "perdure_result"
"""The tool that waits for a run."""
_PLAIN = {"bool": "boolean", "int": "integer", "float": "number", "str": "string"}


async def serve(sources: Sequence[Source], *, wait: float = 30.0) -> None:
    """Serve the tasks of files and modules as tools over stdin and stdout, with a worker in this process, until stdin
    ends.

    Args:
        sources: files, modules and tasks.
        wait: after so many seconds a call whose run has not ended gives the name of the run.

    Raises:
        UsageError: there is nothing to serve.
    """
    tools = _Tools(served_tasks(sources), wait)
    server = Server("perdure", version=__version__, on_list_tools=tools.list, on_call_tool=tools.call)
    async with HostedWorker(sources, drain=5.0), stdio_server() as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())


class _Tools:
    """The handlers."""

    def __init__(self, tasks: dict[str, Task[..., Any]], wait: float) -> None:
        self._tasks = tasks
        self._wait = wait

    async def list(
        self, context: ServerRequestContext[Any], params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        """The tasks, and the tool that waits for a run."""
        return types.ListToolsResult(tools=[*(_tool(task) for task in self._tasks.values()), _RESULT_TOOL])

    async def call(
        self, context: ServerRequestContext[Any], params: types.CallToolRequestParams
    ) -> types.CallToolResult | types.InputRequiredResult:
        """Submit the run, or find the run, and wait for the end."""
        try:
            run = await self._run(params)
            return await self._follow(context, run, params)
        except PerdureError as error:
            return _answer({"error": type(error).__name__, "message": str(error)}, failed=True)

    async def _run(self, params: types.CallToolRequestParams) -> Run:
        given = dict(params.arguments or {})
        if params.request_state is not None or params.name == RESULT:
            name = params.request_state if params.request_state is not None else given.get("run_name")
            if not isinstance(name, str):
                raise InputError(f"{RESULT} needs run_name, the name of a run")
            run = await asyncio.to_thread(Run.get, name)
            if run.task not in self._tasks:
                raise RunNotFoundError(f"no run is called {name!r} here")
            return run
        task = self._tasks.get(params.name)
        if task is None:
            raise InputError(f"there is no tool {params.name!r}; the tools are {', '.join(sorted(self._tasks))}")
        name = given.pop(_name_input(task), None)
        # As text again, for numbers with all their digits.
        args, inputs = await asyncio.to_thread(_inputs, task, parsed_json(json.dumps(given)))
        return await with_runcontext(name=name or f"mcp-{random_run_name()}").submit.aio(task, *args, **inputs)

    async def _follow(
        self, context: ServerRequestContext[Any], run: Run, params: types.CallToolRequestParams
    ) -> types.CallToolResult | types.InputRequiredResult:
        end = seconds() + self._wait
        settled = await _take(run, params.input_responses or {})
        asks = context.session.check_client_capability(
            types.ClientCapabilities(elicitation=types.ElicitationCapability())
        )
        async with aclosing(changes(run.row)) as rings:
            async for _ in rings:
                state = await asyncio.to_thread(state_of, run)
                if Status(state["status"]) in FINISHED:
                    return _answer(state, failed=state["status"] != "SUCCEEDED")
                questions = await asyncio.to_thread(_questions, run, settled) if asks else {}
                if questions and not context.session.can_send_request:
                    requests: dict[str, types.InputRequest] = {
                        name: types.ElicitRequest(params=question) for name, question in questions.items()
                    }
                    return types.InputRequiredResult(input_requests=requests, request_state=run.name)
                for name, question in questions.items():
                    found = await context.session.elicit_form(
                        question.message, question.requested_schema, context.request_id
                    )
                    settled |= await _take(run, {name: found})
                if seconds() > end:
                    break
        hint = f"The run goes on. Call {RESULT} with run_name={run.name!r} to wait for its end."
        return _answer(await asyncio.to_thread(state_of, run) | {"next": hint}, failed=False)


def _inputs(task: Task[..., Any], data: Any) -> Any:
    with from_afar():
        return given_inputs(task, data)


def _answer(state: dict[str, Any], *, failed: bool) -> types.CallToolResult:
    text = types.TextContent(text=json.dumps(state, ensure_ascii=False))
    return types.CallToolResult(content=[text], structured_content=state, is_error=failed)


# -- schemas -------------------------------------------------------------------------------------------------------


def _name_input(task: Task[..., Any]) -> str:
    """The argument of a tool that names the run."""
    return "run_name" if "run_name" not in task.spec.signature.parameters else "perdure_run_name"


_NAME_SCHEMA = {
    "type": "string",
    "description": "A name for this call. A call that is repeated under its name joins the first call.",
}


def _tool(task: Task[..., Any]) -> types.Tool:
    properties: dict[str, Any] = {}
    required = []
    for name, tp in declared_types(task).items():
        parameter = task.spec.signature.parameters[name]
        if parameter.kind is Parameter.VAR_KEYWORD:
            continue
        many = parameter.kind is Parameter.VAR_POSITIONAL
        properties[name] = {"type": "array", "items": _schema(tp)} if many else _schema(tp)
        if parameter.default is Parameter.empty and not many:
            required.append(name)
    properties[_name_input(task)] = _NAME_SCHEMA
    schema = {"type": "object", "properties": properties, "required": required}
    return types.Tool(name=task.name, description=(task.fn.__doc__ or "").strip() or None, input_schema=schema)


def _schema(tp: Any) -> dict[str, Any]:
    """The JSON Schema of a type; the schema of anything for a type that pydantic does not know."""
    if tp is Parameter.empty:
        return {}
    try:
        return TypeAdapter(tp).json_schema()
    except Exception:  # pydantic has several errors for types without a schema
        return {}


_RESULT_TOOL = types.Tool(
    name=RESULT,
    description="Wait for the end of a run that another tool has begun, and give its result.",
    input_schema={"type": "object", "properties": {"run_name": {"type": "string"}}, "required": ["run_name"]},
)


# -- conditions ----------------------------------------------------------------------------------------------------


def _questions(run: Run, settled: set[str]) -> dict[str, types.ElicitRequestFormParams]:
    """The conditions that the run waits for, as questions to the person."""
    found = {}
    for one in conditions():
        if one.run != run.name or not one.waits or one.kind != "condition" or one.unread or one.name in settled:
            continue
        asked = wait_for_box(run.name, box_of(Kind.CONDITION, one.name))
        if asked is not None:
            found[one.name] = types.ElicitRequestFormParams(
                message=asked.prompt or one.name, requested_schema=_form(asked.shape)
            )
    return found


def _record(shape: Any) -> dict[str, Any] | None:
    """The fields of a record of plain fields, whose form has an entry for each field."""
    if isinstance(shape, list) and len(shape) == 3 and shape[0] == "record":
        fields: dict[str, Any] = shape[2]
        if all(_field(field[0]) is not None for field in fields.values()):
            return fields
    return None


def _form(shape: Any) -> dict[str, Any]:
    """The flat schema of a form; a value that is no record of plain fields is asked for as `value`."""
    fields = _record(shape)
    if fields is None:
        value = _field(shape) or {"type": "string", "description": "as JSON"}
        return {"type": "object", "properties": {"value": value}, "required": ["value"]}
    required = [name for name, field in fields.items() if field[1]]
    return {
        "type": "object",
        "properties": {name: _field(field[0]) for name, field in fields.items()},
        "required": required,
    }


def _field(shape: Any) -> dict[str, Any] | None:
    if isinstance(shape, str) and shape in _PLAIN:
        return {"type": _PLAIN[shape]}
    if isinstance(shape, list) and shape and shape[0] == "literal" and all(isinstance(one, str) for one in shape[1:]):
        return {"type": "string", "enum": shape[1:]}
    return None


async def _take(run: Run, answers: Any) -> set[str]:
    """Signal the answers of the person. Returns the names of the conditions, which are not asked for again in the
    call: the person has answered, or would not answer."""
    for name, answer in answers.items():
        if isinstance(answer, types.ElicitResult) and answer.action == "accept" and answer.content is not None:
            await asyncio.to_thread(_signal, run, name, answer.content)
    return set(answers)


def _signal(run: Run, name: str, content: dict[str, Any]) -> None:
    asked = wait_for_box(run.name, box_of(Kind.CONDITION, name))
    if asked is None:
        return  # another answer came first
    data: Any = content
    if _record(asked.shape) is None:
        data = content.get("value")
        if isinstance(data, str) and _field(asked.shape) is None:
            data = parsed_json(data)
    with from_afar():
        value, data_type = given_message(run, Kind.CONDITION, name, partial(from_json, data))
    run.signal(name, value, data_type=data_type)
