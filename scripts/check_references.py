"""Check that every document that the project cites exists.

Four rules hold:

1. Each relative link in a page leads to a file of the project, and each `#anchor` to a heading of that page.
2. Each page that code, tests or configuration mention (`docs/development/replay.md#look-up`) exists, with its anchor.
3. Each file that a page names (`tests/stores.py`, or `core/run/calls.py` below `src/perdure`) exists, and so does each
   function, class or attribute in a file (`core/run/calls.py:trace`).
4. No text cites a section by number (the section sign): a number has no anchor, so no check can follow the citation.

Usage: `scripts/check_references.py`. Exit status 1 means that a rule is broken.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from check_prose import PROJECT, READ, files_under

PLACES = (*READ, "examples", "benchmarks", "deploy", "scripts", "Makefile", "pyproject.toml")
SECTION_SIGN = "\N{SECTION SIGN}"

_link = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_mention = re.compile(r"(?<![\w/.:-])docs/[\w./-]+\.md(?:#[\w-]+)?")
_place = re.compile(r"`([\w/]+\.py):([\w.]+)`")
_file = re.compile(r"`((?:[\w.-]+/)+[\w.-]+\.py)`")
_fence = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_heading = re.compile(r"^#+\s+(.*?)\s*#*\s*$", re.MULTILINE)


def faults_in(path: Path, project: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8")
    shown = path.relative_to(project)
    for number, line in enumerate(text.splitlines(), start=1):
        if SECTION_SIGN in line:
            yield f"{shown}:{number}: cites a section by number: name the page and its anchor in docs/ instead"
        for target in _mention.findall(line):
            if fault := fault_of(project, project, target):
                yield f"{shown}:{number}: {fault}"
    if path.suffix == ".md":
        for found in _link.finditer(_blank(_fence, text)):
            target = found[1]
            if not re.match(r"[a-z][a-z0-9+.-]*:", target) and (fault := fault_of(path.parent, project, target, path)):
                yield f"{shown}:{_line(text, found)}: {fault}"
        for found in _place.finditer(text):
            if found[2] not in names_in(project / "src" / "perdure" / found[1]):
                yield f"{shown}:{_line(text, found)}: {found[0]} does not exist"
        for found in _file.finditer(text):
            if not (project / found[1]).exists() and not (project / "src" / "perdure" / found[1]).exists():
                yield f"{shown}:{_line(text, found)}: {found[0]} does not exist"


def _line(text: str, found: re.Match[str]) -> int:
    return text.count("\n", 0, found.start()) + 1


def fault_of(folder: Path, project: Path, target: str, page: Path | None = None) -> str | None:
    """What is wrong with a reference to `target`, which is relative to `folder`; `None`: nothing."""
    name, _, anchor = target.partition("#")
    cited = (folder / name).resolve() if name else page
    if cited is None or not cited.exists():
        return f"{target} does not exist"
    if not cited.is_relative_to(project):
        return f"{target} leads out of the project"
    if anchor and cited.suffix == ".md" and anchor not in anchors(cited):
        return f"{target}: the page has no heading with that anchor"
    return None


@cache
def names_in(module: Path) -> frozenset[str]:
    """Functions, classes, methods and attributes of a module, dotted: `Driver`, `Driver.stop`, `Driver.outbox`."""
    if not module.is_file():
        return frozenset()
    found: set[str] = set()

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            match node:
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    found.add(prefix + node.name)
                    if prefix:
                        found.update(prefix + name for name in assigned_to_self(node))
                case ast.ClassDef():
                    found.add(prefix + node.name)
                    visit(node.body, f"{prefix}{node.name}.")
                case ast.Assign() | ast.AnnAssign():
                    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                    found.update(prefix + target.id for target in targets if isinstance(target, ast.Name))
                case ast.If() | ast.Try() | ast.With():
                    visit(node.body, prefix)

    visit(ast.parse(module.read_text(encoding="utf-8")).body, "")
    return frozenset(found)


def assigned_to_self(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    """The attributes that a method assigns."""
    return {
        node.attr
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }


@cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors of a page's headings, as GitHub names them."""
    found: dict[str, int] = {}
    names = set()
    for heading in _heading.findall(_blank(_fence, page.read_text(encoding="utf-8"))):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        count = found.get(slug, 0)
        found[slug] = count + 1
        names.add(slug if not count else f"{slug}-{count}")
    return frozenset(names)


def _blank(pattern: re.Pattern[str], text: str) -> str:
    """The text without what the pattern finds, the line numbers unchanged."""
    return pattern.sub(lambda found: "\n" * found[0].count("\n"), text)


def check(project: Path) -> list[str]:
    return [fault for path in files_under(project, PLACES) for fault in faults_in(path, project)]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Check that every cited document exists.")
    parser.add_argument("--project", type=Path, default=PROJECT, help=argparse.SUPPRESS)
    faults = check(parser.parse_args(arguments).project.resolve())
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
