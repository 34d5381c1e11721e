"""Agents of pydantic-ai: `perdure.integrations.pydantic_ai`, with pydantic-ai's own models for tests.

PA1, PA2, PA3.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import Agent, DeferredToolRequests, DeferredToolResults, RunContext
from pydantic_ai.capabilities import AbstractCapability, RequestInput
from pydantic_ai.external_events import ExternalEventError, wait_for_external_event
from pydantic_ai.models.test import TestModel
from tests.waiting import PATIENCE, running, wait_for

import perdure
from perdure import errors
from perdure.api import messages
from perdure.integrations.pydantic_ai import PerdureDurability, PersonApproves, fail, resolve

EXAMPLE = Path(__file__).parents[2] / "examples" / "pydantic_agent.py"

env = perdure.TaskEnvironment(name="pydantic_agents")

KILLED = """
import os, signal, sys
import pydantic_agent as example

def dies_first(name):
    # The first execution of each call dies before its outcome is recorded.
    with open("log", "a+") as log:
        log.seek(0)
        seen = log.read().split("\\n")
        log.write(name + "\\n")
    if name not in seen:
        os.kill(os.getpid(), signal.SIGKILL)

script = example.script
async def model(messages, info):
    dies_first(f"model {len(messages)}")
    async for item in script(messages, info):
        yield item

example.agent.model._function = None
example.agent.model.stream_function = model
import perdure
from perdure.integrations import _steps

tools = example.agent._function_toolset.tools
def killing(name, fn):
    async def call(*args, **kwargs):
        dies_first(f"{name} {kwargs or args}")
        return await fn(*args, **kwargs)
    return call
for name, tool in tools.items():
    tool.function_schema.function = killing(name, tool.function_schema.function)

print(perdure.with_runcontext(name="refunds").run(example.refund, "Who paid twice?").result)
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    perdure.init(store=tmp_path / ".perdure" / "perdure.db")
    yield tmp_path
    perdure.init()


def environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PERDURE")}
    return {**kept, "PYTHONPATH": str(EXAMPLE.parent)}


