"""The register of invariants (docs/development/invariants.md) agrees with the code and with the tests.

Each row of the register has an id, a statement, and the tests that fail without the invariant. The section around the
row names the module that keeps it. The module states the same ids at its head (`- R1 ...`). A test that is named for
an invariant mentions the id.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

PROJECT = Path(__file__).parents[2]
PAGE = PROJECT / "docs" / "development" / "invariants.md"
PROMISES = PROJECT / "docs" / "guarantees.md"

_section = re.compile(r"^## (?P<title>.*)$")
_module = re.compile(r"^Kept by `(?P<module>src/[\w./]+)`")
_row = re.compile(r"^\| \*\*(?P<id>[A-Z]+\d+)\*\* \| (?P<statement>.*) \| (?P<tests>.*) \|$")
_test = re.compile(r"`(?P<file>tests/[\w/]+\.py)::(?P<name>\w+)(?:\[(?P<case>[^\]`]*)\])?`")
_stated = re.compile(r"^\s*- \**(?P<id>[A-Z]+\d+)\** ", re.MULTILINE)


class Invariant(NamedTuple):
    id: str
    module: str
    """Where it is kept; empty for a promise, which the whole project keeps."""
    tests: tuple[tuple[str, str, str | None], ...]
    """File, function and the case of a parametrized test."""


def _read() -> list[Invariant]:
    found: list[Invariant] = []
    module = ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if _section.match(line):
            module = ""
        elif named := _module.match(line):
            module = named["module"]
        elif row := _row.match(line):
            tests = tuple((test["file"], test["name"], test["case"]) for test in _test.finditer(row["tests"]))
            found.append(Invariant(row["id"], module, tests))
    return found


REGISTER = _read()
BY_ID = {invariant.id: invariant for invariant in REGISTER}
PREFIXES = sorted({re.sub(r"\d+", "", invariant.id) for invariant in REGISTER}, key=len, reverse=True)
_cited = re.compile(rf"(?<![\w.'\"-])(?:{'|'.join(PREFIXES)})[1-9]\d?(?![\w'\"])")


@cache
def _source(file: str) -> tuple[str, ast.Module]:
    text = (PROJECT / file).read_text(encoding="utf-8")
    return text, ast.parse(text)


def test_every_id_is_there_once() -> None:
    ids = [invariant.id for invariant in REGISTER]
    assert sorted(set(ids)) == sorted(ids)
    assert len(ids) > 60


@pytest.mark.parametrize("invariant", REGISTER, ids=lambda invariant: invariant.id)
def test_its_tests_exist_and_mention_it(invariant: Invariant) -> None:
    assert invariant.tests, f"{invariant.id} names no test"
    for file, name, case in invariant.tests:
        assert (PROJECT / file).is_file(), f"{invariant.id} names {file}, which does not exist"
        text, tree = _source(file)
        assert case is None or f'"{case}"' in text, f"{invariant.id} names the case {case}, which {file} does not have"
        functions = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == name
        ]
        assert functions, f"{invariant.id} names {file}::{name}, which does not exist"
        said = ast.get_docstring(functions[0]) or "", ast.get_docstring(tree) or "", *_comments(functions[0], text)
        assert any(invariant.id in _ids(part) for part in said), f"{file}::{name} does not mention {invariant.id}"


def _comments(function: ast.stmt, text: str) -> list[str]:
    """The lines of a function, and those right above it, that hold a comment."""
    lines = text.splitlines()
    first = function.lineno - 1
    while first and lines[first - 1].startswith(("#", "@", " ", ")")):
        first -= 1
    return [line.partition("#")[2] for line in lines[first : function.end_lineno] if "#" in line]


def _ids(text: str) -> set[str]:
    """The ids in a text; `B1 to B3` stands for all three."""
    found = set(_cited.findall(text))
    for prefix, first, last in re.findall(r"\b([A-Z]{1,2})(\d+) to \1(\d+)\b", text):
        found |= {f"{prefix}{number}" for number in range(int(first), int(last) + 1)}
    return found


@pytest.mark.parametrize("module", sorted({invariant.module for invariant in REGISTER if invariant.module}))
def test_the_module_states_the_same_ids(module: str) -> None:
    docstring = ast.get_docstring(_source(module)[1]) or ""
    assert set(_stated.findall(docstring)) == {invariant.id for invariant in REGISTER if invariant.module == module}


def test_what_the_code_cites_is_in_the_register() -> None:
    strangers = []
    for path in sorted((PROJECT / "src").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        for number, line in enumerate(text.splitlines(), start=1):
            strangers += [
                f"{path.relative_to(PROJECT)}:{number}: {id}" for id in _cited.findall(line) if id not in BY_ID
            ]
    assert not strangers


def test_no_module_states_an_invariant_that_the_register_lacks() -> None:
    stated = set()
    for path in (PROJECT / "src").rglob("*.py"):
        stated |= {
            (str(path.relative_to(PROJECT)), id)
            for id in _stated.findall(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "")
        }
    assert stated == {(invariant.module, invariant.id) for invariant in REGISTER if invariant.module}


def test_every_promise_is_in_the_register() -> None:
    promises = re.findall(r"^\| \*\*(P\d+)\*\* \|", PROMISES.read_text(encoding="utf-8"), re.MULTILINE)
    assert promises == [f"P{number}" for number in range(1, len(promises) + 1)]
    assert set(promises) == {invariant.id for invariant in REGISTER if not invariant.module}
