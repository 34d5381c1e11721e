"""Agents of pydantic-ai as durable code: `Agent(..., capabilities=[PerdureDurability()])`.

- PA1 in the body of a task, each model request, tool call and discovery of tools is a trace: recorded once, and never
  made again when the body is executed again.
- PA2 a tool that needs approval waits for a condition of the run; the decision is recorded with the wait.
- PA3 an event outside of the model's text deltas is written to the stream once, in order.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from ..api.receiving import new_condition
from ..api.run import Run
from ..api.streaming import Stream, stream
from ..durable import now
from ..errors import ConditionTimedoutError, UsageError
from ._absent import needed
from ._approvals import Approval, decision
from ._steps import in_body, step, unique

with needed("pydantic-ai", "perdure.integrations.pydantic_ai"):
    from pydantic import TypeAdapter
    from pydantic_ai import DeferredToolRequests, DeferredToolResults, RunContext, ToolDenied
    from pydantic_ai.capabilities import AbstractCapability
    from pydantic_ai.durable_exec import (
        JSON_CODEC,
        BaseDurabilityCapability,
        DurabilityEngineSpec,
        DurableOperationBackend,
        DurableOperationId,
        ExternalEventError,
        ExternalEventWaiter,
        JournalCallableOperationBackend,
        RoleBasedOperationConfig,
        conversation_id_from_run_id,
        external_event_scope,
    )
    from pydantic_ai.messages import AgentStreamEvent, PartDeltaEvent, ToolCallPart
    from pydantic_ai.models import Model

__all__ = ["Approval", "PerdureDurability", "PersonApproves", "fail", "resolve"]

_EVENT: TypeAdapter[Any] = TypeAdapter(AgentStreamEvent)
_OUT: ContextVar[Stream[Any] | None] = ContextVar("perdure_agent_events", default=None)
_FAILED = "perdure:failed"
"""The member of a resolution that holds the reason of a failure."""

Handler = Callable[[RunContext[Any], AsyncIterable[AgentStreamEvent]], Awaitable[None]]


class _Backend(JournalCallableOperationBackend[None]):
    """Executes each operation of an agent as a trace."""

    async def execute(
        self,
        *,
        operation_id: DurableOperationId,
        name: str,
        body: Callable[[], Awaitable[object]],
        cache_key: tuple[object, ...],
        config: None,
    ) -> object:
        return await step(name, body)


class _Waiter(ExternalEventWaiter):
    """Waits for external events as conditions of the run. The token names the run and the condition."""

    async def wait(self, name: str, *, ask: Callable[[str], Awaitable[Any]], timeout: timedelta | None) -> Any:
        own = unique(name)
        token = f"{len(own.name)}:{own.name}:{own.run}"
        answer = await step(f"{name}.ask", lambda: ask(token))
        if answer is not None:
            return answer
        condition = await new_condition.aio(own.name, prompt=name, data_type=Any, timeout=timeout)
        try:
            found = await condition.wait.aio()
        except ConditionTimedoutError:
            raise ExternalEventError(f"no resolution arrived within {timeout}") from None
        if isinstance(found, dict) and set(found) == {_FAILED}:
            raise ExternalEventError(str(found[_FAILED]))
        return found


def resolve(token: str, payload: Any) -> None:
    """Resolve an external event that an agent waits for (`wait_for_external_event`, `RequestInput`), from any process
    that opens the store.

    Args:
        token: the token that `ask` got.
        payload: the answer, as JSON data.

    Raises:
        AlreadySignalledError: the event has another answer already.
        RunEndedError, RunNotFoundError: the run of the token takes no answer.
    """
    size, _, rest = token.partition(":")
    condition, run = (rest[: int(size)], rest[int(size) + 1 :]) if size.isdecimal() and len(size) < 4 else ("", "")
    if not condition or not run:
        raise UsageError(f"{token!r} is no token of an external event that perdure has made")
    Run.get(run).signal(condition, payload)


def fail(token: str, reason: str) -> None:
    """Resolve an external event with a failure: the waiting agent gets `ExternalEventError` with the reason."""
    resolve(token, {_FAILED: reason})


class PerdureDurability(BaseDurabilityCapability[Any]):
    """Makes an agent durable: in the body of a task, its model requests and tool calls are recorded and replayed.

    Outside of a run the agent works as without the capability. The agent and toolsets with tools of their own need
    names (`Agent(name=...)`, `FunctionToolset(id=...)`).

    Args:
        models: further models by their ids, for runs that choose a model.
        events: the name of a stream of the run that gets the agent's events, without the text deltas. The events of
            model request N, with the deltas, are written live to the stream `NAME.N`.
        event_stream_handler: gets the events in place of streams.
        name: the name of the agent in the journal; the agent's own by default.
    """

    engine_spec = DurabilityEngineSpec(
        engine_name="perdure",
        durable_unit_noun="trace",
        durable_container_noun="task",
        codec=JSON_CODEC,
        toolset_lifecycles={
            "function": "enter-always", "mcp": "enter-in-durable-unit", "dynamic": "enter-never",
        },
    )  # fmt: skip

    def __init__(
        self,
        *,
        models: Mapping[str, Model] | None = None,
        events: str | None = None,
        event_stream_handler: Handler | None = None,
        name: str | None = None,
    ) -> None:
        if events is not None and event_stream_handler is not None:
            raise UsageError("PerdureDurability takes events= (streams) or event_stream_handler=, not both")
        handler = event_stream_handler if events is None else self._write_live
        super().__init__(models=models, event_stream_handler=handler, name=name)
        self._events = events

    @property
    def in_durable_context(self) -> bool:
        return in_body()

    def get_durable_operation_backend(self) -> DurableOperationBackend[None]:
        config: RoleBasedOperationConfig[None] = RoleBasedOperationConfig(
            model=None, event=None, capability=None, tool=None, resolve_tool=_no_config
        )
        return _Backend(agent_name=self.name, default_model_id=self.default_model_id, config=config)

    def get_default_run_id(self) -> str | None:
        if not in_body():
            return None
        own = unique(f"{self.name}.run")
        return f"{own.run}:{own.name}"

    def get_default_conversation_id(self, run_id: str) -> str | None:
        return conversation_id_from_run_id(run_id) if in_body() else None

    async def get_run_start_time(self, run_id: str) -> datetime | None:
        return await now.aio() if in_body() else None

    async def wrap_run(self, ctx: RunContext[Any], *, handler: Callable[[], Awaitable[Any]]) -> Any:
        if not in_body():
            return await super().wrap_run(ctx, handler=handler)
        with external_event_scope(_Waiter()):
            if self._events is None:
                return await super().wrap_run(ctx, handler=handler)
            async with stream(self._events) as out:
                token = _OUT.set(out)
                try:
                    return await super().wrap_run(ctx, handler=handler)
                finally:
                    _OUT.reset(token)

    async def wrap_run_event_stream(
        self, ctx: RunContext[Any], *, stream: AsyncIterable[AgentStreamEvent]
    ) -> AsyncIterable[AgentStreamEvent]:
        out = _OUT.get()
        if self._events is None or out is None:
            async for event in super().wrap_run_event_stream(ctx, stream=stream):
                yield event
            return
        async for event in stream:
            if not isinstance(event, PartDeltaEvent):
                await out.write.aio(_EVENT.dump_python(event, mode="json"))
            yield event

    async def _write_live(self, ctx: RunContext[Any], events: AsyncIterable[AgentStreamEvent]) -> None:
        """Write the events of a model request while the model answers, inside the trace of the request."""
        async with stream(f"{self._events}.{ctx.run_step}") as out:
            async for event in events:
                await out.write.aio(_EVENT.dump_python(event, mode="json"))


def _no_config(operation_id: DurableOperationId, tool: object | None, tool_name: str) -> Literal[False] | None:
    return None


@dataclass
class PersonApproves(AbstractCapability[Any]):
    """Tools with `requires_approval=True` wait for a person: each call waits for the condition `TOOL:CALL_ID` of the
    run, of the type `Approval`. The wait is durable, and in a run only; elsewhere the call stays deferred."""

    timeout: timedelta | float | None = None
    """How long a call waits; then the call is denied."""

    async def handle_deferred_tool_calls(
        self, ctx: RunContext[Any], *, requests: DeferredToolRequests
    ) -> DeferredToolResults | None:
        if not in_body() or not requests.approvals:
            return None
        decisions = await asyncio.gather(*(self._ask(call) for call in requests.approvals))
        asked = [call.tool_call_id for call in requests.approvals]
        return requests.build_results(approvals=dict(zip(asked, decisions, strict=True)))

    async def _ask(self, call: ToolCallPart) -> bool | ToolDenied:
        decided = await decision(call.tool_name, call.tool_call_id, call.args_as_json_str(), self.timeout)
        return True if decided.ok else ToolDenied(decided.why)
