"""Conditions: questions to people. Each can be declared, and raises one sentence where the code waits for an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

from ..api._dual import Dual
from ..errors import UsageError


@dataclass(frozen=True)
class ConditionWebhook:
    """A request that a cluster sends for a new condition."""

    url: str
    payload: dict[str, Any] | None = None


class Condition:
    """A question under a name."""

    def __init__(self, name: str, **settings: Any) -> None:
        self.name = name
        self.prompt: str = settings.get("prompt", "Approve?")
        self.data_type: Any = settings.get("data_type", bool)

    @property
    def wait(self) -> Dual[..., Any]:
        """Wait for the answer: absent."""

        async def aio(*args: Any, **kwargs: Any) -> Any:
            self._refuse()

        return Dual(lambda *args, **kwargs: self._refuse(), aio)

    def _refuse(self) -> NoReturn:
        raise UsageError(
            f"condition {self.name!r}: perdure has no console that asks people for an answer; read the answer in a "
            "trace, from a file or a database, with flyte.durable.sleep between two looks"
        )


def _new(name: str, /, **settings: Any) -> Condition:
    """A question to people."""
    return Condition(name, **settings)


async def _new_aio(name: str, /, **settings: Any) -> Condition:
    return Condition(name, **settings)


_new.__name__ = _new.__qualname__ = "new_condition"
new_condition: Dual[..., Condition] = Dual(_new, _new_aio)

__all__ = ["Condition", "ConditionWebhook", "new_condition"]
