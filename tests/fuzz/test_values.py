"""Bytes of a journal, of any kind, under any declared type: a value or a typed error, in bounded time.

Family: every reader of stored bytes. Values, the arguments of a call, recorded exceptions, previews, notes.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any, Literal, NamedTuple, TypedDict
from uuid import UUID

import msgspec
import pydantic
from hypothesis import given
from hypothesis import strategies as st
from tests.fuzz.budget import bounded, damaged, examples, kept

from perdure.core.ground.values import ANY, Signature, codec_for, decode_error, describe_error, encode_error, preview
from perdure.core.ground.values._preview import preview_inputs
from perdure.core.journal.replay import decode_notes
from perdure.errors import UnsupportedTypeError, ValueMismatchError, ValueTooLargeError
from perdure.io import Dir, File


class Color(Enum):
    RED = "r"
    BLUE = 2


class Level(IntEnum):
    LOW = 1


@dataclass
class Point:
    x: int = 0
    tags: set[int] = field(default_factory=set)
    inner: Point | None = None


@dataclass(frozen=True, slots=True)
class Frozen:
    at: datetime
    names: tuple[str, ...] = ()


class Pair(NamedTuple):
    left: int
    right: str = ""


class Typed(TypedDict, total=False):
    number: int
    text: list[str]


class Struct(msgspec.Struct):
    a: int
    b: dict[str, float] = {}


class Model(pydantic.BaseModel):
    a: int
    b: list[str] = []


TYPES: list[Any] = [
    Any, str, int, bool, float, bytes, complex, range, datetime, date, time, timedelta, Decimal, UUID, None, Color,
    Level, Literal["a", 1], Point, Frozen, Pair, Typed, Struct, Model, list[int], set[str], frozenset[int],
    tuple[int, str], tuple[float, ...], dict[str, float], dict[int, str], dict[tuple[int, int], str], list[Point],
    int | str | None, Point | Frozen | None, File, Dir, File | None, list[dict[str, Decimal]], list[list[list[int]]],
]  # fmt: skip
CODECS = [codec_for(each, f"value of {each!r}", globals()) for each in TYPES]
REFUSED = (ValueMismatchError, UnsupportedTypeError, ValueTooLargeError)

SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.binary(max_size=20),
    st.decimals(), st.uuids(), st.dates(), st.datetimes(timezones=st.none() | st.just(UTC)), st.times(),
    st.timedeltas(), st.complex_numbers(), st.sampled_from([Color.RED, Level.LOW, range(3), range(9, 0, -2)]),
)  # fmt: skip
HASHABLE = st.one_of(st.integers(), st.text(max_size=8), st.booleans(), st.none(), st.tuples(st.integers(), st.text()))
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5), st.lists(inner, max_size=3).map(tuple), st.sets(HASHABLE, max_size=5),
        st.frozensets(HASHABLE, max_size=5), st.dictionaries(HASHABLE, inner, max_size=5),
    ),
    max_leaves=12,
)  # fmt: skip


def encoded(value: Any) -> bytes:
    try:
        return ANY.encode(value)
    except REFUSED:
        return b"\xc0"


EXTENSIONS = st.builds(
    lambda code, data: msgspec.msgpack.encode(msgspec.msgpack.Ext(code, data)),
    st.integers(-128, 127) | st.integers(0, 40),
    st.binary(max_size=30) | VALUES.map(encoded),
)
NESTED = st.builds(lambda head, depth, end: head * depth + end, st.binary(min_size=1, max_size=3),
                   st.integers(1, 5000), st.binary(max_size=5))  # fmt: skip
BYTES = st.one_of(
    st.binary(max_size=200), VALUES.map(encoded), damaged(VALUES.map(encoded)), EXTENSIONS, damaged(EXTENSIONS), NESTED
)


@kept("values", codec=CODECS[0])
@kept("values", codec=CODECS[TYPES.index(Point)])
@given(codec=st.sampled_from(CODECS), data=BYTES)
@examples(600)
def test_any_bytes_are_a_value_of_the_type_or_a_mismatch(codec: Any, data: bytes) -> None:
    """A value that was read can be written, and read again."""
    said = ""
    with bounded():
        try:
            again = codec.encode(codec.decode(data))
            assert codec.encode(codec.decode(again)) == again
        except ValueMismatchError as error:
            said = str(error)
    assert len(said) < 10_000


@given(value=VALUES)
@examples(400)
def test_a_value_without_a_declaration_comes_back_equal(value: Any) -> None:
    try:
        data, copy = ANY.roundtrip(value)
    except REFUSED:
        return
    assert same(copy, value)
    assert same(ANY.decode(data), value)
    assert ANY.canonical(copy) == ANY.canonical(value)


def same(one: Any, other: Any) -> bool:
    """Equal and of the same type, with NaN equal to itself."""
    if type(one) is not type(other):
        return False
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return len(one) == len(other) and all(key in other and same(one[key], other[key]) for key in one)
    if isinstance(one, Decimal):
        return str(one) == str(other)
    if isinstance(one, (float, complex)):
        return repr(one) == repr(other)
    return bool(one == other)


TYPED: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (each, st.from_type(each))
    for each in (Point, Frozen, Pair, Struct, list[int], dict[str, float], tuple[int, str], set[str], int | str | None)
]


@given(data=st.data())
@examples(200)
def test_a_value_of_a_declared_type_comes_back_equal(data: st.DataObject) -> None:
    declared, strategy = data.draw(st.sampled_from(TYPED))
    value = data.draw(strategy)
    codec = codec_for(declared, "value", globals())
    try:
        stored, copy = codec.roundtrip(value)
    except REFUSED:
        return
    assert plain(copy) == plain(value)
    assert plain(codec.decode(stored)) == plain(value)


def plain(value: Any) -> Any:
    """The value with NaN as text, as NaN does not equal itself."""
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [plain(getattr(value, each.name)) for each in dataclasses.fields(value)]
    if isinstance(value, msgspec.Struct):
        return plain(msgspec.structs.asdict(value))
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


@given(data=BYTES, limit=st.integers(1, 300))
@examples(300)
def test_any_bytes_are_shown_as_short_text(data: bytes, limit: int) -> None:
    with bounded():
        for shown in (preview(data, limit), preview_inputs(data, limit)):
            assert isinstance(shown, str)
            assert len(shown) <= max(limit, 50)


def called(a: int, b: Point | None = None, /, *many: str, c: list[float] = [], **rest: Any) -> None:  # noqa: B006
    pass


SIGNATURE = Signature.of(called)
INPUTS = st.dictionaries(st.sampled_from(["a", "b", "many", "c", "rest", "x"]), VALUES, max_size=5).map(encoded)


@given(data=st.one_of(BYTES, INPUTS, damaged(INPUTS)))
@examples(300)
def test_any_recorded_arguments_fit_the_parameters_or_are_a_mismatch(data: bytes) -> None:
    with bounded():
        try:
            args, kwargs = SIGNATURE.decode_inputs(data)
        except ValueMismatchError:
            return
        called(*args, **kwargs)


NODES = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "module": st.sampled_from(["builtins", "perdure.errors", "json", "pydantic_core._pydantic_core", "os", ""]),
            "name": st.sampled_from(
                ["ValueError", "OSError", "RemoteError", "ExceptionGroup", "BaseExceptionGroup", "ValidationError",
                 "JSONDecodeError", "UnicodeDecodeError", "KeyboardInterrupt", "StopIteration", "system", "object"]
            ),
            "message": st.text(max_size=5) | VALUES,
            "text": st.text(max_size=5) | VALUES,
            "args": st.lists(VALUES, max_size=3) | VALUES,
            "attributes": st.dictionaries(
                st.sampled_from(["errno", "filename", "__cause__", "__dict__", "__class__", "args", "x"]), VALUES,
                max_size=3,
            ) | VALUES,
            "members": st.lists(st.integers(-1, 4), max_size=3) | VALUES,
            "cause": st.integers(-1, 4) | VALUES,
            "context": st.integers(-1, 4) | VALUES,
            "suppress": st.booleans() | VALUES,
            "notes": st.lists(st.text(max_size=3), max_size=2) | VALUES,
            "validation": st.lists(VALUES, max_size=3) | VALUES,
        },
    ),
    max_size=5,
)  # fmt: skip


@kept("errors")
@given(data=st.one_of(BYTES, NODES.map(encoded), damaged(NODES.map(encoded))))
@examples(500)
def test_any_bytes_are_an_exception_or_a_mismatch(data: bytes) -> None:
    """The exception can be described, and recorded again."""
    with bounded():
        try:
            error = decode_error(data)
        except ValueMismatchError:
            return
        assert isinstance(error, BaseException)
        kind, message, text = describe_error(data)
        assert {type(kind), type(message), type(text)} == {str}
        decode_error(encode_error(error))


@given(data=st.one_of(BYTES, damaged(st.just(msgspec.msgpack.encode([(1, 1, 5, 0), (3, 2, 7, 1)])))))
@examples(200)
def test_any_bytes_are_notes_or_none(data: bytes) -> None:
    for event in decode_notes(data):
        assert all(type(each) is int for each in event)
