"""The decision of a person on a call of a tool, for agents of every library."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from ..api.receiving import new_condition
from ..errors import ConditionTimedoutError


@dataclass
class Approval:
    """The decision of a person on a tool call."""

    ok: bool
    why: str = ""


async def decision(tool: str, call_id: str, arguments: str, timeout: timedelta | float | None) -> Approval:
    """Wait for the condition `TOOL:CALL_ID` of the run. No answer in time is a no."""
    condition = await new_condition.aio(
        f"{tool}:{call_id}", prompt=f"{tool}({arguments})", data_type=Approval, timeout=timeout
    )
    try:
        found: Approval = await condition.wait.aio()
    except ConditionTimedoutError:
        return Approval(False, "no person has decided in time")
    return found if found.ok or found.why else Approval(False, "the person said no")
