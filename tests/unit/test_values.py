"""Values come back as they were, or are refused with the annotation that would fit."""

from __future__ import annotations

import collections
import collections.abc as abc
import dataclasses
import enum
import functools
import math
import pathlib
import random
import re
import struct
import sys
import typing
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, Literal, NamedTuple, NewType, NotRequired, TypedDict, TypeVar, Union
from zoneinfo import ZoneInfo

import msgspec
import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perdure.core.ground.values import ANY, INLINE_LIMIT, _forms, codec_for, preview
from perdure.core.ground.values import _wire as wire
from perdure.core.ground.values._compile import is_native, node_of
from perdure.core.ground.values._wire import Mode
from perdure.errors import PerdureError, UnsupportedTypeError, ValueMismatchError, ValueTooLargeError

T = TypeVar("T")

# Generating types is slow on a busy machine, which says nothing about the code.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


class Color(enum.Enum):
    RED = "r"
    GREEN = object()  # no value that could be stored


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Word(enum.StrEnum):
    YES = "yes"


class Access(enum.Flag):
    READ = 1
    WRITE = 2
    RUN = 4


@dataclasses.dataclass
class Point:
    x: int
    y: float = 0.0


@dataclasses.dataclass
class Point3(Point):
    z: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    name: str
    parts: tuple[int, ...] = ()


@dataclasses.dataclass
class Named:
    name: str
    marks: list[int] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Order:
    at: datetime
    price: Decimal
    lines: list[Point]
    tags: set[str] = dataclasses.field(default_factory=set)
    total: int = dataclasses.field(init=False, default=7)
    color: Color = Color.RED


@dataclasses.dataclass
class Tree:
    value: int
    children: list[Tree] = dataclasses.field(default_factory=list)
    when: date | None = None


class Shape(msgspec.Struct):
    name: str
    sides: int = 3


class Dated(msgspec.Struct, frozen=True):
    at: datetime
    shape: Shape | None = None


class Row(msgspec.Struct, array_like=True):
    name: str
    size: int


class Sparse(msgspec.Struct, omit_defaults=True):
    size: int = 0


class Swapped(msgspec.Struct, rename={"one": "two", "two": "one"}):
    one: int = 0
    two: int = 0


@dataclasses.dataclass
class Sly:
    x: list[int]

    def __eq__(self, other: object) -> bool:
        return True


@dataclasses.dataclass
class Quiet:
    x: list[int] = dataclasses.field(compare=False)


class Movie(TypedDict):
    title: str
    year: NotRequired[int]


class Late(TypedDict, total=False):
    at: typing.Required[date]
    note: str


class Pair(NamedTuple):
    left: int
    right: str = "r"


Old = collections.namedtuple("Old", "a b")


@dataclasses.dataclass
class Box(typing.Generic[T]):
    item: T


class Model(pydantic.BaseModel):
    name: str
    at: datetime
    points: list[Point] = []
    parent: Model | None = None


@pytest.fixture(autouse=True)
def no_forms_of_flyte(monkeypatch: pytest.MonkeyPatch) -> None:
    """`perdure.flyte` stores more types, and another test may have imported it."""
    finders = [find for find in _forms._finders if not find.__module__.startswith("perdure.flyte")]
    monkeypatch.setattr(_forms, "_finders", finders)


