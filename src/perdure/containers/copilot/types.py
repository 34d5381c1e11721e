"""From a declared type to a form: how its values stand in files and in JSON.

A form is a leaf (one file of text or bytes), a reference (a `File` or `Dir`), a list or a dict (a directory of
forms, or one file of JSON) or a choice (a union). What the annotation means is the knowledge of
`perdure.core.values`; records are written and read by msgspec and pydantic.

| type | text of the file | in JSON |
| --- | --- | --- |
| str, int, bool | as it is | the same |
| float | shortest digits, no exponent | number; "NaN", "Infinity", "-Infinity", as protobuf has it |
| datetime | RFC 3339 in UTC; no zone means UTC | the same |
| timedelta | Go's form | nanoseconds |
| date, Decimal, UUID | ISO 8601, plain digits, with dashes | the same, as a string |
| None | `null` | null |
| Enum, Literal | the value | string; a Literal's own value |
| bytes | as they are | base64 |
| dataclass, pydantic, TypedDict, Struct | JSON | object |
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum, Flag
from typing import Any, Final, Literal, Protocol, get_args
from uuid import UUID

from perdure.containers.copilot import scalars
from perdure.containers.copilot.records import record_of
from perdure.core.values import codec_for, nodes
from perdure.errors import UnsupportedTypeError, UsageError

Kind = Literal[
    "none", "int", "bool", "float", "decimal", "datetime", "date", "timedelta", "uuid", "literal", "enum", "record",
    "list", "dict", "str", "bytes", "file", "dir",
]  # fmt: skip

SUPPORTED: Final = (
    "str, int, bool, float, bytes, datetime, date, timedelta, Decimal, UUID, None, Enum, Literal, dataclass, "
    "msgspec.Struct, TypedDict, pydantic model, File, Dir, and list[...], dict[str, ...], Optional and unions of them"
)


class FileTypes(Protocol):
    """Which classes stand for files and directories; they live in a layer above."""

    @property
    def file_type(self) -> type: ...

    @property
    def dir_type(self) -> type: ...


@dataclass(frozen=True, eq=False)
class Leaf:
    """One file.

    Attributes:
        label: the type as text.
        kind: which row of the table it is.
        write: the content of the file.
        read: its inverse; the text forms trim white space first. Raises any exception for what does not fit.
        dump: the value as JSON has it.
        load: its inverse, likewise.
    """

    label: str
    kind: Kind
    write: Callable[[Any], bytes]
    read: Callable[[bytes], Any]
    dump: Callable[[Any], Any]
    load: Callable[[Any], Any]
    options: tuple[Any, ...] = ()
    """The values of an Enum."""


@dataclass(frozen=True, eq=False)
class Reference:
    """A `File` or a `Dir`."""

    label: str
    kind: Literal["file", "dir"]


@dataclass(frozen=True, eq=False)
class Listing:
    """A directory `0`, `1`, ..."""

    label: str
    item: Form
    kind: Literal["list"] = "list"


@dataclass(frozen=True, eq=False)
class Table:
    """A directory of one entry per key."""

    label: str
    item: Form
    kind: Literal["dict"] = "dict"


@dataclass(frozen=True, eq=False)
class Choice:
    """A union; its members are no unions themselves.

    Attributes:
        members: as declared, `None` last.
        pick: the position of the member that a value belongs to.
    """

    label: str
    members: tuple[Leaf | Reference | Listing | Table, ...]
    pick: Callable[[Any], int]
    kind: Literal["choice"] = "choice"

    @property
    def tries(self) -> Iterator[Leaf | Reference | Listing | Table]:
        """The members in the order in which something is read: the ones that take the least first."""
        return iter(sorted(self.members, key=lambda member: _ORDER.index(member.kind)))


Form = Leaf | Reference | Listing | Table | Choice

_ORDER: Final[tuple[Kind, ...]] = get_args(Kind)


@dataclass(frozen=True, eq=False)
class Declared:
    """An input or output: its form, and the check of a value against its type."""

    form: Form
    label: str
    check: Callable[[object], Any]
    """The value as its type has it (an int for a float becomes one); `ValueMismatchError` where it does not fit."""


def declared(annotation: object, where: str, files: FileTypes) -> Declared:
    """Compile what is declared for `where`, such as `input 'x'`.

    Raises:
        UnsupportedTypeError: the type has no form.
    """
    codec = codec_for(annotation, where)
    label = nodes.type_text(annotation)
    try:
        form = _form(nodes.node_of(annotation), files, ())
    except _Refused as refused:
        raise UnsupportedTypeError(
            f"{where}: type `{label}` cannot cross into a container: {refused}; supported are {SUPPORTED}"
        ) from None

    def check(value: object) -> Any:
        return codec.roundtrip(value)[1]

    return Declared(form, label, check)


class _Refused(Exception):
    """Why, and what to write instead."""


def _form(node: nodes.Node, files: FileTypes, above: tuple[nodes.Node, ...]) -> Form:
    match node:
        case nodes.RefNode():
            if node in above:
                raise _Refused(f"`{node.label}` contains itself; use a dataclass, which is one file of JSON")
            return _form(node.target, files, (*above, node))
        case nodes.FileNode():
            return Reference(node.label, "file" if node.cls is files.file_type else "dir")
        case nodes.ArrayNode() if node.build is list:
            return Listing(node.label, _form(node.item, files, above))
        case nodes.DictNode():
            if not isinstance(node.key, nodes.StrNode):
                raise _Refused(f"the keys of `{node.label}` become names of files: use dict[str, ...]")
            return Table(node.label, _form(node.item, files, above))
        case nodes.OptionalNode() | nodes.UnionNode():
            return _choice(node, files, above)
        case nodes.RecordNode() if not isinstance(node, nodes.NamedTupleNode):
            return _record(node)
        case nodes.EnumNode():
            return _enum(node)
        case nodes.LiteralNode():
            return _literal(node)
        case nodes.LeafNode() if node.cls in _BY_CLASS:
            return _BY_CLASS[node.cls]
    for cls, leaf in _BY_NODE.items():
        if isinstance(node, cls):
            return leaf
    raise _Refused(f"`{node.label}` has no form there; {_remedy(node)}")


def _remedy(node: nodes.Node) -> str:
    match node:
        case nodes.AnyNode():
            return "say what it holds, such as list[str] or dict[str, int]"
        case nodes.PathNode():
            return "use File or Dir for what lies there, or str for its name"
        case nodes.ArrayNode() | nodes.TupleNode():
            return "use a list or a dataclass"
        case nodes.NamedTupleNode():
            return "use a dataclass"
    return "use str or a dataclass"


# -- unions ----------------------------------------------------------------------------------------------------------


def _choice(node: nodes.OptionalNode | nodes.UnionNode, files: FileTypes, above: tuple[nodes.Node, ...]) -> Choice:
    inner, optional = (node.inner, True) if isinstance(node, nodes.OptionalNode) else (node, False)
    branches = list(inner.members) if isinstance(inner, nodes.UnionNode) else [inner]
    members: list[Leaf | Reference | Listing | Table] = []
    picks: list[tuple[int, Choice | None]] = []  # for each branch: its position, and the choice that it is itself
    for branch in branches:
        form = _form(branch, files, above)
        nested = form if isinstance(form, Choice) else None
        picks.append((len(members), nested))
        members.extend(nested.members if nested else [form])  # type: ignore[list-item]
    if optional:
        members.append(_NONE)

    def pick(value: Any) -> int:
        if optional and value is None:
            return len(members) - 1
        branch = inner.choose(value, nodes.Mode(False))[0] if isinstance(inner, nodes.UnionNode) else 0
        position, nested = picks[branch]
        return position + (nested.pick(value) if nested else 0)

    return Choice(node.label, tuple(members), pick)


# -- leaves ----------------------------------------------------------------------------------------------------------


def read_text(data: bytes) -> str:
    """Text from a file. Bytes that are none are never guessed at."""
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
    """JSON from a file, with the `NaN` and `Infinity` that Python and others write."""
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
    """A leaf that is the same text in a file and, as a string, in JSON."""

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
    text = read_text(data)
    return text[: -2 if text.endswith("\r\n") else -1] if text.endswith("\n") else text


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


def _read_decimal(text: str) -> Decimal:
    # Decimal itself takes underscores and the digits of every script.
    if not re.fullmatch(r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|(?i:inf|infinity|nan))", text):
        raise ValueError("a decimal number is expected")
    return Decimal(text)


def _read_none(text: str) -> None:
    if text != "null":
        raise ValueError("null is expected")


_NONE: Final = Leaf("None", "none", lambda _: b"null", _trimmed(_read_none), _same, _exactly(type(None)))

_BY_NODE: Final[dict[type[nodes.Node], Leaf]] = {
    nodes.NoneNode: _NONE,
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

_BY_CLASS: Final[dict[type, Leaf]] = {
    datetime: _text(datetime, "datetime", _write_datetime, scalars.datetime_of),
    date: _text(date, "date", date.isoformat, _read_date),
    Decimal: _text(Decimal, "decimal", str, _read_decimal),
    UUID: _text(UUID, "uuid", str, UUID),
    timedelta: Leaf(
        "timedelta", "timedelta", lambda value: scalars.timedelta_text(value).encode(),
        _trimmed(scalars.timedelta_of), scalars.nanoseconds, _load_timedelta,
    ),
}  # fmt: skip


def _enum(node: nodes.EnumNode) -> Leaf:
    """By value: that is what other languages know. An integer is written as its digits."""
    members: list[Enum] = list(node.cls)
    if issubclass(node.cls, Flag) or any(type(member.value) not in (str, int) for member in members):
        raise _Refused(f"`{node.label}` has values that are not strings: give its members string values")
    by_text = {str(member.value): member for member in members}
    if len(by_text) < len(members):
        raise _Refused(f"`{node.label}` has values that read the same as text: give its members other values")

    def read(text: str) -> Enum:
        if text not in by_text:
            raise ValueError(f"one of {', '.join(by_text)} is expected")
        return by_text[text]

    leaf = _text(node.cls, "enum", lambda value: str(value.value), read, node.label)
    return Leaf(leaf.label, "enum", leaf.write, leaf.read, leaf.dump, leaf.load, tuple(by_text))


def _literal(node: nodes.LiteralNode) -> Leaf:
    by_text = {_option_text(option): option for option in node.options if type(option) in (str, int, bool)}
    if len(by_text) < len(node.options):
        raise _Refused(f"`{node.label}` holds something else than str, int and bool, or two that read the same as text")

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


def _record(node: nodes.RecordNode) -> Leaf:
    try:
        record = record_of(node)
    except ValueError as error:
        raise _Refused(str(error)) from None
    return Leaf(
        node.label, "record", lambda value: write_json(record.dump(value)), lambda data: record.load(read_json(data)),
        record.dump, record.load,
    )  # fmt: skip
