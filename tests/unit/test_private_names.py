"""The parts of a pool child use the core by its public names: a base class may change its private names freely."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import textwrap
from collections.abc import Iterator

import pytest

import perdure.executors._inner as inner


def _classes() -> Iterator[type]:
    for module in pkgutil.iter_modules(inner.__path__, f"{inner.__name__}."):
        for _, found in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if found.__module__ == module.name and _bases(found):
                yield found


def _bases(cls: type) -> list[type]:
    return [base for base in cls.__mro__[1:] if base.__module__.startswith("perdure.")]


def _private_names(cls: type) -> set[str]:
    """The private names that a class defines as methods, or reads and writes as fields of `self`."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    names = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    } | {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    return {name for name in names if name.startswith("_") and not name.endswith("__")}


@pytest.mark.parametrize("cls", list(_classes()), ids=lambda cls: cls.__name__)
def test_no_part_of_a_pool_child_uses_a_private_name_of_its_base(cls: type) -> None:
    own = _private_names(cls)
    shared = {base.__qualname__: sorted(own & _private_names(base)) for base in _bases(cls)}
    assert not any(shared.values()), shared


def test_a_private_name_of_a_base_is_noticed() -> None:
    """The check itself: a field that is read, a field that is written, a method that is overridden."""
    read, written, overridden = _private_names(_Reads), _private_names(_Writes), _private_names(_Overrides)
    assert read & _private_names(_Base) == {"_field"}
    assert written & _private_names(_Base) == {"_field"}
    assert overridden & _private_names(_Base) == {"_method"}


class _Base:
    def __init__(self) -> None:
        self._field = 0

    def _method(self) -> None: ...


class _Reads(_Base):
    def read(self) -> int:
        return self._field


class _Writes(_Base):
    def write(self) -> None:
        self._field = 1


class _Overrides(_Base):
    def _method(self) -> None: ...
