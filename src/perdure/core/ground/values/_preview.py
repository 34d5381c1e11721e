"""Stored values as text for humans: no class is needed, none is looked up, and nothing of the user's runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from perdure.core.ground.values import _wire

_BRACKETS: dict[type, tuple[str, str]] = {
    list: ("[", "]"), tuple: ("(", ")"), set: ("{", "}"), frozenset: ("frozenset({", "})"),
}  # fmt: skip


def preview(data: bytes, limit: int = 200) -> str:
    """Any encoded value as text of at most `limit` characters. Corrupt bytes give a text that says so."""
    try:
        return _joined(_pieces(_wire.decode_any(data)), limit)
    except Exception:  # corrupt bytes fail in as many ways as there are types, and a listing must go on
        return f"<unreadable value of {len(data)} bytes>"


def preview_inputs(data: bytes, limit: int = 200) -> str:
    """Encoded arguments as `x=3, name='a'`."""
    try:
        inputs = _wire.decode_any(data)
        if type(inputs) is not dict:
            return _joined(_pieces(inputs), limit)
        return _joined(_listed((str(name), "=", item) for name, item in inputs.items()), limit)
    except Exception:  # as above
        return f"<unreadable inputs of {len(data)} bytes>"


def _joined(pieces: Iterator[str], limit: int) -> str:
    """The pieces up to the limit; the rest is never made, so that a large value costs no more than a small one."""
    text = ""
    for piece in pieces:
        text += piece
        if len(text) > limit:
            return text[: max(limit - 1, 0)] + "…"
    return text


def _listed(entries: Iterable[tuple[str, str, object]]) -> Iterator[str]:
    for position, (name, sign, item) in enumerate(entries):
        yield ", " * (position > 0) + name + sign
        yield from _pieces(item)


def _pieces(value: object) -> Iterator[str]:
    cls = type(value)
    if cls in _BRACKETS:
        opening, closing = _BRACKETS[cls]
        if not value and cls in (set, frozenset):
            yield f"{cls.__name__}()"
            return
        yield opening
        yield from _listed(("", "", item) for item in value)  # type: ignore[attr-defined]
        yield "," * (cls is tuple and len(value) == 1) + closing  # type: ignore[arg-type]
    elif cls is dict:
        yield "{"
        for position, (key, item) in enumerate(value.items()):  # type: ignore[attr-defined]
            yield ", " * (position > 0)
            yield from _pieces(key)
            yield ": "
            yield from _pieces(item)
        yield "}"
    elif isinstance(value, (str, bytes, bytearray)):
        yield repr(value[:10_000])
    elif isinstance(value, int) and value.bit_length() > 10_000:
        yield hex(value)  # Python refuses to write so many digits in decimal
    else:
        yield repr(value)
