"""An agent of pydantic-ai that survives a kill at any moment, and asks a person before it pays.

    python examples/pydantic_agent.py                        waits for the person
    perdure conditions                                       in another terminal: the question
    perdure signal refunds pay:call-2 '{"ok": true}'         and the agent goes on

The model is scripted, so that the example needs no network: put the name of a model of yours in its place.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelRequest, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls, FunctionModel

import perdure
from perdure.integrations.pydantic_ai import PerdureDurability, PersonApproves

env = perdure.TaskEnvironment(name="refunds")


async def script(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
    """Stands for a model: looks two orders up, asks to pay, then answers."""
    last = messages[-1]
    found = [part for part in last.parts if isinstance(part, ToolReturnPart)] if isinstance(last, ModelRequest) else []
    if not found:
        yield {
            0: DeltaToolCall("look", '{"order": 1}', tool_call_id="call-0"),
            1: DeltaToolCall("look", '{"order": 2}', tool_call_id="call-1"),
        }
    elif found[0].tool_name == "look":
        yield {0: DeltaToolCall("pay", '{"amount": 70}', tool_call_id="call-2")}
    else:
        for word in ("Order 2: ", str(found[0].content)):
            yield word


agent = Agent(
    FunctionModel(stream_function=script),
    name="refunds",
    capabilities=[PerdureDurability(events="events"), PersonApproves()],
)


@agent.tool_plain
async def look(order: int) -> str:
    return f"order {order} was paid {'twice' if order == 2 else 'once'}"


@agent.tool_plain(requires_approval=True)
async def pay(amount: int) -> str:
    return f"paid {amount} EUR"


@env.task
async def refund(question: str) -> str:
    answer = await agent.run(question)
    return answer.output


if __name__ == "__main__":
    print(perdure.with_runcontext(name="refunds").run(refund, "Who paid twice?").result)
