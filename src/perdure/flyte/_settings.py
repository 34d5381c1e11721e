"""Caching, retries and timeouts, from Flyte's words to perdure's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, Protocol, runtime_checkable

from ..api import settings
from ..core.ground import spec
from ..core.ground.digest import blake2b
from ..errors import UsageError
from ._notes import note

CacheBehavior = Literal["auto", "override", "disable"]
_ALIASES = {
    "enable": "auto", "enabled": "auto", "on": "auto", "true": "auto", "yes": "auto",
    "false": "disable", "no": "disable", "none": "disable", "off": "disable",
}  # fmt: skip


@dataclass
class VersionParameters:
    """What a cache policy may read to make a version."""

    func: Callable[..., Any] | None
    image: Any = None
    code_bundle: Any = None


@runtime_checkable
class CachePolicy(Protocol):
    """Makes a version of a task's code."""

    def get_version(self, salt: str, params: VersionParameters) -> str:
        """The version."""


class FunctionBodyPolicy:
    """The version of the function, and of all code that the function reads: perdure's own version of code."""

    def get_version(self, salt: str, params: VersionParameters) -> str:
        """The version as hexadecimal digits."""
        from ..api.code_hash import code_version

        if params.func is None:
            return ""
        code = code_version(params.func, params.func.__qualname__)
        return blake2b(salt.encode("utf-8", "surrogatepass") + code, digest_size=16).hexdigest()


class Cache:
    """How outcomes are shared between runs of one store.

    Args:
        behavior: `"auto"` versions the code, `"override"` takes `version_override`, `"disable"` caches nothing.
        version_override: the version of the code.
        serialize: without effect: equal calls at the same time may each execute.
        ignored_inputs: parameters that do not count.
        salt: text that separates otherwise equal keys.
        policies: what makes the version, in place of perdure's hash of the code.
        max_age: the age at which an outcome is no longer used; without effect.

    Raises:
        ValueError: an unknown behavior.
    """

    def __init__(
        self,
        behavior: str,
        version_override: str | None = None,
        serialize: bool = False,
        ignored_inputs: Sequence[str] | str = (),
        salt: str = "",
        policies: Sequence[CachePolicy] | CachePolicy | None = None,
        max_age: timedelta | int | None = None,
    ) -> None:
        self.behavior = _behavior(behavior)
        self.version_override = version_override
        self.serialize = serialize
        self.ignored_inputs = ignored_inputs
        self.salt = salt
        self.policies: list[CachePolicy]
        if policies is None:
            self.policies = [] if version_override is not None or not self.is_enabled() else [FunctionBodyPolicy()]
        else:
            self.policies = list(policies) if isinstance(policies, Sequence) else [policies]
        self.max_age = timedelta(seconds=max_age) if isinstance(max_age, int) else max_age
        if serialize:
            note("serialize", "Cache")
        if max_age is not None:
            note("max_age", "Cache")

    def __repr__(self) -> str:
        return f"Cache({self.behavior!r}, ignored_inputs={self.ignored_inputs!r}, policies={self.policies!r})"

    def is_enabled(self) -> bool:
        """Whether outcomes are cached at all."""
        return self.behavior != "disable"

    def get_ignored_inputs(self) -> tuple[str, ...]:
        """The names of the parameters that do not count."""
        return (self.ignored_inputs,) if isinstance(self.ignored_inputs, str) else tuple(self.ignored_inputs)

    def get_version(self, params: VersionParameters | None = None) -> str:
        """The version of the code.

        Raises:
            UsageError: neither a version nor a function is given.
        """
        if not self.is_enabled():
            return ""
        if self.version_override is not None:
            return self.version_override
        if params is None:
            raise UsageError("Cache.get_version needs VersionParameters with the function, or a version_override")
        return blake2b(
            "\0".join(policy.get_version(self.salt, params) for policy in self.policies).encode(), digest_size=16
        ).hexdigest()

    def of_perdure(self, fn: Callable[..., Any] | None, image: Any = None) -> settings.Cache:
        """These settings as perdure has them."""
        version = self.version_override
        if version is None and any(type(policy) is not FunctionBodyPolicy for policy in self.policies):
            version = self.get_version(VersionParameters(fn, image))
        return settings.Cache(
            behavior="auto" if self.is_enabled() else "disable",
            version_override=version,
            ignored_inputs=self.get_ignored_inputs(),
            salt=self.salt,
        )


