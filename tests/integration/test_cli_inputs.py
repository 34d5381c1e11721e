"""`perdure run`'s options: a task's signature decides how words become values, and every wrong word is named."""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NewType, TypedDict
from uuid import UUID

import msgspec
import pydantic
import pytest

import perdure
from perdure.api.convert import Unfit, from_json, from_text
from perdure.api.jsonable import jsonable
from perdure.cli.inputs import Own, inputs_of, read, split
from perdure.cli.output import readable
from perdure.errors import InputError
from perdure.io import Dir, File

env = perdure.TaskEnvironment(name="t")


class Colour(enum.Enum):
    RED = "r"
    BLUE = 2


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclass
class Item:
    sku: str
    price: Decimal
    when: date | None = None


@dataclass
class Order:
    id: int
    items: list[Item] = field(default_factory=list)
    by: dict[str, float] = field(default_factory=dict)


@dataclass
class Circle:
    radius: float


@dataclass
class Square:
    side: float


class Point(NamedTuple):
    x: int
    y: int = 0


class Options(TypedDict, total=False):
    fast: bool
    path: Path


class Packed(msgspec.Struct):
    a: int
    where: Path = Path()


class Model(pydantic.BaseModel):
    age: int = pydantic.Field(ge=0)
    born: date | None = None


UserId = NewType("UserId", int)


def task_of(annotation: Any, default: Any = None) -> Any:
    def fn(x=default):  # type: ignore[no-untyped-def]
        pass

    fn.__annotations__ = {"x": annotation}
    return env.task(fn)


def given(task: Any, *words: str) -> Any:
    args, values = read(task, "file.py", words, Own())
    assert not args
    return values


