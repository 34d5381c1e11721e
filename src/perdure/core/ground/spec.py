"""Tasks as the core sees them: a function and settings, without the public classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from msgspec import Struct, field

from ...errors import UsageError
from .digest import blake2b
from .model import Kind, LimitSettings, QueueSettings
from .values import Signature

if TYPE_CHECKING:
    from .detached import Detached


# Structs, because every program loads this module: defining a dataclass takes some thirty times as long.
class Backoff(Struct, frozen=True):
    """The pause between two attempts: `initial` seconds, times `factor` each time, at most `maximum` seconds.

    `jitter` is the share of the pause (0 to 1) that is random.
    """

    initial: float = 1.0
    factor: float = 2.0
    maximum: float = 300.0
    jitter: float = 0.0

    def __post_init__(self) -> None:
        for name, least, most in (("initial", 0, 1e9), ("factor", 0, 1e9), ("maximum", 0, 1e9), ("jitter", 0, 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
                raise UsageError(f"Backoff: {name} must be a number from {least} to {most:g}, not {value!r}")

    def seconds(self, failures: int) -> float:
        """The pause after that many failures (from 1)."""
        try:
            pause = self.initial * self.factor ** (failures - 1)
        except OverflowError:
            pause = self.maximum
        pause = min(pause, self.maximum)
        if self.jitter:
            import random  # here, as only jitter needs it

            pause *= 1 - self.jitter * random.random()
        return pause


SMALL_BACKOFF: Final = Backoff(initial=0.1, factor=2.0, maximum=30.0, jitter=0.25)
"""The backoff of retries that name none: 0.1 s, 0.2 s, 0.4 s and so on, each up to a quarter shorter."""


class RetryStrategy(Struct, frozen=True):
    """The number of retries, the pause before each, and which failures are tried again.

    Args:
        count: so many retries make `count + 1` attempts.
        backoff: the pauses. By default 0.1 s, doubled each time up to 30 s, each up to a quarter shorter at random;
            `None`: no pause.
        retry_on: an exception class, or a tuple of classes: other failures are final.
        retry_if: called with the exception; a failure for which it gives `False` is final.

    A failure that says when to come back (`Retry-After`) waits at least so long: the `retry_after` of the exception, or
    the header of its `response` or in its `headers`.
    """

    count: int = 0
    backoff: Backoff | None = SMALL_BACKOFF
    retry_on: type[BaseException] | tuple[type[BaseException], ...] | None = None
    retry_if: Callable[[Any], object] | None = None

    def __post_init__(self) -> None:
        count, retry_on, backoff = self.count, self.retry_on, self.backoff
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise UsageError(f"RetryStrategy: count must be a number of retries from 0 up, not {count!r}")
        if backoff is not None and not isinstance(backoff, Backoff):
            raise UsageError(f"RetryStrategy: backoff must be a Backoff or None, not {backoff!r}")
        if retry_on is not None:
            classes = retry_on if isinstance(retry_on, tuple) else (retry_on,)
            if not classes or not all(isinstance(one, type) and issubclass(one, BaseException) for one in classes):
                raise UsageError(
                    f"RetryStrategy: retry_on must be an exception class or a tuple of them, not {retry_on!r}"
                )
        if self.retry_if is not None and not callable(self.retry_if):
            raise UsageError(f"RetryStrategy: retry_if must be a function of the exception, not {self.retry_if!r}")


NO_RETRIES: Final = RetryStrategy()


class LimitSpec(Struct, frozen=True):
    """A limit of calls as the code declares it."""

    name: str
    settings: LimitSettings


class LimitUse(Struct, frozen=True):
    """The limit of a function's calls."""

    limit: LimitSpec
    cost: Callable[..., Any] | None = None
    """Gives the cost of a call for the arguments of the function, by their names; `None`: 1."""


