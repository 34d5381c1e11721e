"""The planted faults fit today's sources, and the table of catches knows each of them (`proof/planted`)."""

from __future__ import annotations

import ast

import pytest
from proof.planted import table
from proof.planted.plants import PROJECT, Edit, MisfitError, Plant, plants
from tests.unit.test_register import BY_ID

PLANTS = plants()
ROWS = table.read()


@pytest.mark.parametrize("file", sorted({plant.file for plant in PLANTS}))
def test_plants_apply_to_the_source_of_today(file: str) -> None:
    """The text is there once, and the faulty module is still a module. `breaks` and `tests` name what exists."""
    text = (PROJECT / file).read_text(encoding="utf-8")
    for plant in PLANTS:
        if plant.file != file:
            continue
        faulty = plant.applied(text)
        assert faulty != text, plant.id
        if file.endswith(".py"):
            assert ast.dump(ast.parse(faulty)) != ast.dump(ast.parse(text)), plant.id
        assert plant.breaks in BY_ID, plant.id
        assert plant.why.endswith("."), plant.id
        for test in plant.tests:
            assert (PROJECT / test.partition("::")[0]).exists(), f"{plant.id} names {test}, which does not exist"


def test_each_plant_is_in_the_table_and_something_catches_the_fault() -> None:
    missing = [plant.id for plant in PLANTS if plant.id not in ROWS]
    assert not missing, f"run python -m proof.planted --missing, which tries {', '.join(missing)}"
    missed = [plant.id for plant in PLANTS if not ROWS[plant.id].is_caught]
    assert not missed, f"nothing catches {', '.join(missed)}: strengthen a detector or write a test"


def test_there_are_many_plants_and_no_row_without_one() -> None:
    assert len(PLANTS) >= 60
    assert ROWS.keys() <= {plant.id for plant in PLANTS}


@pytest.mark.parametrize(
    ("source", "times"),
    [
        ("x = f(a, b)\n", 1),
        ("x = f(\n    a,\n    b,\n)\n", 1),
        ("x = f(\n    a,  # why\n    b\n)\n", 1),
        ("x  =  f( a,b )\n", 1),
        ("xx = f(a, b)\n", 0),
        ("x = f(a, bb)\n", 0),
        ("x = f(a, b)\nx = f(a, b)\n", 2),
    ],
)
def test_a_plant_finds_its_text_in_any_format(source: str, times: int) -> None:
    """White space, comments and a last comma make no difference. A text that is missing or ambiguous is refused."""
    plant = Plant("p", "R1", "f.py", "Why.", (Edit("x = f(a, b)", "x = None"),), ())
    if times == 1:
        assert plant.applied(source) == "x = None\n"
    else:
        with pytest.raises(MisfitError, match=rf"plant p: its text is {times} times in f.py, not once"):
            plant.applied(source)


def test_a_replacement_of_several_lines_is_indented_like_the_first() -> None:
    plant = Plant("p", "R1", "f.py", "Why.", (Edit("a()", "\nif b:\n    c()\n"),), ())
    assert plant.applied("def f():\n    a()\n") == "def f():\n    if b:\n        c()\n"