@pytest.mark.parametrize(
    ("annotation", "words", "value"),
    [
        (str, ["--x", "5"], "5"),
        (str, ["--x="], ""),
        (str, ["--x", "-5"], "-5"),
        (int, ["--x", "-5"], -5),
        (int, ["--x", "123456789012345678901234567890"], 123456789012345678901234567890),
        (float, ["--x", "1"], 1.0),
        (float, ["--x=-inf"], -math.inf),
        (bool, ["--x"], True),
        (bool, ["--no-x"], False),
        (bool, ["--x=true"], True),
        (bool, ["--x=off"], False),
        (bool | None, ["--x=null"], None),
        (bool | None, ["--x"], True),
        (int | None, ["--x", "null"], None),
        (int | None, ["--x", "None"], None),
        (int | None, ["--x", "7"], 7),
        (str | None, ["--x", "None"], "None"),
        (str | None, ["--x", "null"], None),
        (None, ["--x", "null"], None),
        (Colour, ["--x", "RED"], Colour.RED),
        (Colour, ["--x", "2"], Colour.BLUE),
        (Level, ["--x", "HIGH"], Level.HIGH),
        (Literal["a", 3], ["--x", "3"], 3),
        (datetime, ["--x", "2026-11-22T09:30:00Z"], datetime(2026, 11, 22, 9, 30, tzinfo=UTC)),
        (date, ["--x", "2026-11-22"], date(2026, 11, 22)),
        (time, ["--x", "09:30"], time(9, 30)),
        (timedelta, ["--x", "90"], timedelta(seconds=90)),
        (timedelta, ["--x", "1.5"], timedelta(seconds=1.5)),
        (timedelta, ["--x", "1h30m"], timedelta(hours=1.5)),
        (timedelta, ["--x", "1:30:00"], timedelta(hours=1.5)),
        (timedelta, ["--x", "2 days, 1:00:00"], timedelta(days=2, hours=1)),
        (timedelta, ["--x", "PT1H30M"], timedelta(hours=1.5)),
        (Decimal, ["--x", "0.10"], Decimal("0.10")),
        (UUID, ["--x", "12345678123456781234567812345678"], UUID("12345678123456781234567812345678")),
        (Path, ["--x", "a/b"], Path("a/b")),
        (bytes, ["--x", "aGk="], b"hi"),
        (complex, ["--x", "1+2j"], 1 + 2j),
        (UserId, ["--x", "5"], 5),
        (Annotated[int, "doc"], ["--x", "5"], 5),
        (Any, ["--x", "5"], 5),
        (Any, ["--x", "plain text"], "plain text"),
        (Any, ["--x", '{"a": 1.5}'], {"a": 1.5}),
        (list[int], ["--x", "[1, 2]"], [1, 2]),
        (list[int], ["--x", "1", "--x", "2"], [1, 2]),
        (list[int], ["--x", "1"], [1]),
        (list[int] | None, ["--x", "1"], [1]),
        (list[str], ["--x", "a", "--x", "[b]"], ["a", "[b]"]),
        (list[str], ["--x", "[draft] report"], ["[draft] report"]),
        (list[list[int]], ["--x", "[1]", "--x", "[2]"], [[1], [2]]),
        (list[date], ["--x", '["2026-11-22"]'], [date(2026, 11, 22)]),
        (Sequence[int], ["--x", "[1]"], [1]),
        (set[int], ["--x", "[1, 1]"], {1}),
        (frozenset[str], ["--x", "a"], frozenset({"a"})),
        (tuple[int, ...], ["--x", "1", "--x", "2"], (1, 2)),
        (tuple[int, str], ["--x", '[1, "a"]'], (1, "a")),
        (dict[str, int], ["--x", '{"a": 1}'], {"a": 1}),
        (dict[int, date], ["--x", '{"1": "2026-11-22"}'], {1: date(2026, 11, 22)}),
        (dict[Colour, int], ["--x", '{"RED": 1}'], {Colour.RED: 1}),
        (
            Order,
            ["--x", '{"id": 1, "items": [{"sku": "a", "price": 0.12345678901234567890, "when": "2026-11-22"}]}'],
            Order(1, [Item("a", Decimal("0.12345678901234567890"), date(2026, 11, 22))]),
        ),
        (Circle | Square, ["--x", '{"side": 2}'], Square(2.0)),
        (list[Circle | Square], ["--x", '[{"radius": 1}, {"side": 2}]'], [Circle(1.0), Square(2.0)]),
        (int | str, ["--x", "5"], 5),
        (int | str, ["--x", '"5"'], "5"),
        (int | str, ["--x", "five"], "five"),
        (int | float, ["--x", "5"], 5),
        (float | int, ["--x", "5"], 5),
        (date | str, ["--x", "2026-11-22"], date(2026, 11, 22)),
        (date | str, ["--x", "soon"], "soon"),
        (str | list[str], ["--x", '["a"]'], ["a"]),
        (Point, ["--x", '{"x": 1}'], Point(1)),
        (Point, ["--x", "[1, 2]"], Point(1, 2)),
        (Options, ["--x", '{"path": "a"}'], {"path": Path("a")}),
        (Packed, ["--x", '{"a": 1, "where": "b"}'], Packed(1, Path("b"))),
        (Model, ["--x", '{"age": 3, "born": "2026-11-22"}'], Model(age=3, born=date(2026, 11, 22))),
        (list[Model], ["--x", '[{"age": 3}]'], [Model(age=3)]),
    ],
)
def test_words_become_values_of_the_declared_type(annotation: Any, words: list[str], value: Any) -> None:
    found = given(task_of(annotation), *words)["x"]
    assert found == value
    assert type(found) is type(value)


def test_values_inside_structures_have_their_types_too() -> None:
    order = given(task_of(Order), "--x", '{"id": 1, "items": [{"sku": "a", "price": 2}], "by": {"k": 1}}')["x"]
    assert type(order.items[0].price) is Decimal
    assert type(order.by["k"]) is float


def test_what_was_read_is_accepted_by_the_task() -> None:
    task = task_of(Order)
    values = given(task, "--x", '{"id": 1}')
    assert task.spec.signature.encode_inputs((), values)