def _behavior(value: str) -> CacheBehavior:
    behavior = _ALIASES.get(str(value).lower(), value)
    if behavior not in ("auto", "override", "disable"):
        raise ValueError(f"Cache: behavior must be 'auto', 'override' or 'disable', not {value!r}")
    return behavior  # type: ignore[return-value]


CacheRequest = CacheBehavior | Cache


def cache_from_request(value: Any) -> Any:
    """`cache=` as a `Cache` of Flyte's, or of perdure's."""
    return value if isinstance(value, (Cache, settings.Cache)) else Cache(value)


def cache_request(value: Any, fn: Callable[..., Any] | None = None) -> Any:
    """`cache=` as perdure takes it."""
    found = cache_from_request(value)
    return found.of_perdure(fn) if isinstance(found, Cache) else found


@dataclass(kw_only=False)
class Backoff:
    """The pause before each retry: `base`, times `factor` each time, at most `cap`."""

    base: timedelta
    factor: float = 1.0
    cap: timedelta | None = None

    def __post_init__(self) -> None:
        self.base, self.cap = _time(self.base, "Backoff: base"), self.cap and _time(self.cap, "Backoff: cap")
        if self.base <= timedelta(0):
            raise ValueError(f"Backoff: base must be more than nothing, not {self.base}")
        if self.factor < 1:
            raise ValueError(f"Backoff: factor must be 1 or more, not {self.factor}")
        if self.cap is not None and self.cap < self.base:
            raise ValueError(f"Backoff: cap {self.cap} is less than base {self.base}")

    def compute_delay(self, attempt: int) -> timedelta:
        """The pause after that many failed attempts (from 0)."""
        return timedelta(seconds=self.of_perdure().seconds(attempt + 1))

    def of_perdure(self) -> spec.Backoff:
        """These settings as perdure has them."""
        longest = self.cap.total_seconds() if self.cap is not None else spec.Backoff().maximum
        return spec.Backoff(self.base.total_seconds(), self.factor, max(longest, self.base.total_seconds()))


@dataclass
class RetryStrategy:
    """The number of retries, and the pause before each."""

    count: int
    backoff: Backoff | None = None

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError(f"RetryStrategy: count must be 0 or more, not {self.count}")


def retry_strategy(value: Any) -> Any:
    """`retries=` as perdure takes it: without a backoff, a retry begins at once."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return spec.RetryStrategy(value, None)
    if not isinstance(value, RetryStrategy):
        return value
    return spec.RetryStrategy(value.count, value.backoff.of_perdure() if value.backoff is not None else None)


@dataclass
class Timeout:
    """Limits of time: seconds or a `timedelta`.

    Args:
        max_runtime: the limit of one attempt.
        max_queued_time: the limit of waiting in a cluster's queue; without effect.
        deadline: the limit of the action; perdure holds each attempt to the limit.
    """

    max_runtime: timedelta | int | None = None
    max_queued_time: timedelta | int | None = None
    deadline: timedelta | int | None = None


TimeoutType = Timeout | timedelta | int


def task_timeout(value: Any) -> Any:
    """`timeout=` as perdure takes it; 0 is no timeout."""
    if not isinstance(value, Timeout):
        return value or None
    if value.max_queued_time is not None:
        note("max_queued_time", "Timeout")
    limits = [_time(limit, "Timeout") for limit in (value.max_runtime, value.deadline) if limit]
    return min(limits) if limits else None


def _time(value: Any, where: str) -> timedelta:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UsageError(f"{where} must be a timedelta or a number of seconds, not {value!r}")
    return timedelta(seconds=value)


__all__ = [
    "Backoff",
    "Cache",
    "CacheBehavior",
    "CachePolicy",
    "CacheRequest",
    "FunctionBodyPolicy",
    "RetryStrategy",
    "Timeout",
    "TimeoutType",
    "VersionParameters",
    "cache_from_request",
    "cache_request",
    "retry_strategy",
    "task_timeout",
]
