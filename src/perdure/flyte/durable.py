"""Durable time, as Flyte names it. `now` is naive, in local time, as Flyte's is."""

from __future__ import annotations

from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any

from .. import durable
from ..api._dual import Dual
from ..durable import sleep, time


def _now() -> datetime:
    """The current time as a naive datetime in local time; the same on every replay."""
    return _local(durable.time())


def _now_aio() -> Coroutine[Any, Any, datetime]:
    return _awaited(durable.time.aio())


async def _awaited(seconds: Coroutine[Any, Any, float]) -> datetime:
    return _local(await seconds)


def _local(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC).astimezone().replace(tzinfo=None)


_now.__name__ = _now.__qualname__ = "now"
now: Dual[[], datetime] = Dual(_now, _now_aio)

__all__ = ["now", "sleep", "time"]
