"""Walks the bodies of tasks, and the functions of the same package that bodies call, up to traces and other tasks."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from .modules import Function, Module, load
from .rules import BY_NAME, rule_of_call


class FoundFunction(NamedTuple):
    """A function of the package that an expression names."""

    module: Module
    name: str
    function: Function


class CheckFinding(NamedTuple):
    """One place."""

    path: str
    line: int
    column: int
    rule: str
    message: str
    instead: str
    task: str
    """The task whose body reaches the place."""


_IGNORE = re.compile(r"#\s*perdure:\s*ignore(?:\[(?P<rules>[\w\s,-]*)\])?")
_ORDERED_BY = frozenset({"sorted", "sum", "min", "max", "any", "all", "len", "set", "frozenset"})
"""Functions that give the same for every order."""
_CHANGES = frozenset({"append", "add", "update", "extend", "insert", "pop", "remove", "clear", "setdefault", "discard"})
_FILE_METHODS = frozenset({"read_text", "write_text", "read_bytes", "write_bytes", "unlink", "mkdir", "rmdir", "touch"})
_UNSTORABLE = frozenset({
    "Callable", "Iterator", "AsyncIterator", "Generator", "AsyncGenerator", "Lock", "RLock", "Thread", "socket",
    "TextIO", "BinaryIO", "IO", "Logger", "ModuleType", "Connection", "Session", "Client", "AsyncClient", "Coroutine",
    "Awaitable",
})  # fmt: skip


def check(*paths: str) -> list[CheckFinding]:
    """What is wrong in the bodies of the tasks in these files and packages, in the order of the places.

    Raises:
        UsageError: there is no such file, or it is no Python.
    """
    found: set[CheckFinding] = set()
    for path in paths:
        modules = load(path)
        for module in modules.values():
            for name, function in module.functions.items():
                kind = module.kind(function)
                if kind:
                    found.update(_types(module, function, name))
                if kind == "task":
                    _Walk(modules, found.add, f"{module.name}.{name}").function(module, name, function)
    seen: set[tuple[str, int, int, str]] = set()
    places = []
    for one in sorted(found):
        place = (one.path, one.line, one.column, one.rule)
        if place not in seen:
            seen.add(place)
            places.append(one)
    return places


def _types(module: Module, function: Function, name: str) -> Iterable[CheckFinding]:
    arguments = function.args
    ignored = module.ignored(function)
    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
        if argument.annotation is None or argument.arg in ignored:
            continue
        for node in ast.walk(argument.annotation):
            last = module.dotted(node).rpartition(".")[2] if isinstance(node, (ast.Name, ast.Attribute)) else ""
            if last in _UNSTORABLE and module.dotted(node) != last:
                yield from _place(module, argument, "type", f"{argument.arg}: {ast.unparse(argument.annotation)}", name)
                break


def _place(module: Module, node: ast.AST, rule: str, what: str, task: str) -> Iterable[CheckFinding]:
    line = getattr(node, "lineno", 1)
    if not _is_ignored(module, line, rule):
        known = BY_NAME[rule]
        message = f"{what}: {known.what}; {known.reason}"
        yield CheckFinding(module.path, line, getattr(node, "col_offset", 0), rule, message, known.instead, task)


def _is_ignored(module: Module, line: int, rule: str) -> bool:
    return line <= len(module.lines) and is_ignored_at(module.lines[line - 1], rule)


def is_ignored_at(text: str, rule: str) -> bool:
    """Whether a line of code has a comment that leaves the rule out."""
    found = _IGNORE.search(text)
    if found is None:
        return False
    rules = found["rules"]
    return rules is None or rule in [word.strip() for word in rules.split(",")]


class _Walk:
    """The body of one task, with the functions that it calls."""

    def __init__(self, modules: dict[str, Module], tell: Callable[[CheckFinding], None], task: str) -> None:
        self._modules = modules
        self._tell = tell
        self._task = task
        self._seen: set[tuple[str, str]] = set()

    def function(self, module: Module, name: str, function: Function) -> None:
        """Look at a function whose code is part of the body."""
        if (module.name, name) not in self._seen and not _is_ignored(module, function.lineno, ""):
            self._seen.add((module.name, name))
            _Body(self, module, name, function).look()

    def tell(self, module: Module, node: ast.AST, rule: str, what: str) -> None:
        """Something was found."""
        for one in _place(module, node, rule, what, self._task):
            self._tell(one)

    def find(self, module: Module, node: ast.AST, within: str) -> FoundFunction | None:
        """The function of the package that an expression names."""
        dotted = module.dotted(node)
        if dotted.startswith(("self.", "cls.")) and "." in within:
            dotted = f"{within.partition('.')[0]}.{dotted.partition('.')[2]}"
        if dotted in module.functions:
            return FoundFunction(module, dotted, module.functions[dotted])
        parts = dotted.split(".")
        for cut in range(len(parts) - 1, 0, -1):
            other = self._modules.get(".".join(parts[:cut]))
            name = ".".join(parts[cut:])
            if other is not None and name in other.functions:
                return FoundFunction(other, name, other.functions[name])
        return None


class _Body(ast.NodeVisitor):
    """The code of one function."""

    def __init__(self, walk: _Walk, module: Module, name: str, function: Function) -> None:
        self._walk = walk
        self._module = module
        self._name = name
        self._function = function
        self._is_async = isinstance(function, ast.AsyncFunctionDef)
        self._sets = _sets_in(function)
        self._locals = _locals_of(function)
        self._globals = {n for node in ast.walk(function) if isinstance(node, ast.Global) for n in node.names}
        self._in_finally = 0
        self._harmless: set[int] = set()
        """Nodes whose order does not count."""
        self._awaited: set[int] = set()

    def look(self) -> None:
        """Look at all statements."""
        for statement in self._function.body:
            self.visit(statement)

    def _tell(self, node: ast.AST, rule: str, what: str) -> None:
        self._walk.tell(self._module, node, rule, what)

    # -- calls -------------------------------------------------------------------------------------------------

    def visit_Await(self, node: ast.Await) -> None:
        self._awaited.add(id(node.value))
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        call = node.value
        if isinstance(call, ast.Call) and self._is_async and self._is_coroutine(call):
            self._tell(call, "await", f"{ast.unparse(call.func)}(...)")
        self.generic_visit(node)

    def _is_coroutine(self, call: ast.Call) -> bool:
        dotted = self._module.dotted(call.func)
        if dotted.endswith(".aio"):
            return True
        if dotted == "asyncio.sleep":
            return True
        found = self._walk.find(self._module, call.func, self._name)
        if found is None or not isinstance(found.function, ast.AsyncFunctionDef):
            return False
        return not _is_generator(found.function)

    def visit_Call(self, node: ast.Call) -> None:
        dotted = self._module.dotted(node.func)
        last = dotted.rpartition(".")[2]
        if dotted in _ORDERED_BY and node.args:
            self._harmless.add(id(node.args[0]))
        if not self._is_local(node.func):
            self._forbidden(node, dotted)
        if isinstance(node.func, ast.Attribute):
            self._method(node, node.func)
        if dotted in ("list", "tuple", "enumerate", "iter", "next") and node.args and self._is_set(node.args[0]):
            self._tell(node, "set-order", ast.unparse(node))
        followed = [node.func]
        if last in ("to_thread", "run_in_executor", "map", "partial"):
            followed += node.args
            for argument in node.args:
                self._handed_over(argument)
        for function in followed:
            self._follow(function)
        self.generic_visit(node)

    def _forbidden(self, node: ast.Call, dotted: str) -> None:
        rule = rule_of_call(dotted)
        if rule is None or self._is_shadowed(dotted) or _is_harmless(dotted, node):
            return
        name = "finally" if rule.name == "io" and self._in_finally else rule.name
        self._tell(node, name, f"{dotted}(...)")

    def _handed_over(self, node: ast.expr) -> None:
        """A function that is handed to another one to be called."""
        dotted = self._module.dotted(node)
        rule = rule_of_call(dotted) if "." in dotted and not self._is_local(node) else None
        if rule is not None and not self._is_shadowed(dotted):
            self._tell(node, rule.name, dotted)

    def _is_shadowed(self, dotted: str) -> bool:
        """Whether a built-in name, or the name of a library, means something else in this module."""
        if "." not in dotted:
            return dotted in self._module.functions
        return dotted.partition(".")[0] not in {name.partition(".")[0] for name in self._module.imports.values()}

    def _is_local(self, node: ast.AST) -> bool:
        while isinstance(node, ast.Attribute):
            node = node.value
        return isinstance(node, ast.Name) and node.id in self._locals

    def _method(self, node: ast.Call, function: ast.Attribute) -> None:
        value = function.value
        if function.attr in _FILE_METHODS and not self._follow(function, look=False):
            self._tell(node, "finally" if self._in_finally else "io", f".{function.attr}(...)")
        if function.attr in _CHANGES and self._is_global(value):
            self._tell(node, "global", f"{ast.unparse(value)}.{function.attr}(...)")
        if function.attr == "pop" and not node.args and self._is_set(value):
            self._tell(node, "set-order", ast.unparse(node))

    def _follow(self, node: ast.AST, *, look: bool = True) -> bool:
        found = self._walk.find(self._module, node, self._name)
        if found is None or (isinstance(node, ast.Name) and node.id in self._locals):
            return False
        if look and not found.module.kind(found.function):
            self._walk.function(found.module, found.name, found.function)
        return True

    # -- the environment, globals ------------------------------------------------------------------------------

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if self._module.dotted(node.value) == "os.environ":
            self._tell(node, "environment", ast.unparse(node))
        elif isinstance(node.ctx, (ast.Store, ast.Del)) and self._is_global(node.value):
            self._tell(node, "global", ast.unparse(node))
        self.generic_visit(node)

    def _is_global(self, node: ast.AST) -> bool:
        """Whether a name stands for a list, dict or set of the module."""
        return isinstance(node, ast.Name) and node.id in self._module.mutable and node.id not in self._locals

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Store) and node.id in self._globals:
            self._tell(node, "global", node.id)

    # -- sets --------------------------------------------------------------------------------------------------

    def _is_set(self, node: ast.AST) -> bool:
        if isinstance(node, (ast.Set, ast.SetComp)):
            return True
        if isinstance(node, ast.Call):
            return self._module.dotted(node.func) in ("set", "frozenset")
        return isinstance(node, ast.Name) and node.id in self._sets

    def visit_For(self, node: ast.For) -> None:
        if self._is_set(node.iter):
            self._tell(node.iter, "set-order", f"for ... in {ast.unparse(node.iter)}")
        self.generic_visit(node)

    def _comprehension(self, node: ast.ListComp | ast.DictComp | ast.GeneratorExp) -> None:
        for one in node.generators:
            if self._is_set(one.iter) and id(node) not in self._harmless:
                self._tell(one.iter, "set-order", f"for ... in {ast.unparse(one.iter)}")
        self.generic_visit(node)

    visit_ListComp = visit_DictComp = visit_GeneratorExp = _comprehension  # noqa: N815

    # -- exceptions --------------------------------------------------------------------------------------------

    def visit_Try(self, node: ast.Try) -> None:
        for part in (node.body, node.handlers, node.orelse):
            for statement in part:
                self.visit(statement)
        self._in_finally += 1
        for statement in node.finalbody:
            self.visit(statement)
        self._in_finally -= 1

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        names = [] if node.type is None else [self._module.dotted(n) for n in _alternatives(node.type)]
        everything = node.type is None or bool({"BaseException", "builtins.BaseException"}.intersection(names))
        if everything and not any(isinstance(inner, ast.Raise) for part in node.body for inner in ast.walk(part)):
            self._tell(node, "swallow", "except:" if node.type is None else f"except {ast.unparse(node.type)}")
        self.generic_visit(node)


def _alternatives(node: ast.expr) -> list[ast.expr]:
    return node.elts if isinstance(node, ast.Tuple) else [node]


def _is_harmless(dotted: str, node: ast.Call) -> bool:
    if dotted == "asyncio.sleep" and node.args and isinstance(node.args[0], ast.Constant) and node.args[0].value == 0:
        return True
    return dotted in ("shutil.get_terminal_size", "tempfile.gettempdir", "subprocess.list2cmdline")


def _is_generator(function: Function) -> bool:
    return any(isinstance(node, (ast.Yield, ast.YieldFrom)) for node in ast.walk(function))


def _sets_in(function: Function) -> set[str]:
    """The local names that hold nothing but sets."""
    found: dict[str, bool] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    is_set = isinstance(node.value, (ast.Set, ast.SetComp)) or (
                        isinstance(node.value, ast.Call)
                        and isinstance(node.value.func, ast.Name)
                        and node.value.func.id in ("set", "frozenset")
                    )
                    found[target.id] = is_set and found.get(target.id, True)
    return {name for name, is_set in found.items() if is_set}


def _locals_of(function: Function) -> set[str]:
    arguments = function.args
    names = {a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)} - {"self", "cls"}
    changed = {n for node in ast.walk(function) if isinstance(node, ast.Global) for n in node.names}
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id not in changed:
            names.add(node.id)
    return names