class Function(Struct, eq=False):
    """A function under the durability boundary, with an identity and with codecs for arguments and result."""

    kind: Kind
    fn: Callable[..., Any]
    name: str
    """For people, such as `etl.fetch` or `call_api`."""
    is_async: bool
    signature: Signature
    qualified: Callable[[], str]
    """The qualified name under the logical module; computed late, after `__main__` was resolved."""
    retries: RetryStrategy = NO_RETRIES
    limit: LimitUse | None = None
    """What limits the calls; `None`: nothing."""
    _prefix: Any = None

    def fingerprint(self, identity: bytes) -> bytes:
        """16 bytes over kind, qualified name and canonical arguments (docs/development/replay.md#identity)."""
        prefix = self._prefix
        if prefix is None:
            prefix = self._prefix = _named(self.kind, self.qualified())
        digest = prefix.copy()
        digest.update(identity)
        return digest.digest()  # type: ignore[no-any-return]


def fingerprint(kind: Kind, qualified: str, identity: bytes) -> bytes:
    """As `Function.fingerprint`, for any qualified name."""
    digest = _named(kind, qualified)
    digest.update(identity)
    return digest.digest()  # type: ignore[no-any-return]


def _named(kind: Kind, qualified: str) -> Any:
    return blake2b(b"%d\0%b\0" % (kind, qualified.encode("utf-8", "surrogatepass")), digest_size=16)


class QueueSpec(Struct, frozen=True):
    """A queue as the code declares it."""

    name: str
    settings: QueueSettings
    key: Callable[..., Any] | None = None
    """Gives the key of a run for the arguments of the task, by their names."""


class AttemptLost(Exception):
    """The machine, the engine or the node under an attempt is gone. The next attempt is not charged to the retries."""


class Target(NamedTuple):
    """The address of a task's code, as a run's row holds it; see `NewRun.target`."""

    file: str
    module: str
    """The logical name."""
    name: str
    """The task's full name at its declaration; a container task's own name."""
    former: str = ""
    """The logical names that the module had earlier in the life of the run, with commas between them."""


def parsed(target: str) -> Target:
    """A target by its parts."""
    return Target(*target.split("::"))


def moved_target(before: str, now: str) -> str:
    """The address `now` of a run that was at the address `before`, with the modules where it was."""
    there, here = parsed(before), parsed(now)
    known = dict.fromkeys([*filter(None, there.former.split(",")), there.module])
    known.pop(here.module, None)
    whole = [*here[:3], *([",".join(known)] if known else [])]
    return "::".join(whole)


def former_names(formerly: tuple[str, ...]) -> tuple[str, ...]:
    """The full names among the names that a task has had. Where a module begins a name, and where it ends, nothing
    tells, so each end of the name with an environment counts."""
    parts = [name.split(".") for name in formerly]
    return tuple(".".join(words[place:]) for words in parts for place in range(len(words) - 1))


class TaskSpec(Function, eq=False):
    """A task's function and settings."""

    timeout: float | None = None
    """Seconds of live time for one attempt."""
    cache_key: Callable[[bytes], bytes] | None = None
    """The key of the cached outcome for canonical inputs; `None`: the outcome is not cached."""
    target: Callable[[], str] = str
    """The place of the code, as in `NewRun.target`."""
    queue: QueueSpec | None = None
    """The queue of submitted runs."""
    module: str = ""
    """The name of the module that declares the task, as this process has the module."""
    env_vars: dict[str, str] = field(default_factory=dict)
    executor: str = "local"
    """Where the body executes: `local` is this process; other values name an executor for other processes."""
    resources: Any = None
    """The resources of the body, in the executor's terms."""
    dispose: Callable[[Detached], None] | None = None
    """Set for a task with attempts outside of the process, which outlive the process. The function is called with a
    `Detached` in front of the arguments. `dispose` is called, from any thread, when the outcome or the cancellation of
    an attempt is on disk: it removes the remains of the attempt."""

    strict: bool = False
    """Runs of the task stop at any difference between code and journal, also under changed source."""
    formerly: tuple[str, ...] = ()
    """The names that the task has had: full names, perhaps with the module in front."""

    @property
    def names(self) -> tuple[str, ...]:
        """The full names under which the task may be recorded, the present name first."""
        return (self.qualified(), *former_names(self.formerly))

    def is_task_of(self, target: Target) -> bool:
        """Whether a run with that address is one of this task, under its present name or a former one."""
        ours = parsed(self.target())
        if target.module == ours.module and target.name in (ours.name, *self.formerly):
            return True
        return f"{target.module}.{target.name}" in self.formerly

    @property
    def process(self) -> bool:
        """Whether the body executes in another process."""
        return self.executor != "local"