def same(left: Any, right: Any) -> bool:
    """Equal in value and in type, all the way down; NaN is itself, and 0.0 is not -0.0."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return struct.pack(">d", left) == struct.pack(">d", right) or (math.isnan(left) and math.isnan(right))
    if isinstance(left, complex):
        return same(left.real, right.real) and same(left.imag, right.imag)
    if isinstance(left, Decimal):
        return left.as_tuple() == right.as_tuple()
    if isinstance(left, (datetime, time)):
        return repr(left) == repr(right)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return same(list(left.items()), list(right.items()))
    if isinstance(left, (set, frozenset)):
        return len(left) == len(right) and all(any(same(one, other) for other in right) for one in left)
    if dataclasses.is_dataclass(left):
        return all(same(getattr(left, f.name), getattr(right, f.name)) for f in dataclasses.fields(left))
    if isinstance(left, msgspec.Struct):
        return all(same(getattr(left, name), getattr(right, name)) for name in left.__struct_fields__)
    return bool(left == right)


# ------------------------------------------------------------------------------------------------ generated types

zones = st.one_of(
    st.none(),
    st.timezones(),
    st.builds(timezone, st.timedeltas(timedelta(hours=-23), timedelta(hours=23))),
    st.just(timezone(timedelta(hours=2), "HERE")),
)
texts = st.text(st.characters(), max_size=8)  # lone surrogates included
ints = st.one_of(st.integers(), st.integers(-(2**200), 2**200), st.sampled_from([2**63, -(2**63), 2**64 - 1, 2**64]))
SIMPLE: dict[Any, st.SearchStrategy[Any]] = {
    int: ints,
    float: st.floats(),
    str: texts,
    bool: st.booleans(),
    bytes: st.binary(max_size=9),
    uuid.UUID: st.uuids(),
    Decimal: st.decimals(),
    date: st.dates(),
    timedelta: st.timedeltas(),
    datetime: st.builds(
        lambda at, fold: at.replace(fold=fold), st.datetimes(timezones=zones, allow_imaginary=False), st.integers(0, 1)
    ),
    time: st.times(timezones=st.one_of(st.none(), st.just(UTC))),
    complex: st.complex_numbers(),
}
NAMED: dict[Any, st.SearchStrategy[Any]] = {
    None: st.none(),
    bytearray: st.builds(bytearray, st.binary(max_size=5)),
    range: st.builds(range, st.integers(), st.integers(), st.integers(1, 5)),
    pathlib.Path: st.builds(pathlib.Path, st.text("abc/.", max_size=6)),
    Color: st.sampled_from(Color),
    Level: st.sampled_from(Level),
    Word: st.sampled_from(Word),
    Access: st.builds(Access, st.integers(0, 7)),
    Literal["a", 1, None]: st.sampled_from(["a", 1, None]),
    Literal[Color.RED, "RED"]: st.sampled_from([Color.RED, "RED"]),
    Point: st.builds(Point, ints, st.floats()),
    Key: st.builds(Key, texts, st.lists(ints, max_size=2).map(tuple)),
    Tree: st.recursive(
        st.builds(Tree, ints), lambda inner: st.builds(Tree, ints, st.lists(inner, max_size=2)), max_leaves=4
    ),
    Order: st.builds(
        Order, SIMPLE[datetime], st.decimals(), st.lists(st.builds(Point, ints), max_size=2), st.sets(texts, max_size=3)
    ),
    Shape: st.builds(Shape, texts, ints),
    Dated: st.builds(Dated, SIMPLE[datetime], st.one_of(st.none(), st.builds(Shape, texts))),
    Row: st.builds(Row, texts, ints),
    Sparse: st.builds(Sparse, ints),
    Swapped: st.builds(Swapped, ints, ints),
    Movie: st.fixed_dictionaries({"title": texts}, optional={"year": ints}),
    Late: st.fixed_dictionaries({"at": st.dates()}, optional={"note": texts}),
    Pair: st.builds(Pair, ints, texts),
    Box[int]: st.builds(Box, ints),
    Model: st.builds(Model, name=st.text(max_size=3), at=SIMPLE[datetime], points=st.lists(st.builds(Point, ints))),
}
Typed = tuple[Any, st.SearchStrategy[Any]]
hashables: st.SearchStrategy[Typed] = st.sampled_from(
    [*SIMPLE.items(), (Decimal, st.decimals(allow_nan=False)), (Key, NAMED[Key]), (Color, NAMED[Color])]
).filter(lambda t: t[1] is not SIMPLE[Decimal])  # a signalling NaN has no hash


def _union(members: list[Typed]) -> Typed:
    return Union[tuple(tp for tp, _ in members)], st.one_of([values for _, values in members])  # noqa: UP007


def _containers(inner: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    few: dict[str, Any] = {"max_size": 3}
    return st.one_of(
        inner.map(lambda t: (list[t[0]], st.lists(t[1], **few))),
        inner.map(lambda t: (tuple[t[0], ...], st.lists(t[1], **few).map(tuple))),
        inner.map(lambda t: (dict[str, t[0]], st.dictionaries(texts, t[1], **few))),
        inner.map(lambda t: (dict[int, t[0]], st.dictionaries(ints, t[1], **few))),
        inner.map(lambda t: _union([t, (None, st.none())])),
        inner.map(lambda t: (Box[t[0]], st.builds(Box, t[1]))),
        st.tuples(inner, inner).map(lambda ts: (tuple[ts[0][0], ts[1][0]], st.tuples(ts[0][1], ts[1][1]))),
        st.lists(inner, min_size=2, max_size=3).map(_union),
        hashables.map(lambda t: (set[t[0]], st.sets(t[1], **few))),
        hashables.map(lambda t: (frozenset[t[0]], st.frozensets(t[1], **few))),
        st.tuples(hashables, inner).map(
            lambda ts: (dict[ts[0][0], ts[1][0]], st.dictionaries(ts[0][1], ts[1][1], **few))
        ),
    )


typed = st.recursive(st.sampled_from([*SIMPLE.items(), *NAMED.items()]), _containers, max_leaves=5)
anything = st.recursive(
    st.one_of(st.none(), NAMED[bytearray], NAMED[range], *SIMPLE.values()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(texts, inner, max_size=3),
        st.dictionaries(st.one_of(ints, texts, st.booleans(), st.tuples(texts, st.none())), inner, max_size=3),
        st.sets(st.one_of(ints, texts, st.frozensets(ints, max_size=2)), max_size=3),
    ),
    max_leaves=8,
)


@settings(parent=PATIENT, max_examples=500)
@given(data=st.data())
def test_a_value_of_a_declared_type_comes_back_as_it_was(data: st.DataObject) -> None:
    annotation, values = data.draw(typed)
    value = data.draw(values)
    codec = codec_for(annotation)
    encoded, copy = codec.roundtrip(value)
    assert same(copy, value)
    assert same(codec.decode(encoded), value), "what is read later differs from what was handed out first"
    assert same(codec.decode(codec.encode(value)), value)
    assert codec.canonical(copy) == codec.canonical(value)
    preview(encoded)


@PATIENT
@given(data=st.data())
def test_msgspec_and_the_nodes_write_and_read_the_same_bytes(data: st.DataObject) -> None:
    annotation, values = data.draw(typed.filter(lambda t: is_native(node_of(t[0]))))
    value = data.draw(values)
    node, codec = node_of(annotation), codec_for(annotation)
    encoded = codec.encode(value)
    assert encoded == wire.encode(node.dump(value, Mode(canonical=False)))
    assert codec.canonical(value) == wire.encode(node.dump(value, Mode(canonical=True)))
    assert same(node.load(wire.decode_any(encoded)), value)


@settings(parent=PATIENT, max_examples=300)
@given(value=anything)
def test_under_any_the_built_in_types_come_back_as_they_were(value: object) -> None:
    encoded, copy = ANY.roundtrip(value)
    assert same(copy, value)
    assert same(ANY.decode(encoded), value)
    assert preview(encoded)
    assert same(codec_for(dict[str, Any]).decode(codec_for(dict[str, Any]).encode({"k": value})), {"k": value})


def _shuffled(value: Any, source: random.Random) -> Any:
    if isinstance(value, dict):
        items = [(key, _shuffled(item, source)) for key, item in value.items()]
        source.shuffle(items)
        return dict(items)
    if isinstance(value, list):
        return [_shuffled(item, source) for item in value]
    if isinstance(value, tuple):
        return tuple(_shuffled(item, source) for item in value)
    return value


@PATIENT
@given(value=anything, source=st.randoms(use_true_random=False))
def test_canonical_bytes_do_not_depend_on_the_order_of_dicts(value: object, source: random.Random) -> None:
    assert ANY.canonical(_shuffled(value, source)) == ANY.canonical(value)


@PATIENT
@given(items=st.dictionaries(texts, st.dictionaries(ints, ints, max_size=4), max_size=4), source=st.randoms())
def test_canonical_bytes_of_declared_dicts_do_not_depend_on_order(items: Any, source: random.Random) -> None:
    codec = codec_for(dict[str, dict[int, int]])
    assert codec.canonical(_shuffled(items, source)) == codec.canonical(items)


@PATIENT
@given(data=st.binary(max_size=40), chosen=typed)
def test_corrupt_bytes_are_a_clear_error_or_a_value_that_fits(data: bytes, chosen: Typed) -> None:
    codec = codec_for(chosen[0])
    for read in (codec.decode, ANY.decode):
        try:
            read(data)
        except ValueMismatchError:
            pass
    preview(data)


@PATIENT
@given(data=st.data(), cut=st.integers(1, 20))
def test_truncated_bytes_are_a_clear_error(data: st.DataObject, cut: int) -> None:
    annotation, values = data.draw(typed)
    encoded = codec_for(annotation).encode(data.draw(values))
    with pytest.raises(ValueMismatchError):
        codec_for(annotation).decode(encoded[: max(len(encoded) - cut, 0)])


# ---------------------------------------------------------------------------------------------------- named cases


def shown(value: object) -> str:
    """A test's id: without addresses, as processes that share the tests have to agree on it."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (int, 2**64),
        (int, -(2**63) - 1),
        (int, 2**500),
        (float, math.nan),
        (float, -0.0),
        (float, math.inf),
        (list[float], [math.nan, 1.0]),
        (Point, Point(2**70, math.nan)),
        (str, "\ud800 \udfff"),
        (dict[str, int], {"b": 1, "a": 2}),
        (dict[str, int], {"\ud800": 1, "a": 2**80}),
        (Decimal, Decimal("-sNaN123")),
        (Decimal, Decimal("1.2300E+500")),
        (datetime, datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1)),
        (datetime, datetime(2024, 1, 1, tzinfo=timezone(timedelta(microseconds=-1)))),
        (datetime, datetime(1, 1, 1, 0, 0, 0, 1)),
        (time, time(1, 2, 3, 4, fold=1, tzinfo=ZoneInfo("Asia/Tokyo"))),
        (timedelta, timedelta.min),
        (int | str, "1"),
        (int | str, 1),
        (int | float, 1),
        (int | float, 1.0),
        (list[int] | list[str], ["a"]),
        (list[float] | list[int], [0]),
        (list[float] | list[int], [0.5, 1.0]),
        (Box[float] | Box[int] | None, Box(1)),
        (dict[str, list[float]] | dict[str, list[int] | str], {"a": [1], "b": "x"}),
        (tuple[float, Word] | tuple[float, str], (1.0, "yes")),
        (Point | Point3, Point3(1, 2.0, 3)),
        (Point | Shape | None, Shape("s")),
        (Point | Movie, {"title": "t"}),
        (Level | int, 1),
        (Level | int, Level.LOW),
        (bytes | bytearray, bytearray(b"x")),
        (set[int] | list[int], {3, 1, 2}),
        (tuple[int, str], (1, "a")),
        (tuple[()], ()),
        (tuple, (1, [2])),
        (list, [1, (2,)]),
        (dict, {1: 2, "a": {3}}),
        (dict[Key, Point], {Key("a", (1,)): Point(1)}),
        (dict[bool, int], {True: 1, False: 0}),
        (Old, Old(1, (2,))),
        (object, (1, 2)),
        (typing.Annotated[int, "metres"], 3),
        (typing.List[int], [1]),  # noqa: UP006
        (NewType("UserId", int), 5),
        (T, (1,)),
        (TypeVar("N", bound=int), 5),
        (TypeVar("S", int, str), "a"),
        (Box[Box[list[date]]], Box(Box([date(2020, 1, 1)]))),
        (Tree, Tree(1, [Tree(2, when=date(2020, 1, 1))])),
        (pathlib.PurePosixPath, pathlib.PurePosixPath("/a/b")),
        (Literal[True, 1, "1"], 1),
        (Literal[True, 1, "1"], True),
        (None, None),
    ],
    ids=shown,
)
def test_round_trip(annotation: Any, value: object) -> None:
    codec = codec_for(annotation)
    encoded, copy = codec.roundtrip(value)
    assert same(copy, value)
    assert same(codec.decode(encoded), value)


