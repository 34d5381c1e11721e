"""Text and JSON from outside into values of declared types: plain text for simple types, JSON for the others.

`from_text` reads the value of an option, `from_json` a part of JSON data. Both raise `Unfit`, which names the place,
the expected and the found value. Every class comes from the annotation, never from the text.
"""

from __future__ import annotations

import base64
import binascii
import collections.abc as abc
import dataclasses
import json
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from enum import Enum
from inspect import Parameter
from pathlib import PurePath
from typing import Any, Final, NamedTuple
from uuid import UUID

from ..core.ground.values import frames_of
from ..core.ground.values._names import type_text
from ..errors import UsageError
from ..runtime import blobs

NOTE_SHOWN: Final = 500
"""Characters of each end of a long note, which may quote the value."""


class Unfit(Exception):
    """A value that does not fit the declared type."""

    def __init__(self, expected: str, found: object, path: str = "", note: str = "") -> None:
        super().__init__(expected)
        self.expected = expected
        self.found = found
        self.path = path
        self.note = note

    def __str__(self) -> str:
        where = f"at {self.path}: " if self.path else ""
        note = self.note
        if len(note) > 2 * NOTE_SHOWN:
            note = f"{note[:NOTE_SHOWN]} … {note[-NOTE_SHOWN:]}"  # what is wrong may stand at either end
        note = f" ({note})" if note else ""
        return f"{where}expected {self.expected}, not {shown(self.found)}{note}"


def shown(value: object, limit: int = 80) -> str:
    """A value as it was typed, cut to a readable length."""
    text = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= limit else text[: limit - 1] + "…"


class _Float(float):
    """A number from JSON with its digits, for `Decimal`."""

    text: str

    @classmethod
    def of(cls, text: str) -> _Float:
        number = cls(text)
        number.text = text
        return number


LISTS: Final[dict[object, Callable[[Iterable[Any]], Any]]] = {
    list: list, set: set, frozenset: frozenset, abc.Sequence: list, abc.MutableSequence: list, abc.Collection: list,
    abc.Iterable: list, abc.Set: set, abc.MutableSet: set,
}  # fmt: skip
_DICTS: Final = frozenset({dict, abc.Mapping, abc.MutableMapping})
_TRANSPARENT: Final = frozenset({
    typing.Annotated, typing.Required, typing.NotRequired, typing.Final, getattr(typing, "ReadOnly", typing.Final),
})  # fmt: skip


def stripped(tp: Any) -> Any:
    """The type behind `Annotated`, `NewType`, `type` aliases and type variables."""
    while True:
        if tp is Parameter.empty or tp is object:
            return Any
        if tp is None:
            return types.NoneType
        if hasattr(tp, "__supertype__"):
            tp = tp.__supertype__
        elif typing.get_origin(tp) in _TRANSPARENT:
            tp = typing.get_args(tp)[0]
        elif type(tp).__name__ == "TypeAliasType":
            tp = tp.__value__
        elif isinstance(tp, typing.TypeVar):
            if tp.__constraints__:
                return typing.Union[tp.__constraints__]  # noqa: UP007 - built at run time
            tp = tp.__bound__ if tp.__bound__ is not None else Any
        else:
            return tp


def members(tp: Any) -> tuple[Any, ...]:
    """The members of a union, none for anything else."""
    tp = stripped(tp)
    if typing.get_origin(tp) in (typing.Union, types.UnionType):
        return tuple(stripped(member) for member in typing.get_args(tp))
    return ()


def item_of(tp: Any) -> Any | None:
    """The item type of a list-like type (or an optional list); `None` for other types."""
    tp = stripped(tp)
    several = [member for member in members(tp) if member is not types.NoneType]
    if len(several) == 1:
        tp = several[0]
    origin, args = typing.get_origin(tp) or tp, typing.get_args(tp)
    if origin in LISTS:
        return args[0] if args else Any
    if origin is tuple and (not args or (len(args) == 2 and args[1] is Ellipsis)):
        return args[0] if args else Any
    return None


# -- simple types, as text -------------------------------------------------------------------------------------

