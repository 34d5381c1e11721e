"""An agent asks, a person answers on a phone, the agent goes on: a web application that hosts its own worker.

Start with `uvicorn approvals:app --host 0.0.0.0` in this directory, submit a refund and answer the question at
http://HOST:8000/perdure/approvals:

    curl -X POST localhost:8000/perdure/tasks/approvals.refund/runs -H 'Content-Type: application/json' \
        -H 'Idempotency-Key: order-1' -d '{"amount": 400}'

Kill the server at any time and start it again: runs carry on, and a browser that follows events connects again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from fastapi import FastAPI

import perdure
from perdure.integrations.starlette import router

env = perdure.TaskEnvironment(name="approvals")


@dataclass
class Decision:
    ok: bool
    why: str = ""


@perdure.trace
async def explain(amount: int) -> str:
    """Stands for a model that writes word by word."""
    words = f"The customer paid {amount} EUR twice.".split()
    async with perdure.stream("thoughts", str) as out:
        for word in words:
            await out.write.aio(word)
    return " ".join(words)


@perdure.trace
async def pay(amount: int) -> str:
    return f"paid {amount} EUR"


@env.task
async def refund(amount: int) -> str:
    reason = await explain(amount)
    await perdure.publish.aio("progress", "asking")
    approve = await perdure.new_condition.aio(
        "approve", prompt=f"Refund {amount} EUR? {reason}", data_type=Decision, timeout=timedelta(days=3)
    )
    decision = await approve.wait.aio()
    await perdure.publish.aio("progress", "paying" if decision.ok else "refused")
    return await pay(amount) if decision.ok else f"refused: {decision.why}"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with perdure.Worker([refund]):
        yield


app = FastAPI(lifespan=lifespan)
app.mount("/perdure", router([refund]))
