"""Values that stand in one file: their text, or their bytes, and their JSON.

| type | text of the file | in JSON |
| --- | --- | --- |
| str, int, bool | plain | the same |
| float | shortest digits, no exponent | number; "NaN", "Infinity", "-Infinity", as in protobuf |
| datetime | RFC 3339 in UTC; no zone means UTC | the same |
| timedelta | Go's form | nanoseconds |
| date, Decimal, UUID | ISO 8601, plain digits, with dashes | the same, as a string |
| None | `null` | null |
| Enum | the name of the member | the same |
| Literal | the value | the Literal's own value |
| bytes | raw | base64 |
| dataclass, pydantic, TypedDict, Struct | JSON | object |
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum, Flag
from typing import Any, Final, Literal
from uuid import UUID

from perdure.containers.copilot import scalars
from perdure.containers.copilot.records import record_of
from perdure.core.ground.values import nodes
from perdure.errors import UsageError

Kind = Literal[
    "none", "int", "bool", "float", "decimal", "datetime", "date", "timedelta", "uuid", "literal", "enum", "record",
    "list", "dict", "str", "bytes", "file", "dir",
]  # fmt: skip


class NoForm(Exception):
    """A type cannot cross into a container; the message holds the reason and another type to declare."""


@dataclass(frozen=True, eq=False)
class Leaf:
    """One file.

    Attributes:
        label: the type as text.
        kind: the row of the table.
        write: from the value to the content of the file.
        read: the inverse; the text forms trim white space first. Raises any exception for content that does not fit.
        dump: from the value to JSON.
        load: the inverse of `dump`, likewise.
    """

    label: str
    kind: Kind
    write: Callable[[Any], bytes]
    read: Callable[[bytes], Any]
    dump: Callable[[Any], Any]
    load: Callable[[Any], Any]
    options: tuple[Any, ...] = ()
    """The names of an Enum, or the values of a Literal."""


def read_text(data: bytes) -> str:
    """Text from a file, in UTF-8; other encodings are never guessed."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not text (byte {error.start} is not UTF-8): declare it as bytes or File") from None