@pytest.mark.parametrize(
    ("annotation", "value", "copy"),
    [
        (float, 3, 3.0),
        (list[float], [1, 2**64], [1.0, 2.0**64]),
        (float | str, 3, 3.0),
        (abc.Sequence[int], (1, 2), [1, 2]),
        (abc.Iterable[int], {2, 1}, [1, 2]),
        (abc.Iterable[int], range(2), [0, 1]),
        (abc.Mapping[str, int], collections.OrderedDict(a=1), {"a": 1}),
        (dict[str, int], collections.Counter("aa"), {"a": 2}),
        (str, Word.YES, "yes"),
        (list[str], [Word.YES], ["yes"]),
        (int, Level.HIGH, 2),
        (bytes, bytearray(b"x"), b"x"),
        (list[bytes], [bytearray(b"x")], [b"x"]),
        (list[float] | list[str], [1], [1.0]),
        (list[float] | set[int], [1, 2.5], [1.0, 2.5]),
    ],
    ids=shown,
)
def test_a_value_of_a_wider_kind_becomes_the_declared_type_live_and_later(
    annotation: Any, value: object, copy: object
) -> None:
    codec = codec_for(annotation)
    encoded, live = codec.roundtrip(value)
    assert same(live, copy)
    assert same(codec.decode(encoded), copy)
    assert same(codec.decode(codec.encode(value)), copy)


