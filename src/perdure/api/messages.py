"""Messages to runs: sending, and what runs wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any, NamedTuple

from .. import runtime
from ..core.body.branch import Branch, Call
from ..core.body.scope import TraceScope
from ..core.ground.digest import blake2b
from ..core.ground.model import Addressee, Kind, Message, NewMessage, RunRow, SendAnswer, Status
from ..core.ground.spec import Function
from ..core.ground.values import ANY, Signature, codec_for, preview
from ..core.run import calls
from ..core.run.mailbox import CONDITION, ONLY, box_of
from ..errors import (
    AlreadySignalledError,
    RunEndedError,
    RunMovedError,
    RunNotFoundError,
    UnsupportedTypeError,
    UsageError,
    ValueMismatchError,
)
from ._calling import caller, on_loop, run_async, run_sync, warn_blocking
from ._seconds import seconds_of
from .shapes import ANY as ANY_SHAPE
from .shapes import shape_of, text_of, type_of
from .status import refuse_moved

SHOWN = 200
"""Characters of a value in a message for people."""
LONGEST_NAME = 200


def check_message_name(name: Any, what: str) -> str:
    """The name of a condition or mailbox.

    Raises:
        UsageError: no text, or empty, or longer than 200 characters.
    """
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME:
        raise UsageError(f"{what} needs a name of 1 to {LONGEST_NAME} characters, not {name!r}")
    return name


def timeout_seconds(timeout: timedelta | float | None, what: str) -> float | None:
    """A time limit in seconds; `None` for no limit."""
    if timeout is None:
        return None
    return seconds_of(timeout.total_seconds() if isinstance(timeout, timedelta) else timeout, what)


def shown_box(box: str) -> str:
    """A box for people: `condition 'approve'`."""
    kind, _, name = box.partition(":")
    return f"{kind} {name!r}"


# -- what a call says of the message that it waits for ---------------------------------------------------------


class Asked(NamedTuple):
    """What a call that waits says to people and senders."""

    prompt: str
    prompt_type: str
    description: str
    type: str
    """The declared type for people."""
    shape: Any
    """The declared type as `shapes` describes types."""


def described(prompt: str, prompt_type: str, description: str, data_type: Any, label: str) -> bytes:
    """The stored form of `Asked`."""
    return ANY.encode(Asked(prompt, prompt_type, description, label, shape_of(data_type))._asdict())


def asked_by(inputs: bytes | None) -> Asked:
    """What the call of an open wait with these inputs says. Data of another version counts as nothing said."""
    try:
        found = ANY.decode(inputs) if inputs is not None else {}
    except UsageError:
        found = {}
    known = found if isinstance(found, dict) else {}
    texts = [str(known.get(field, "")) for field in Asked._fields[:4]]
    return Asked(texts[0], texts[1], texts[2], texts[3], known.get("shape", ANY_SHAPE))


def wait_for_box(run: str, box: str) -> Asked | None:
    """What the first open wait of the run for the box says; `None`: no call waits."""
    return _asked_of(runtime.worker().store.addressee(run, box))


def _asked_of(addressee: Addressee | None) -> Asked | None:
    return asked_by(addressee.asked) if addressee is not None and addressee.waits else None


class WaitedFor(NamedTuple):
    """The type that a call waits for."""

    type: Any
    """A type with the same encoding (`shapes.type_of`)."""
    text: str
    """The type for people."""


def type_waited_for(asked: Asked | None) -> WaitedFor | None:
    """The type of the message that a run waits for; `None`: no call waits, or the type cannot be said."""
    if asked is None or asked.shape == ANY_SHAPE:
        return None
    text = text_of(asked.shape)
    return WaitedFor(type_of(asked.shape), f"`{asked.type}`" + (f", {text}" if text != asked.type else ""))


# -- sending ---------------------------------------------------------------------------------------------------


class Outgoing(NamedTuple):
    """A message to a run, encoded."""

    run: str
    """The name of the run."""
    box: str
    data: bytes
    key: str | None


def outgoing(run: RunRow, kind: Kind, name: str, value: Any, data_type: Any, key: str | None) -> Outgoing:
    """Check and encode a message.

    Raises:
        ValueTooLargeError: the value is over the limit.
        ValueMismatchError: the value does not fit `data_type`.
        UnsupportedTypeError: a value of that type cannot be stored.
    """
    what = "a condition" if kind is Kind.CONDITION else "a mailbox"
    box = box_of(kind, check_message_name(name, what))
    if key is not None and (not isinstance(key, str) or not key):
        raise UsageError(f"the key of a message is a text, not {key!r}")
    data = encoded(value, data_type, f"the message for {shown_box(box)}")
    return Outgoing(run.name, box, data, ONLY if kind is Kind.CONDITION else key)


def encoded(value: Any, data_type: Any, where: str) -> bytes:
    """The bytes of a value; `data_type`: the declared type, `None` for the type of the value itself."""
    if data_type is not None:
        return codec_for(data_type, where).encode(value)
    try:
        return codec_for(Any, where).encode(value)
    except UnsupportedTypeError:
        # An instance of a class of the user's; in a container, such a value needs a declared type.
        return codec_for(type(value), where).encode(value)


def _fitted(message: Outgoing, addressee: Addressee) -> bytes:
    """The encoded value as the call that waits for the message declares it, where a call waits.

    Raises:
        ValueMismatchError: the value does not fit the declared type.
    """
    asked = type_waited_for(_asked_of(addressee))
    if asked is None:
        return message.data
    codec = codec_for(asked.type, f"the message for {shown_box(message.box)}")
    try:
        return codec.encode(codec.decode(calls.as_declared(codec, message.data)))
    except ValueMismatchError as misfit:
        raise ValueMismatchError(
            f"{shown_box(message.box)} of run {message.run!r} takes {asked.text}, and not "
            f"{preview(message.data, SHOWN)}; nothing was sent ({misfit})"
        ) from None


def deliver(run: str, box: str, data: bytes, key: str | None) -> None:
    """Put a message into the store of the run (P12).

    Raises:
        RunNotFoundError, RunEndedError, RunMovedError: the run takes no messages.
        AlreadySignalledError: the condition, or the key, has another value.
        ValueMismatchError: the value does not fit the type that the run waits for.
    """
    store = runtime.worker().store
    addressee = store.addressee(run, box)
    if addressee is None:
        raise RunNotFoundError(f"no run is called {run!r} in {runtime.store_name()}; see them with: perdure ls")
    data = _fitted(Outgoing(run, box, data, key), addressee)
    sent = store.send(addressee.run, NewMessage(box, key, data, runtime.worker().clock.wall()))
    if sent.message is None:
        raise _refused(run, sent)
    if not sent.fresh and sent.message.value != data:
        raise _differs(run, sent.message, data)


def _refused(run: str, sent: SendAnswer) -> UsageError:
    row = sent.run
    if row is None:
        return RunNotFoundError(f"run {run!r} is gone from {runtime.store_name()}; nothing was sent")
    try:
        refuse_moved(row)
    except RunMovedError as error:
        return error
    remedy = f"to continue the run first: perdure resume {run}" if row.status is Status.FAILED else "start a new run"
    return RunEndedError(f"run {run!r} has ended ({row.status}) and takes no more messages; {remedy}")


def _differs(run: str, earlier: Message, data: bytes) -> AlreadySignalledError:
    if earlier.box.startswith(CONDITION):
        what, remedy = shown_box(earlier.box), "the first value counts"
    else:
        what, remedy = f"{shown_box(earlier.box)}, key {earlier.key!r}", "another message needs another key"
    return AlreadySignalledError(
        f"run {run!r} has another value for {what}: {preview(earlier.value, SHOWN)}, and not "
        f"{preview(data, SHOWN)}; {remedy}"
    )


# In the body of another run a send is a durable call: recorded once, and sent once by the key of the call.
_SEND = Function(
    kind=Kind.TRACE,
    fn=deliver,
    name="Run.send",
    is_async=False,
    signature=Signature(deliver, (), globals()),
    qualified=lambda: "perdure.Run.send",
)


def _durable(where: Branch, message: Outgoing) -> Any:
    function = _SEND
    identity = function.signature.identity((message.run, message.box, message.data, message.key), {})
    call = where.call(function.kind, function.name, function.fingerprint(identity), None, function, identity)
    key = message.key if message.key is not None else _key_of(call)
    return calls.trace(call, function, (message.run, message.box, message.data, key), {})


def _key_of(call: Call) -> str:
    """A key that is the same in every execution of the call, so that a crash between the send and the record of the
    call does not send twice."""
    body = call.body
    text = b"%b\0%d\0%d\0%b\0%d" % (body.driver.run.uid, body.action, call.branch.id, call.fp, call.occ)
    return f"call:{blake2b(text, digest_size=16).hexdigest()}"


def send(message: Outgoing) -> None:
    """Send, from any place: recorded inside the body of a run, plain elsewhere."""
    where = caller(_what)
    if where is None or isinstance(where, TraceScope):
        deliver(*message)
        return
    if on_loop():
        warn_blocking("Run.send")
    run_sync(_durable(where, message))


def send_aio(message: Outgoing) -> Coroutine[Any, Any, None]:
    """As `send`, as a coroutine."""
    where = caller(_what)
    if where is None or isinstance(where, TraceScope):
        return asyncio.to_thread(deliver, *message)
    return run_async(_durable(where, message))


def _what() -> str:
    return "Run.send"


# -- looking ---------------------------------------------------------------------------------------------------


class ConditionInfo(NamedTuple):
    """A call that waits, or messages that no call has asked for."""

    run: str
    kind: str
    """`condition` or `mailbox`."""
    name: str
    prompt: str
    description: str
    type: str
    since: int
    """When the call began to wait, or the oldest message was sent (wall, microseconds)."""
    until: int | None
    """When the call gives up (wall, microseconds)."""
    unread: int
    """Messages that no call has taken."""
    waits: bool
    """Whether a call waits."""


def conditions() -> list[ConditionInfo]:
    """The open waits of unfinished runs, and the messages that no call has asked for."""
    store = runtime.worker().store
    unread = {(one.run, one.box): one for one in store.unread()}
    found: list[ConditionInfo] = []
    for run, action in store.open_waits():
        kind, _, name = action.name.partition(":")
        asked = asked_by(action.inputs)
        waiting = unread.pop((run, action.name), None)
        total = 0 if waiting is None else waiting.total
        found.append(
            ConditionInfo(
                run, kind, name, asked.prompt, asked.description, asked.type, action.at, action.wake_at, total, True
            )
        )
    for left in unread.values():
        kind, _, name = left.box.partition(":")
        found.append(ConditionInfo(left.run, kind, name, "", "", "", left.since, None, left.total, False))
    return found
