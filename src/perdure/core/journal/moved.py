"""Traced functions that stand in another module than when their calls were recorded.

The identity of a trace contains the name of the module, so a renamed file or a moved helper changes the identity of
each call. A call without an entry is therefore looked up under former modules, too. A former module is a module of the
recorded source that no longer holds a function of that name. The fingerprint proves the rest: kind, name and arguments
are those of the recorded call.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Callable, Iterable
from types import ModuleType

from ..ground.model import Entry, Kind, Source
from ..ground.spec import Function, TaskSpec, fingerprint, former_names
from .source import code_root, logical_name

_NO_ARGUMENTS = b"\x80"


class Moves:
    """The former modules of the functions of one run.

    Args:
        file: the file of the root task today.
        renamed: the modules that the root task had earlier in the life of the run.
        source: gives the snapshot of a number.
    """

    def __init__(self, file: str, renamed: frozenset[str], source: Callable[[int], Source | None]) -> None:
        self._root = code_root(file) if file else ""
        self._renamed = renamed
        self._source = source
        self._modules: dict[int, frozenset[str]] = {}
        self._holding: dict[tuple[str, str], bool] = {}

    def fingerprints(self, function: Function, identity: bytes, sources: Iterable[int]) -> list[bytes]:
        """The fingerprints of a call under the former modules that the function may have been moved from, or under the
        former names of a task."""
        if isinstance(function, TaskSpec):
            return [fingerprint(function.kind, name, identity) for name in former_names(function.formerly)]
        module, _, name = function.qualified().partition(":")
        return [
            fingerprint(function.kind, f"{former}:{name}", identity)
            for former in sorted(self._recorded(sources))
            if former != module and not self._holds(former, name)
        ]

    def module_of(self, entry: Entry) -> str | None:
        """The module of the traced function that an entry records; `None` where that cannot be told."""
        identity = _NO_ARGUMENTS if entry.inputs is None else entry.inputs
        if entry.kind != Kind.TRACE:
            return None
        for module in self._recorded((entry.source,)):
            if fingerprint(Kind.TRACE, f"{module}:{entry.name}", identity) == entry.fp:
                return module
        return None

    def _recorded(self, sources: Iterable[int]) -> frozenset[str]:
        found: frozenset[str] = frozenset()
        for number in sources:
            if number not in self._modules:
                then = self._source(number)
                self._modules[number] = frozenset() if then is None else frozenset(then.modules)
            found |= self._modules[number]
        return found

    def _holds(self, module: str, name: str) -> bool:
        """Whether a module holds a function of that name today, so that the function was not moved from there."""
        if module in self._renamed:
            return False
        first = name.partition(".")[0].partition("#")[0]
        key = (module, first)
        if key not in self._holding:
            # Lambdas share a name, and nothing else.
            self._holding[key] = first.startswith("<") or _defines(module, first, self._root)
        return self._holding[key]


def _defines(module: str, name: str, root: str) -> bool:
    loaded = _loaded(module)
    if loaded is not None:
        value = vars(loaded).get(name)
        # An import from the new module keeps the old name usable, and defines nothing.
        return value is not None and getattr(value, "__module__", None) == loaded.__name__
    path = os.path.join(root, *module.split("."))
    for file in (f"{path}.py", os.path.join(path, "__init__.py")):
        if os.path.isfile(file):
            return _defined_in(file, name)
    return False


def _loaded(module: str) -> ModuleType | None:
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    if isinstance(file, str) and logical_name(os.path.abspath(file)) == module:
        return main
    return sys.modules.get(module)


def _defined_in(file: str, name: str) -> bool:
    try:
        with open(file, "rb") as stream:
            tree = ast.parse(stream.read())
    except (OSError, SyntaxError, ValueError):
        return True
    return any(getattr(node, "name", None) == name for node in tree.body)
