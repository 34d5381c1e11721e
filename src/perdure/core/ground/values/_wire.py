"""The format of the bytes: MessagePack, plus extension types for values that MessagePack does not know.

A value without a declaration (`Any`) comes back unchanged: a tuple as a tuple, a set as a set. The same extensions
carry the leaves of declared types (a `Decimal` is written alike under `Decimal` and under `Any`), so any stored value
can be shown without the declaration. Only value types of the standard library and perdure's own `File` and `Dir` have a
code; no class is looked up by a name from data.

The codes are part of the stored format: never renumber one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from typing import Any, Final, NamedTuple, cast

import msgspec
from msgspec.msgpack import Ext

from perdure.core.ground.values import _tokens
from perdure.core.ground.values._hashed import dict_of, set_of
from perdure.core.ground.values._names import FRAME_LIBRARIES

INT: Final = 1  # an integer over 64 bits: signed, big-endian
STR: Final = 2  # text with lone surrogates: UTF-8 with surrogates passed through
TUPLE: Final = 3
SET: Final = 4  # elements sorted by their bytes
FROZENSET: Final = 5
BYTEARRAY: Final = 6
PAIRS: Final = 7  # a dict whose keys are not all text: [key, value, key, value, ...]
DATETIME: Final = 8  # [year, month, day, hour, minute, second, microsecond, fold, zone]
DATE: Final = 9  # proleptic ordinal
TIME: Final = 10  # [hour, minute, second, microsecond, fold, zone]
TIMEDELTA: Final = 11  # [days, seconds, microseconds]
DECIMAL: Final = 12  # its text
UUID: Final = 13  # its 16 bytes
COMPLEX: Final = 14  # [real, imaginary]
RANGE: Final = 15  # [start, stop, step]
FILE: Final = 16  # [hash, size, name]: the reference of a File into the blob store; [..., url, etag]: to a URL
DIR: Final = 17  # the same for a Dir; [..., url]: files at a URL
FRAME: Final = 18  # [hash, size, content, kind, rows, columns]: the reference of a DataFrame; [content] in an identity
FRAMED: Final = 19  # the same, for a data frame itself: of pandas, polars, pyarrow
FORM: Final = 20  # [tag, stored value]: a class with a form (`_forms`), where nothing is declared

SCALARS: Final = frozenset({str, int, float, bool, bytes, type(None)})
"""Types of immutable values that MessagePack keeps apart: such a value comes back unchanged."""

INT_MIN: Final = -(2**63)
INT_MAX: Final = 2**64 - 1


INLINE_LIMIT: Final = 10 * 1024 * 1024
"""The largest encoded value, in bytes, that is stored in a journal row."""
IDENTITY_LIMIT: Final = 64 * 1024 * 1024
"""The largest encoded value, in bytes, in an identity."""

encode: Final = msgspec.msgpack.Encoder().encode


class NotStorable(Exception):
    """A value under `Any` that has no extension; `path` grows outwards as the exception passes containers."""

    def __init__(self, value: object, note: str = "") -> None:
        super().__init__()
        self.value = value
        self.note = note
        self.path: list[str] = []


class TooLarge(Exception):
    """A value needs more bytes than the `Mode` has room for."""


class Mode:
    """The state of writing a value.

    A value may refer to the same object many times, so the bytes may be many times larger than the value in memory.
    Every writer therefore takes from `room` while writing, and stops as soon as nothing is left.

    Attributes:
        canonical: also sort the keys of dicts, because the order of the keys has no meaning.
        inexact: the number of values that were changed to the declared type: an `int` for a `float`, an instance of a
            subclass. A union prefers the member without such a change.
        room: the bytes that may still be written. A value takes 1 and the length of the text: never more than needed.
        holder: additional bytes for a list or a dict. Identities may be larger than stored values, and a list takes at
            least 60 bytes of memory during writing.
    """

    __slots__ = ("canonical", "holder", "inexact", "limit", "room")

    def __init__(self, canonical: bool = False, room: int | None = None) -> None:
        self.canonical = canonical
        self.inexact = 0
        self.limit = room if room is not None else IDENTITY_LIMIT if canonical else INLINE_LIMIT
        self.room = self.limit
        self.holder = 15 if canonical else 0

    def take(self, size: int) -> None:
        """Take `size` bytes of the room. Raises `TooLarge` where there is not so much."""
        self.room -= size
        if self.room < 0:
            raise TooLarge


Dump = Callable[[Any, Mode], object]


def dump_any(value: object, mode: Mode) -> object:
    """`value` as objects that `encode` writes losslessly. Raises `NotStorable` and `TooLarge`."""
    cls = type(value)
    dump = _DUMP.get(cls) or _late(cls)
    if dump is None:
        raise NotStorable(value)
    mode.room -= 1
    if mode.room < 0:
        raise TooLarge
    return dump(value, mode)


_file_types: list[Any] = []
_find_file_types: Callable[[], object] | None = None


def add_file_types(file: type, folder: type) -> None:
    """Make `File` and `Dir` known: `perdure.io`, a layer above, calls this function on import."""
    _file_types[:] = file, folder
    _DUMP[file] = _dump_file
    _DUMP[folder] = _dump_dir


def find_file_types(find: Callable[[], object]) -> None:
    """Set the function that imports `perdure.io` for a stored `File`, `Dir` or data frame."""
    global _find_file_types
    _find_file_types = find


_form_writer: list[Callable[[type], Dump | None]] = []
_form_reader: list[Callable[[Any], object]] = []


def add_form_types(writer: Callable[[type], Dump | None], reader: Callable[[Any], object]) -> None:
    """Make classes with a form known: `_forms` calls this function on import."""
    _form_writer[:] = [writer]
    _form_reader[:] = [reader]


def _load_file_types() -> None:
    if not _file_types and _find_file_types is not None:
        _find_file_types()


class Frames(NamedTuple):
    """What `perdure.io` knows about data frames.

    Attributes:
        reference: the class of references to data frames.
        knows: whether a class is a class of data frames.
        put: the reference of a data frame, whose content is then in the blob store. Raises `ValueError` for a data
            frame that cannot be stored, with the reason.
        content: a digest of a data frame, of 32 bytes. Raises `ValueError` as `put` does.
        get: the data frame of a reference, as an instance of a class; of the original's class for `None`.
        unwrapped: the data frame or reference that a value of another class stands for; other values unchanged.
    """

    reference: Any
    knows: Callable[[type], bool]
    put: Callable[[Any], Any]
    content: Callable[[Any], bytes]
    get: Callable[[Any, type | None], object]
    unwrapped: Callable[[Any], Any]


_frames: list[Frames] = []


def add_frames(frames: Frames) -> None:
    """Make data frames known: `perdure.io` calls this function on import."""
    _frames[:] = [frames]
    _DUMP[frames.reference] = _dump_frame_reference


def frames_of(cls: type) -> Frames | None:
    """What to do with instances of a class of data frames, or of references to them; `None` for other classes."""
    if cls.__module__.partition(".")[0] in FRAME_LIBRARIES:
        _load_file_types()
    if _frames and (cls is _frames[0].reference or _frames[0].knows(cls)):
        return _frames[0]
    return None


def is_file_type(cls: type) -> bool:
    """Whether it is `File` or `Dir`."""
    return cls in _file_types


def _late(cls: type) -> Dump | None:
    """Writers for types of modules that perdure does not import: the program has imported the module of the value."""
    for module, name, dump in (("decimal", "Decimal", _dump_decimal), ("uuid", "UUID", _dump_uuid)):
        if cls is getattr(sys.modules.get(module), name, None):
            _DUMP[cls] = dump
            return dump
    if frames_of(cls):
        return _dump_frame
    return _form_writer[0](cls) if _form_writer else None


def sorted_wires(wires: list[object]) -> list[object]:
    """Set elements sorted by bytes: the same order in every process."""
    if len(wires) < 2:
        return wires
    return sorted(wires, key=encode)


def numpy_item(value: object) -> Any:
    """The Python number for a number of numpy's; `None` for everything else. numpy is not imported."""
    generic = getattr(sys.modules.get("numpy"), "generic", None)
    if generic is None or not isinstance(value, generic):
        return None
    item = value.item()
    return item if type(item) in (bool, int, float, complex) else None