@pytest.mark.parametrize(
    ("annotation", "value", "said"),
    [
        (int, "3", "declared `int`, got str '3'; `str` would fit"),
        (int, True, "`bool` would fit"),
        (int, 1.0, "`float` would fit"),
        (int, None, "`int | None` would fit"),
        (str, 3, "`int` would fit"),
        (str, uuid.UUID(int=1), "`UUID` would fit"),
        (list[str], [uuid.UUID(int=1)], "at [0]: expected `str`"),
        (list[str], [Decimal(1)], "`Decimal` would fit"),
        (list[str], [datetime(2020, 1, 1)], "`datetime` would fit"),
        (bool, 1, "`int` would fit"),
        (None, 0, "`int` would fit"),
        (bytes, "x", "`str` would fit"),
        (list[int], (1, 2), "`tuple[int, int]` would fit"),
        (list[int], {1}, "`set[int]` would fit"),
        (list[int], [1, "2"], "at [1]: expected `int`, got str '2'; `str` would fit (declared: `list[int]`)"),
        (list[int], [1, None], "`int | None` would fit"),
        (tuple[int, int], (1,), "`tuple[int]` would fit"),
        (tuple[int, ...], [1], "`list[int]` would fit"),
        (set[int], [1], "`list[int]` would fit"),
        (dict[str, int], {"a": "b"}, "at ['a']: expected `int`"),
        (dict[str, int], {1: 1}, "at [1]: expected `str`"),
        (dict[str, list[int]], {"a": [1, {}]}, "at ['a'][1]"),
        (date, datetime(2020, 1, 1), "`datetime` would fit"),
        (Point, Point3(1), "a subclass would lose what it adds"),
        (list[Point], [Point3(1)], "a subclass would lose"),
        (Tree, Tree(1, [Tree(2, [Tree("x")])]), ".children[0].children[0].value"),  # type: ignore[arg-type]
        (Shape, Shape(3), "at .name: expected `str`, got int 3"),  # type: ignore[arg-type]
        (list[Point], [{"x": 1, "y": 2.0}], "`dict[str, int | float]` would fit"),
        (dict[str, int], Point(1), "`Point` would fit"),
        (Key, Key(uuid.UUID(int=1)), "at .name: expected `str`"),  # type: ignore[arg-type]
        (Point, Point(1, Decimal(2)), "at .y: expected `float`"),  # type: ignore[arg-type]
        (Named, Named(uuid.UUID(int=1)), "at .name: expected `str`"),  # type: ignore[arg-type]
        (Named, Named("n", (1,)), "at .marks: expected `list[int]`"),  # type: ignore[arg-type]
        (list[Named], [Named("n", (1,))], "at [0].marks: expected `list[int]`"),  # type: ignore[arg-type]
        (Movie, {"year": 1}, "key 'title' is missing"),
        (Movie, {"title": "t", "x": 1}, "key 'x' is not declared"),
        (Late, {"note": "n"}, "key 'at' is missing"),
        (Literal["a"], "b", "declared `Literal['a']`, got str 'b'"),
        (Literal[1], True, "`bool` would fit"),
        (Color, "RED", "`str` would fit"),
        (int | str, 1.5, "declared `int | str`, got float 1.5; `float` would fit"),
        (Point | Shape, Point("x"), "at .x: expected `int`"),  # type: ignore[arg-type]
        (typing.NoReturn, 3, "declared `NoReturn`, got int 3"),
        (abc.Iterable[int], iter([1]), "an iterator is used up by storing it"),
        (abc.Sequence[str], "abc", "`str` would fit"),
        (float, 10**400, "too large for a float"),
        (int, print, "no annotation fits it"),
    ],
    ids=shown,
)
def test_a_value_that_does_not_fit_is_refused_and_the_message_says_what_would(
    annotation: Any, value: object, said: str
) -> None:
    codec = codec_for(annotation, "return value of f")
    calls: list[Callable[[Any], object]] = [codec.encode, codec.roundtrip, codec.canonical]
    for call in calls:
        with pytest.raises(ValueMismatchError) as caught:
            call(value)
        assert str(caught.value).startswith("return value of f")
        assert said in str(caught.value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (Point(1), "annotate it as `Point`"),
        (Color.RED, "annotate it as `Color`"),
        (Level.LOW, "annotate it as `Level`"),
        (Pair(1), "annotate it as `Pair`"),
        (Shape("s"), "annotate it as `Shape`"),
        (Model(name="m", at=datetime(2020, 1, 1)), "annotate it as `Model`"),
        (object(), "store the data it holds instead"),
        (collections.OrderedDict(a=1), "cannot be stored without a declared type"),
        (sys, "store the data it holds instead"),
        (int, "store the data it holds instead"),
    ],
    ids=shown,
)
def test_under_any_nothing_is_guessed(value: object, said: str) -> None:
    with pytest.raises(UnsupportedTypeError, match="cannot be stored without a declared type") as caught:
        ANY.encode(value)
    assert said in str(caught.value)
    with pytest.raises(UnsupportedTypeError, match=r"value, at \[1\]\['k'\]: "):
        ANY.encode([1, {"k": value}])


