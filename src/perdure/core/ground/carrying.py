"""What goes with a run from the code that submits it: values of context variables, and what integrations add.

- CV1 what goes with a run is read when the run is submitted, and is part of the row of the run: there is no moment at
  which the run exists without it.
- CV2 every life of a run, in every process, begins with these values. Where another caller continues a run, the
  recorded values win, so that replay sees what the first life has seen.
- CV3 nothing is stored for what is not declared or not set.

The bytes are a MessagePack map from names to encoded values.
"""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import Any, Protocol

from msgspec import msgpack

from ...errors import UsageError
from .values import ANY, INLINE_LIMIT, codec_for

log = logging.getLogger("perdure")


class Carrier(Protocol):
    """One thing that goes with runs."""

    name: str

    def read(self) -> bytes | None:
        """The encoded value in the calling code's context; `None`: there is none."""

    def write(self, data: bytes) -> None:
        """Set the value in the current context."""


INTEGRATION = ":"
"""Stands in the names of what integrations add: a process without the integration says nothing of that."""
LOADS = 16
"""How many loads of one file are remembered."""


class CarriedVariable:
    """A context variable that goes with runs. A process may load its file more than once (as `__main__`, and for a
    worker), and has a variable for each load then."""

    def __init__(self, variable: ContextVar[Any], data_type: Any, file: str) -> None:
        """`file`: the file that declares the variable."""
        self.name = variable.name
        self.file = file
        self._variables = [variable]
        self._codec = ANY if data_type is None else codec_for(data_type, f"context variable {self.name}")

    def loaded_again(self, later: CarriedVariable) -> None:
        """The file was loaded again."""
        others = [variable for variable in self._variables if variable not in later._variables]
        self._variables = [*later._variables, *others][:LOADS]
        self._codec = later._codec

    def read(self) -> bytes | None:
        """See `Carrier`."""
        for variable in self._variables:
            value = variable.get(_UNSET)
            if value is not _UNSET:
                return self._codec.encode(value)
        return None

    def write(self, data: bytes) -> None:
        """See `Carrier`."""
        # A value for each, as code may change the one that it has.
        for variable in self._variables:
            variable.set(self._codec.decode(data))


_UNSET: Any = object()
_carriers: dict[str, Carrier] = {}
_unknown: set[str] = set()
"""Names of which a warning has told."""


def declare(carrier: Carrier) -> Carrier:
    """From here on this goes with the runs that this process submits, and arrives with those that it drives. Gives what
    was declared under the name before; the first declaration stays."""
    return _carriers.setdefault(carrier.name, carrier)


def withdraw(name: str) -> None:
    """Undo a declaration."""
    _carriers.pop(name, None)


def read() -> bytes | None:
    """What goes with a run that is submitted here and now; `None`: nothing.

    Raises:
        UsageError: a value cannot be stored, or all together are over the inline limit.
    """
    if not _carriers:
        return None
    found: dict[str, bytes] = {}
    for carrier in list(_carriers.values()):
        try:
            data = carrier.read()
        except UsageError as error:
            raise UsageError(
                f"the context variable {carrier.name!r} goes with each run (perdure.carry), and its value cannot be "
                f"stored: {error}. Set a value that can, or declare its type"
            ) from error
        if data is not None:
            found[carrier.name] = data
    if not found:
        return None
    packed = msgpack.encode(found)
    if len(packed) > INLINE_LIMIT:
        names = ", ".join(sorted(found))
        raise UsageError(
            f"the context variables {names} go with each run (perdure.carry) and hold {len(packed):,} bytes; the limit "
            f"is {INLINE_LIMIT:,}. Carry a name or a path instead of the data"
        )
    return packed


def write(carried: bytes | None, run: str) -> None:
    """Set in the current context what goes with the run of that name.

    Raises:
        UsageError: a value does not fit the type that is declared here.
    """
    if carried is None:
        return
    for name, data in msgpack.decode(carried, type=dict[str, bytes]).items():
        carrier = _carriers.get(name)
        if carrier is not None:
            try:
                carrier.write(data)
            except UsageError as error:
                raise UsageError(f"run {run!r}: the context variable {name!r} does not arrive: {error}") from error
        elif INTEGRATION not in name and name not in _unknown:
            _unknown.add(name)
            log.warning(
                "run %s comes with the context variable %r, which no code of this process carries: it is not set. "
                "Call perdure.carry in the file of the task",
                run, name,
            )  # fmt: skip
