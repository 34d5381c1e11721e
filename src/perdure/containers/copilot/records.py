"""Types with named fields as JSON objects, by the library of each type.

A pydantic model is written and validated by pydantic (aliases, serializers and validators run), all other types by
msgspec. Outside data passes through the constructors, as a caller's data would.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import PurePath
from typing import Any, NamedTuple

import msgspec

from perdure.core.ground.values import nodes
from perdure.errors import UsageError


class RecordForm(NamedTuple):
    """A type with named fields.

    Attributes:
        dump: from an instance to JSON data; floats without a JSON number become strings.
        load: the inverse; raises any exception for data that does not fit.
    """

    dump: Callable[[Any], Any]
    load: Callable[[Any], Any]


def record_of(node: nodes.RecordNode) -> RecordForm:
    """Raises `ValueError` for a type without a JSON form, and names the part."""
    for part in nodes.walk(node):
        if isinstance(part, nodes.FileNode):
            raise ValueError(f"a {part.label} inside `{node.label}` has no file of its own: declare it beside it")
        if isinstance(part, nodes.LeafNode) and part.cls in (complex, range):
            raise ValueError(f"`{part.label}` inside `{node.label}` has no form in JSON")
    check = _refuse_colliding if any(map(_is_hashed, nodes.walk(node))) else _accept
    if isinstance(node, nodes.PydanticNode):
        validate = node.cls.model_validate
        return RecordForm(lambda value: _finite(_dump_model(value)), lambda data: validate(check(data)))
    annotation = node.annotation
    try:
        msgspec.json.Decoder(annotation, dec_hook=_read)  # refuses unreadable types at declaration
    except Exception as error:
        raise ValueError(f"msgspec cannot read it from JSON ({error})") from None

    def dump(value: Any) -> Any:
        try:
            return _finite(msgspec.to_builtins(value, str_keys=True, enc_hook=_write))
        except (TypeError, NotImplementedError, msgspec.MsgspecError) as error:
            raise UsageError(f"a `{node.label}` cannot be written as JSON: {error}") from error

    def load(data: Any) -> Any:
        return msgspec.convert(check(data), annotation, str_keys=True, dec_hook=_read)

    return RecordForm(dump, load)


def _is_hashed(node: nodes.Node) -> bool:
    """Whether a type becomes a hash table of other keys than text: Python salts the hashes of text only."""
    if isinstance(node, nodes.ArrayNode):
        return node.sorts and not isinstance(node.item, nodes.StrNode)
    return isinstance(node, nodes.DictNode) and not isinstance(node.key, nodes.StrNode)


def _accept(data: Any) -> Any:
    return data


def _refuse_colliding(data: Any) -> Any:
    """Raise `ValueError` for JSON data with many numbers of one hash, which would take minutes in a set or dict."""
    waiting = [data]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            waiting.extend(found.values())
            nodes.set_of([_number(key) for key in found])
        elif isinstance(found, list):
            waiting.extend(item for item in found if isinstance(item, (dict, list)))
            nodes.set_of([tuple(map(_key, item)) if isinstance(item, list) else _key(item) for item in found])
    return data


def _key(item: Any) -> Any:
    return None if isinstance(item, (dict, list)) else _number(item)


def _number(item: Any) -> Any:
    """A number that stands as text, as the keys of JSON objects do."""
    if not isinstance(item, str):
        return item
    try:
        return int(item) if len(item) <= 4300 else item
    except ValueError:
        return item


def _write(value: Any) -> Any:
    if hasattr(type(value), "model_dump"):
        return _dump_model(value)
    if isinstance(value, PurePath):
        return str(value)
    raise NotImplementedError(f"no form for `{type(value).__name__}`")


def _read(cls: type[Any], data: Any) -> Any:
    if hasattr(cls, "model_validate"):
        return cls.model_validate(data)
    if issubclass(cls, PurePath) and type(data) is str:
        return cls(data)
    raise NotImplementedError(f"no form for `{cls.__name__}`")


def _dump_model(value: Any) -> Any:
    return value.model_dump(mode="json", by_alias=True)


def _finite(data: Any) -> Any:
    match data:
        case float() if not math.isfinite(data):
            return "NaN" if math.isnan(data) else "Infinity" if data > 0 else "-Infinity"
        case dict():
            return {key: _finite(item) for key, item in data.items()}
        case list() | tuple() | set() | frozenset():
            return [_finite(item) for item in data]
    return data
