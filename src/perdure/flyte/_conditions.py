"""Conditions: a run waits for an answer of a person, under Flyte's names, by perdure's conditions.

The answer comes by `perdure signal RUN NAME VALUE` or `perdure.Run.get(RUN).signal(NAME, VALUE)`.
"""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from .. import errors as own
from ..api import receiving
from ..api._dual import Dual
from . import errors


@dataclass(frozen=True)
class ConditionWebhook:
    """A request that a cluster sends for a new condition."""

    url: str
    payload: dict[str, Any] | None = None


class Condition:
    """A question under a name."""

    def __init__(self, condition: receiving.Condition[Any]) -> None:
        self._condition = condition
        self.name = condition.name
        self.prompt = condition.prompt
        self.data_type = condition.data_type
        self.description = condition.description

    @property
    def wait(self) -> Dual[[], Any]:
        """Wait for the answer, and return the answer.

        Raises:
            ConditionTimedoutError: no answer has come in time.
        """
        return Dual(self._wait, self._wait_aio)

    def _wait(self) -> Any:
        try:
            return self._condition.wait()
        except own.ConditionTimedoutError as late:
            raise errors.ConditionTimedoutError(str(late)) from late

    def _wait_aio(self) -> Coroutine[Any, Any, Any]:
        # The place of the call is taken now, as for every durable call.
        return _answer(self._condition.wait.aio())


async def _answer(waiting: Coroutine[Any, Any, Any]) -> Any:
    try:
        return await waiting
    except own.ConditionTimedoutError as late:
        raise errors.ConditionTimedoutError(str(late)) from late


def _new(
    name: str,
    /,
    prompt: str = "Approve?",
    prompt_type: str = "text",
    data_type: Any = bool,
    description: str = "",
    timeout: timedelta | float | None = None,
    webhook: ConditionWebhook | None = None,
) -> Condition:
    """A question to people, as `perdure.new_condition`.

    Raises:
        UsageError: a webhook is given; perdure sends no requests.
    """
    if webhook is not None:
        raise own.UsageError(
            f"condition {name!r}: perdure sends no request for a condition; send the request in a trace, in front of "
            "`wait`, and answer with: perdure signal RUN NAME VALUE"
        )
    return Condition(receiving.new_condition(name, prompt, prompt_type, data_type, description, timeout))


async def _new_aio(name: str, /, *args: Any, **settings: Any) -> Condition:
    return _new(name, *args, **settings)


_new.__name__ = _new.__qualname__ = "new_condition"
new_condition: Dual[..., Condition] = Dual(_new, _new_aio)

__all__ = ["Condition", "ConditionWebhook", "new_condition"]