@pytest.mark.parametrize(
    ("annotation", "words", "message"),
    [
        (int, ["--x", "five"], "input --x of t.fn is int, not 'five'"),
        (bool, ["--x=maybe"], "input --x of t.fn is bool, not 'maybe'"),
        (Colour, ["--x", "GREEN"], "input --x of t.fn is RED | BLUE, not 'GREEN': expected one of RED, BLUE"),
        (date, ["--x", "22.11.2026"], "input --x of t.fn is date, not '22.11.2026': expected date, such as 2026-11-22"),
        (int | None, ["--x", "a"], "input --x of t.fn is int | None, not 'a': expected int or null"),
        (list[int], ["--x", "a"], "input --x of t.fn is list[int], not 'a'"),
        (list[int], ["--x", '[1, "a"]'], "at [1]: expected int, not 'a'"),
        (Order, ["--x", "{"], "expected Order as JSON, not '{' (Expecting property name"),
        (Order, ["--x", '{"items": []}'], "(missing: id)"),
        (Order, ["--x", '{"id": 1, "nope": 2}'], "expected Order with id, items, by, not 'nope' (unknown field)"),
        (Order, ["--x", '{"id": true}'], "at .id: expected int, not true"),
        (Order, ["--x", '{"id": 1, "items": [{"sku": "a", "price": "x"}]}'], "at .items[0].price: expected Decimal"),
        (Circle | Square, ["--x", '{"height": 2}'], "is Circle | Square, not"),
        (tuple[int, str], ["--x", "[1]"], "expected tuple[int, str] (a JSON array of 2), not [1]"),
        (dict[int, int], ["--x", '{"a": 1}'], "expected the key to be int, not 'a'"),
        (Model, ["--x", '{"age": -1}'], "age: Input should be greater than or equal to 0"),
        (Packed, ["--x", '{"a": "b"}'], "Expected `int`, got `str`"),
        (int, ["--x"], "--x needs a value: int"),
        (int, ["--x", "1", "--x", "2"], "input --x of t.fn is given 2 times; it is int"),
        (int, ["--y", "1"], "no such input: --y. t.fn takes: --x (int)"),
        (int, ["1"], "unexpected '1'; inputs are given by name. t.fn takes: --x (int)"),
        (bool, ["--x", "true"], "unexpected 'true'; write --x=true"),
        (bool, ["--no-x=1"], "--no-x takes no value"),
        (str, ["--x", "--json"], "if --json is meant to be it: --x=--json"),
    ],
)
def test_a_wrong_word_is_one_message_that_names_it(annotation: Any, words: list[str], message: str) -> None:
    with pytest.raises(InputError) as raised:
        given(task_of(annotation), *words)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_missing_inputs_are_named_with_their_types() -> None:
    @env.task
    def fn(url: str, count: int, deep: bool = False) -> None: ...

    with pytest.raises(InputError, match=r"missing inputs of t.fn: --url \(str\), --count \(int\)$"):
        given(fn)


def test_a_near_miss_is_suggested() -> None:
    @env.task
    def fn(batch_size: int = 1) -> None: ...

    with pytest.raises(InputError, match=r"Did you mean --batch-size\?"):
        given(fn, "--bach-size", "2")


def test_dashes_and_underscores_are_the_same() -> None:
    @env.task
    def fn(batch_size: int = 1, from_: str = "", _x: int = 0) -> None: ...

    assert given(fn, "--batch-size", "2") == given(fn, "--batch_size=2") == {"batch_size": 2}
    assert given(fn, "--from", "a") == given(fn, "--from_=a") == {"from_": "a"}
    assert given(fn, "--_x=1") == {"_x": 1}


def test_an_input_called_no_something_is_not_taken_for_a_negation() -> None:
    @env.task
    def fn(cache: bool = True, no_cache: bool = False) -> None: ...

    assert given(fn, "--no-cache") == {"no_cache": True}
    assert given(fn, "--no-no-cache") == {"no_cache": False}


