"""Check that no import circle exists in `src`, and that no two classes share one name.

An import circle is a set of modules in which each can be reached from each other by imports. Imports for type checkers
alone and imports inside of functions count as well: a reader who wants to understand one module of a circle has to
understand all of them. Two classes of one name make every mention of the name ambiguous. A leading underscore exempts a
class, because its name is used in its own module alone.

Usage: `scripts/check_imports.py`. Exit status 1 means that a circle or a second class of one name was found.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from check_prose import PROJECT

FOREIGN_NAMES = "perdure.flyte"
"""The package whose classes have the names that Flyte gives them, which perdure's own classes may have as well."""

Graph = Mapping[str, set[str]]
"""From each module to the modules that it imports."""


def modules_under(source: Path) -> dict[str, Path]:
    """Every module below `source`, by its dotted name."""
    found = {}
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def graph_of(modules: Mapping[str, Path]) -> Graph:
    return {name: set(_imports(name, path, modules)) - {name} for name, path in modules.items()}


def _imports(name: str, path: Path, modules: Mapping[str, Path]) -> Iterator[str]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*base, node.module] if node.module else base)
            for alias in node.names:
                inner = f"{origin}.{alias.name}"
                if inner in modules or origin in modules:
                    yield inner if inner in modules else origin


def circles(graph: Graph) -> list[list[str]]:
    """The strongly connected components of more than one module, largest first (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    open_: set[str] = set()
    found: list[list[str]] = []
    for root in graph:
        if root in index:
            continue
        work = [(root, iter(sorted(graph[root])))]
        index[root] = low[root] = len(index)
        stack.append(root)
        open_.add(root)
        while work:
            module, targets = work[-1]
            for target in targets:
                if target not in index:
                    index[target] = low[target] = len(index)
                    stack.append(target)
                    open_.add(target)
                    work.append((target, iter(sorted(graph[target]))))
                    break
                if target in open_:
                    low[module] = min(low[module], index[target])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[module])
                if low[module] == index[module]:
                    component = [stack.pop()]
                    while component[-1] != module:
                        component.append(stack.pop())
                    open_.difference_update(component)
                    if len(component) > 1:
                        found.append(sorted(component))
    return sorted(found, key=lambda component: (-len(component), component))


def namesakes(modules: Mapping[str, Path]) -> dict[str, list[str]]:
    """The names of classes that more than one place defines, with these places."""
    places: dict[str, list[str]] = {}
    for module, path in modules.items():
        if module == FOREIGN_NAMES or module.startswith(f"{FOREIGN_NAMES}."):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(f"{module}:{node.lineno}")
    return {name: where for name, where in sorted(places.items()) if len({at.split(":")[0] for at in where}) > 1}


def shortest_way_round(graph: Graph, component: Iterable[str]) -> list[str]:
    """The shortest circle within a component: the imports to cut first."""
    inside = set(component)
    best: list[str] = []
    for start in sorted(inside):
        ways = [[start]]
        seen = {start}
        while ways:
            way = ways.pop(0)
            if start in graph[way[-1]]:
                if not best or len(way) < len(best):
                    best = way
                break
            for target in sorted(graph[way[-1]] & inside - seen):
                seen.add(target)
                ways.append([*way, target])
    return [*best, best[0]]


def check(source: Path) -> list[str]:
    modules = modules_under(source)
    graph = graph_of(modules)
    faults = [
        f"{len(component)} modules import each other in a circle: {', '.join(component)}; "
        f"shortest way round: {' -> '.join(shortest_way_round(graph, component))}"
        for component in circles(graph)
    ]
    faults.extend(
        f"class {name} is defined {len(where)} times: {', '.join(where)}; give each a name of its own"
        for name, where in namesakes(modules).items()
    )
    return faults


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Check imports for circles, and classes for names used twice.")
    parser.add_argument("--project", type=Path, default=PROJECT, help=argparse.SUPPRESS)
    faults = check(parser.parse_args(arguments).project.resolve() / "src")
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
