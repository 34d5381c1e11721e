"""Settings of a task besides its function: retries, timeouts, caching."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Literal, Protocol

from msgspec import Struct

from ..core.ground.digest import blake2b
from ..core.ground.spec import NO_RETRIES, RetryStrategy
from ..core.ground.values import Signature
from ..errors import UsageError

Executor = Literal["local", "process", "ray"]


class EnvironmentSettings(Protocol):
    """The settings that a task takes from its environment."""

    name: str
    env_vars: dict[str, str]
    executor: Executor
    resources: Any
    strict: bool


class Timeout(Struct, frozen=True):
    """A limit for one attempt.

    Args:
        max_runtime: seconds (or a `timedelta`) of live time; time without a driving process does not count.
    """

    max_runtime: float | timedelta


class Cache(Struct, frozen=True):
    """How a task's outcome is shared between runs of one store.

    Args:
        behavior: `"auto"` reuses and stores, `"disable"` does neither.
        version_override: the version of the code, in place of a hash of the code and of everything that it reads.
        ignored_inputs: parameters that do not count.
        salt: anything that shall separate otherwise equal keys.
    """

    behavior: Literal["auto", "disable"] = "auto"
    version_override: str | None = None
    ignored_inputs: Sequence[str] = ()
    salt: str = ""


CacheRequest = Literal["auto", "disable"] | Cache


def retry_strategy(value: int | RetryStrategy, where: str) -> RetryStrategy:
    """`retries=` as a strategy."""
    if isinstance(value, RetryStrategy):
        return value
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UsageError(f"{where}: retries must be a number of retries from 0 up, or a RetryStrategy, not {value!r}")
    return RetryStrategy(value) if value else NO_RETRIES


def timeout_seconds(value: float | timedelta | Timeout | None, where: str) -> float | None:
    """`timeout=` as seconds."""
    if isinstance(value, Timeout):
        value = value.max_runtime
    if value is None:
        return None
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds < math.inf:
        raise UsageError(f"{where}: timeout must be seconds above 0, a timedelta or a Timeout, not {value!r}")
    return float(seconds)


def cache_key(value: CacheRequest, fn: Callable[..., Any], task: str) -> Callable[[bytes], bytes] | None:
    """`cache=` as a function from the canonical inputs to the key, or `None` where nothing is cached."""
    if isinstance(value, str):
        if value not in ("auto", "disable"):
            raise UsageError(f"{task}: cache must be 'auto', 'disable' or a Cache, not {value!r}")
        value = Cache(behavior=value)
    if not isinstance(value, Cache):
        raise UsageError(f"{task}: cache must be 'auto', 'disable' or a Cache, not {value!r}")
    if value.behavior == "disable":
        return None
    settings = value
    prefix: bytes | None = None

    def key(identity: bytes) -> bytes:
        nonlocal prefix
        if prefix is None:
            version = settings.version_override
            if version is None:
                from .code_hash import code_version  # a late import: few tasks are cached

                code = code_version(fn, task)
            else:
                code = version.encode("utf-8", "surrogatepass")
            head = f"{task}\0{settings.salt}\0".encode("utf-8", "surrogatepass")
            prefix = blake2b(head + code, digest_size=16).digest()
        return blake2b(prefix + identity, digest_size=16).digest()

    return key


def cache_signature(value: CacheRequest, fn: Callable[..., Any]) -> Signature | None:
    """The signature to key by where some inputs are ignored."""
    if isinstance(value, Cache) and value.ignored_inputs:
        return Signature.of(fn, ignore=tuple(value.ignored_inputs))
    return None