def write_text(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise UsageError("text with lone surrogates cannot be written to a file: pass bytes instead") from None


def read_json(data: bytes) -> Any:
    """JSON from a file, with the `NaN` and `Infinity` of Python and others."""
    try:
        return json.loads(read_text(data))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def write_json(value: Any) -> bytes:
    try:
        return write_text(json.dumps(value, ensure_ascii=False, allow_nan=False))
    except ValueError as error:  # an integer of more digits than Python will convert
        raise UsageError(f"the value cannot be written as JSON ({error}): pass bytes instead") from None


def _text(
    cls: type, kind: Kind, write: Callable[[Any], str], read: Callable[[str], Any], label: str | None = None
) -> Leaf:
    """A leaf with the same text in a file and, as a string, in JSON."""

    def load(found: Any) -> Any:
        if type(found) is not str:
            raise ValueError("a string is expected")
        return read(found)

    return Leaf(
        label or cls.__name__, kind, lambda value: write_text(write(value)), _trimmed(read), write, load
    )  # fmt: skip


def _trimmed(read: Callable[[str], Any]) -> Callable[[bytes], Any]:
    return lambda data: read(read_text(data).strip())


def _exactly(cls: type) -> Callable[[Any], Any]:
    def load(found: Any) -> Any:
        if type(found) is not cls:
            raise ValueError(f"{cls.__name__} is expected")
        return found

    return load


def _same(value: Any) -> Any:
    return value


def _int_text(value: int) -> str:
    try:
        return str(value)
    except ValueError as error:  # more digits than Python will convert
        raise UsageError(f"an integer cannot be written as text ({error}): pass bytes instead") from None


def _read_str(data: bytes) -> str:
    # Flyte's copilot trims spaces, newlines and tabs, and no other white space, at both ends.
    return read_text(data).strip(" \n\t")


def _dump_float(value: float) -> Any:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _load_float(found: Any) -> float:
    if type(found) is str and found in ("NaN", "Infinity", "-Infinity"):
        return float(found)
    if type(found) not in (int, float):
        raise ValueError("a number is expected")
    return float(found)


def _load_timedelta(found: Any) -> timedelta:
    if type(found) is int:
        return scalars.timedelta_of_nanoseconds(found)
    if type(found) is str:
        return scalars.timedelta_of(found)
    raise ValueError("nanoseconds are expected, or a span such as 1h2m3s")


def _load_bytes(found: Any) -> bytes:
    if type(found) is not str:
        raise ValueError("base64 is expected")
    return base64.b64decode(found, validate=True)


def _write_datetime(value: datetime) -> str:
    try:
        return scalars.datetime_text(value)
    except OverflowError:
        raise UsageError(f"{value} lies outside the years 1 to 9999 in UTC, which RFC 3339 has no form for") from None


def _read_date(text: str) -> date:
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        raise ValueError("a date is expected, such as 2026-11-22")
    return date.fromisoformat(text)


def _read_none(text: str) -> None:
    if text != "null":
        raise ValueError("null is expected")


NONE: Final = Leaf("None", "none", lambda _: b"null", _trimmed(_read_none), _same, _exactly(type(None)))

BY_NODE: Final[dict[type[nodes.Node], Leaf]] = {
    nodes.NoneNode: NONE,
    nodes.BoolNode: Leaf(
        "bool", "bool", lambda value: scalars.bool_text(value).encode(), _trimmed(scalars.bool_of), _same,
        _exactly(bool),
    ),
    nodes.IntNode: Leaf(
        "int", "int", lambda value: _int_text(value).encode(), _trimmed(scalars.int_of), _same, _exactly(int)
    ),
    nodes.FloatNode: Leaf(
        "float", "float", lambda value: scalars.float_text(value).encode(), _trimmed(scalars.float_of), _dump_float,
        _load_float,
    ),
    nodes.StrNode: Leaf("str", "str", write_text, _read_str, _same, _exactly(str)),
    nodes.BytesNode: Leaf(
        "bytes", "bytes", _same, _same, lambda value: base64.b64encode(value).decode(), _load_bytes
    ),
}  # fmt: skip

BY_CLASS: Final[dict[type, Leaf]] = {
    datetime: _text(datetime, "datetime", _write_datetime, scalars.datetime_of),
    date: _text(date, "date", date.isoformat, _read_date),
    Decimal: _text(Decimal, "decimal", str, scalars.decimal_of),
    UUID: _text(UUID, "uuid", str, UUID),
    timedelta: Leaf(
        "timedelta", "timedelta", lambda value: scalars.timedelta_text(value).encode(),
        _trimmed(scalars.timedelta_of), scalars.nanoseconds, _load_timedelta,
    ),
}  # fmt: skip


def enum_leaf(node: nodes.EnumNode) -> Leaf:
    """By name, as Flyte has it. Reading also takes a member's value, which programs for local Flyte write."""
    if issubclass(node.cls, Flag):
        raise NoForm(f"`{node.label}` is a Flag, whose combinations have no name: use a list of an Enum")
    names: dict[str, Enum] = dict(node.cls.__members__)
    by_text = {str(member.value): member for member in node.cls if type(member.value) in (str, int)} | names

    def read(text: str) -> Enum:
        found: Enum | None = by_text.get(text)
        if found is None:
            raise ValueError(f"one of {', '.join(names)} is expected")
        return found

    leaf = _text(node.cls, "enum", lambda value: str(value.name), read, node.label)
    return Leaf(leaf.label, "enum", leaf.write, leaf.read, leaf.dump, leaf.load, tuple(names))


def literal_leaf(node: nodes.LiteralNode) -> Leaf:
    by_text = {_option_text(option): option for option in node.options if type(option) in (str, int, bool)}
    if len(by_text) < len(node.options):
        raise NoForm(f"`{node.label}` holds something else than str, int and bool, or two that read the same as text")

    def read(text: str) -> Any:
        if text not in by_text:
            raise ValueError(f"one of {', '.join(by_text)} is expected")
        return by_text[text]

    def load(found: Any) -> Any:
        if not any(type(found) is type(option) and found == option for option in node.options):
            raise ValueError(f"one of {', '.join(by_text)} is expected")
        return found

    return Leaf(
        node.label, "literal", lambda value: write_text(_option_text(value)), _trimmed(read), _same, load, node.options
    )  # fmt: skip


def _option_text(option: Any) -> str:
    return scalars.bool_text(option) if type(option) is bool else str(option)


def record_leaf(node: nodes.RecordNode) -> Leaf:
    try:
        record = record_of(node)
    except ValueError as error:
        raise NoForm(str(error)) from None
    return Leaf(
        node.label, "record", lambda value: write_json(record.dump(value)), lambda data: record.load(read_json(data)),
        record.dump, record.load,
    )  # fmt: skip
