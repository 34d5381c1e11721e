"""Columns of text for very many rows. A table of rich's measures each cell several times, which takes minutes for
20,000 rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.text import Text

GAP = 2
"""Blanks between two columns."""
NARROWEST = 8
"""Width of a column that shares the rest of a terminal, at least."""


class Column(NamedTuple):
    """A column: its heading, whether its texts stand at the right, and whether it gets what a terminal has left."""

    heading: str
    right: bool = False
    shares: bool = False


class ColumnRow(NamedTuple):
    """A row: its texts, styles of texts by position, and the style of the whole row."""

    texts: Sequence[str]
    styles: dict[int, str]
    style: str = ""


def laid_out(columns: Sequence[Column], rows: Sequence[ColumnRow], width: int | None) -> Iterator[Text]:
    """The heading and the rows as lines. `width`: of a terminal; `None` cuts nothing."""
    widths = [cell_len(column.heading) for column in columns]
    for row in rows:
        for position, text in enumerate(row.texts):
            if len(text) > widths[position] or not text.isascii():
                widths[position] = max(widths[position], cell_len(text))
    if width is not None:
        widths = _fitted(columns, widths, width)
    yield _line(columns, widths, ColumnRow([column.heading for column in columns], {}, "bold"))
    for row in rows:
        yield _line(columns, widths, row)


def _fitted(columns: Sequence[Column], widths: list[int], width: int) -> list[int]:
    """The widths for a terminal: the first column gets a third at most, and the sharing columns get the rest."""
    widths = [min(widths[0], max(width // 3, NARROWEST)), *widths[1:]]
    sharing = [position for position, column in enumerate(columns) if column.shares]
    taken = sum(widths) - sum(widths[position] for position in sharing) + GAP * (len(columns) - 1)
    for done, position in enumerate(sharing):
        share = max((width - taken) // (len(sharing) - done), NARROWEST)
        widths[position] = min(widths[position], share)
        taken += widths[position]
    return widths


def _line(columns: Sequence[Column], widths: Sequence[int], row: ColumnRow) -> Text:
    line = Text(style=row.style, no_wrap=True, overflow="crop", end="")
    last = len(row.texts) - 1
    for position, text in enumerate(row.texts):
        size = len(text) if text.isascii() else cell_len(text)
        if size > widths[position]:
            text, size = f"{set_cell_size(text, widths[position] - 1)}…", widths[position]
        blanks = " " * (widths[position] - size)
        line.append(f"{blanks}{text}" if columns[position].right else text, row.styles.get(position))
        if position != last:
            line.append(("" if columns[position].right else blanks) + " " * GAP)
    line.rstrip()
    return line
