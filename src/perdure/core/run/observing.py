"""Who hears of actions as they are executed: tracing, behind one variable, so that an unobserved run pays for a look.

An observer hears of what is executed, never of what is replayed; it raises nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ..body.branch import Call
from ..body.interfaces import BodyPort
from ..ground.spec import Function, TaskSpec


class ActionObserver(Protocol):
    """Hears of one action while this process drives the action."""

    def attempt(self, number: int) -> None:
        """An attempt begins."""

    def ended(self, result: int, value: Any) -> None:
        """The action has its outcome: `Result.VALUE`, or `Result.ERROR` with the exception."""

    def left(self, error: BaseException | None) -> None:
        """The action is not driven here any more. Without an outcome before: parked, interrupted, cancelled."""


class Observer(Protocol):
    """Hears of what this process executes. From any thread."""

    def begins(self, driver: Any, spec: TaskSpec, action: int, parent: int | None) -> ActionObserver:
        """An action of a task begins, or goes on after a crash or a pause. `parent`: the calling action."""

    def executed(self, body: BodyPort, spec: TaskSpec) -> Callable[..., Any]:
        """The code of an attempt, as it shall be executed."""

    def traced(self, call: Call, function: Function) -> Callable[..., Any]:
        """The code of a trace, as it shall be executed."""


observer: Observer | None = None
"""Set by an integration, for the whole process."""
