"""Reading MessagePack without making values: kinds, lengths and positions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, Literal, NamedTuple

import msgspec

Token = Literal["value", "str", "bin", "array", "map", "ext"]

_NO_INTEGERS: Final = frozenset({0xC0, 0xC2, 0xC3, 0xCA, 0xCB})
"""First bytes of nil, booleans and floats."""
_decode: Final = msgspec.msgpack.Decoder().decode
_LARGE_MAP: Final = re.compile(rb"\xde[\x01-\xff]|\xdf")


class Head(NamedTuple):
    """The head of a value.

    Attributes:
        kind: the kind of the value; `value` is a number, a boolean or nil.
        size: the number of items of an array or of keys of a map; else the number of bytes behind the head.
        start: the position behind the head.
        code: the code of an extension.
    """

    kind: Token
    size: int
    start: int
    code: int = 0


# The first byte of a value: kind, bytes of the size field (0: the size is fixed), fixed size.
_HEADS: Final[dict[int, tuple[Token, int, int]]] = {
    **dict.fromkeys((*range(0x80), 0xC0, 0xC2, 0xC3, *range(0xE0, 0x100)), ("value", 0, 0)),
    **{byte: ("map", 0, byte & 0x0F) for byte in range(0x80, 0x90)},
    **{byte: ("array", 0, byte & 0x0F) for byte in range(0x90, 0xA0)},
    **{byte: ("str", 0, byte & 0x1F) for byte in range(0xA0, 0xC0)},
    0xC4: ("bin", 1, 0), 0xC5: ("bin", 2, 0), 0xC6: ("bin", 4, 0),
    0xC7: ("ext", 1, 0), 0xC8: ("ext", 2, 0), 0xC9: ("ext", 4, 0),
    0xCA: ("value", 0, 4), 0xCB: ("value", 0, 8),
    **{0xCC + power: ("value", 0, 1 << power) for power in range(4)},
    **{0xD0 + power: ("value", 0, 1 << power) for power in range(4)},
    **{0xD4 + power: ("ext", 0, 1 << power) for power in range(5)},
    0xD9: ("str", 1, 0), 0xDA: ("str", 2, 0), 0xDB: ("str", 4, 0),
    0xDC: ("array", 2, 0), 0xDD: ("array", 4, 0), 0xDE: ("map", 2, 0), 0xDF: ("map", 4, 0),
}  # fmt: skip


def head(data: bytes | memoryview, at: int) -> Head:
    """The head of the value at a position. Raises `ValueError` and `IndexError` for corrupt bytes."""
    found = _HEADS.get(data[at])
    if found is None:
        raise ValueError(f"{data[at]:#x} begins no value")
    kind, width, size = found
    start = at + 1 + width
    if width:
        size = int.from_bytes(data[at + 1 : start], "big")
    code = 0
    if kind == "ext":
        code = data[start]
        start += 1
    if kind not in ("array", "map") and start + size > len(data):
        raise ValueError("the data ends within a value")
    return Head(kind, size, start, code)


def may_have_large_map(data: bytes | memoryview) -> bool:
    """Whether the bytes may hold a map of more than 255 keys; other values may look like such a map."""
    return _LARGE_MAP.search(data) is not None


def integer_keys(data: bytes | memoryview) -> Iterator[list[Any]]:
    """The integers among the keys of each map. Raises `ValueError` where a key is neither text nor an integer.

    The contents of extensions are left out.
    """
    at, end = 0, len(data)
    # For each open array or map: the number of values to come, and the keys of a map (an even number: a key is next).
    lefts: list[int] = [1]
    open_keys: list[list[Any] | None] = [None]
    while at < end and lefts:
        left, keys = lefts[-1], open_keys[-1]
        if not left:
            lefts.pop()
            if open_keys.pop():
                yield keys  # type: ignore[misc]
            continue
        found = head(data, at)
        if keys is not None and left % 2 == 0 and found.kind != "str":
            if found.kind != "value" or data[at] in _NO_INTEGERS:
                raise ValueError("a key of a map is neither text nor an integer")
            keys.append(_decode(memoryview(data)[at : found.start + found.size]))
        lefts[-1] -= 1
        at = found.start
        if found.kind == "array" or found.kind == "map":
            lefts.append(found.size * (1 + (found.kind == "map")))
            open_keys.append([] if found.kind == "map" else None)
        else:
            at += found.size
