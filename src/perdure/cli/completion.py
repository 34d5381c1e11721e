"""Words for the shell: task names, inputs and run names. A file is read, never executed, to find its tasks."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

import click
from click.shell_completion import CompletionItem

from ..errors import PerdureError

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_PERDURE_COMPLETE"


def script(command: click.Command, shell: str) -> str:
    """The completion script of a shell."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    return found(command, {}, "perdure", VARIABLE).source()


def tasks_in(file: str) -> dict[str, list[str]]:
    """Names of the functions that look like tasks, and of their parameters."""
    try:
        with open(file, encoding="utf-8") as source:
            module = ast.parse(source.read())
    except (OSError, SyntaxError, ValueError):
        return {}
    return {
        node.name: [one.arg for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        for node in ast.walk(module)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and any(map(_declares, node.decorator_list))
    }


def _declares(decorator: ast.expr) -> bool:
    target = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(target, ast.Attribute) and target.attr == "task"


def run_words(command: str, args: list[str], incomplete: str) -> list[CompletionItem]:
    """Possible next words of `perdure run ...` or `perdure submit ...`."""
    own = ["--name", "--tag", "--at", "--in", "--json"] if command == "submit" else ["--name", "--tag", "--json"]
    plain = [word for word in args if not word.startswith("-")]
    if not plain:
        if incomplete.startswith("-"):
            return _items([*own, "--store", "--quiet", "--verbose", "--help"], incomplete)
        return [CompletionItem(incomplete, type="file")]
    tasks = tasks_in(plain[0])
    if len(plain) == 1 and not incomplete.startswith("-"):
        return _items(tasks, incomplete)
    if len(plain) > 1:
        options = [f"--{name.replace('_', '-')}" for name in tasks.get(plain[1], [])]
        return _items([*options, *own, "--help"], incomplete)
    return []


def _items(words: Any, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]


def run_names(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of the runs in the store, newest first."""
    return [CompletionItem(name) for name in _names(ctx) if name.startswith(incomplete)]


def _names(ctx: click.Context) -> Iterator[str]:
    from .. import runtime
    from ..api import looking

    try:
        store = ctx.params.get("store") or (ctx.parent.params.get("store") if ctx.parent is not None else None)
        if store:
            runtime.init(store)
        yield from looking.names()
    except PerdureError:
        return  # a shell's line is no place for messages
