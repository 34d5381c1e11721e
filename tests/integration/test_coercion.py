"""Arguments from outside of a run: a dict for a declared class becomes an instance; within a run it is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pydantic
import pytest

import perdure
from perdure.errors import ValueMismatchError

env = perdure.TaskEnvironment(name="coercion")


@pytest.fixture(autouse=True)
def store(tmp_path: Path) -> Iterator[None]:
    perdure.init(store=tmp_path / "perdure.db")
    yield
    perdure.init()


@dataclasses.dataclass
class Item:
    name: str
    count: int = 1


@dataclasses.dataclass
class Order:
    items: list[Item]
    best: Item | None = None
    by_name: dict[str, Item] = dataclasses.field(default_factory=dict)


class Point(msgspec.Struct):
    x: int
    y: int = 0


class Circle(pydantic.BaseModel):
    kind: Literal["circle"] = "circle"
    radius: float = 0.0


class Square(pydantic.BaseModel):
    kind: Literal["square"] = "square"
    side: float = 0.0


class Drawing(pydantic.BaseModel):
    shape: Annotated[Circle | Square, pydantic.Field(discriminator="kind")]


@env.task
def show(value: Order) -> str:
    return repr(value)


@env.task
def point(value: Point | None, more: tuple[Point, int] | None = None) -> str:
    return f"{value!r} {more!r}"


@env.task
def drawing(value: Drawing) -> str:
    return repr(value)


@env.task
def either(value: dict[str, int] | Item | str) -> str:
    return repr(value)


@env.task
def anything(value: Any, plain: dict[str, Any]) -> str:
    return f"{value!r} {plain!r}"


def test_dicts_become_instances_at_every_depth() -> None:
    data = {"items": [{"name": "a"}, Item("b", 2)], "best": {"name": "c", "count": 3}, "by_name": {"d": {"name": "d"}}}
    expected = Order([Item("a"), Item("b", 2)], Item("c", 3), {"d": Item("d")})
    assert perdure.run(show, data).outputs() == (repr(expected),)
    assert perdure.run(show, value=data).outputs() == (repr(expected),)
    assert data["items"][0] == {"name": "a"}, "the caller's data stays as it is"  # type: ignore[index]
    assert perdure.run(point, {"x": 1}, more=({"x": 2}, 3)).outputs() == (f"{Point(1)!r} {(Point(2), 3)!r}",)
    assert perdure.run(point, None).outputs() == ("None None",)
    assert perdure.run(drawing, {"shape": {"kind": "square", "side": 2}}).outputs() == (
        repr(Drawing(shape=Square(side=2.0))),
    )


def test_a_dict_that_fits_as_a_dict_stays_a_dict() -> None:
    assert perdure.run(either, {"name": 1}).outputs() == ("{'name': 1}",)
    assert perdure.run(anything, {"name": "a"}, {"items": [{"name": "b"}]}).outputs() == (
        "{'name': 'a'} {'items': [{'name': 'b'}]}",
    )


@pytest.mark.parametrize(
    ("task", "data", "words"),
    [
        (show, {"items": [{"nam": "a"}]}, "parameter 'value' of show: Item has no field 'nam'; it has: name, count"),
        (show, {"items": [{}]}, r"the dict is no Item: .*missing 1 required positional argument: 'name'"),
        (show, {"items": [{"name": "a", "count": "many"}]}, "expected `int`, got str 'many'"),
        (point, {"y": 1}, "the dict is no Point"),
        (drawing, {"shape": {"kind": "line"}}, "the dict is no Drawing"),
    ],
)
def test_a_dict_that_does_not_fit_is_refused_with_the_place(task: Any, data: Any, words: str) -> None:
    """The family: an unknown field, a missing field, a field of another type, a tag that no member has."""
    with pytest.raises(ValueMismatchError, match=words):
        perdure.run(task, data)


@env.task
def inside() -> str:
    return show({"items": []})  # type: ignore[arg-type]


def test_within_a_run_a_dict_is_no_instance() -> None:
    with pytest.raises(Exception, match="declared `Order`, got a value of type `dict`"):
        perdure.run(inside).outputs()
