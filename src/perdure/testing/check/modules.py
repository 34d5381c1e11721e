"""Modules of a package as syntax trees. Names are resolved through imports, without importing anything."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator

from ...errors import UsageError

Function = ast.FunctionDef | ast.AsyncFunctionDef

_LIBRARIES = ("perdure", "flyte")
"""Libraries whose decorators declare tasks and traces."""


class Module:
    """One module: its tree, the names that it imports, and its functions."""

    def __init__(self, path: str, name: str, text: str) -> None:
        self.path = path
        self.name = name
        self.text = text
        self.lines = text.splitlines()
        self.tree = ast.parse(text, path)
        self.imports: dict[str, str] = {}
        """By local name: the dotted name."""
        self.functions: dict[str, Function] = {}
        """By name, with the class in front for methods."""
        self.mutable: set[str] = set()
        """Global names of lists, dicts and sets."""
        for node in ast.walk(self.tree):
            self._import(node)
        for node in self.tree.body:
            self._declare(node)

    def _import(self, node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                self.imports[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            package = self.name.split(".")
            base = node.module or ""
            if node.level:
                above = package[: len(package) - node.level + self.is_package]
                base = ".".join([*above, *([base] if base else [])])
            for alias in node.names:
                self.imports[alias.asname or alias.name] = f"{base}.{alias.name}" if base else alias.name

    @property
    def is_package(self) -> bool:
        """Whether the file is the `__init__.py` of a package."""
        return os.path.basename(self.path) == "__init__.py"

    def _declare(self, node: ast.stmt) -> None:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            self.functions[node.name] = node
        elif isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    self.functions[f"{node.name}.{inner.name}"] = inner
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and _is_mutable(node.value):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            self.mutable.update(target.id for target in targets if isinstance(target, ast.Name))
        elif isinstance(node, (ast.If, ast.Try)):
            for inner in node.body:
                self._declare(inner)

    def dotted(self, node: ast.AST) -> str:
        """The dotted name of an expression such as `np.random.rand`, with imports resolved; empty for others."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return ""
        parts.append(self.imports.get(node.id, node.id))
        return ".".join(reversed(parts))

    def kind(self, function: Function) -> str:
        """`task`, `trace` or nothing, by the decorators."""
        for decorator in function.decorator_list:
            name = self.dotted(decorator.func if isinstance(decorator, ast.Call) else decorator)
            last = name.rpartition(".")[2]
            if last in ("trace", "transaction") and name.partition(".")[0] in _LIBRARIES:
                return "trace"
            if last == "task" and "." in name and self.uses_tasks:
                return "task"
        return ""

    @property
    def uses_tasks(self) -> bool:
        """Whether the module has to do with perdure at all, itself or by a module of its own package."""
        own = self.name.partition(".")[0]
        tops = {name.partition(".")[0] for name in self.imports.values()}
        return bool(tops.intersection((*_LIBRARIES, own)))

    def ignored(self, function: Function) -> set[str]:
        """The parameters that `@perdure.trace(ignore=...)` leaves out of the record."""
        found: set[str] = set()
        for decorator in function.decorator_list:
            for keyword in decorator.keywords if isinstance(decorator, ast.Call) else ():
                if keyword.arg == "ignore":
                    found |= {n.value for n in ast.walk(keyword.value) if isinstance(n, ast.Constant)}  # type: ignore[misc]
        return found


def _is_mutable(node: ast.AST | None) -> bool:
    if isinstance(node, (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)):
        return True
    names = ("list", "dict", "set", "defaultdict", "deque", "Counter", "OrderedDict")
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names


def load(path: str) -> dict[str, Module]:
    """The modules of a file with the modules beside it that it imports, or of a package, by their names.

    Raises:
        UsageError: there is no such file, or a file is no Python.
    """
    if os.path.isdir(path):
        top = os.path.dirname(os.path.abspath(path)) if _is_package(path) else os.path.abspath(path)
        return {m.name: m for m in (_read(file, top) for file in _files(path))}
    if not os.path.isfile(path):
        raise UsageError(f"there is no file or directory {path}")
    top = os.path.dirname(os.path.abspath(path))
    while _is_package(top):
        top = os.path.dirname(top)
    found: dict[str, Module] = {}
    waiting = [path]
    while waiting:
        module = _read(waiting.pop(), top)
        if module.name in found:
            continue
        found[module.name] = module
        for name in set(module.imports.values()):
            waiting += [file for file in _places(name, top) if os.path.isfile(file)]
    return found


def _places(name: str, top: str) -> Iterator[str]:
    for dotted in (name, name.rpartition(".")[0]):
        if dotted:
            place = os.path.relpath(os.path.join(top, *dotted.split(".")))
            yield f"{place}.py"
            yield os.path.join(place, "__init__.py")


def _is_package(folder: str) -> bool:
    return os.path.isfile(os.path.join(folder, "__init__.py"))


def _files(folder: str) -> Iterator[str]:
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__pycache__")))
        yield from (os.path.join(place, name) for name in sorted(files) if name.endswith(".py"))


def _read(path: str, top: str) -> Module:
    inner = os.path.relpath(os.path.abspath(path), top)
    name = inner.removesuffix(".py").replace(os.sep, ".").removesuffix(".__init__")
    try:
        with open(path, encoding="utf-8") as file:
            return Module(path, name, file.read())
    except (SyntaxError, ValueError) as error:
        raise UsageError(f"{path} is no Python that can be read: {error}") from None
