"""Agents of the OpenAI Agents SDK: `perdure.integrations.openai_agents`, with scripted models.

OA1, OA2.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from agents import Agent, ModelResponse, RunConfig, Runner, ToolOutputText, function_tool
from agents.mcp import MCPServerStdio
from agents.models.interface import Model
from agents.testing import assistant_message, function_call
from agents.usage import Usage
from openai.types.responses import Response, ResponseCompletedEvent, ResponseTextDeltaEvent
from tests.waiting import PATIENCE, running, wait_for

import perdure
from perdure import errors
from perdure.api import messages
from perdure.integrations.openai_agents import run

EXAMPLE = Path(__file__).parents[2] / "examples" / "openai_agent.py"

env = perdure.TaskEnvironment(name="openai_agents")
QUIET = RunConfig(tracing_disabled=True)

KILLED = """
import os, signal
import openai_agent as example
import perdure

def dies_first(name):
    # The first execution of each call dies before its outcome is recorded.
    with open("log", "a+") as log:
        log.seek(0)
        seen = log.read().split("\\n")
        log.write(name + "\\n")
    if name not in seen:
        os.kill(os.getpid(), signal.SIGKILL)

ask = example.Script.get_response
async def asked(self, system_instructions, input, *args, **kwargs):
    dies_first(f"model {1 if isinstance(input, str) else len(input)}")
    return await ask(self, system_instructions, input, *args, **kwargs)
example.Script.get_response = asked

def killing(tool):
    invoke = tool.on_invoke_tool
    async def invoked(context, arguments):
        dies_first(tool.name)
        return await invoke(context, arguments)
    tool.on_invoke_tool = invoked
for tool in (example.look, example.pay):
    killing(tool)

print(perdure.with_runcontext(name="refunds").run(example.refund, "Refund order 2").result)
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    perdure.init(store=tmp_path / ".perdure" / "perdure.db")
    yield tmp_path
    perdure.init()


def asked(run: str) -> Any:
    """The condition that the run waits for."""
    try:
        return next((one.name for one in messages.conditions() if one.waits and one.run == run), None)
    except errors.PerdureError:
        return None


def test_agents_killed_at_each_model_request_and_tool_call_call_nothing_twice_that_was_recorded(store: Path) -> None:
    """OA1, OA2: models of two agents with a hand-off, tools, a tool behind an approval; each dies once unrecorded."""
    (store / "program.py").write_text(KILLED)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PERDURE")}
    options: dict[str, Any] = {"cwd": store, "env": {**kept, "PYTHONPATH": str(EXAMPLE.parent)}, "text": True}
    for _ in range(20):
        with running(sys.executable, "program.py", stdout=subprocess.PIPE, **options) as process:
            found = wait_for(lambda process=process: process.poll() is not None or asked("refunds"))
            if found == "pay:call-2":
                perdure.Run.get("refunds").signal("pay:call-2", {"ok": True, "why": ""})
            code = process.wait(PATIENCE)
            assert process.stdout is not None
            if code == 0:
                assert process.stdout.read().strip() == "payments: Order 2: paid 70 EUR"
                break
            assert code == -signal.SIGKILL
    calls = Counter((store / "log").read_text().split("\n")[:-1])
    assert set(calls.values()) == {2}, calls
    assert len(calls) == 6


class Plain(Model):
    """Calls one tool, then answers with its output."""

    def __init__(self, tool: str, arguments: dict[str, Any] | None = None) -> None:
        self.calls = 0
        self._tool = tool
        self._arguments = arguments or {}

    def _answer(self, input: Any) -> Any:
        self.calls += 1
        outputs = [] if isinstance(input, str) else [one for one in input if one.get("type") == "function_call_output"]
        if outputs:
            return assistant_message(f"it says {outputs[-1]['output']}")
        return function_call(self._tool, self._arguments, call_id="call-1")

    async def get_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> Any:
        return ModelResponse([self._answer(input)], Usage(), None)

    async def stream_response(
        self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any
    ) -> AsyncIterator[Any]:
        yield ResponseTextDeltaEvent(
            content_index=0, delta="it", item_id="x", logprobs=[], output_index=0, sequence_number=0,
            type="response.output_text.delta",
        )  # fmt: skip
        response = Response(
            id="r", created_at=0, model="x", object="response", output=[self._answer(input)],
            parallel_tool_calls=False, tool_choice="auto", tools=[],
        )  # fmt: skip
        yield ResponseCompletedEvent(response=response, sequence_number=1, type="response.completed")


@function_tool
def structured() -> ToolOutputText:
    """Give a structured output."""
    return ToolOutputText(text="seven")


@function_tool(needs_approval=True)
def danger() -> str:
    """Do something that a person has to approve."""
    return "done"


plain_model, danger_model = Plain("structured"), Plain("danger")
plain = Agent(name="plain", model=plain_model, tools=[structured])
guarded = Agent(name="guarded", model=danger_model, tools=[danger])


@env.task
async def asks(events: str | None = None) -> str:
    return str((await run(plain, "x", run_config=QUIET, events=events)).final_output)


@env.task
async def guards() -> str:
    return str((await run(guarded, "x", run_config=QUIET, approval_timeout=0.1)).final_output)


def test_an_ended_run_gives_its_answer_without_the_model(store: Path) -> None:
    plain_model.calls = 0
    for _ in range(2):
        assert "seven" in perdure.with_runcontext(name="r").run(asks).result
    assert plain_model.calls == 2


def test_outside_of_a_run_the_agent_works_as_with_the_runner(store: Path) -> None:
    import asyncio

    async def both() -> tuple[Any, Any]:
        own = await run(plain, "x", run_config=QUIET)
        return own.final_output, (await Runner.run(plain, "x", run_config=QUIET)).final_output

    first, second = asyncio.run(both())
    assert first == second


def test_the_events_of_each_model_request_go_to_a_stream(store: Path) -> None:
    found = perdure.run(asks, "events")
    assert "seven" in found.result
    for number in (1, 2):
        kinds = [item.value["type"] for item in found.stream(f"events.{number}")]
        assert kinds == ["response.output_text.delta", "response.completed"]


def test_a_call_that_is_not_approved_in_time_is_rejected(store: Path) -> None:
    """OA2"""
    assert "no person has decided in time" in perdure.run(guards).result


def test_an_agent_with_mcp_servers_is_refused(store: Path) -> None:
    async def body() -> None:
        await run(Agent(name="mcp", mcp_servers=[MCPServerStdio({"command": "true"})]), "x")

    with pytest.raises(errors.UsageError, match="MCP servers, whose calls cannot be recorded"):
        perdure.run(env.task(body))
