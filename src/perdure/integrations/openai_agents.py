"""Agents of the OpenAI Agents SDK as durable code: `await run(agent, "question")` in the body of a task.

- OA1 in the body of a task, each model request and each call of a function tool is a trace: recorded once, and never
  made again when the body is executed again. Hand-offs follow from the recorded answers of models.
- OA2 a tool that needs approval waits for a condition of the run; the decision is recorded with the wait.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

from ..api.streaming import stream
from ..errors import UsageError
from ._absent import needed
from ._approvals import Approval, decision
from ._steps import in_body, step, unique

with needed("openai-agents", "perdure.integrations.openai_agents"):
    from agents import Agent, FunctionTool, Handoff, ModelResponse, RunConfig, Runner, RunResult
    from agents.items import ToolApprovalItem, TResponseStreamEvent
    from agents.models.interface import Model, ModelProvider
    from agents.usage import Usage
    from openai.types.responses import ResponseCompletedEvent
    from pydantic import BaseModel, TypeAdapter

__all__ = ["Approval", "run"]

_RESPONSE: TypeAdapter[Any] = TypeAdapter(ModelResponse)


async def run(
    agent: Agent[Any],
    input: Any,
    *,
    run_config: RunConfig | None = None,
    events: str | None = None,
    approval_timeout: timedelta | float | None = None,
    **settings: Any,
) -> RunResult:
    """`agents.Runner.run`, with recorded calls where the caller is the body of a task. Elsewhere as `Runner.run`.

    Args:
        agent: the agent that begins.
        input: the question, or input items.
        run_config: as for `Runner.run`.
        events: model request N writes its events live to the stream `NAME.N` of the run.
        approval_timeout: how long a call of a tool with `needs_approval` waits for the condition `TOOL:CALL_ID`, of
            the type `Approval`; then the call is rejected.
        settings: further arguments of `Runner.run`.

    Raises:
        UsageError: the agent has MCP servers, whose calls cannot be recorded.
    """
    config = run_config if run_config is not None else RunConfig()
    if not in_body():
        return await Runner.run(agent, input, run_config=config, **settings)
    model = _Model(config.model, events) if isinstance(config.model, Model) else config.model
    config = replace(config, model=model, model_provider=_Provider(config.model_provider, events))
    durable = _Agents(events).agent(agent)
    result = await Runner.run(durable, input, run_config=config, **settings)
    while result.interruptions:
        state = result.to_state()
        asked = result.interruptions
        decisions = await asyncio.gather(*(_ask(item, approval_timeout) for item in asked))
        for item, decided in zip(asked, decisions, strict=True):
            if decided.ok:
                state.approve(item)
            else:
                state.reject(item, rejection_message=decided.why)
        result = await Runner.run(durable, state, run_config=config, **settings)
    return result


async def _ask(item: ToolApprovalItem, timeout: timedelta | float | None) -> Approval:
    raw = item.raw_item
    call = raw if isinstance(raw, dict) else raw.model_dump()
    arguments = call.get("arguments") or ""
    return await decision(str(item.tool_name), str(call.get("call_id") or call.get("id")), str(arguments), timeout)


# -- models --------------------------------------------------------------------------------------------------------


class _Model(Model):
    """A model whose answers are recorded."""

    def __init__(self, inner: Model, events: str | None) -> None:
        self._inner = inner
        self._events = events

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        """Ask the model, or give the recorded answer."""
        found = await step("model.response", partial(self._ask, self._stream_name(), args, kwargs))
        response: ModelResponse = _RESPONSE.validate_python(found)
        return response

    def _stream_name(self) -> str | None:
        if self._events is None or not in_body():
            return None
        return f"{self._events}.{unique(self._events).number}"

    async def _ask(self, name: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name is None:
            return _RESPONSE.dump_python(await self._inner.get_response(*args, **kwargs), mode="json")
        completed = None
        async with stream(name) as out:
            async for event in self._inner.stream_response(*args, **kwargs):
                await out.write.aio(event.model_dump(mode="json"))
                if isinstance(event, ResponseCompletedEvent):
                    completed = event.response
        if completed is None:
            raise RuntimeError("the model ended its stream without the event response.completed")
        usage = Usage() if completed.usage is None else _usage(completed.usage)
        return _RESPONSE.dump_python(ModelResponse(completed.output, usage, completed.id), mode="json")

    def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[TResponseStreamEvent]:
        """Refused: `Runner.run_streamed` gives events that are not recorded."""
        raise UsageError("perdure's run() records whole answers; follow the events with run(..., events='NAME')")

    def get_retry_advice(self, request: Any) -> Any:
        """See `Model.get_retry_advice`."""
        return self._inner.get_retry_advice(request)

    async def close(self) -> None:
        """See `Model.close`."""
        await self._inner.close()


def _usage(found: Any) -> Usage:
    return Usage(
        requests=1,
        input_tokens=found.input_tokens,
        output_tokens=found.output_tokens,
        total_tokens=found.total_tokens,
        input_tokens_details=found.input_tokens_details,
        output_tokens_details=found.output_tokens_details,
    )


class _Provider(ModelProvider):
    """The models of another provider, recorded."""

    def __init__(self, inner: ModelProvider, events: str | None) -> None:
        self._inner = inner
        self._events = events

    def get_model(self, model_name: str | None) -> Model:
        """See `ModelProvider.get_model`."""
        return _Model(self._inner.get_model(model_name), self._events)


# -- agents and tools ----------------------------------------------------------------------------------------------


class _Agents:
    """Copies of agents with recorded models and tools; agents may hand off to each other in circles."""

    def __init__(self, events: str | None) -> None:
        self._events = events
        self._copies: dict[int, Agent[Any]] = {}

    def agent(self, agent: Agent[Any]) -> Agent[Any]:
        """The copy of an agent."""
        known = self._copies.get(id(agent))
        if known is not None:
            return known
        if agent.mcp_servers:
            raise UsageError(
                f"agent {agent.name!r} has MCP servers, whose calls cannot be recorded; call them in function tools"
            )
        model = _Model(agent.model, self._events) if isinstance(agent.model, Model) else agent.model
        tools = [_tool(tool) if isinstance(tool, FunctionTool) else tool for tool in agent.tools]
        found = self._copies[id(agent)] = agent.clone(model=model, tools=tools, handoffs=[])
        found.handoffs.extend(self._handoff(handoff) for handoff in agent.handoffs)
        return found

    def _handoff(self, handoff: Any) -> Any:
        if not isinstance(handoff, Handoff):
            return self.agent(handoff)
        invoke = handoff.on_invoke_handoff

        async def invoked(context: Any, arguments: str) -> Any:
            return self.agent(await invoke(context, arguments))

        found = copy.copy(handoff)
        found.on_invoke_handoff = invoked
        return found


def _tool(tool: FunctionTool) -> FunctionTool:
    invoke: Callable[[Any, str], Awaitable[Any]] = tool.on_invoke_tool

    async def recorded(context: Any, arguments: str) -> Any:
        return await step(f"tool:{tool.name}", partial(_invoked, invoke, context, arguments))

    found = copy.copy(tool)
    found.on_invoke_tool = recorded
    return found


async def _invoked(invoke: Callable[[Any, str], Awaitable[Any]], context: Any, arguments: str) -> Any:
    """The output of a tool as plain data: the SDK reads structured outputs from dicts as well."""
    return _plain(await invoke(context, arguments))


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool, dict, type(None))) else str(value)
