"""Check that no function of `src` is longer than 60 lines, so that a reader has the whole function in view.

The docstring does not count, nor do the decorators. A longer function is accepted if its docstring gives the reason, in
a sentence with the words "longer than 60 lines because".

Usage: `scripts/check_functions.py`. Exit status 1 means that a longer function without a reason was found.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from check_prose import PROJECT

LIMIT = 60  # lines
REASON = f"longer than {LIMIT} lines because"

Function = ast.FunctionDef | ast.AsyncFunctionDef


def length(function: Function) -> int:
    """The lines of a function from its `def` to its end, without those of its docstring."""
    assert function.end_lineno is not None
    lines = function.end_lineno - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None:
        assert first.end_lineno is not None
        lines -= first.end_lineno - first.lineno + 1
    return lines


def gives_reason(function: Function) -> bool:
    return REASON in " ".join((ast.get_docstring(function) or "").lower().split())


def faults(source: Path) -> Iterator[str]:
    for path in sorted(source.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, Function) and length(node) > LIMIT and not gives_reason(node):
                yield (
                    f"{path.relative_to(source.parent)}:{node.lineno}: function {node.name} has {length(node)} lines, "
                    f"more than {LIMIT}; cut the function into parts that each do one thing"
                )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=f"Check that no function is longer than {LIMIT} lines.")
    parser.add_argument("--project", type=Path, default=PROJECT, help=argparse.SUPPRESS)
    found = list(faults(parser.parse_args(arguments).project.resolve() / "src"))
    for fault in found:
        print(fault, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