@pytest.mark.parametrize(
    "annotation",
    [
        type, type[int], Callable, Callable[[int], str], abc.Iterator[int], abc.Generator[int, None, None],
        abc.AsyncIterator[int], list[functools.partial], dict[str, abc.Awaitable[int]], Exception, memoryview,
        enum.Enum, 3,
    ],
    ids=shown,
)  # fmt: skip
def test_a_type_that_cannot_be_stored_is_refused_at_declaration(annotation: Any) -> None:
    with pytest.raises(UnsupportedTypeError, match="return value of f: "):
        codec_for(annotation, "return value of f")


def test_a_field_that_cannot_be_stored_is_named() -> None:
    @dataclasses.dataclass
    class Client:
        url: str
        connection: Callable[[], None]

    with pytest.raises(UnsupportedTypeError, match=r"field 'connection' of .*Client: .*Callable"):
        codec_for(list[Client])


def test_an_unknown_name_in_a_dataclass_is_named() -> None:
    @dataclasses.dataclass
    class Odd:
        x: Nowhere  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(UnsupportedTypeError, match="Nowhere"):
        codec_for(Odd)


def test_values_over_the_inline_limit_are_refused_with_the_way_out() -> None:
    fits = b"x" * (INLINE_LIMIT - 5)
    assert codec_for(bytes).decode(codec_for(bytes).encode(fits)) == fits
    for annotation, value in ((bytes, fits + b"x"), (Any, fits + b"x"), (list[bytes], [fits]), (Any, (fits,))):
        for call in (codec_for(annotation, "it").encode, codec_for(annotation, "it").roundtrip):
            with pytest.raises(ValueTooLargeError, match=r"it: 10,485,7\d\d bytes .* limit of 10,485,760 .*io\.File"):
                call(value)


