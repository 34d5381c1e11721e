"""Types as data, so that a sender in another process can check a message without the code of the receiver.

A shape is a JSON value: the name of a plain type, or `[kind, ...]`. `shape_of` gives the shape of a declared type,
`type_of` a type with the same encoding, in which records are typed dictionaries and enums are the names of members.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, Flag
from typing import Any, Final, Literal, NotRequired, TypedDict, Union
from uuid import UUID

import msgspec

_PLAIN: Final[tuple[type, ...]] = (
    bool, int, float, str, bytes, datetime, date, time, timedelta, Decimal, UUID, types.NoneType,
)  # fmt: skip
PLAIN: Final[dict[str, Any]] = {tp.__name__: tp for tp in _PLAIN}
DEPTH: Final = 8
"""Records within records that are described; what is nested deeper may be anything."""
ANY: Final = "Any"
_LISTS: Final[dict[str, Any]] = {"list": list, "set": set, "frozenset": frozenset}


def shape_of(tp: Any, depth: int = DEPTH) -> Any:
    """The shape of a type; `"Any"` where a shape cannot say more."""
    if tp is None:
        return "NoneType"
    if tp in _PLAIN:
        return str(tp.__name__)
    if depth == 0:
        return ANY
    origin, args = typing.get_origin(tp), typing.get_args(tp)
    if origin in (Union, types.UnionType):
        return ["union", *(shape_of(member, depth - 1) for member in args)]
    if origin is Literal:
        plain = all(type(option) in (str, int, bool, types.NoneType) for option in args)
        return ["literal", *args] if plain else ANY
    container = origin if origin is not None else tp
    for name, cls in _LISTS.items():
        if container is cls:
            return [name, shape_of(args[0], depth - 1) if args else ANY]
    if container is tuple and args:
        if args[-1] is Ellipsis:
            return ["tuple...", shape_of(args[0], depth - 1)]
        return ["tuple", *(shape_of(part, depth - 1) for part in args)]
    if container in (dict, Mapping) and (not args or args[0] is str):
        return ["dict", shape_of(args[1], depth - 1) if args else ANY]
    if isinstance(tp, type) and issubclass(tp, Enum) and not issubclass(tp, Flag):
        return ["literal", *(member.name for member in tp)]
    return _record(tp, depth)


def _record(tp: Any, depth: int) -> Any:
    """The shape of a class with named fields: `["record", label, {name: [shape, required]}]`."""
    required = _fields(tp)
    if required is None:
        return ANY
    try:
        hints = typing.get_type_hints(tp)
    except Exception:  # a name that cannot be resolved; the receiver's own codec has the better message
        return ANY
    fields = {name: [shape_of(hints.get(name, Any), depth - 1), needed] for name, needed in required.items()}
    return ["record", str(getattr(tp, "__name__", "record")), fields]


def _fields(tp: Any) -> dict[str, bool] | None:
    """The fields of a class, and whether each is required; `None`: the class has no named fields."""
    if not isinstance(tp, type):
        return None
    if dataclasses.is_dataclass(tp):
        missing = dataclasses.MISSING
        return {one.name: one.default is missing and one.default_factory is missing for one in dataclasses.fields(tp)}
    if issubclass(tp, msgspec.Struct):
        return {one.name: one.required for one in msgspec.structs.fields(tp)}
    if typing.is_typeddict(tp):
        return {name: name in tp.__required_keys__ for name in tp.__annotations__}  # type: ignore[attr-defined]
    if issubclass(tp, tuple) and hasattr(tp, "_fields"):
        defaults: Any = getattr(tp, "_field_defaults", {})
        return {name: name not in defaults for name in tp._fields}
    fields = getattr(tp, "model_fields", None)
    if isinstance(fields, dict):
        return {name: bool(field.is_required()) for name, field in fields.items()}
    return None


def text_of(shape: Any) -> str:
    """A shape for people, such as `{"ok": bool, "why": str (optional)}`."""
    if not isinstance(shape, list) or not shape:
        return "None" if shape == "NoneType" else str(shape)
    kind, rest = shape[0], shape[1:]
    if not isinstance(kind, str):
        return "Any"
    if kind == "literal":
        return " | ".join(map(str, rest))
    if kind == "record" and len(rest) == 2 and isinstance(rest[1], dict):
        fields = [
            f'"{name}": {text_of(field[0])}{"" if field[1] else " (optional)"}'
            for name, field in rest[1].items()
            if isinstance(field, list) and len(field) == 2
        ]
        return "{" + ", ".join(fields) + "}"
    parts = [text_of(part) for part in rest]
    if kind == "union":
        return " | ".join(parts)
    return f"{kind.removesuffix('...')}[{', '.join(parts)}{', ...' if kind == 'tuple...' else ''}]"


def type_of(shape: Any) -> Any:
    """A type with the encoding that the shape describes. Data that is no shape counts as `"Any"`."""
    if isinstance(shape, str):
        return PLAIN.get(shape, Any)
    if not isinstance(shape, list) or not shape:
        return Any
    kind, rest = shape[0], shape[1:]
    if not isinstance(kind, str):
        return Any
    if kind == "literal" and rest:
        return Literal[tuple(rest)]
    if kind == "record" and len(rest) == 2 and isinstance(rest[1], dict):
        return _typed_dict(str(rest[0]), rest[1])
    parts = [type_of(part) for part in rest]
    if kind == "union" and parts:
        return Union[tuple(parts)]  # noqa: UP007 - built at run time
    if kind == "tuple" and parts:
        return tuple[tuple(parts)]  # type: ignore[misc]
    if kind == "tuple..." and parts:
        return tuple[parts[0], ...]  # type: ignore[valid-type]
    if kind == "dict" and parts:
        return dict[str, parts[0]]  # type: ignore[valid-type]
    if kind in _LISTS and parts:
        return _LISTS[kind][parts[0]]
    return Any


def _typed_dict(label: str, fields: dict[str, Any]) -> Any:
    members: dict[str, Any] = {}
    for name, field in fields.items():
        if isinstance(field, list) and len(field) == 2:
            tp = type_of(field[0])
            members[name] = tp if field[1] else NotRequired[tp]
    return TypedDict(label, members)  # type: ignore[operator]
