"""Journals for tests: the entries of a run in a store, or of all runs behind a database query. Always verified."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from perdure.core.ground.model import Entry, RunRow, Segment
from perdure.core.ground.ports import Store
from perdure.core.journal.segment import entries_of, journal_of

SEGMENTS = (
    "SELECT runs.id, runs.name, runs.uid, number, data FROM runs JOIN segments ON run = id ORDER BY runs.id, number"
)
"""What `decoded` takes, in words that SQLite and Postgres understand."""


def recorded(store: Store, run: RunRow) -> list[Entry]:
    """The entries of a run."""
    return list(journal_of(store, run))


def decoded(rows: Iterable[tuple[int, str, bytes, int, bytes]]) -> list[tuple[int, Entry]]:
    """The entries of all runs, each with the number of its run."""
    return [
        (run, entry)
        for (run, name, uid), segments in groupby(rows, key=lambda row: row[:3])
        for entry in entries_of(name, uid, [Segment(*row[3:]) for row in segments])
    ]


def recorded_in(path: str | Path) -> list[tuple[int, Entry]]:
    """The entries of all runs in an SQLite file, each with the number of its run."""
    connection = sqlite3.connect(path)
    try:
        return decoded(connection.execute(SEGMENTS).fetchall())
    finally:
        connection.close()
