"""Scripts with values that Flyte stores in its own ways: plain classes, arrays, dicts for models, transformers."""

from __future__ import annotations

import pytest
from tests.flyte.scripts import Scripts

OBJECTS = """
import numpy as np
from typing import Optional

class Engine:
    def __init__(self, name, power):
        self.name, self.power, self.history = name, power, [("made", 1)]

class Car(Engine):
    wheels = 4

    def __repr__(self):
        return f"{self.name} {self.power} {self.history} {self.wheels}"

@env.task
async def tuned(car: Car, by: int) -> dict[str, Car]:
    mark(f"tuned{by}")
    car.power += by
    car.history.append(("tuned", by))
    return {car.name: car}

@env.task
async def doubled(array: np.ndarray, mask: Optional[np.ndarray] = None) -> np.ndarray:
    mark("doubled")
    return array * 2

@env.task
async def main() -> list[str]:
    car = Car("c", 1)
    first = await tuned(car, 1)
    second = await tuned(first["c"], 2)
    array = await doubled(np.arange(4, dtype="int16").reshape(2, 2))
    return [repr(car), repr(second["c"]), f"{array.tolist()} {array.dtype}"]

if __name__ == "__main__":
    for line in flyte.run(main).outputs()[0]:
        print(line)
"""


@pytest.mark.parametrize("kill_at", [0, 1, 2, 3])
def test_plain_objects_and_arrays_are_values(scripts: Scripts, kill_at: int) -> None:
    scripts.write(OBJECTS)
    if kill_at:
        scripts.run("script.py", kill_at=kill_at)
    assert scripts.run("script.py").splitlines() == [
        "c 1 [('made', 1)] 4", "c 4 [('made', 1), ('tuned', 1), ('tuned', 2)] 4", "[[0, 2], [4, 6]] int16",
    ]  # fmt: skip
    assert scripts.marks().count("tuned1") == 1 + (kill_at == 1)


def test_what_only_a_pickle_could_hold_is_refused_with_the_remedy(scripts: Scripts) -> None:
    """The family: a declared pickle, an attribute without a stored form, a class with state of its own, an object."""
    scripts.write("""
        import threading
        import numpy as np
        from flyte.types import FlytePickle

        class Held:
            def __init__(self):
                self.lock = threading.Lock()

        class Custom:
            def __getstate__(self):
                return {}

        @env.task
        async def pickled(value: FlytePickle) -> int: return 1

        @env.task
        async def held(value: Held) -> int: return 1

        @env.task
        async def array(value: np.ndarray) -> int: return 1

        for task, value in ((pickled, 1), (held, Held()), (array, np.array([object()]))):
            try:
                flyte.run(task, value)
            except Exception as error:
                print(error)
        try:
            @env.task
            async def custom(value: Custom) -> int: return 1
        except Exception as error:
            print(error)
    """)
    pickled, held, array, custom = scripts.run("script.py").splitlines()
    assert "pickled values are absent in perdure: use a dataclass" in pickled
    assert "a value of type `lock`" in held
    assert "allow_pickle=False" in array
    assert "Custom has no stored form; use a dataclass" in custom


def test_dicts_names_and_tuples_fit_where_flyte_takes_them(scripts: Scripts) -> None:
    scripts.write("""
        import enum
        from dataclasses import dataclass
        from typing import Optional
        from pydantic import BaseModel

        class Color(enum.Enum):
            RED = "red"

        @dataclass
        class Point:
            x: int
            y: int = 2

        class Query(BaseModel):
            text: str
            tags: dict[str, str] | None = None

        @env.task
        async def show(
            point: Point, query: Query, color: Color, points: list[Point], rest: Optional[Point] = None
        ) -> str:
            return f"{point} {query} {color} {points} {rest}"

        @env.task
        async def main() -> str:
            return await show({"x": 1}, {"text": "t"}, "RED", ({"x": 3},), rest={"x": 4})

        print(flyte.run(show, {"x": 1}, query={"text": "t"}, color="RED", points=[{"x": 3}]).outputs()[0])
        print(flyte.run(main).outputs()[0])
    """)
    shown = "Point(x=1, y=2) text='t' tags=None Color.RED [Point(x=3, y=2)]"
    assert scripts.run("script.py").splitlines() == [f"{shown} None", f"{shown} Point(x=4, y=2)"]