def test_without_annotation_the_default_tells() -> None:
    @env.task
    def fn(flag=False, text="a", n=3) -> None:  # type: ignore[no-untyped-def]
        ...

    assert given(fn, "--flag", "--text", "5", "--n", "5") == {"flag": True, "text": "5", "n": 5}


def test_variadic_and_positional_only_parameters() -> None:
    @env.task
    def fn(a: int, b: int = 2, /, *more: int, c: int = 3, **rest: float) -> None: ...

    words = ["--a", "1", "--more", "7", "--more", "8", "--c", "4", "--other-thing", "1.5"]
    assert read(fn, "f.py", words, Own()) == ((1, 2, 7, 8), {"c": 4, "other_thing": 1.5})
    assert read(fn, "f.py", ["--a", "1"], Own()) == ((1,), {})


def test_our_own_options_stand_anywhere_before_the_double_dash() -> None:
    @env.task
    def fn(help: str = "", n: int = 0) -> None: ...

    own = Own()
    assert read(fn, "f.py", ["--n", "1", "--json", "--name", "mine", "-vv", "--", "--help", "theirs"], own) == (
        (),
        {"n": 1, "help": "theirs"},
    )
    assert (own.name, own.json, own.verbose) == ("mine", True, 2)


def test_an_input_called_like_our_own_option_goes_before_it_behind_the_task() -> None:
    @env.task
    def fn(name: str, help: str = "") -> None: ...

    own = split(["--name", "daily", "f.py", "fn", "--name", "x"]).own
    assert read(fn, "f.py", ["--name", "x", "--json"], own) == ((), {"name": "x"})
    assert (own.name, own.json) == ("daily", True)
    assert read(fn, "f.py", ["--help"], own) == ((), {})
    assert own.help


def test_file_and_task_are_found_behind_our_options() -> None:
    found = split(["--name", "a", "-q", "f.py", "--json", "main", "--n", "1", "--quiet"])
    assert (found.file, found.task, found.rest) == ("f.py", "main", ["--n", "1", "--quiet"])
    assert found.own == Own(name="a", quiet=True, json=True)
    with pytest.raises(InputError, match="no such option: --n;"):
        split(["--n", "f.py"])
    with pytest.raises(InputError, match="--name needs a value"):
        split(["--name"])


def test_help_shows_types_as_their_author_wrote_them() -> None:
    @env.task
    def fn(a: list[int], b: Colour = Colour.RED, c: dict[str, Order] | None = None) -> None: ...

    assert [one.type_label for one in inputs_of(fn)] == ["list[int]", "RED | BLUE", "dict[str, Order] | None"]


def test_files_are_given_by_path_and_shown_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.txt").write_text("content")
    (tmp_path / "tree").mkdir()
    perdure.init(tmp_path / "perdure.db")
    try:
        file = from_text("in.txt", File)
        assert (type(file), file.name, file.size) == (File, "in.txt", 7)
        assert type(from_text("tree", Dir | None)) is Dir
        assert [type(one) for one in from_text('["in.txt"]', list[File])] == [File]
        with pytest.raises(Unfit, match="expected the path of a file, not 'gone'"):
            from_json("gone", File)
        shown = jsonable({"file": file})["file"]
        assert (shown["name"], shown["size"], shown["hash"]) == ("in.txt", 7, file.hash)
        assert Path(shown["path"]).read_text() == Path(readable(file)).read_text() == "content"
    finally:
        perdure.init()


@pytest.mark.parametrize("tp", [float, complex, timedelta, dict[str, float], list[complex], timedelta | None])
@pytest.mark.parametrize("number", [10**400, -(10**400)])
def test_a_number_out_of_the_range_of_the_type_is_refused(tp: Any, number: int) -> None:
    """Numbers from outside that a type cannot hold, alone and inside of other values."""
    data = {"a": number} if tp == dict[str, float] else [number] if tp == list[complex] else number
    with pytest.raises(Unfit, match="expected"):
        from_json(data, tp)
