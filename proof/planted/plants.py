"""The planted faults: reading them, and putting one into the text of a source file."""

from __future__ import annotations

import re
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

HERE: Final = Path(__file__).resolve().parent
PROJECT: Final = HERE.parents[1]

_TOKEN: Final = re.compile(r"\w+|\S")
_WORD: Final = re.compile(r"\w")
_GAP: Final = r"(?:\s|#[^\n]*\n)"
_CLOSERS: Final = frozenset(")]}")
_FIELDS: Final = frozenset({"id", "breaks", "file", "why", "old", "new", "tests", "more"})


class MisfitError(Exception):
    """A plant does not fit the sources, or its description is incomplete."""


class Edit(NamedTuple):
    """A piece of a source file, and the text that replaces the piece."""

    old: str
    new: str


class Plant(NamedTuple):
    """One fault."""

    id: str
    breaks: str
    """The promise or invariant that the fault breaks, as in docs/development/invariants.md."""
    file: str
    """The source file, relative to the project."""
    why: str
    """What goes wrong, in one sentence."""
    edits: tuple[Edit, ...]
    tests: tuple[str, ...]
    """The tests written by hand that are nearest; by default those of the register."""

    def applied(self, text: str) -> str:
        """The text of the source file with the fault in it.

        Raises:
            MisfitError: a piece to be replaced does not occur exactly once.
        """
        for edit in self.edits:
            text = _replaced(self, text, edit)
        return text


def plants() -> list[Plant]:
    """All plants, by file and in the order of the file.

    Raises:
        MisfitError: a plant lacks a field, has an unknown field, or has the id of another plant.
    """
    found = [plant for path in sorted(HERE.glob("*.toml")) for plant in _read(path)]
    ids = [plant.id for plant in found]
    twice = sorted({id for id in ids if ids.count(id) > 1})
    if twice:
        raise MisfitError(f"two plants have the id {', '.join(twice)}: rename one")
    return found


def _read(path: Path) -> Iterator[Plant]:
    for row in tomllib.loads(path.read_text(encoding="utf-8"))["plant"]:
        yield _plant(path, row)


def _plant(path: Path, row: dict[str, Any]) -> Plant:
    unknown, missing = row.keys() - _FIELDS, _FIELDS - {"tests", "more"} - row.keys()
    if unknown or missing:
        raise MisfitError(f"{path.name}: plant {row.get('id')}: missing {sorted(missing)}, unknown {sorted(unknown)}")
    edits = [Edit(row["old"], row["new"]), *(Edit(one["old"], one["new"]) for one in row.get("more", ()))]
    return Plant(row["id"], row["breaks"], row["file"], row["why"], tuple(edits), tuple(row.get("tests", ())))


def _replaced(plant: Plant, text: str, edit: Edit) -> str:
    places = list(_pattern(edit.old).finditer(text))
    if len(places) != 1:
        raise MisfitError(
            f"plant {plant.id}: its text is {len(places)} times in {plant.file}, not once: {edit.old.strip()!r}. The "
            "code has changed since: write the plant for the code of today, or remove it"
        )
    [place] = places
    line = text[text.rfind("\n", 0, place.start()) + 1 : place.start()]
    indent = line[: len(line) - len(line.lstrip())]
    new = textwrap.dedent(edit.new).strip().replace("\n", "\n" + indent)
    return text[: place.start()] + new + text[place.end() :]


def _pattern(old: str) -> re.Pattern[str]:
    """The text with any white space and comments between its tokens, and any comma in front of a closing bracket."""
    parts: list[str] = []
    before = ""
    for token in _TOKEN.findall(old):
        if before:
            parts.append(_GAP + ("+" if _WORD.match(before) and _WORD.match(token) else "*"))
        if token in _CLOSERS and before != ",":
            parts.append(f"(?:,{_GAP}*)?")
        parts.append(re.escape(token))
        before = token
    return re.compile(r"(?<!\w)" + "".join(parts) if _WORD.match(old.strip()) else "".join(parts))
