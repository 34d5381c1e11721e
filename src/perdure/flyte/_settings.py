"""Caching, retries and timeouts, from Flyte's words to perdure's."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

from ..api.settings import Cache, Timeout
from ..core.ground.spec import Backoff, RetryStrategy

CacheRequest = Literal["auto", "override", "disable"] | Cache
TimeoutType = Timeout | timedelta | int
CachePolicy = Any


def cache_request(value: Any) -> Any:
    """`cache=` as perdure takes it."""
    return value


def retry_strategy(value: Any) -> Any:
    """`retries=` as perdure takes it."""
    return value


def task_timeout(value: Any) -> Any:
    """`timeout=` as perdure takes it; 0 is no timeout."""
    return value or None


__all__ = [
    "Backoff",
    "Cache",
    "CachePolicy",
    "CacheRequest",
    "RetryStrategy",
    "Timeout",
    "TimeoutType",
    "cache_request",
    "retry_strategy",
    "task_timeout",
]
