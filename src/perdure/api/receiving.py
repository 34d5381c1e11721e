"""Waiting for messages in the body of a task: conditions, which are set once, and mailboxes."""

from __future__ import annotations

from collections.abc import Coroutine
from datetime import timedelta
from typing import Any, Generic, NoReturn, TypeVar

from ..core.body.branch import Branch
from ..core.body.scope import TraceScope
from ..core.ground.digest import blake2b
from ..core.ground.model import Kind
from ..core.ground.values import codec_for
from ..core.ground.values._names import type_text
from ..core.run import calls
from ..core.run.mailbox import box_of
from ..errors import ConditionTimedoutError, InsideTraceError, MessageTimedoutError, UsageError
from ._calling import caller, on_loop, run_async, run_sync, warn_blocking
from ._dual import Dual
from .messages import check_message_name, described, timeout_seconds

T = TypeVar("T")


def _call(where: Branch, kind: Kind, name: str) -> Any:
    # The name alone counts for the identity: another prompt, type or timeout is still the same wait.
    box = box_of(kind, name)
    digest = blake2b(b"%d\0%b" % (kind, box.encode("utf-8", "surrogatepass")), digest_size=16)
    return where.call(kind, box, digest.digest())


def _refuse(where: TraceScope | None, what: str) -> NoReturn:
    if where is None:
        raise UsageError(
            f"{what} was waited for outside of a run. Only the body of a task can wait for messages; to look at a run "
            "from outside, see perdure.Run.get(NAME) and `perdure conditions`."
        )
    raise InsideTraceError(
        f"{what} was waited for inside trace {where.name}. A trace is recorded as one unit: wait in the task."
    )


class Condition(Generic[T]):
    """A named fact that a run waits for, such as the approval of a person. See `new_condition`."""

    def __init__(
        self, name: str, prompt: str, prompt_type: str, data_type: Any, description: str, seconds: float | None
    ) -> None:
        self.name = name
        self.prompt = prompt
        self.prompt_type = prompt_type
        self.data_type = data_type
        self.description = description
        self._seconds = seconds
        self._codec = codec_for(data_type, f"condition {name!r}")

    def __repr__(self) -> str:
        return f"<perdure condition {self.name!r}>"

    @property
    def wait(self) -> Dual[[], T]:
        """Wait until the condition is signalled, and return the value: `condition.wait()`, or `.wait.aio()` as a
        coroutine. The first signal counts, for every wait of the run for a condition of the name.

        Raises:
            ConditionTimedoutError: the time limit is over. The limit begins with the first call, over any number of
                crashes.
            ValueMismatchError: the value does not fit the declared type.
            UsageError: outside of the body of a task.
        """
        return Dual(self._wait, self._wait_aio)

    def _wait(self) -> T:
        protocol = self._protocol()
        if on_loop():
            warn_blocking("Condition.wait")
        return run_sync(protocol)  # type: ignore[no-any-return]

    def _wait_aio(self) -> Coroutine[Any, Any, T]:
        return run_async(self._protocol())

    def _what(self) -> str:
        return f"condition {self.name!r}"

    def _late(self) -> ConditionTimedoutError:
        return ConditionTimedoutError(f"condition {self.name!r} was not signalled within {self._seconds:g} s")

    def _protocol(self) -> Any:
        where = caller(self._what)
        if where is None or isinstance(where, TraceScope):
            _refuse(where, self._what())
        label = type_text(self.data_type)
        shown = described(self.prompt, self.prompt_type, self.description, self.data_type, label)
        wanted = calls.MessageSpec(self._codec, self._seconds, shown, self._late)
        return calls.receive(_call(where, Kind.CONDITION, self.name), wanted)


def _new_condition(
    name: str,
    /,
    prompt: str = "Approve?",
    prompt_type: str = "text",
    data_type: Any = bool,
    description: str = "",
    timeout: timedelta | float | None = None,
) -> Condition[Any]:
    """A condition of the run: a named fact that comes from outside, such as the approval of a person.

    Nothing happens before `wait`. The condition is set by `perdure.Run.get(RUN).signal(NAME, VALUE)` or by `perdure
    signal RUN NAME VALUE`, also before the run waits. The first value counts. In a loop, give each condition a name of
    its own, or receive from a mailbox (`perdure.receive`).

    Args:
        name: the name of the condition, within the run.
        prompt: the question, for `perdure conditions`.
        prompt_type: `"text"` or `"markdown"`.
        data_type: the type of the value; any type that a value of a task may have.
        description: more about the question.
        timeout: the time limit of `wait`, in seconds or as a timedelta.

    Raises:
        UsageError: the name is empty.
        UnsupportedTypeError: values of the type cannot be stored.
        ValueError: the timeout is NaN or endless.
    """
    check_message_name(name, "new_condition")
    if prompt_type not in ("text", "markdown"):
        raise UsageError(f"prompt_type is 'text' or 'markdown', not {prompt_type!r}")
    seconds = timeout_seconds(timeout, "new_condition")
    return Condition(name, prompt, prompt_type, data_type, description, seconds)


async def _new_condition_aio(name: str, /, *args: Any, **settings: Any) -> Condition[Any]:
    return _new_condition(name, *args, **settings)


def _receive_protocol(name: str, data_type: Any, timeout: timedelta | float | None) -> Any:
    check_message_name(name, "receive")
    seconds = timeout_seconds(timeout, "receive")
    codec = codec_for(data_type, f"mailbox {name!r}")

    def what() -> str:
        return f"mailbox {name!r}"

    def late() -> MessageTimedoutError:
        return MessageTimedoutError(f"no message came to mailbox {name!r} within {seconds:g} s")

    where = caller(what)
    if where is None or isinstance(where, TraceScope):
        _refuse(where, what())
    shown = described("", "text", "", data_type, type_text(data_type))
    return calls.receive(_call(where, Kind.RECEIVE, name), calls.MessageSpec(codec, seconds, shown, late))


def _receive(name: str, data_type: Any = Any, /, *, timeout: timedelta | float | None = None) -> Any:
    """The next message of a mailbox of the run: messages come one by one, in the order in which they were sent.

    Messages are sent by `perdure.Run.get(RUN).send(NAME, VALUE)` or by `perdure send RUN NAME VALUE`, also before the
    run asks. Each message is delivered once, and replay delivers the same message.

    Args:
        name: the name of the mailbox, within the run.
        data_type: the type of the messages.
        timeout: the longest wait, in seconds or as a timedelta, from the first call on, over any number of crashes.

    Raises:
        MessageTimedoutError: no message has come in time.
        ValueMismatchError: the message does not fit the declared type; the message is taken.
        UsageError: outside of the body of a task.
    """
    protocol = _receive_protocol(name, data_type, timeout)
    if on_loop():
        warn_blocking("perdure.receive")
    return run_sync(protocol)


def _receive_aio(
    name: str, data_type: Any = Any, /, *, timeout: timedelta | float | None = None
) -> Coroutine[Any, Any, Any]:
    return run_async(_receive_protocol(name, data_type, timeout))


_new_condition.__name__ = _new_condition.__qualname__ = "new_condition"
new_condition: Dual[..., Condition[Any]] = Dual(_new_condition, _new_condition_aio)
_receive.__name__ = _receive.__qualname__ = "receive"
receive: Dual[..., Any] = Dual(_receive, _receive_aio)