def test_an_agent_killed_at_each_model_request_and_tool_call_calls_nothing_twice_that_was_recorded(store: Path) -> None:
    """PA1, PA2, PA3: model requests, parallel tools, a tool behind an approval; each dies once before its record."""
    (store / "program.py").write_text(KILLED)
    while True:
        with running(sys.executable, "program.py", cwd=store, env=environment(), stdout=subprocess.PIPE) as process:
            if wait_for(lambda process=process: process.poll() is not None or asked("refunds")) != "pay:call-2":
                assert process.returncode == -signal.SIGKILL
                continue
            perdure.Run.get("refunds").signal("pay:call-2", {"ok": True, "why": ""})
            assert process.wait(PATIENCE) == -signal.SIGKILL  # at the first execution of pay
            break
    while True:
        done = subprocess.run(
            [sys.executable, "program.py"], cwd=store, env=environment(), capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
    assert done.stdout.strip() == "Order 2: paid 70 EUR"
    calls = Counter((store / "log").read_text().split("\n")[:-1])
    # One execution that died, and one that was recorded; a call beside one that died may be executed again, too.
    assert calls.pop("look {'order': 1}") in (2, 3)
    assert calls.pop("look {'order': 2}") in (2, 3)
    assert set(calls.values()) == {2}, calls
    assert len(calls) == 4
    kinds = [item.value["event_kind"] for item in perdure.Run.get("refunds").stream("events")]
    call, result = "function_tool_call", "function_tool_result"
    assert kinds == [
        "part_start", "part_end", "part_start", "part_end", call, call, result, result,
        "part_start", "final_result", "part_end", call, "deferred_tool_requests", "deferred_tool_results", result,
        "part_start", "final_result", "part_end",
    ]  # fmt: skip
    live = [item.value["event_kind"] for item in perdure.Run.get("refunds").stream("events.3")]
    assert "part_delta" in live


def asked(run: str) -> Any:
    """The condition that the run waits for."""
    try:
        return next((one.name for one in messages.conditions() if one.waits and one.run == run), None)
    except errors.PerdureError:
        return None


plain = Agent(TestModel(custom_output_text="fine"), name="plain", capabilities=[PerdureDurability()])
counted: list[int] = []


@plain.tool_plain
def count() -> int:
    counted.append(1)
    return len(counted)


@env.task
async def asks(question: str) -> str:
    return (await plain.run(question)).output


def test_outside_of_a_run_the_agent_works_as_without_perdure(store: Path) -> None:
    counted.clear()
    assert plain.run_sync("x").output == "fine"
    assert counted == [1]


def test_an_ended_run_gives_its_answer_without_the_model(store: Path) -> None:
    counted.clear()
    for _ in range(2):
        assert perdure.with_runcontext(name="r").run(asks, "x").result == "fine"
    assert counted == [1]


guarded = Agent(
    TestModel(call_tools=["danger"]),
    name="guarded",
    capabilities=[PerdureDurability(), PersonApproves(timeout=0.2)],
)


@guarded.tool_plain(requires_approval=True)
def danger() -> str:
    return "done"


@env.task
async def guards() -> str:
    return (await guarded.run("x")).output


def test_an_approval_that_does_not_come_in_time_is_a_denial(store: Path) -> None:
    """PA2"""
    assert "no person has decided in time" in perdure.run(guards).result


def ask(ctx: RunContext[None], requests: DeferredToolRequests, token: str) -> DeferredToolResults | None:
    Path(os.environ["TOKENS"]).write_text(token)
    return None


waits = Agent(
    TestModel(call_tools=["careful"]),
    name="waits",
    capabilities=[PerdureDurability(), RequestInput(ask=ask)],
)


@waits.tool_plain(requires_approval=True)
def careful() -> str:
    return "done with care"


@env.task
async def waits_for_event() -> str:
    return (await waits.run("x")).output


@env.task
async def waits_plainly(seconds: float) -> Any:
    agent = Agent(TestModel(), name="events", capabilities=[PerdureDurability(), Waits(seconds)])
    return (await agent.run("x")).metadata


class Waits(AbstractCapability[Any]):
    """Waits for an event before the run."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def before_run(self, ctx: RunContext[Any]) -> None:
        def tell(token: str) -> None:
            Path(os.environ["TOKENS"]).write_text(token)

        found.append(await wait_for_external_event("event", ask=tell, timeout=timedelta(seconds=self._seconds)))


found: list[Any] = []


def test_an_external_event_is_resolved_from_outside(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = store / "tokens"
    monkeypatch.setenv("TOKENS", str(tokens))
    call_id = "pyd_ai_tool_call_id__careful"
    with perdure.Worker([waits_for_event]):
        run = perdure.with_runcontext(name="a:1:b").submit(waits_for_event)
        token = wait_for(lambda: tokens.exists() and asked(run.name) and tokens.read_text())
        resolve(token, {"approvals": {call_id: True}, "calls": {}})
        assert "done with care" in run.wait(PATIENCE).result


def test_an_external_event_fails_by_timeout_and_by_word(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = store / "tokens"
    monkeypatch.setenv("TOKENS", str(tokens))
    with pytest.raises(ExternalEventError, match=r"no resolution arrived within 0:00:00\.1"):
        perdure.run(waits_plainly, 0.1)
    tokens.unlink()
    with perdure.Worker([waits_plainly]):
        run = perdure.submit(waits_plainly, 100.0)
        token = wait_for(lambda: tokens.exists() and asked(run.name) and tokens.read_text())
        fail(token, "out of office")
        with pytest.raises(ExternalEventError, match="out of office"):
            _ = run.wait(PATIENCE).result
    with pytest.raises(errors.UsageError, match="is no token"):
        resolve("x", 1)
