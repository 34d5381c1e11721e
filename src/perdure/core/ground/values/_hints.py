"""Hints for messages: the annotation to write for a value that does not fit its declaration."""

from __future__ import annotations

from typing import Any

from perdure.core.ground.values._compile import UnresolvedNameError, node_of
from perdure.core.ground.values._names import type_text
from perdure.core.ground.values._wire import SCALARS, numpy_item
from perdure.errors import UnsupportedTypeError


def annotation_for(value: object, depth: int = 3) -> str | None:
    """An annotation that fits `value`, as text; `None` where no annotation fits."""
    cls = type(value)
    if value is None:
        return "None"
    number = numpy_item(value)
    if number is not None:
        return type(number).__name__
    if cls in SCALARS:
        return cls.__name__
    if depth and cls in (list, set, frozenset):
        members = _members(value, depth)
        return members and f"{cls.__name__}[{members}]"
    if depth and cls is tuple:
        parts = [annotation_for(item, depth - 1) for item in value[:8]]  # type: ignore[index]
        many = len(value) > 8  # type: ignore[arg-type]
        return "tuple" if None in parts or many else f"tuple[{', '.join(str(part) for part in parts) or '()'}]"
    if depth and cls is dict:
        keys, items = _members(value.keys(), depth), _members(value.values(), depth)  # type: ignore[attr-defined]
        return keys and items and f"dict[{keys}, {items}]"
    if cls in (list, set, frozenset, tuple, dict, bytearray, complex, range):
        return cls.__name__
    if is_declarable(cls):
        return type_text(cls)
    return None


def _members(values: Any, depth: int) -> str | None:
    texts: dict[str, None] = {}
    for count, value in enumerate(values):
        if count == 100:  # a sample is enough for a hint
            break
        text = annotation_for(value, depth - 1)
        if text is None:
            return None
        texts[text] = None
    if len(texts) > 1 and "None" in texts:
        texts["None"] = texts.pop("None")
    return " | ".join(texts) or "Any"


def is_declarable(cls: type) -> bool:
    """Whether values of exactly this class can be stored once an annotation names the class."""
    if cls is object:
        return False
    try:
        node_of(cls)
    except UnresolvedNameError:
        return True  # the types of the fields may be known at the declaration
    except UnsupportedTypeError:
        return False
    return True
