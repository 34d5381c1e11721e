"""Agents of the OpenAI Agents SDK that survive a kill at any moment, hand off, and ask a person before they pay.

    python examples/openai_agent.py                          waits for the person
    perdure conditions                                       in another terminal: the question
    perdure signal refunds pay:call-2 '{"ok": true}'         and the agent goes on

The models are scripted, so that the example needs no network: leave `model=` out for OpenAI's models.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from agents import Agent, Model, ModelResponse, RunConfig, function_tool
from agents.items import TResponseInputItem
from agents.testing import assistant_message, function_call
from agents.usage import Usage

import perdure
from perdure.integrations.openai_agents import run

env = perdure.TaskEnvironment(name="refunds")


class Script(Model):
    """Stands for a model: hands off, looks the order up, asks to pay, then answers."""

    async def get_response(
        self, system_instructions: str | None, input: str | list[TResponseInputItem], *args: Any, **kwargs: Any
    ) -> ModelResponse:
        items = [input] if isinstance(input, str) else [dict(item) for item in input]
        outputs = [item for item in items if isinstance(item, dict) and item.get("type") == "function_call_output"]
        if not outputs:
            answer = function_call("transfer_to_payments", {}, call_id="call-0")
        elif len(outputs) == 1:
            answer = function_call("look", {"order": 2}, call_id="call-1")
        elif len(outputs) == 2:
            answer = function_call("pay", {"amount": 70}, call_id="call-2")
        else:
            answer = assistant_message(f"Order 2: {outputs[-1]['output']}")
        return ModelResponse([answer], Usage(), None)

    def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        raise NotImplementedError


@function_tool
async def look(order: int) -> str:
    """Look up an order."""
    return f"order {order} was paid twice"


@function_tool(needs_approval=True)
async def pay(amount: int) -> str:
    """Pay money back."""
    return f"paid {amount} EUR"


payments = Agent(name="payments", model=Script(), tools=[look, pay])
desk = Agent(name="desk", model=Script(), handoffs=[payments])


@env.task
async def refund(question: str) -> str:
    answer = await run(desk, question, run_config=RunConfig(tracing_disabled=True))
    return f"{answer.last_agent.name}: {answer.final_output}"


if __name__ == "__main__":
    print(perdure.with_runcontext(name="refunds").run(refund, "Refund order 2").result)
