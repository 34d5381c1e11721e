"""The limits of calls that a store knows: listing, and settings of an operator in place of those in the code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from .. import runtime
from ..core.ground.clock import US
from ..core.ground.model import LimitRow
from ..errors import UsageError
from ._dual import Dual, dual, dual_method
from .ending import refuse_in_body
from .limiting import limit_settings
from .looking import store_exists


@dataclass(frozen=True, slots=True)
class LimitState:
    """A limit of the store, as it was when it was listed."""

    name: str
    held: int
    """How many calls hold a slot."""
    waiting: int
    """How many calls wait for a slot, calls of parked runs included."""
    declared: dict[str, Any]
    """The settings of the code."""
    override: dict[str, Any]
    """The settings that an operator has put in their place."""

    @property
    def settings(self) -> dict[str, Any]:
        """The settings in force."""
        return self.declared | self.override

    @dual_method
    def set(self, /, **settings: Any) -> None:
        """Put settings in the place of those in the code, at once and for all processes, until `reset`;
        `.set.aio(...)` as a coroutine. Settings that are not given stay as they are.

        Args:
            settings: `concurrency`, `rate`, `cost`, as for `Limit`. `None` removes a limit.

        Raises:
            UsageError: a setting means nothing.
            NestedRunError: the calling code is the body of a task.
            StoreError: the store cannot be used.
        """
        refuse_in_body("LimitState.set")
        unknown = settings.keys() - set(_FIELDS)
        if unknown or not settings:
            named = ", ".join(sorted(unknown)) or "nothing"
            raise UsageError(f"limit {self.name}: {named} cannot be set; settings are {', '.join(_FIELDS)}")
        checked = limit_settings(f"limit {self.name}", **(dict.fromkeys(_FIELDS) | settings))
        store = runtime.worker().store
        row = store.limit(self.name)
        override = {} if row is None or row.override is None else msgspec.json.decode(row.override)
        for name in settings:
            override |= {field: getattr(checked, field) for field in _FIELDS[name]}
        store.override_limit(self.name, msgspec.json.encode(override).decode())

    @dual_method
    def reset(self) -> bool:
        """Let the settings in the code count again; `.reset.aio()` as a coroutine. `False`: there are no others.

        Raises:
            NestedRunError: the calling code is the body of a task.
            StoreError: the store cannot be used.
        """
        refuse_in_body("LimitState.reset")
        store = runtime.worker().store
        row = store.limit(self.name)
        return row is not None and row.override is not None and store.override_limit(self.name, None)


_FIELDS: Final = {"concurrency": ("concurrency",), "rate": ("starts", "per"), "cost": ("cost", "cost_per")}
"""The fields of `LimitSettings` for each setting."""


def _limits(*, name: str | None = None) -> list[LimitState]:
    """The limits of calls that the store knows, sorted by name; `.aio` as a coroutine. A limit is known from the first
    call on.

    Args:
        name: the limit of this name alone.

    Raises:
        UsageError: the store knows no limit of the name.
        StoreError: the store cannot be used.
    """
    if name is not None:
        return [limit_named(name)]
    if not store_exists():
        return []
    return list(map(_state, runtime.worker().store.limits()))


_limits.__name__ = _limits.__qualname__ = "limits"
limits: Dual[..., list[LimitState]] = dual(_limits)


def limit_named(name: str) -> LimitState:
    """The limit of a name.

    Raises:
        UsageError: the store knows no such limit.
    """
    row = runtime.worker().store.limit(name) if store_exists() else None
    if row is None:
        known = ", ".join(state.name for state in _limits()) or "none"
        raise UsageError(
            f"{runtime.store_name()} knows no limit {name!r}; the first call makes it known. Known are: {known}"
        )
    return _state(row)


def _state(row: LimitRow) -> LimitState:
    load = runtime.worker().store.limit_load(row.name)
    override = {} if row.override is None else _shown(row.override)
    return LimitState(row.name, load.held, load.waiting, _shown(row.declared), override)


def _shown(stored: str) -> dict[str, Any]:
    """Stored settings under their public names."""
    values = msgspec.json.decode(stored)
    shown = {"concurrency": values["concurrency"]} if "concurrency" in values else {}
    for name, (count, per) in (("rate", ("starts", "per")), ("cost", ("cost", "cost_per"))):
        if values.get(count) is not None:
            shown[name] = {"count": values[count], "per": values[per] / US}
        elif per in values:
            shown[name] = None
    return shown
