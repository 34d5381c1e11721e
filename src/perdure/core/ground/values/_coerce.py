"""Values from outside as instances of declared classes: a dict becomes a dataclass, a Struct or a pydantic model.

Code outside of a run may not have the class at hand. Within a run a value of another class is refused, because the
caller and the task are the same program.
"""

from __future__ import annotations

import collections.abc as abc
import types
import typing
from datetime import UTC, datetime
from enum import Enum
from typing import Any, NamedTuple

import msgspec

from perdure.core.ground.values._compile import is_pydantic
from perdure.core.ground.values._names import type_text
from perdure.errors import ValueMismatchError

_LISTS = frozenset({list, abc.Sequence, abc.MutableSequence, abc.Collection, abc.Iterable})
_MAPPINGS = frozenset({dict, abc.Mapping, abc.MutableMapping})


class NoInstance(Exception):
    """A value that cannot become an instance of the declared class, with the reason."""


class Coercion(NamedTuple):
    """How far to go.

    Attributes:
        names: also the name of a member becomes an enum's member, and tuples and lists become each other.
        utc: a datetime without a time zone is in UTC. Fields of records and items of tuples stay as they are.
        defaults: the default of an argument that was not passed goes the same way as a passed value.
    """

    names: bool = False
    utc: bool = False
    defaults: bool = False

    def value(self, value: Any, tp: Any, where: str) -> Any:
        """The value for a declared type; the same object where there is nothing to do.

        Raises:
            ValueMismatchError: a dict does not fit the declared class.
        """
        try:
            return self._value(value, tp)
        except NoInstance as refused:
            raise ValueMismatchError(f"{where}: {refused}") from None

    def _value(self, value: Any, tp: Any) -> Any:
        origin, args = typing.get_origin(tp), typing.get_args(tp)
        if origin is typing.Annotated:
            return self._value(value, args[0])
        if origin is typing.Union or origin is types.UnionType:
            return self._member(value, args)
        if type(value) is dict:
            return self._from_dict(value, tp, origin or tp, args)
        if type(value) in (list, tuple):
            return self._from_list(value, origin or tp, args)
        if self.names and type(value) is str and isinstance(tp, type) and issubclass(tp, Enum):
            return tp.__members__.get(value, value)
        if self.utc and tp is datetime and type(value) is datetime and value.tzinfo is None:
            return value.replace(tzinfo=UTC)
        return value

    def _within(self) -> Coercion:
        """The coercion of a record's fields and a tuple's items."""
        return self._replace(utc=False)

    def _member(self, value: Any, members: tuple[Any, ...]) -> Any:
        """The value for the first member of a union that takes the value."""
        if any(member is type(value) or typing.get_origin(member) is type(value) for member in members):
            fitting = [member for member in members if (typing.get_origin(member) or member) is type(value)]
            return self._value(value, fitting[0])
        for member in members:
            try:
                made = self._value(value, member)
            except NoInstance:
                if len(members) - (types.NoneType in members) == 1:
                    raise
                continue
            if made is not value:
                return made
        return value

    def _from_dict(self, value: dict[Any, Any], tp: Any, cls: Any, args: tuple[Any, ...]) -> Any:
        if cls in _MAPPINGS:
            return (
                _unless_same(value, {key: self._value(item, args[1]) for key, item in value.items()}) if args else value
            )
        if not isinstance(cls, type):
            return value
        if typing.is_typeddict(cls):
            hints = typing.get_type_hints(cls)
            within = self._within()
            return _unless_same(value, {key: within._value(item, hints.get(key, Any)) for key, item in value.items()})
        if is_pydantic(cls) or hasattr(cls, "model_validate"):
            try:
                return tp.model_validate(value)
            except ValueError as error:
                raise NoInstance(f"the dict is no {type_text(tp)}: {error}") from None
        if hasattr(cls, "__dataclass_fields__") or issubclass(cls, msgspec.Struct):
            return self._record(value, cls)
        return value

    def _record(self, value: dict[Any, Any], cls: type) -> Any:
        hints = typing.get_type_hints(cls, include_extras=True)
        unknown = [key for key in value if key not in hints]
        if unknown:
            raise NoInstance(f"{type_text(cls)} has no field {unknown[0]!r}; it has: {', '.join(hints)}")
        try:
            within = self._within()
            return cls(**{key: within._value(item, hints[key]) for key, item in value.items()})
        except TypeError as error:
            raise NoInstance(f"the dict is no {type_text(cls)}: {error}") from None

    def _from_list(self, value: Any, cls: Any, args: tuple[Any, ...]) -> Any:
        if cls is tuple and type(value) is tuple and args and len(args) == len(value):
            within = self._within()
            made = tuple(within._value(item, tp) for item, tp in zip(value, args, strict=True))
            return value if all(new is old for new, old in zip(made, value, strict=True)) else made
        if cls is tuple and type(value) is list and self.names and not args:
            return tuple(value)
        if cls not in _LISTS or (type(value) is tuple and not self.names):
            return value
        items = [self._value(item, args[0] if args else Any) for item in value]
        changed = type(value) is tuple or any(new is not old for new, old in zip(items, value, strict=True))
        return items if changed else value


def _unless_same(value: dict[Any, Any], made: dict[Any, Any]) -> dict[Any, Any]:
    return value if all(made[key] is item for key, item in value.items()) else made