def test_a_value_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    for annotation in (list[Any], Any, list):
        with pytest.raises(ValueMismatchError, match="contains itself"):
            codec_for(annotation).encode(loop)
    tree = Tree(1)
    tree.children.append(tree)
    with pytest.raises(ValueMismatchError, match="contains itself"):
        codec_for(Tree).encode(tree)


def test_the_order_of_dicts_is_kept_and_sets_are_sorted() -> None:
    encoded, copy = codec_for(dict[str, Any]).roundtrip({"b": 1, "a": {"z": 1, "y": 2}})
    assert list(copy) == ["b", "a"]
    assert list(copy["a"]) == ["z", "y"]
    assert codec_for(set[int]).encode({3, 1, 2}) == codec_for(list[int]).encode([1, 2, 3])
    assert encoded != codec_for(dict[str, Any]).canonical({"b": 1, "a": {"z": 1, "y": 2}})


def test_canonical_bytes_tell_numbers_booleans_and_text_apart() -> None:
    assert len({ANY.canonical(value) for value in (1, 1.0, True, "1", b"1", (1,), [1])}) == 7


def test_a_dataclass_is_rebuilt_without_running_its_code_again() -> None:
    runs = []

    @dataclasses.dataclass
    class Account:
        cents: int
        scale: dataclasses.InitVar[int] = 100

        def __post_init__(self, scale: int) -> None:
            runs.append(scale)
            self.cents *= scale
            self._cache = {"k": (1,)}

        @functools.cached_property
        def lazy(self) -> object:
            return object()

    account = Account(3)
    assert account.lazy
    encoded, copy = codec_for(Account).roundtrip(account)
    assert (copy.cents, copy._cache, runs) == (300, {"k": (1,)}, [100])
    assert codec_for(Account).decode(encoded) == copy
    account._cache = object()  # type: ignore[assignment]
    with pytest.raises(ValueMismatchError, match=r"_cache.* is no field of"):
        codec_for(Account).encode(account)


