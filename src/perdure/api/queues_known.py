"""The queues that a store knows: listing, pausing, and settings of an operator in place of those in the code."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec

from .. import runtime
from ..core.ground.clock import US, machine_seconds, moment
from ..core.ground.model import QueueRow
from ..errors import UsageError
from ._dual import Dual, dual, dual_method
from .ending import refuse_in_body
from .looking import store_exists
from .queueing import queue_settings


@dataclass(frozen=True, slots=True)
class QueueState:
    """A queue of the store, as it was when it was listed."""

    name: str
    running: int
    """How many runs hold a slot."""
    waiting: int
    """How many runs wait for a slot, or for their time."""
    paused: datetime | None
    """Since when the queue is paused (UTC)."""
    declared: dict[str, Any]
    """The settings of the code."""
    override: dict[str, Any]
    """The settings that an operator has put in their place."""

    @property
    def settings(self) -> dict[str, Any]:
        """The settings in force."""
        return self.declared | self.override

    @dual_method
    def pause(self) -> bool:
        """Let workers take no more runs of the queue, until `resume`; `.pause.aio()` as a coroutine. `False`: the queue
        is paused already. Runs that are driven go on.

        Raises:
            NestedRunError: the calling code is the body of a task.
            StoreError: the store cannot be used.
        """
        refuse_in_body("QueueState.pause")
        worker = runtime.worker()
        return worker.store.pause_queue(self.name, worker.clock.wall())

    @dual_method
    def resume(self) -> bool:
        """End the pause; `.resume.aio()` as a coroutine. `False`: the queue is not paused.

        Raises:
            NestedRunError: the calling code is the body of a task.
            StoreError: the store cannot be used.
        """
        refuse_in_body("QueueState.resume")
        return runtime.worker().store.resume_queue(self.name)

    @dual_method
    def drain(self, timeout: float | None = None) -> bool:
        """Pause the queue, and wait until no run holds a slot; `.drain.aio()` as a coroutine. The queue stays paused.
        Runs that wait, parked runs included, stay where they are.

        Args:
            timeout: the longest wait in seconds; for ever by default.

        Returns:
            Whether no run holds a slot; `False`: the time is over.

        Raises:
            NestedRunError: the calling code is the body of a task.
            StoreError: the store cannot be used.
        """
        refuse_in_body("QueueState.drain")
        worker = runtime.worker()
        worker.store.pause_queue(self.name, worker.clock.wall())
        end = None if timeout is None else machine_seconds() + timeout
        while worker.store.queue_load(self.name).held:
            left = _LOOK_SECONDS if end is None else min(_LOOK_SECONDS, end - machine_seconds())
            if left <= 0:
                return False
            time.sleep(left)
        return True

    @dual_method
    def set(self, /, **settings: Any) -> None:
        """Put settings in the place of those in the code, at once and for all workers, until `reset`;
        `.set.aio(...)` as a coroutine. Settings that are not given stay as they are.

        Args:
            settings: `concurrency`, `per_worker`, `rate`, `per_key`, `order`, `aging`, as for `Queue`. `None` removes
                a limit.

        Raises:
            UsageError: a setting means nothing.
            NestedRunError: the calling code is the body of a task.
            StoreError: the store cannot be used.
        """
        refuse_in_body("QueueState.set")
        unknown = settings.keys() - set(_DEFAULTS)
        if unknown or not settings:
            named = ", ".join(sorted(unknown)) or "nothing"
            raise UsageError(f"queue {self.name}: {named} cannot be set; settings are {', '.join(_DEFAULTS)}")
        checked = queue_settings(f"queue {self.name}", **(_DEFAULTS | settings))
        row = runtime.worker().store.queue(self.name)
        override = {} if row is None or row.override is None else msgspec.json.decode(row.override)
        for name in settings:
            override |= {field: getattr(checked, field) for field in _FIELDS[name]}
        runtime.worker().store.override_queue(self.name, msgspec.json.encode(override).decode())

    @dual_method
    def reset(self) -> bool:
        """Let the settings in the code count again; `.reset.aio()` as a coroutine. `False`: there are no others.

        Raises:
            NestedRunError: the calling code is the body of a task.
            StoreError: the store cannot be used.
        """
        refuse_in_body("QueueState.reset")
        store = runtime.worker().store
        row = store.queue(self.name)
        return row is not None and row.override is not None and store.override_queue(self.name, None)


_LOOK_SECONDS: Final = 0.2
"""How often `drain` looks."""
_DEFAULTS: Final[dict[str, Any]] = {
    "concurrency": None, "per_worker": None, "rate": None, "per_key": None, "order": "fifo", "aging": 3600.0,
}  # fmt: skip
_FIELDS: Final = {
    "concurrency": ("concurrency",), "per_worker": ("per_worker",), "rate": ("starts", "per"),
    "per_key": ("per_key",), "order": ("order",), "aging": ("aging",),
}  # fmt: skip
"""The fields of `QueueSettings` for each setting."""


def _queues(*, name: str | None = None) -> list[QueueState]:
    """The queues that the store knows, sorted by name; `.aio` as a coroutine. A queue is known from the first
    submission, or from the first worker that serves one of its tasks.

    Args:
        name: the queue of this name alone.

    Raises:
        UsageError: the store knows no queue of the name.
        StoreError: the store cannot be used.
    """
    if name is not None:
        return [queue_named(name)]
    if not store_exists():
        return []
    return list(map(_state, runtime.worker().store.queues()))


_queues.__name__ = _queues.__qualname__ = "queues"
queues: Dual[..., list[QueueState]] = dual(_queues)


def queue_named(name: str) -> QueueState:
    """The queue of a name.

    Raises:
        UsageError: the store knows no such queue.
    """
    row = runtime.worker().store.queue(name) if store_exists() else None
    if row is None:
        known = ", ".join(state.name for state in _queues()) or "none"
        raise UsageError(
            f"{runtime.store_name()} knows no queue {name!r}; a submission or a worker makes it known. Known are: "
            f"{known}"
        )
    return _state(row)


def _state(row: QueueRow) -> QueueState:
    load = runtime.worker().store.queue_load(row.name)
    return QueueState(
        name=row.name,
        running=load.held,
        waiting=load.waiting,
        paused=None if row.paused is None else moment(row.paused),
        declared=_shown(row.declared),
        override={} if row.override is None else _shown(row.override),
    )


def _shown(stored: str) -> dict[str, Any]:
    """Stored settings under their public names."""
    values = msgspec.json.decode(stored)
    starts, per = values.pop("starts", None), values.pop("per", 0)
    if starts is not None:
        values["rate"] = {"count": starts, "per": per / US}
    elif "per" in msgspec.json.decode(stored):
        values["rate"] = None
    if "aging" in values:
        values["aging"] /= US
    return values  # type: ignore[no-any-return]
