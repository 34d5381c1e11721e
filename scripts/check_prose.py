"""Check the language of the project: plain technical English, with the subject of each sentence named.

Two rules hold:

1. Vague words (`FORBIDDEN`) appear nowhere: not in a comment, a message, a page, a file's name or a test's name.
2. Pointing words (`POINTING`) make up at most `LIMIT` of 1,000 words in the docstrings and comments of `src`. Every
   pointing word makes the reader look elsewhere for its meaning, so a text with many of them is a riddle.

Usage: `scripts/check_prose.py` checks the whole tree. `scripts/check_prose.py FILE...` checks these files (or
folders) alone and names the lines with the most pointing words. Exit status 1 means that a rule is broken.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent

FORBIDDEN = ("somebody", "nobody", "anybody", "whoever", "whatever", "anew")
POINTING = frozenset(
    [
        "it",
        "its",
        "itself",
        "they",
        "them",
        "their",
        "that",
        "this",
        "these",
        "those",
        "who",
        "whom",
        "whose",
        "what",
        "which",
        "one",
        "ones",
    ]
)
LIMIT = 55.0  # pointing words per 1,000

MEASURED = ("src",)  # docstrings and comments of the code
READ = ("src", "docs", "tests", "README.md", "CHANGELOG.md", "CONTRIBUTING.md")  # no forbidden word in any text
TEXT = frozenset({".md", ".py", ".sql", ".toml", ".txt", ".yaml", ".yml", ".sh", ".json", ".pyi"})

# Letters around the word would make another word of it; underscores, digits and capitals separate the words of a name.
_forbidden = re.compile(
    "|".join(
        rf"(?<![A-Za-z])(?:{word}|{word.upper()})(?:'?s)?(?![a-z])|{word.capitalize()}(?:'?s)?(?![a-z])"
        for word in FORBIDDEN
    )
)
_code = re.compile(r"```.*?```|``[^`]+``|`[^`]+`|^\s*>>>.*$", re.DOTALL | re.MULTILINE)
_mark = re.compile(r"#\s*(?:noqa|type:|pragma:|fmt:|mypy:).*")
_word = re.compile(r"[A-Za-z]+(?:-[A-Za-z]+)*")
_sql_comment = re.compile(r"^\s*--(?! name:)(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Prose:
    """A docstring or a comment."""

    line: int
    text: str

    def words(self) -> list[str]:
        return _word.findall(_code.sub(" ", self.text))


@dataclass(frozen=True)
class Figures:
    """How many words a text has, and how many of them are pointing words."""

    words: int = 0
    pointing: int = 0

    def __add__(self, other: Figures) -> Figures:
        return Figures(self.words + other.words, self.pointing + other.pointing)

    @property
    def rate(self) -> float:
        return 1000 * self.pointing / self.words if self.words else 0.0


def figures(prose: Prose) -> Figures:
    words = prose.words()
    return Figures(len(words), sum(word.lower() in POINTING for word in words))


def prose_of(path: Path) -> Iterator[Prose]:
    """The docstrings and comments of a Python or SQL file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".sql":
        yield from (Prose(text.count("\n", 0, found.start()) + 1, found[1]) for found in _sql_comment.finditer(text))
    elif path.suffix == ".py":
        yield from _prose_of_code(text)


def _prose_of_code(text: str) -> Iterator[Prose]:
    for node in ast.walk(ast.parse(text)):
        # A string that stands alone is a docstring: of a module, class or function, or of the name above it.
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield Prose(node.lineno, inspect.cleandoc(node.value.value))
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and not token.string.startswith("#!"):
            yield Prose(token.start[0], _mark.sub("", token.string))


def forbidden_in(path: Path) -> Iterator[tuple[int, str]]:
    """Each forbidden word with its line; line 0 is the file's own name."""
    for word in _forbidden.findall(path.name):
        yield 0, word
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        for word in _forbidden.findall(line):
            yield number, word


def files_under(project: Path, places: Iterable[str]) -> list[Path]:
    found: list[Path] = []
    for place in places:
        path = project / place
        if path.is_file():
            found.append(path)
        elif path.is_dir():
            inside = (file for file in path.rglob("*") if file.suffix in TEXT and "__pycache__" not in file.parts)
            found.extend(sorted(inside))
    return found


def check(project: Path, files: list[Path] | None = None, *, quiet: bool = False) -> list[str]:
    """Print the figures (`quiet`: the total alone); return the faults, a line each."""
    measured = files_under(project, MEASURED if files is None else map(str, files))
    total = Figures()
    for path in measured:
        proses = list(prose_of(path))
        sums = sum(map(figures, proses), Figures())
        total += sums
        if not quiet:
            print(f"{sums.rate:6.1f}  {sums.pointing:5}/{sums.words:<6} {_shown(path, project)}")
        if files is not None:
            _print_worst(proses)
    print(f"{total.rate:6.1f}  {total.pointing:5}/{total.words:<6} in total; the limit is {LIMIT:g} of 1,000 words")
    faults = [
        f"{_shown(path, project)}:{line}: the word '{word}' is forbidden: name the subject"
        for path in (files_under(project, READ) if files is None else measured)
        for line, word in forbidden_in(path)
    ]
    if total.rate > LIMIT:
        faults.append(
            f"{total.rate:.1f} of 1,000 words in docstrings and comments point elsewhere "
            f"({' '.join(sorted(POINTING))}); the limit is {LIMIT:g}: name the subjects"
        )
    return faults


def _print_worst(proses: list[Prose]) -> None:
    """The texts that gain most from another wording."""
    ranked = sorted(proses, key=lambda prose: -figures(prose).pointing)
    for prose in ranked[:10]:
        points = [word for word in prose.words() if word.lower() in POINTING]
        if points:
            print(f"{'':16}line {prose.line}: {' '.join(points)}")


def _shown(path: Path, project: Path) -> str:
    absolute = path.resolve()
    return str(absolute.relative_to(project)) if absolute.is_relative_to(project) else str(path)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Check the language of the project.")
    parser.add_argument("files", nargs="*", type=Path, help="check these files alone")
    parser.add_argument("--quiet", action="store_true", help="print the total alone")
    parser.add_argument("--project", type=Path, default=PROJECT, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    files = [file.resolve() for file in options.files] or None
    faults = check(options.project.resolve(), files, quiet=options.quiet)
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
