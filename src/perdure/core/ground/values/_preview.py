"""Stored values as text for people: no class is looked up, and no code of the user's runs.

The text is made while the bytes are read, and reading ends with the last character of the text. So a preview costs by
the limit of the text and not by the size of the value. The value is never built.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from datetime import date, time, timedelta

from perdure.core.ground.values import _tokens, _wire

_BRACKETS: dict[int, tuple[str, str]] = {
    _wire.TUPLE: ("(", ")"),
    _wire.SET: ("{", "}"),
    _wire.FROZENSET: ("frozenset({", "})"),
}
_EMPTY: dict[int, str] = {_wire.TUPLE: "()", _wire.SET: "set()", _wire.FROZENSET: "frozenset()"}
_LONGEST_INT = 1_250
"""Bytes of the largest integer that is shown in decimal; Python refuses to write more than 4,300 digits."""
_LONGEST_LEAF = 10_000
"""Bytes of a value that is shown in full."""

Data = bytes | memoryview
Text = Generator[str, None, int]
"""The text of one value or several, piece by piece; returns the position behind."""


def preview(data: bytes, limit: int = 200) -> str:
    """Any encoded value as text of at most `limit` characters. For corrupt bytes the text says so."""
    try:
        return _joined(_whole(data), limit)
    except Exception:  # corrupt bytes fail in as many ways as there are types, and a listing must go on
        return f"<unreadable value of {len(data)} bytes>"


def preview_inputs(data: bytes, limit: int = 200) -> str:
    """Encoded arguments as `x=3, name='a'`."""
    try:
        return _joined(_inputs(data), limit)
    except Exception:  # as above
        return f"<unreadable inputs of {len(data)} bytes>"


def _joined(pieces: Iterator[str], limit: int) -> str:
    text = ""
    for piece in pieces:
        text += piece
        if len(text) > limit:
            return text[: max(limit - 1, 0)] + "…"
    return text


def _whole(data: Data) -> Iterator[str]:
    end = yield from _value(data, 0)
    if end != len(data):
        raise ValueError("there is more than one value")


def _inputs(data: Data) -> Iterator[str]:
    found = _tokens.head(data, 0)
    if found.kind != "map":
        yield from _whole(data)
        return
    at = found.start
    for position in range(found.size):
        key = _tokens.head(data, at)
        at = key.start + key.size
        yield ", " * (position > 0) + bytes(data[key.start : min(at, key.start + _LONGEST_LEAF)]).decode() + "="
        at = yield from _value(data, at)


def _value(data: Data, at: int) -> Text:
    found = _tokens.head(data, at)
    end = found.start + found.size
    if found.kind == "array":
        yield "["
        end = yield from _listed(data, found.start, found.size)
        yield "]"
    elif found.kind == "map":
        yield "{"
        end = yield from _pairs(data, found.start, found.size)
        yield "}"
    elif found.kind == "ext":
        yield from _extension(found.code, memoryview(data)[found.start : end])
    elif found.kind == "str":
        part = bytes(data[found.start : min(end, found.start + _LONGEST_LEAF)])
        yield repr(part.decode(errors="strict" if len(part) == found.size else "ignore"))
    elif found.kind == "bin":
        yield repr(bytes(data[found.start : min(end, found.start + _LONGEST_LEAF)]))
    else:
        yield repr(_wire.decode_any(memoryview(data)[at:end]))
    return end


def _listed(data: Data, at: int, size: int) -> Text:
    for position in range(size):
        yield ", " * (position > 0)
        at = yield from _value(data, at)
    return at


def _pairs(data: Data, at: int, size: int) -> Text:
    for position in range(size):
        yield ", " * (position > 0)
        at = yield from _value(data, at)
        yield ": "
        at = yield from _value(data, at)
    return at


def _extension(code: int, data: memoryview) -> Iterator[str]:
    if code in _BRACKETS or code == _wire.PAIRS:
        found = _tokens.head(data, 0)
        if found.kind != "array":
            raise ValueError("an extension holds no list")
        if code == _wire.PAIRS:
            yield "{"
            yield from _pairs(data, found.start, found.size // 2)
            yield "}"
        elif not found.size:
            yield _EMPTY[code]
        else:
            yield _BRACKETS[code][0]
            yield from _listed(data, found.start, found.size)
            yield "," * (code == _wire.TUPLE and found.size == 1) + _BRACKETS[code][1]
    elif code == _wire.RANGE:
        found = _tokens.head(data, 0)
        yield "range("
        yield from _listed(data, found.start, found.size)
        yield ")"
    elif code == _wire.FORM:
        found = _tokens.head(data, 0)
        tag = _tokens.head(data, found.start)
        at = tag.start + tag.size
        yield bytes(data[tag.start : at]).decode() + "("
        yield from _value(data, at)
        yield ")"
    elif code in (_wire.FRAME, _wire.FRAMED):
        yield _frame(data)
    elif code == _wire.INT and len(data) > _LONGEST_INT:
        negative = data[0] >= 0x80
        leading = int.from_bytes(data[:_LONGEST_LEAF], "big", signed=True)
        yield "-" * negative + hex(abs(leading))
    elif len(data) > _LONGEST_LEAF:
        part = bytes(data[:_LONGEST_LEAF])
        yield part.decode(errors="ignore") if code == _wire.DECIMAL else repr(part)
    else:
        yield _plain(_wire.load_ext(code, data))


def _frame(data: memoryview) -> str:
    """A data frame by its size; an identity knows the digest alone."""
    found = _tokens.head(data, 0)
    if found.size == 1:
        content = _tokens.head(data, found.start)
        return f"DataFrame(content='{bytes(data[content.start : content.start + 6]).hex()}…')"
    return repr(_wire.frame_reference(data))


def _plain(value: object) -> str:
    """A leaf as people write it: times by ISO 8601, numbers and ids by their digits."""
    if isinstance(value, (date, time)):  # and a datetime, which is a date
        return value.isoformat()
    return str(value) if isinstance(value, timedelta) or type(value).__name__ in ("Decimal", "UUID") else repr(value)