def test_fields_may_be_added_and_removed_between_writing_and_reading() -> None:
    @dataclasses.dataclass
    class Before:
        x: int
        gone: str

    @dataclasses.dataclass
    class After:
        x: int
        new: list[int] = dataclasses.field(default_factory=lambda: [1])
        at: date | None = None

    @dataclasses.dataclass
    class Bad:
        x: int
        needed: date

    encoded = codec_for(Before).encode(Before(1, "g"))
    assert codec_for(After).decode(encoded) == After(1, [1])
    with pytest.raises(ValueMismatchError, match="field 'needed' is missing"):
        codec_for(Bad).decode(encoded)


def test_a_struct_with_options_of_its_own() -> None:
    class Odd(msgspec.Struct, rename="camel", tag=True, array_like=True, omit_defaults=True):
        first_name: str = "a"
        big: int = 0

        def __post_init__(self) -> None:
            self.first_name += "!"

    value = Odd("b", 2**70)
    assert codec_for(Odd).roundtrip(value)[1] == value
    assert value.first_name == "b!"


def test_dataclass_with_an_equality_of_its_own_is_still_checked() -> None:
    for annotation, value in ((Sly, Sly((1,))), (Quiet, Quiet((1,)))):  # type: ignore[arg-type]
        with pytest.raises(ValueMismatchError, match=r"tuple\[int\]"):
            codec_for(annotation).encode(value)
        with pytest.raises(ValueMismatchError, match=r"tuple\[int\]"):
            codec_for(list[annotation]).encode([value])  # type: ignore[valid-type]


def test_a_slotted_dataclass_under_a_base_with_a_dict_is_still_checked() -> None:
    class Base:
        pass

    @dataclasses.dataclass(slots=True)
    class Slotted(Base):
        x: list[int]

    assert codec_for(Slotted).roundtrip(Slotted([1]))[1] == Slotted([1])
    with pytest.raises(ValueMismatchError, match=r"tuple\[int\]"):
        codec_for(Slotted).encode(Slotted((1,)))  # type: ignore[arg-type]


def test_a_foreign_equality_that_raises_does_not_matter() -> None:
    class Touchy(dict[str, int]):
        def __eq__(self, other: object) -> bool:
            raise RuntimeError

        __hash__ = None  # type: ignore[assignment]

    assert codec_for(dict[str, int]).roundtrip(Touchy(a=1))[1] == {"a": 1}


def test_pydantic_models_keep_types_private_attributes_and_extra_fields() -> None:
    runs = []

    class Settings(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="allow", frozen=True)
        url: pydantic.AnyUrl
        pair: tuple[int, Decimal] = pydantic.Field(alias="PAIR")
        items: set[int] = set()
        _secret: tuple[int, ...] = pydantic.PrivateAttr(default=(1,))

        @pydantic.field_validator("pair")
        @classmethod
        def once(cls, value: Any) -> Any:
            runs.append(value)
            return value

    value = Settings(url="https://example.org/a", PAIR=(1, "2.50"), more=(1, 2))  # type: ignore[call-arg, arg-type]
    value._secret = (5,)
    encoded, copy = codec_for(Settings).roundtrip(value)
    assert copy == value
    assert copy.model_extra == {"more": (1, 2)}
    assert copy._secret == (5,)
    assert copy.model_fields_set == value.model_fields_set
    assert len(runs) == 1
    assert codec_for(Settings).decode(encoded) == value
    assert codec_for(Settings | None).roundtrip(value)[1] == value


def test_a_pydantic_type_that_hides_its_value_is_refused() -> None:
    class Login(pydantic.BaseModel):
        password: pydantic.SecretStr

    with pytest.raises(ValueMismatchError, match="pydantic does not read back what it writes"):
        codec_for(Login).encode(Login(password=pydantic.SecretStr("x")))


def test_a_subclass_of_a_pydantic_model_is_refused() -> None:
    class Special(Model):
        extra: int = 1

    with pytest.raises(ValueMismatchError, match="a subclass would lose"):
        codec_for(Model).encode(Special(name="s", at=datetime(2020, 1, 1)))


def test_a_datetime_of_a_subclass_is_taken_unless_something_is_lost() -> None:
    class Fake(datetime):
        pass

    class Nano(datetime):
        def __eq__(self, other: object) -> bool:
            return False

        __hash__ = datetime.__hash__

    assert same(codec_for(datetime).roundtrip(Fake(2020, 1, 1))[1], datetime(2020, 1, 1))
    with pytest.raises(ValueMismatchError, match="declared `datetime`"):
        codec_for(datetime).encode(Nano(2020, 1, 1))


