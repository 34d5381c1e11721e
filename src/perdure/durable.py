"""Time, sleep and chance that survive a crash: read or slept once, and the same on every replay.

Inside a run every call is recorded. Outside a run, and inside a trace (recorded as a whole), the functions behave like
their plain counterparts. Each has an `.aio` form for async code.
"""

from __future__ import annotations

import asyncio
import random as _random
import uuid as _uuid
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, TypeVar

from .api._calling import caller, on_loop, run_async, run_sync, warn_blocking
from .api._dual import Dual
from .api._seconds import seconds_of
from .api.timeouts import timeout
from .core.body.branch import Branch
from .core.body.scope import TraceScope
from .core.ground.clock import US, wall
from .core.ground.digest import blake2b
from .core.ground.model import Kind
from .core.ground.values import Codec, codec_for
from .core.run import calls
from .errors import InsideTraceError

__all__ = ["now", "random", "sleep", "time", "timeout", "uuid4"]

T = TypeVar("T")


def _fp(kind: Kind) -> bytes:
    # A reading has no arguments. Nor do a sleep's count for the identity: a changed duration is not another sleep.
    return blake2b(b"%d\0" % kind, digest_size=16).digest()


def _reading(
    kind: Kind,
    name: str,
    codec: Codec[T],
    read: Callable[[Branch], T],
    plain: Callable[[], T],
    doc: str,
    seen: Callable[[Branch, T], None] | None = None,
) -> Dual[[], T]:
    fp = _fp(kind)

    def sync() -> T:
        where = caller(what)
        if where is None or isinstance(where, TraceScope):
            return plain()
        if on_loop():
            warn_blocking(name)
        return run_sync(calls.reading(where.call(kind, name, fp), read, codec, seen))  # type: ignore[no-any-return]

    def aio() -> Coroutine[Any, Any, T]:
        where = caller(what)
        if where is None or isinstance(where, TraceScope):
            return _give(plain())
        return run_async(calls.reading(where.call(kind, name, fp), read, codec, seen))

    def what() -> str:
        return name

    sync.__name__ = sync.__qualname__ = name.rpartition(".")[2]
    sync.__module__ = __name__
    sync.__doc__ = doc
    return Dual(sync, aio)


async def _give(value: T) -> T:
    return value


def _wall(branch: Branch) -> int:
    # Never earlier than a time that this branch, or a branch before it in the same line, has seen (P8).
    floor: int = max(branch.floor, branch.body.driver.worker.clock.wall())
    branch.floor = floor
    return floor


def _saw_time(branch: Branch, seconds: float) -> None:
    branch.floor = max(branch.floor, round(seconds * US))


def _saw_now(branch: Branch, moment: datetime) -> None:
    branch.floor = max(branch.floor, round(moment.timestamp() * US))


time: Dual[[], float] = _reading(
    Kind.TIME,
    "durable_time",
    codec_for(float),
    lambda branch: _wall(branch) / US,
    lambda: wall() / US,
    """The current time in seconds since the Unix epoch, as `time.time()`, but durable: the same call gives the same
    value on every replay, and successive values never decrease.""",
    _saw_time,
)

now: Dual[[], datetime] = _reading(
    Kind.NOW,
    "durable.now",
    codec_for(datetime),
    lambda branch: datetime.fromtimestamp(_wall(branch) / US, UTC),
    lambda: datetime.fromtimestamp(wall() / US, UTC),
    """The current time as a timezone-aware datetime in UTC, durable as `time` is.""",
    _saw_now,
)

uuid4: Dual[[], _uuid.UUID] = _reading(
    Kind.UUID,
    "durable.uuid4",
    codec_for(_uuid.UUID),
    lambda branch: _uuid.uuid4(),
    _uuid.uuid4,
    """A random UUID, as `uuid.uuid4()`, the same on every replay.""",
)

random: Dual[[], float] = _reading(
    Kind.RANDOM,
    "durable.random",
    codec_for(float),
    lambda branch: _random.random(),
    _random.random,
    """A random float from 0.0 (included) to 1.0 (excluded), as `random.random()`, the same on every replay.""",
)

_SLEEP = _fp(Kind.SLEEP)


def _sleep_call(seconds: float, where: Branch | TraceScope) -> Any:
    if isinstance(where, TraceScope):
        raise InsideTraceError(
            f"durable_sleep was called inside trace {where.name}. A trace is recorded as one unit and would sleep "
            f"again after a crash: sleep in the task, or use time.sleep / asyncio.sleep for a short pause."
        )
    return calls.sleep(where.call(Kind.SLEEP, "durable_sleep", _SLEEP), seconds)


def _sleep_name() -> str:
    return "durable_sleep"


def _sleep(seconds: float) -> None:
    """Sleep for `seconds` in aggregate: the deadline is `seconds` after the first call, over any number of crashes. A
    deadline in the past, and a negative number of seconds, return at once.

    Raises:
        ValueError: NaN or endless.
        TypeError: not a number.
    """
    seconds = seconds_of(seconds, "durable_sleep")
    where = caller(_sleep_name)
    if where is None:
        import time as plain

        plain.sleep(seconds)
        return
    protocol = _sleep_call(seconds, where)
    if on_loop():
        warn_blocking("durable_sleep")
    run_sync(protocol)


def _sleep_aio(seconds: float) -> Coroutine[Any, Any, None]:
    seconds = seconds_of(seconds, "durable_sleep")
    where = caller(_sleep_name)
    if where is None:
        return asyncio.sleep(seconds)
    return run_async(_sleep_call(seconds, where))


_sleep.__name__ = _sleep.__qualname__ = "durable_sleep"
sleep: Dual[[float], None] = Dual(_sleep, _sleep_aio)
