"""What a run tells the world: the latest value of each name, published by the code of the run.

- PB1 the value that a body publishes and the entry of the call are one commit; a call that is replayed publishes
  nothing.
- PB2 a trace publishes under the token of the claim: a worker that has lost the run, or whose run has ended, publishes
  nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from .. import runtime
from ..core.body.branch import Branch
from ..core.body.scope import TraceScope
from ..core.ground.model import Kind, Publication, RunRow
from ..core.ground.spec import Function
from ..core.ground.values import ANY, Signature, codec_for
from ..core.run import calls
from ..errors import UsageError, ValueMismatchError
from ._calling import caller, on_loop, run_async, run_sync, warn_blocking
from ._dual import Dual
from .messages import check_message_name, encoded
from .status import refuse_moved


def _named(name: str) -> None:
    """The signature of the durable call. The name alone counts for the identity of the call."""


_PUBLISH = Function(
    kind=Kind.TRACE,
    fn=_named,
    name="publish",
    is_async=False,
    signature=Signature(_named, (), globals()),
    qualified=lambda: "perdure.publish",
)


def _what() -> str:
    return "perdure.publish"


def _publication(name: str, value: Any, data_type: Any) -> Publication:
    check_message_name(name, "perdure.publish")
    data = encoded(value, data_type, f"the published value {name!r}")
    return Publication(name, data, runtime.worker().clock.wall())


def _place() -> Branch | TraceScope:
    where = caller(_what)
    if where is None:
        raise UsageError(
            "perdure.publish was called outside of a run. Only the body of a task, and the traces that the body calls, "
            "publish values; to read the values of a run, see perdure.Run.get(NAME).published()"
        )
    return where


def _at_once(where: TraceScope, row: Publication) -> None:
    driver = where.body.driver
    # A worker that has lost its claim publishes nothing. The outcome of the trace will be refused as well.
    driver.worker.store.publish(driver.run_id, driver.token, [row])


def _durable(where: Branch, row: Publication) -> Any:
    identity = _PUBLISH.signature.identity((row.name,), {})
    call = where.call(_PUBLISH.kind, _PUBLISH.name, _PUBLISH.fingerprint(identity), None, _PUBLISH, identity)
    return calls.publish(call, row)


def _publish(name: str, value: Any, /, *, data_type: Any = None) -> None:
    """Publish the latest value of a name of the run, for everyone who can open the store.

    The value is read by `perdure.Run.get(RUN).published(NAME)` or by `perdure published RUN`, while the run goes on and
    after its end. In the body of a task the call is durable: the value and the outcome of the call are one commit, and
    replay publishes nothing. Inside a trace the value is there at once; of several values, the last value counts.

    Args:
        name: the name of the value, within the run.
        value: the value.
        data_type: the type under which the value is encoded; the type of the value by default.

    Raises:
        ValueMismatchError: the value does not fit `data_type`.
        ValueTooLargeError: the value is over the limit.
        UsageError: outside of a run.
    """
    where, row = _place(), _publication(name, value, data_type)
    if isinstance(where, TraceScope):
        _at_once(where, row)
        return
    if on_loop():
        warn_blocking("perdure.publish")
    run_sync(_durable(where, row))


def _publish_aio(name: str, value: Any, /, *, data_type: Any = None) -> Coroutine[Any, Any, None]:
    where, row = _place(), _publication(name, value, data_type)
    if isinstance(where, TraceScope):
        return asyncio.to_thread(_at_once, where, row)
    return run_async(_durable(where, row))


_publish.__name__ = _publish.__qualname__ = "publish"
publish: Dual[..., None] = Dual(_publish, _publish_aio)


def published(row: RunRow, name: str | None, data_type: Any) -> Any:
    """See `Run.published`."""
    refuse_moved(row)
    found = {one.name: one for one in runtime.worker().store.published(row.id)}
    if name is None:
        return {one.name: _decoded(row, one, data_type) for one in found.values()}
    return _decoded(row, found[name], data_type) if name in found else None


def _decoded(row: RunRow, one: Publication, data_type: Any) -> Any:
    if data_type is None:
        return ANY.decode(one.value)
    codec = codec_for(data_type, f"the published value {one.name!r}")
    try:
        return codec.decode(calls.as_declared(codec, one.value))
    except ValueMismatchError as misfit:
        raise ValueMismatchError(
            f"run {row.name!r} published another type of value as {one.name!r}; read the value without data_type, or "
            f"with the type under which the value was published ({misfit})"
        ) from None