@pytest.mark.parametrize("key", ["../../etc/passwd", "a.b", "", "/etc/localtime", "Nowhere/At_All"])
def test_the_key_of_a_time_zone_cannot_name_other_files_or_modules(key: str) -> None:
    payload = wire.encode([2020, 1, 1, 0, 0, 0, 0, 0, key])
    data = msgspec.msgpack.encode(msgspec.msgpack.Ext(wire.DATETIME, payload))
    before = set(sys.modules)
    with pytest.raises(ValueMismatchError, match=r"is not the key of a time zone|No time zone found"):
        ANY.decode(data)
    assert not {name for name in set(sys.modules) - before if "tzdata" not in name and "zoneinfo" not in name}


def test_every_refusal_is_an_error_of_perdure() -> None:
    for error in (UnsupportedTypeError, ValueMismatchError, ValueTooLargeError):
        assert issubclass(error, PerdureError)


def test_an_integer_with_more_digits_than_python_prints() -> None:
    huge = 10**5000
    assert codec_for(int).roundtrip(huge)[1] == codec_for(int).decode(codec_for(int).encode(huge)) == huge
    with pytest.raises(ValueMismatchError, match="an integer of 16610 bits"):
        codec_for(str).encode(huge)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the `type` statement is new in Python 3.12")
def test_type_aliases_may_be_recursive_and_generic() -> None:
    space: dict[str, Any] = {}
    exec("type Json = dict[str, Json] | list[Json] | str | int | None\ntype Two[T] = tuple[T, T]", space)
    json = {"a": [1, {"b": None}], "c": "x"}
    assert codec_for(space["Json"]).roundtrip(json)[1] == json
    assert codec_for(space["Two"][date]).roundtrip((date.min, date.max))[1] == (date.min, date.max)
    with pytest.raises(ValueMismatchError):
        codec_for(space["Json"]).encode({"a": [1.5]})


def test_numbers_of_numpy_become_the_declared_numbers() -> None:
    np = pytest.importorskip("numpy")
    for annotation, value, expected in (
        (int, np.int64(3), 3), (int, np.uint8(200), 200), (float, np.float32(0.5), 0.5), (float, np.float64(0.5), 0.5),
        (float, np.int32(2), 2.0), (bool, np.bool_(True), True), (list[int], [np.int64(1), 2], [1, 2]),
        (dict[int, float], {np.int64(1): np.float16(1)}, {1: 1.0}), (set[int], {np.int64(5)}, {5}),
        (complex, np.complex128(1j), 1j), (int | str, np.int64(4), 4), (int | float, np.float32(4), 4.0),
    ):  # fmt: skip
        codec = codec_for(annotation)
        data, copy = codec.roundtrip(value)
        assert copy == expected
        assert type(copy) is type(expected)
        assert data == codec.encode(expected)
        assert codec.canonical(value) == codec.canonical(expected)
    for annotation, value in ((int, np.float64(3.0)), (int, np.bool_(True)), (bool, np.int64(1)), (int, np.array(3))):
        with pytest.raises(ValueMismatchError):
            codec_for(annotation).encode(value)
    with pytest.raises(UnsupportedTypeError, match="annotate it as `int`"):
        ANY.encode(np.int64(3))


def test_codecs_are_compiled_once() -> None:
    assert codec_for(list[int], "x") is codec_for(list[int], "x")
    assert codec_for(typing.Annotated[int, []]).decode(codec_for(typing.Annotated[int, []]).encode(3)) == 3


def test_preview_shows_any_value_without_its_class() -> None:
    assert preview(ANY.encode({"a": (1, [None, "x"], {2}), 3: b"y"})) == "{'a': (1, [None, 'x'], {2}), 3: b'y'}"
    assert preview(codec_for(Point).encode(Point(1, 2.5))) == "{'x': 1, 'y': 2.5}"
    assert preview(ANY.encode((1,))) == "(1,)"
    assert preview(ANY.encode(set())) == "set()"
    assert preview(ANY.encode("x" * 1000), limit=10) == "'xxxxxxxx…"
    assert preview(b"\xc1") == "<unreadable value of 1 bytes>"
    assert preview(ANY.encode(10**5000)).startswith("0x")


def test_importing_the_module_stays_cheap() -> None:
    import subprocess

    code = (
        "import sys, asyncio, sqlite3, msgspec; before = set(sys.modules); import perdure.core.ground.values;"
        "heavy = {'pydantic', 'typing_extensions', 'decimal', 'uuid', 'zoneinfo', 'dataclasses'};"
        "print(sorted((set(sys.modules) - before) & heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
