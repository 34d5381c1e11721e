"""Limits of calls: how many calls go on at once, and how many start within a time, over all processes of a store."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from types import TracebackType
from typing import Any, TypeVar

from ..core.body.branch import Branch
from ..core.body.scope import TraceScope, current_scope, is_body
from ..core.body.waits import HeldSlot
from ..core.ground.clock import US
from ..core.ground.model import LimitSettings
from ..core.ground.spec import LimitSpec, LimitUse
from ..core.run.limits import BlockWait, checked_cost
from ..errors import UsageError
from ._calling import caller, on_loop, warn_blocking
from .queueing import Rate, check_count

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit of calls: `@perdure.trace(limit=Limit("openai", concurrency=8))`.

    The limit holds over all processes and machines that use the store. Traces, tasks and container tasks may share a
    limit: declare one `Limit`, and give it to each. A call waits for its slot; calls with recorded outcomes take none.

    Args:
        name: identifies the limit in the store.
        concurrency: how many calls go on at once.
        rate: how many calls begin. A call that is executed again after a crash counts again.
        cost: the sum of the costs of the calls that begin: `cost=Rate(90_000, per=60)`. What a call costs says the
            function that stands as `cost=` beside `limit=`, or `hold(cost=...)`; 1 by default.

    Raises:
        UsageError: a setting means nothing.
    """

    name: str
    _: KW_ONLY
    concurrency: int | None = None
    rate: Rate | None = None
    cost: Rate | None = None
    spec: LimitSpec = field(init=False, repr=False, compare=False)
    """The limit as the core takes it."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip() or "\0" in self.name or len(self.name) > 200:
            raise UsageError(f"a Limit needs a name of at most 200 characters, not {self.name!r}")
        settings = limit_settings(f"limit {self.name}", self.concurrency, self.rate, self.cost)
        object.__setattr__(self, "spec", LimitSpec(self.name, settings))

    @property
    def hold(self) -> HoldCall:
        """Hold a slot for a block of code inside a trace: `with limit.hold():`, or `async with limit.hold.aio():`. The
        block is entered when the slot is free.

        Args:
            cost: what the block costs, a number from 0 up; 1 by default.

        Raises:
            UsageError: outside of a trace; the block costs more than the limit ever allows; or the trace holds a slot
                of the limit already.
        """
        return HoldCall(self)


class HoldCall:
    """See `Limit.hold`."""

    def __init__(self, limit: Limit) -> None:
        self._limit = limit

    def __call__(self, *, cost: float = 1) -> HoldBlock:
        return HoldBlock(self._limit, cost)

    def aio(self, *, cost: float = 1) -> AsyncHoldBlock:
        """The same for `async with`."""
        return AsyncHoldBlock(self._limit, cost)


class _Block:
    """A block of code that holds a slot."""

    def __init__(self, limit: Limit, cost: float) -> None:
        self._limit = limit
        self._cost = checked_cost(cost, f"limit {limit.name}: cost")
        self._scope: TraceScope | None = None
        self._before: HeldSlot | None = None
        self._slot: HeldSlot | None = None

    def _wait(self) -> BlockWait:
        where = caller(lambda: f"limit {self._limit.name}")
        if not isinstance(where, TraceScope):
            place = "the body of a task" if isinstance(where, Branch) else "code outside of a run"
            raise UsageError(
                f"limit {self._limit.name}: hold() is for code inside a trace, and this is {place}. A slot belongs to "
                "a run, and to work that is executed once: move the block into a function under @perdure.trace, or "
                "write @perdure.trace(limit=...)"
            )
        self._scope = where
        return BlockWait(where, self._limit.spec, self._cost)

    def _entered(self, slot: HeldSlot) -> None:
        assert self._scope is not None
        self._slot, self._before, self._scope.slot = slot, self._scope.slot, slot

    def _left(self) -> None:
        assert self._scope is not None
        assert self._slot is not None
        self._scope.slot = self._before
        self._scope.body.driver.worker.slots.give_back(self._slot)


class HoldBlock(_Block):
    """A block of code that holds a slot of a limit."""

    def __enter__(self) -> HoldBlock:
        wait = self._wait()
        if on_loop():
            warn_blocking("Limit.hold")
        self._entered(wait.block())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left()


class AsyncHoldBlock(_Block):
    """A block of async code that holds a slot of a limit."""

    async def __aenter__(self) -> AsyncHoldBlock:
        self._entered(await self._wait())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left()


def report_cost(used: float) -> None:
    """Say what the call has really cost, once that is known: the number counts in the place of the estimate.

    For the innermost limit of the calling code: a block of `Limit.hold`, a trace or a task with `limit=`. Outside of a
    run nothing happens, as nothing is limited there.

    Args:
        used: the cost, a number from 0 up; fractions are rounded up.

    Raises:
        UsageError: it is no such number, or the calling code is under no limit.
    """
    cost = checked_cost(used, "report_cost: used")
    scope = current_scope()
    if scope is None:
        return
    slot = scope.slot if isinstance(scope, TraceScope) or is_body(scope) else None
    if slot is None:
        raise UsageError("report_cost: the calling code is under no limit; it belongs into a call with limit=...")
    slot.used = cost


def limit_use(limit: Any, cost: Any, where: str) -> LimitUse | None:
    """`limit=` and `cost=` as the core takes them."""
    if limit is None:
        if cost is not None:
            raise UsageError(f"{where}: cost= needs limit=, which counts the costs")
        return None
    if not isinstance(limit, Limit):
        raise UsageError(f"{where}: limit must be a perdure.Limit, not {limit!r}")
    if cost is not None and not callable(cost):
        raise UsageError(f"{where}: cost must be a function of the call's arguments, not {cost!r}")
    return LimitUse(limit.spec, cost)


def inside_trace(scope: TraceScope, use: LimitUse, cost: Any, fn: Callable[[], R]) -> R:
    """A limited function that is called inside a trace: plainly, with a slot."""
    wait = BlockWait(scope, use.limit, checked_cost(cost, f"limit {use.limit.name}: cost"))
    slot: HeldSlot = wait.block()
    try:
        return fn()
    finally:
        scope.body.driver.worker.slots.give_back(slot)


async def inside_trace_aio(scope: TraceScope, use: LimitUse, cost: Any, fn: Callable[[], Any]) -> Any:
    """The same for an async function, or for a function that is called in a thread."""
    slot: HeldSlot = await BlockWait(scope, use.limit, checked_cost(cost, f"limit {use.limit.name}: cost"))
    try:
        answer = fn()
        return await answer if asyncio.iscoroutine(answer) else answer
    finally:
        scope.body.driver.worker.slots.give_back(slot)


def limit_settings(where: str, concurrency: Any, rate: Any, cost: Any) -> LimitSettings:
    """Settings of a limit, checked. `where` begins the messages of errors."""
    if concurrency is not None:
        check_count(concurrency, f"{where}: concurrency")
    for name, value in (("rate", rate), ("cost", cost)):
        if value is not None and not isinstance(value, Rate):
            raise UsageError(f"{where}: {name} must be a perdure.Rate, not {value!r}")
    return LimitSettings(
        concurrency=concurrency,
        starts=None if rate is None else rate.count,
        per=0 if rate is None else math.ceil(rate.seconds * US),
        cost=None if cost is None else cost.count,
        cost_per=0 if cost is None else math.ceil(cost.seconds * US),
    )