_TRUE: Final = frozenset({"true", "yes", "on", "1"})
_FALSE: Final = frozenset({"false", "no", "off", "0"})
_SPAN: Final = re.compile(
    r"(?P<sign>[+-])?(?:(?P<days>\d+(?:\.\d+)?)d)?\s*(?:(?P<hours>\d+(?:\.\d+)?)h)?\s*"
    r"(?:(?P<minutes>\d+(?:\.\d+)?)m)?\s*(?:(?P<seconds>\d+(?:\.\d+)?)s)?"
)
_CLOCK: Final = re.compile(
    r"(?P<sign>[+-])?(?:(?P<days>\d+) days?,? )?(?P<hours>\d+):(?P<minutes>\d\d)(?::(?P<seconds>\d\d(?:\.\d+)?))?"
)


def _bool(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError


def _none(text: str) -> None:
    if text.lower() not in ("null", "none"):
        raise ValueError


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _timedelta(text: str) -> timedelta:
    try:
        return timedelta(seconds=float(text))
    except ValueError:
        pass
    found = _SPAN.fullmatch(text) or _CLOCK.fullmatch(text)
    parts = {unit: number for unit, number in found.groupdict().items() if number} if found else {}
    sign = parts.pop("sign", "+")
    if parts:
        span = timedelta(**{unit: float(number) for unit, number in parts.items()})
        return -span if sign == "-" else span
    import msgspec

    return msgspec.convert(text, timedelta)  # ISO 8601: PT1H30M


class _Simple(NamedTuple):
    """A type whose values are typed as plain text."""

    read: Callable[[str], Any]
    expected: str


_READERS: Final[dict[Any, tuple[Callable[[str], Any], str]]] = {
    str: (str, "text"),
    int: (int, "int"),
    float: (float, "float"),
    bool: (_bool, "bool (true or false)"),
    types.NoneType: (_none, "null"),
    bytes: (_bytes, "bytes (base64)"),
    bytearray: (lambda text: bytearray(_bytes(text)), "bytearray (base64)"),
    complex: (complex, "complex, such as 1+2j"),
    datetime: (datetime.fromisoformat, "datetime, such as 2026-11-22T09:30:00+00:00"),
    date: (date.fromisoformat, "date, such as 2026-11-22"),
    time: (time.fromisoformat, "time, such as 09:30"),
    timedelta: (_timedelta, "timedelta: seconds, 1h30m, 1:30:00 or PT1H30M"),
    Decimal: (Decimal, "Decimal"),
    UUID: (UUID, "UUID"),
}
_SIMPLE: Final = {tp: _Simple(read, expected) for tp, (read, expected) in _READERS.items()}


def _is_path(tp: Any) -> bool:
    return isinstance(tp, type) and (issubclass(tp, PurePath) or (tp.__module__.startswith("pathlib")))


def _is_enum(tp: Any) -> bool:
    return isinstance(tp, type) and issubclass(tp, Enum)


def is_simple(tp: Any) -> bool:
    """Whether values of this type are typed as text rather than JSON."""
    tp = stripped(tp)
    return tp in _SIMPLE or _is_path(tp) or _is_enum(tp) or _is_reference(tp) or typing.get_origin(tp) is typing.Literal


def label(tp: Any) -> str:
    """A type as help and messages show it."""
    tp = stripped(tp)
    if tp is Any:
        return "any"
    if _is_reference(tp):
        return "PATH_OR_URL" if frames_of(tp) is None else "PARQUET_FILE"
    if _is_enum(tp):
        return " | ".join(member.name for member in tp)
    if typing.get_origin(tp) is typing.Literal:
        return " | ".join(map(str, typing.get_args(tp)))
    return type_text(tp)


def from_text(text: str, tp: Any) -> Any:
    """The value of an option, as a value of the declared type."""
    tp = stripped(tp)
    if tp is Any:
        try:
            return _plain(parsed_json(text))
        except ValueError:
            return text
    union = members(tp)
    if union:
        return _union_from_text(text, tp, union)
    if typing.get_origin(tp) is typing.Literal:
        return _literal(text, tp, as_text=True)
    if _is_enum(tp):
        return _enum(text, tp, as_text=True)
    if tp in _SIMPLE or _is_path(tp):
        return _simple(text, tp)
    if _is_reference(tp):
        return _reference(text, tp)
    try:
        data = parsed_json(text)
    except ValueError as error:
        raise Unfit(f"{label(tp)} as JSON", text, note=str(error)) from None
    return from_json(data, tp)


def parsed_json(text: str | bytes) -> Any:
    """JSON, with numbers that `from_json` can read as `Decimal` without a loss.

    Raises:
        ValueError: the text is no JSON.
    """
    try:
        return json.loads(text, parse_float=_Float.of)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _is_reference(tp: Any) -> bool:
    return isinstance(tp, type) and (tp.__module__ == "perdure.io" or _is_flyte(tp) or frames_of(tp) is not None)


def _is_flyte(tp: type) -> bool:
    return tp.__module__.startswith("perdure.flyte.io.") and tp.__name__ in ("File", "Dir", "DataFrame")


_FROM_AFAR: ContextVar[bool] = ContextVar("perdure_from_afar", default=False)


@contextmanager
def from_afar() -> Iterator[None]:
    """Values that are read in this block come from another machine: no path names a file of this machine."""
    token = _FROM_AFAR.set(True)
    try:
        yield
    finally:
        _FROM_AFAR.reset(token)


def _reference(data: object, tp: Any, path: str = "") -> Any:
    """A file or directory by its path (the content is taken into the blob store), or by its URL (the content stays).
    A data frame by the path of a Parquet file."""
    frames = frames_of(tp)
    what = {"File": "the path of a file", "Dir": "the path of a directory"}.get(
        tp.__name__, "the path of a Parquet file"
    )
    if not isinstance(data, str) or not data:
        raise Unfit(what, data, path)
    if _FROM_AFAR.get() and ("://" not in data or data.lower().startswith("file:")):
        raise Unfit("the URL of an object", data, path, "the files of this machine cannot be named from elsewhere")
    if frames is not None and "://" in data:
        raise Unfit("the path of a Parquet file", data, path, "download the file first")
    if "://" not in data:
        blobs()  # first, so that a wrong place for blobs is not blamed on this input
    try:
        if frames is not None:
            return frames.reference.from_local(data)
        if _is_flyte(tp):
            return (
                tp.from_existing_remote(data)
                if "://" in data or tp.__name__ == "DataFrame"
                else tp.from_local_sync(data)
            )
        return tp.from_existing_remote(data) if "://" in data else tp.from_local(data)
    except UsageError as error:
        raise Unfit(what, data, path, str(error)) from None


def _simple(text: str, tp: Any, path: str = "") -> Any:
    if _is_path(tp):
        return tp(text)
    simple = _SIMPLE[tp]
    try:
        return simple.read(text)
    except (ValueError, InvalidOperation, OverflowError, binascii.Error):
        raise Unfit(simple.expected, text, path) from None


def _union_from_text(text: str, tp: Any, union: tuple[Any, ...]) -> Any:
    rest = [member for member in union if member is not types.NoneType]
    if len(rest) < len(union) and (text == "null" or (str not in rest and text.lower() in ("null", "none"))):
        return None
    if len(rest) == 1:
        try:
            return from_text(text, rest[0])
        except Unfit as unfit:
            raise Unfit(f"{unfit.expected} or null", unfit.found, unfit.path, unfit.note) from None
    try:
        return from_json(parsed_json(text), tp)
    except (ValueError, Unfit):
        pass
    for member in sorted(rest, key=lambda member: member is str):
        if is_simple(member) or member is Any:
            try:
                return from_text(text, member)
            except Unfit:
                continue
    try:
        parsed_json(text)
    except ValueError as error:
        raise Unfit(label(tp), text, note=f"as JSON: {error}") from None
    raise Unfit(label(tp), text)


def _literal(data: object, tp: Any, *, as_text: bool = False, path: str = "") -> Any:
    options = typing.get_args(tp)
    for option in options:
        if type(option) is type(data) and option == data:
            return option
    for option in options:
        if isinstance(option, Enum) and data == option.name:
            return option
        if as_text and isinstance(data, str) and data == str(option):
            return option
    raise Unfit(f"one of {', '.join(map(str, options))}", data, path)


def _enum(data: object, tp: Any, *, as_text: bool = False, path: str = "") -> Any:
    if isinstance(data, str) and data in tp.__members__:
        return tp.__members__[data]
    for member in tp:
        value = member.value
        if type(value) is type(data) and value == data:
            return member
        if as_text and isinstance(data, str) and str(value) == data:
            return member
    raise Unfit(f"one of {', '.join(tp.__members__)}", data, path)


# -- structured types, as JSON ---------------------------------------------------------------------------------


def from_json(data: Any, tp: Any, path: str = "") -> Any:
    """Parsed JSON as a value of the declared type, nested values included."""
    tp = stripped(tp)
    if tp is Any:
        return _plain(data)
    union = members(tp)
    if union:
        return _union_from_json(data, tp, union, path)
    origin, args = typing.get_origin(tp), typing.get_args(tp)
    if origin is typing.Literal:
        return _literal(data, tp, path=path)
    if _is_enum(tp):
        return _enum(data, tp, path=path)
    if tp in _SIMPLE or _is_path(tp):
        return _simple_from_json(data, tp, path)
    if _is_reference(tp):
        return _reference(data, tp, path)
    kind = origin or tp
    if kind in LISTS:
        return LISTS[kind](_items(data, args[0] if args else Any, tp, path))
    if kind is tuple:
        return _tuple(data, tp, args, path)
    if kind in _DICTS:
        return _dict(data, tp, args, path)
    if origin is None and typing.is_typeddict(tp):
        return _typed_dict(data, tp, path)
    if origin is None and isinstance(tp, type) and issubclass(tp, tuple) and hasattr(tp, "_fields"):
        return _named_tuple(data, tp, path)
    if origin is None and dataclasses.is_dataclass(tp):
        return _dataclass(data, tp, path)
    if hasattr(tp, "model_validate"):
        return _pydantic(data, tp, path)
    return _by_msgspec(data, tp, path)


def _plain(data: Any) -> Any:
    if isinstance(data, _Float):
        return float(data)
    if isinstance(data, list):
        return [_plain(item) for item in data]
    if isinstance(data, dict):
        return {key: _plain(item) for key, item in data.items()}
    return data


_FROM_NUMBERS: Final[dict[Any, Callable[[Any], Any]]] = {
    float: float,
    complex: complex,
    Decimal: lambda data: Decimal(data.text if type(data) is _Float else data),
    timedelta: lambda data: timedelta(seconds=data),
}


def _simple_from_json(data: Any, tp: Any, path: str) -> Any:
    expected = _SIMPLE[tp].expected if tp in _SIMPLE else label(tp)
    kind = type(data)
    try:
        if kind in (int, _Float) and tp in _FROM_NUMBERS:
            return _FROM_NUMBERS[tp](data)
    except (OverflowError, ValueError):  # out of range, or not a number
        raise Unfit(expected, data, path) from None
    if tp in (str, int, bool, types.NoneType):
        if kind is tp:
            return data
    elif kind is str and (tp is not float or data.lower().lstrip("+-") in ("nan", "inf", "infinity")):
        return _simple(data, tp, path)
    raise Unfit(expected, data, path)


def _union_from_json(data: Any, tp: Any, union: tuple[Any, ...], path: str) -> Any:
    exact = float if type(data) is _Float else type(data)

    def rank(member: Any) -> int:
        # Text may be a date, a path, an enum: `str` itself comes last. Of numbers the exact type comes first.
        if member is str:
            return 2
        return 0 if member is exact else 1

    deepest: Unfit | None = None
    for member in sorted(union, key=rank):
        try:
            return from_json(data, member, path)
        except Unfit as unfit:
            if len(unfit.path) > len(path) and (deepest is None or len(unfit.path) > len(deepest.path)):
                deepest = unfit
    raise deepest or Unfit(label(tp), data, path)


def _items(data: Any, item: Any, tp: Any, path: str) -> list[Any]:
    if not isinstance(data, list):
        raise Unfit(f"{label(tp)} (a JSON array)", data, path)
    found = [from_json(element, item, f"{path}[{index}]") for index, element in enumerate(data)]
    return found


def _tuple(data: Any, tp: Any, args: tuple[Any, ...], path: str) -> tuple[Any, ...]:
    if not args or (len(args) == 2 and args[1] is Ellipsis):
        return tuple(_items(data, args[0] if args else Any, tp, path))
    if not isinstance(data, list) or len(data) != len(args):
        raise Unfit(f"{label(tp)} (a JSON array of {len(args)})", data, path)
    pairs = zip(data, args, strict=True)
    return tuple(from_json(element, item, f"{path}[{index}]") for index, (element, item) in enumerate(pairs))


def _object(data: Any, tp: Any, path: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise Unfit(f"{label(tp)} (a JSON object)", data, path)
    return data


def _dict(data: Any, tp: Any, args: tuple[Any, ...], path: str) -> dict[Any, Any]:
    key_type, item_type = args or (Any, Any)
    found = {}
    for key, item in _object(data, tp, path).items():
        try:
            # JSON has text keys only; without a declaration keys stay text.
            own = key if stripped(key_type) is Any else from_text(key, key_type)
        except Unfit as unfit:
            raise Unfit(f"the key to be {unfit.expected}", key, path) from None
        found[own] = from_json(item, item_type, f"{path}.{key}")
    return found


def _fields(
    data: Any, tp: Any, path: str, hints: dict[str, Any], required: Iterable[str], known: Iterable[str]
) -> dict[str, Any]:
    """The fields of a record, each by its type; none unknown, none missing."""
    given = _object(data, tp, path)
    known = list(known)
    for name in given:
        if name not in known:
            raise Unfit(f"{label(tp)} with {', '.join(known) or 'no fields'}", name, path, "unknown field")
    missing = [name for name in required if name not in given]
    if missing:
        raise Unfit(f"{label(tp)} with {', '.join(known)}", data, path, f"missing: {', '.join(missing)}")
    return {name: from_json(item, hints.get(name, Any), f"{path}.{name}") for name, item in given.items()}


def _hints(tp: Any) -> dict[str, Any]:
    return typing.get_type_hints(tp, localns={tp.__name__: tp}, include_extras=True)


def _typed_dict(data: Any, tp: Any, path: str) -> Any:
    hints = _hints(tp)
    return _fields(data, tp, path, hints, [name for name in hints if name in tp.__required_keys__], hints)


def _named_tuple(data: Any, tp: Any, path: str) -> Any:
    hints, names = _hints(tp), tp._fields
    required = [name for name in names if name not in tp._field_defaults]
    if isinstance(data, list) and len(required) <= len(data) <= len(names):
        data = dict(zip(names, data, strict=False))
    return _built(tp, _fields(data, tp, path, hints, required, names), data, path)


def _dataclass(data: Any, tp: Any, path: str) -> Any:
    fields = [field for field in dataclasses.fields(tp) if field.init]
    none = dataclasses.MISSING
    required = [field.name for field in fields if field.default is none and field.default_factory is none]
    values = _fields(data, tp, path, _hints(tp), required, [field.name for field in fields])
    return _built(tp, values, data, path)


def _built(tp: Any, values: dict[str, Any], data: Any, path: str) -> Any:
    try:
        return tp(**values)
    except (TypeError, ValueError) as error:  # refused by the class itself
        raise Unfit(label(tp), data, path, f"{type(error).__name__}: {error}") from None


def _pydantic(data: Any, tp: Any, path: str) -> Any:
    try:
        return tp.model_validate(_plain(data))
    except ValueError as error:
        details = getattr(error, "errors", None)
        found = details() if callable(details) else []
        told = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'it'}: {one['msg']}" for one in found[:5])
        raise Unfit(label(tp), data, path, told or str(error)) from None


def _by_msgspec(data: Any, tp: Any, path: str) -> Any:
    """`msgspec.Struct`, generic records, and every other type of msgspec's."""
    import msgspec

    def converted(inner: Any, item: Any) -> Any:
        if inner is tp:
            raise Unfit(label(tp), data, path, "this type cannot be given as text or JSON")
        return from_json(item, inner)

    try:
        return msgspec.convert(_plain(data), tp, dec_hook=converted)
    except msgspec.ValidationError as error:
        raise Unfit(label(tp), data, path, str(error)) from None
    except (TypeError, ValueError) as error:
        raise Unfit(label(tp), data, path, f"this type cannot be given as text or JSON: {error}") from None
