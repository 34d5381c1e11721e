"""The page docs/development/threads-and-locks.md knows the owner of each field of each object that threads share."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PACKAGE = PROJECT / "src" / "perdure"
PAGE = PROJECT / "docs" / "development" / "threads-and-locks.md"
LOCKS = {"Lock", "RLock", "Condition"}
CENTRAL = {
    "core/body/body.py:Body",
    "core/body/loop.py:LoopThread",
    "core/commit/writer.py:Writer",
    "core/process/lease.py:Lease",
    "core/process/serving.py:Server",
    "core/process/worker.py:Worker",
    "core/run/driver.py:Driver",
}
"""Shared between threads also where they have no lock of their own."""

_section = re.compile(r"^### `([\w/]+\.py:\w+)`$")
_row = re.compile(r"^\| (`[^|]*) \| ([^|]+) \|")


def _read() -> dict[str, dict[str, str]]:
    """For each class the owner of each field."""
    found: dict[str, dict[str, str]] = {}
    fields: dict[str, str] = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if section := _section.match(line):
            fields = found[section[1]] = {}
        elif line.startswith("## "):
            fields = {}
        elif row := _row.match(line):
            fields.update(dict.fromkeys(re.findall(r"`(\w+)`", row[1]), row[2].strip()))
    return found


def _owners() -> set[str]:
    """The words of the first table: who may own a field."""
    table = PAGE.read_text(encoding="utf-8").partition("## Owners")[2].partition("\n## ")[0]
    return set(re.findall(r"^\| \*\*([^*]+)\*\* \|", table, re.MULTILINE))


def _classes() -> Iterator[tuple[str, ast.ClassDef]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                yield f"{path.relative_to(PACKAGE)}:{node.name}", node


def _fields(node: ast.ClassDef) -> dict[str, ast.expr | None]:
    """The attributes that a class assigns when an object is made, with their first values."""
    found: dict[str, ast.expr | None] = {}
    for function in node.body:
        if isinstance(function, ast.FunctionDef) and function.name == "__init__":
            for part in ast.walk(function):
                if isinstance(part, ast.Assign | ast.AnnAssign):
                    for target in part.targets if isinstance(part, ast.Assign) else [part.target]:
                        for name in ast.walk(target):
                            if isinstance(name, ast.Attribute) and ast.unparse(name.value) == "self":
                                found.setdefault(name.attr, part.value)
    return found


def _makes_lock(value: ast.expr | None) -> bool:
    return (
        isinstance(value, ast.Call)
        and isinstance(value.func, ast.Attribute)
        and ast.unparse(value.func.value) == "threading"
        and value.func.attr in LOCKS
    )


REGISTERED = _read()
CLASSES = dict(_classes())
SHARED = CENTRAL | {name for name, node in CLASSES.items() if any(map(_makes_lock, _fields(node).values()))}


@pytest.mark.parametrize("name", sorted(SHARED | set(REGISTERED)))
def test_every_field_has_its_owner(name: str) -> None:
    assert name in CLASSES, f"{name} does not exist"
    assert name in REGISTERED, f"{PAGE.name} has no section for {name}"
    fields, rows = set(_fields(CLASSES[name])), set(REGISTERED[name])
    assert not fields - rows, f"no owner of {name}: {', '.join(sorted(fields - rows))}"
    assert not rows - fields, f"{name} has no field {', '.join(sorted(rows - fields))}"


def test_every_owner_is_explained() -> None:
    owners = _owners()
    assert owners
    strangers = {
        f"{name}.{field}: {owner}"
        for name, fields in REGISTERED.items()
        for field, owner in fields.items()
        if owner not in owners
    }
    assert not strangers
