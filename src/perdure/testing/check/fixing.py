"""Replaces what can be replaced safely: the meaning of the code outside of a run stays the same."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from .finding import CheckFinding
from .modules import Module

_DURABLE = {"time.time": "time", "uuid.uuid4": "uuid4", "random.random": "random", "time.sleep": "sleep"}
"""Calls with a durable counterpart that takes the same arguments and gives the same type."""


def fix(findings: Sequence[CheckFinding]) -> list[CheckFinding]:
    """Rewrite the files where that is safe; the findings that are left."""
    left: list[CheckFinding] = []
    for path in dict.fromkeys(one.path for one in findings):
        left += _fix_file(path, [one for one in findings if one.path == path])
    return left


def _fix_file(path: str, findings: list[CheckFinding]) -> list[CheckFinding]:
    with open(path, encoding="utf-8") as file:
        text = file.read()
    module = Module(path, "", text)
    edits: list[tuple[int, int, str]] = []
    left = []
    for one in findings:
        edit = _edit(module, one)
        if edit is None:
            left.append(one)
        else:
            edits.append(edit)
    data = text.encode()
    for begin, end, new in sorted(edits, reverse=True):
        data = data[:begin] + new.encode() + data[end:]
    if edits:
        with open(path, "w", encoding="utf-8") as file:
            file.write(data.decode())
    return left


def _edit(module: Module, finding: CheckFinding) -> tuple[int, int, str] | None:
    """Begin, end (bytes) and the new text."""
    function, node = _node(module, finding)
    if finding.rule == "await" and isinstance(node, ast.Call):
        begin = _offset(module, node.lineno, node.col_offset)
        return begin, begin, "await "
    if finding.rule == "swallow" and isinstance(node, ast.ExceptHandler) and not isinstance(node.type, ast.Tuple):
        begin = _offset(module, node.lineno, node.col_offset)
        end = begin + len("except") if node.type is None else _end(module, node.type)
        return begin, end, "except Exception"
    library = next((local for local, name in module.imports.items() if name == "perdure"), None)
    if isinstance(node, ast.Call) and library is not None and (name := _DURABLE.get(module.dotted(node.func))):
        begin, end = _offset(module, node.lineno, node.col_offset), _end(module, node.func)
        if isinstance(function, ast.AsyncFunctionDef):
            return (begin, end, f"await {library}.durable.{name}.aio") if _may_await(function, node) else None
        return begin, end, f"{library}.durable.{name}"
    if isinstance(node, ast.Call) and library is not None and module.dotted(node.func) == "asyncio.sleep":
        return _offset(module, node.lineno, node.col_offset), _end(module, node.func), f"{library}.durable.sleep.aio"
    return None


def _may_await(function: ast.AST, node: ast.Call) -> bool:
    """Whether `await` may stand in front of the call without parentheses: the call is a whole value."""
    for outer in ast.walk(function):
        if isinstance(outer, (ast.Lambda, ast.FunctionDef)) and any(inner is node for inner in ast.walk(outer)):
            return False
        if isinstance(outer, (ast.Attribute, ast.Subscript, ast.BinOp)) and node in ast.iter_child_nodes(outer):
            return not isinstance(outer, (ast.Attribute, ast.Subscript)) and not isinstance(outer.op, ast.Pow)
    return True


def _node(module: Module, finding: CheckFinding) -> tuple[ast.AST | None, ast.AST | None]:
    for function in ast.walk(module.tree):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for node in ast.walk(function):
                if not isinstance(node, (ast.Call, ast.ExceptHandler)):
                    continue
                if (node.lineno, node.col_offset) == (finding.line, finding.column):
                    return function, node
    return None, None


def _offset(module: Module, line: int, column: int) -> int:
    before = module.text.encode().splitlines(keepends=True)[: line - 1]
    return sum(map(len, before)) + column


def _end(module: Module, node: ast.expr) -> int:
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    return _offset(module, node.end_lineno, node.end_col_offset)
