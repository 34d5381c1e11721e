"""Where am I: `ctx()`, and labels for people: `group()`."""

from __future__ import annotations

from types import TracebackType

from msgspec import Struct

from ..core.body.branch import Branch
from ..core.body.interfaces import BodyPort
from ..core.body.scope import SCOPE, TraceScope, is_body
from ..errors import UsageError
from ._calling import caller


class Context(Struct, frozen=True):
    """The run and the action that the calling code belongs to."""

    run_name: str
    """The run's name, which is its idempotency key."""
    task: str
    """The full name of the executing task, such as `etl.fetch`."""
    action: int
    """The action's number in the run; 0 is the root task."""
    attempt: int
    """The number of the current attempt, from 1. Failed, lost and crashed attempts count. The number is on disk within
    moments of the beginning (50 ms, unless the body blocks the event loop): an earlier crash does not count."""
    group: str | None
    """The innermost `perdure.group`, if any."""
    trace: str | None
    """The trace that executes, if any."""
    replaying: bool = False
    """Whether the body still goes through outcomes that an earlier life recorded. For logs and the like only: code with
    durable calls that depend on this does not replay."""


def ctx() -> Context | None:
    """The current context, or `None` outside any run."""
    scope = SCOPE.get()
    if scope is None:
        return None
    body: BodyPort = scope.body if isinstance(scope, TraceScope) else scope
    label = body.root.label
    if is_body(scope):
        where = caller(lambda: "perdure.ctx")
        label = where.label if isinstance(where, Branch) else label
    return Context(
        run_name=body.driver.run.name,
        task=body.name,
        action=body.action,
        attempt=body.attempt,
        group=label,
        trace=scope.name if isinstance(scope, TraceScope) else None,
        replaying=not isinstance(scope, TraceScope) and body.idle_replaying,
    )


class group:  # noqa: N801 - a verb of the public surface, used as `with perdure.group("name"):`
    """Label the durable calls of a block, for `perdure show`. No part of any call's identity; does nothing outside
    a run. Works with `with` and `async with`."""

    def __init__(self, name: str) -> None:
        if not isinstance(name, str) or not name:
            raise UsageError(f"a group needs a name, not {name!r}")
        self._name = name
        self._branch: Branch | None = None
        self._before: str | None = None

    def __enter__(self) -> group:
        where = caller(lambda: "perdure.group")
        if isinstance(where, Branch):
            self._branch, self._before = where, where.label
            where.label = self._name
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._branch is not None:
            self._branch.label = self._before

    async def __aenter__(self) -> group:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)
