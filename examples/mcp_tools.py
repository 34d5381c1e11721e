"""Tasks as tools for a model: `perdure mcp examples/mcp_tools.py`, as the command of a server in the model's program.

A call is a run: a call that is repeated with the same run_name joins the run, also after the server was killed. The
person at the program is asked before money moves (elicitation); the model cannot answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import perdure

env = perdure.TaskEnvironment(name="bank")


@dataclass
class Decision:
    ok: bool
    why: str = ""


@perdure.trace
async def transfer(amount: int) -> str:
    return f"paid {amount} EUR"


@env.task
async def pay(amount: int) -> str:
    """Pay an amount, after a person has approved."""
    approve = await perdure.new_condition.aio("approve", prompt=f"Pay {amount} EUR?", data_type=Decision)
    decision = await approve.wait.aio()
    return await transfer(amount) if decision.ok else f"refused: {decision.why}"


@env.task
async def balance(account: str, cents: bool = False) -> str:
    """The balance of an account."""
    return f"{account} has {'700 cents' if cents else '7 EUR'}"