def is_plain_text(text: str) -> bool:
    """Whether MessagePack can hold the text: a text without lone surrogates."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def dump_int(value: int) -> object:
    """An integer of any size."""
    if INT_MIN <= value <= INT_MAX:
        return value
    return Ext(INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def dump_str(value: str) -> object:
    """Any text, lone surrogates included."""
    return value if is_plain_text(value) else Ext(STR, value.encode("utf-8", "surrogatepass"))


_SHORT: Final = 64
"""Text up to this length is not counted: each value takes something, and so the room is still a bound."""


def _dump_same(value: object, mode: Mode) -> object:
    return value


def _dump_bytes(value: bytes, mode: Mode) -> object:
    if len(value) > _SHORT:
        mode.take(len(value))
    return value


def _dump_integer(value: int, mode: Mode) -> object:
    if not INT_MIN <= value <= INT_MAX:
        mode.take(value.bit_length() // 8)
    return dump_int(value)


def _dump_text(value: str, mode: Mode) -> object:
    if len(value) > _SHORT:
        mode.take(len(value))
    return dump_str(value)


def _items(values: Any, mode: Mode) -> list[object]:
    mode.take(mode.holder)
    wires: list[object] = []
    for value in values:
        try:
            wires.append(dump_any(value, mode))
        except NotStorable as misfit:
            misfit.path.append(f"[{len(wires)}]")
            raise
    return wires


def _dump_list(value: list[object], mode: Mode) -> object:
    return _items(value, mode)


def _dump_tuple(value: tuple[object, ...], mode: Mode) -> object:
    return Ext(TUPLE, encode(_items(value, mode)))


def _dump_set(value: set[object], mode: Mode) -> object:
    return Ext(SET, encode(sorted_wires(_items(value, mode))))


def _dump_frozenset(value: frozenset[object], mode: Mode) -> object:
    return Ext(FROZENSET, encode(sorted_wires(_items(value, mode))))


def _dump_dict(value: dict[object, object], mode: Mode) -> object:
    mode.take(mode.holder)
    pairs: list[tuple[object, object]] = []
    plain = True
    for key, item in value.items():
        try:
            pairs.append((dump_any(key, mode), dump_any(item, mode)))
        except NotStorable as misfit:
            misfit.path.append(f"[{short(key)}]")
            raise
        plain = plain and type(pairs[-1][0]) is str
    if plain:
        return dict(sorted(pairs, key=key_order)) if mode.canonical and len(pairs) > 1 else dict(pairs)
    if mode.canonical:
        pairs.sort(key=key_order)
    return Ext(PAIRS, encode([wire for pair in pairs for wire in pair]))


def key_order(pair: Sequence[object]) -> tuple[str, bytes]:
    """The sort key of a pair of wires in a canonical map: text in the order of characters, as in msgspec."""
    key = pair[0]
    return (key, b"") if type(key) is str else ("", encode(key))


def _dump_bytearray(value: bytearray, mode: Mode) -> object:
    mode.take(len(value))
    return Ext(BYTEARRAY, bytes(value))


def _dump_zone(zone: tzinfo | None, offset: timedelta | None) -> object:
    """`None`, a zone's key, or `[offset in µs]`, followed by the zone's name if it has one."""
    if zone is None:
        return None
    key = getattr(zone, "key", None)
    if isinstance(key, str) and type(zone).__module__ in ("zoneinfo", "zoneinfo._zoneinfo", "_zoneinfo"):
        return key
    if offset is None:
        raise NotStorable(zone)  # a zone that knows no offset for this value cannot be written down
    name = zone.__getinitargs__()[1:] if type(zone) is timezone else ()  # type: ignore[attr-defined]
    return [offset // timedelta(microseconds=1), *map(dump_str, name)]


def _dump_datetime(value: datetime, mode: Mode) -> object:
    return Ext(DATETIME, encode([
        value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond,
        value.fold, _dump_zone(value.tzinfo, value.utcoffset()),
    ]))  # fmt: skip


def _dump_date(value: date, mode: Mode) -> object:
    return Ext(DATE, encode(value.toordinal()))


def _dump_time(value: time, mode: Mode) -> object:
    zone = _dump_zone(value.tzinfo, value.utcoffset())
    return Ext(TIME, encode([value.hour, value.minute, value.second, value.microsecond, value.fold, zone]))


def _dump_timedelta(value: timedelta, mode: Mode) -> object:
    return Ext(TIMEDELTA, encode([value.days, value.seconds, value.microseconds]))


def _dump_decimal(value: object, mode: Mode) -> object:
    text = str(value)
    mode.take(len(text))
    return Ext(DECIMAL, text.encode())


def _dump_uuid(value: Any, mode: Mode) -> object:
    return Ext(UUID, value.bytes)


_by_content: ContextVar[bool] = ContextVar("perdure_by_content", default=False)


@contextmanager
def by_content() -> Iterator[None]:
    """Within the block, a File or Dir is written without its name: equal contents give equal bytes."""
    token = _by_content.set(True)
    try:
        yield
    finally:
        _by_content.reset(token)


def is_by_content() -> bool:
    """Whether the caller is within `by_content`."""
    return _by_content.get()


def _dump_reference(code: int, value: Any) -> object:
    fields = [bytes.fromhex(value.hash), value.size, "" if is_by_content() else dump_str(value.name)]
    if value.url:
        fields.append(dump_str(value.url))
        if code == FILE:
            fields.append(value.etag)
    return Ext(code, encode(fields))


def _dump_file(value: Any, mode: Mode) -> object:
    return _dump_reference(FILE, value)


def _dump_dir(value: Any, mode: Mode) -> object:
    return _dump_reference(DIR, value)


def _frame_fields(reference: Any) -> bytes:
    where = [bytes.fromhex(reference.hash), reference.size, reference.content]
    return encode([*where, reference.kind, reference.rows, reference.columns])


def dump_content(content: bytes) -> object:
    """A data frame in an identity: a digest of the content. So an identity stores nothing."""
    return Ext(FRAME, encode([content]))


def _dump_frame_reference(value: Any, mode: Mode) -> object:
    mode.take(64)
    return dump_content(value.content) if mode.canonical else Ext(FRAME, _frame_fields(value))


def _dump_frame(value: Any, mode: Mode) -> object:
    mode.take(64)
    [frames] = _frames
    try:
        return dump_content(frames.content(value)) if mode.canonical else Ext(FRAMED, _frame_fields(frames.put(value)))
    except ValueError as error:
        raise NotStorable(value, str(error)) from None


def _dump_complex(value: complex, mode: Mode) -> object:
    return Ext(COMPLEX, encode([value.real, value.imag]))


def _dump_range(value: range, mode: Mode) -> object:
    return Ext(RANGE, encode([dump_int(value.start), dump_int(value.stop), dump_int(value.step)]))


_DUMP: dict[type, Dump] = {
    type(None): _dump_same,
    bool: _dump_same,
    float: _dump_same,
    bytes: _dump_bytes,
    int: _dump_integer,
    str: _dump_text,
    list: _dump_list,
    dict: _dump_dict,
    tuple: _dump_tuple,
    set: _dump_set,
    frozenset: _dump_frozenset,
    bytearray: _dump_bytearray,
    datetime: _dump_datetime,
    date: _dump_date,
    time: _dump_time,
    timedelta: _dump_timedelta,
    complex: _dump_complex,
    range: _dump_range,
}


def _load_zone(wire: object) -> tzinfo | None:
    if wire is None:
        return None
    if isinstance(wire, str):
        import re
        from zoneinfo import ZoneInfo

        # A key is a path in the zone database or a module of the `tzdata` package: refuse other paths.
        if not re.fullmatch(r"[A-Za-z0-9_+\-]+(/[A-Za-z0-9_+\-]+)*", wire):
            raise ValueError(f"{wire!r} is not the key of a time zone")
        return ZoneInfo(wire)
    offset, *name = cast("list[Any]", wire)
    return timezone(timedelta(microseconds=offset), *name)


def _load_datetime(data: memoryview) -> datetime:
    year, month, day, hour, minute, second, microsecond, fold, zone = decode_any(data)
    return datetime(year, month, day, hour, minute, second, microsecond, _load_zone(zone), fold=fold)


def _load_time(data: memoryview) -> time:
    hour, minute, second, microsecond, fold, zone = decode_any(data)
    return time(hour, minute, second, microsecond, _load_zone(zone), fold=fold)


def _load_pairs(data: memoryview) -> dict[object, object]:
    flat = decode_any(data)
    if len(flat) % 2:
        raise ValueError("a key has no value")
    return dict_of(flat[::2], flat[1::2])


def _load_decimal(data: memoryview) -> object:
    from decimal import Decimal

    return Decimal(bytes(data).decode())


def _load_uuid(data: memoryview) -> object:
    import uuid

    return uuid.UUID(bytes=bytes(data))


def _load_reference(code: int, data: memoryview) -> object:
    _load_file_types()
    if not _file_types:
        raise ValueError("a File or Dir can be read only where perdure.io can be imported")
    digest, size, name, *where = decode_any(data)
    more = dict(zip(("url", "etag"), where, strict=False))
    return _file_types[code - FILE](name=name, hash=digest.hex(), size=size, **more)  # refuses what makes no sense


# Without extensions: what is in a reference must not load another data frame.
_frame_record: Final = msgspec.msgpack.Decoder(tuple[bytes, int, bytes, str, int, int]).decode


def frame_reference(data: bytes | memoryview) -> Any:
    """The reference of a data frame. The content is not looked at."""
    _load_file_types()
    if not _frames:
        raise ValueError("a data frame can be read only where perdure.io can be imported")
    hash, size, content, kind, rows, columns = _frame_record(data)
    reference: Any = _frames[0].reference
    return reference(hash=hash.hex(), size=size, content=content, kind=kind, rows=rows, columns=columns)


def _load_frame(data: memoryview) -> object:
    reference = frame_reference(data)
    return _frames[0].get(reference, None)


_LOAD: dict[int, Callable[[memoryview], object]] = {
    INT: lambda data: int.from_bytes(data, "big", signed=True),
    STR: lambda data: bytes(data).decode("utf-8", "surrogatepass"),
    TUPLE: lambda data: tuple(decode_any(data)),
    SET: lambda data: set_of(decode_any(data)),
    FROZENSET: lambda data: frozenset(set_of(decode_any(data))),
    BYTEARRAY: bytearray,
    PAIRS: _load_pairs,
    DATETIME: _load_datetime,
    DATE: lambda data: date.fromordinal(decode_any(data)),
    TIME: _load_time,
    TIMEDELTA: lambda data: timedelta(*decode_any(data)),
    DECIMAL: _load_decimal,
    UUID: _load_uuid,
    COMPLEX: lambda data: complex(*decode_any(data)),
    RANGE: lambda data: range(*decode_any(data)),
    FILE: lambda data: _load_reference(FILE, data),
    DIR: lambda data: _load_reference(DIR, data),
    FRAME: frame_reference,
    FRAMED: _load_frame,
    FORM: lambda data: _form_reader[0](decode_any(data)),
}


def load_ext(code: int, data: memoryview) -> object:
    """The value of an extension."""
    load = _LOAD.get(code)
    if load is None:
        raise ValueError(f"extension {code} is unknown to this version of perdure")
    return load(data)


_decode: Final[Callable[[bytes | memoryview], Any]] = msgspec.msgpack.Decoder(ext_hook=load_ext).decode
_SMALL: Final = 4096


def decode_any(data: bytes | memoryview) -> Any:
    """Bytes to values, as under `Any`. Corrupt bytes raise exceptions of many types: callers catch `Exception`."""
    check_keys(data)
    return _decode(data)


def check_keys(data: bytes | memoryview) -> None:
    """Raise `ValueError` where a large map has keys that would fill a dict slowly.

    A MessagePack map may have any keys, and msgspec fills dicts without a limit of time. Maps of perdure's have text or
    integers for keys. Python salts the hashes of text; integers must not collide.
    """
    if len(data) > _SMALL and _tokens.may_have_large_map(data):
        for keys in _tokens.integer_keys(data):
            set_of(keys)


def short(value: object, limit: int = 60) -> str:
    """A value inside a message: the text of plain scalars only, because any other `repr` may be code of the user's."""
    if isinstance(value, int) and value.bit_length() > 256:
        return f"an integer of {value.bit_length()} bits"
    if type(value) not in SCALARS:
        return type(value).__qualname__
    text = repr(value[:limit]) if isinstance(value, (str, bytes)) else repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