def test_a_registered_transformer_stores_its_class(scripts: Scripts) -> None:
    scripts.write("""
        from flyte.types import TypeEngine, TypeTransformer, TypeTransformerFailedError
        from flyteidl2.core.literals_pb2 import Literal, Primitive, Scalar
        from flyteidl2.core.types_pb2 import LiteralType, SimpleType

        class Positive:
            __slots__ = ("value",)
            def __init__(self, value):
                if value <= 0:
                    raise ValueError("not positive")
                self.value = value

        class PositiveTransformer(TypeTransformer[Positive]):
            def __init__(self):
                super().__init__("Positive", Positive)
            def get_literal_type(self, t):
                return LiteralType(simple=SimpleType.INTEGER)
            async def to_literal(self, value, python_type, expected):
                self.assert_type(python_type, value)
                return Literal(scalar=Scalar(primitive=Primitive(integer=value.value)))
            async def to_python_value(self, literal, python_type):
                return Positive(literal.scalar.primitive.integer)

        TypeEngine.register(PositiveTransformer())

        @env.task
        def grow(value: Positive) -> Positive:
            mark(f"grow{value.value}")
            return Positive(value.value + 1)

        @env.task
        def main(values: list[Positive]) -> int:
            return sum(value.value for value in flyte.map(grow, values))

        if __name__ == "__main__":
            print(TypeEngine.get_transformer(Positive).name, flyte.run(main, [Positive(1), Positive(2)]).outputs()[0])
    """)
    assert scripts.run("script.py") == "Positive 5\n"
    assert sorted(scripts.marks()) == ["grow1", "grow2"]


def test_storage_moves_files_of_this_machine(scripts: Scripts) -> None:
    scripts.write("""
        import asyncio
        import flyte.storage as storage

        flyte.init(storage=storage.S3.auto(region="eu-west-1"))

        async def main():
            path = await storage.put_stream(b"abc", to_path="new/a.txt")
            copy = await storage.put(path)
            back = await storage.get(copy, "back.txt")
            pieces = [piece async for piece in storage.get_stream(back, chunk_size=2)]
            stream = await storage.open(back, "rb")
            async with stream:
                whole = await stream.read()
            print(pieces, whole, storage.exists_sync("nothing"), await storage.exists(back))
            print(storage.join("a/", "b", "/c"), storage.is_remote("s3://b/k"), storage.is_remote("/a"))
            print(storage.get_random_local_path("x.txt").name, storage.get_random_local_directory().is_dir())
            try:
                await storage.get("s3://bucket/key")
            except Exception as error:
                print(error)

        asyncio.run(main())
    """)
    lines = scripts.run("script.py").splitlines()
    assert lines[:3] == ["[b'ab', b'c'] b'abc' False True", "a/b/c True False", "x.txt True"]
    assert "s3://bucket/key is at a URL: use flyte.io.File.from_existing_remote(url)" in lines[3]


DATES = """
import enum
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Optional

NAIVE = datetime(2024, 1, 1, 12)

class Color(enum.Enum):
    RED = "r"

@dataclass
class Visit:
    at: datetime = NAIVE

@env.task
def passed(at: datetime) -> str:
    return str(at)

@env.task
def defaulted(at: datetime = NAIVE, *, each: list[datetime] = [NAIVE], maybe: Optional[datetime] = NAIVE) -> str:
    return f"{at} {each[0]} {maybe}"

@env.task
def nested(by_name: dict[str, datetime], visit: Visit, any: Any) -> str:
    return f"{by_name['a']} {visit.at} {any}"

@env.task
def named(color: Color = "RED") -> str:
    return repr(color)

@env.task
def several() -> tuple[datetime, list[datetime]]:
    return NAIVE, [NAIVE]

@env.task
def kept(at: datetime) -> datetime:
    return at

@env.task
def main() -> list[str]:
    mark("main")
    zoned = kept(NAIVE.replace(tzinfo=timezone(timedelta(hours=2))))
    return [passed(NAIVE), defaulted(), nested({"a": NAIVE}, Visit(), NAIVE), named(), str(several()[1][0]), str(zoned)]

if __name__ == "__main__":
    outputs = [*flyte.run(main).outputs()[0], *flyte.run(several).outputs(), flyte.run(passed, at=NAIVE).outputs()[0]]
    for line in outputs:
        print(line)
    print(flyte.run(several).outputs())
"""


@pytest.mark.parametrize("kill_at", [0, 1])
def test_a_datetime_without_a_time_zone_is_in_utc_at_a_tasks_boundary(scripts: Scripts, kill_at: int) -> None:
    """The family: arguments, defaults, results; whole, in lists and in maps. A record's fields stay as they are."""
    scripts.write(DATES)
    if kill_at:
        scripts.run("script.py", kill_at=kill_at)
    naive, utc = "2024-01-01 12:00:00", "2024-01-01 12:00:00+00:00"
    aware = "datetime.datetime(2024, 1, 1, 12, 0, tzinfo=datetime.timezone.utc)"
    assert scripts.run("script.py").splitlines() == [
        utc, f"{utc} {utc} {utc}", f"{utc} {naive} {naive}", "<Color.RED: 'r'>", utc, "2024-01-01 12:00:00+02:00",
        utc, f"[{aware}]", utc, f"ActionOutputs(o0={utc}, o1=[{aware}])",
    ]  # fmt: skip
