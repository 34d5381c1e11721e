"""P1, P4: journals that an earlier perdure has written are replayed by today's code, for ever.

The family: every kind of entry, in the order in which a real program wrote it. `recorded.py` says what a recording is,
and `scripts/record_journals.py` makes the recordings of a new version.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from tests.corpus.recorded import DATABASE, HERE, TODAY, Recording, live, open_again, recordings, restore
from tests.journals import recorded_in

from perdure.core.ground.model import Kind, Result

RECORDINGS = recordings()
LIMIT = 500_000


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda one: f"{one.version}:{one.name}:{one.cut}")
def test_a_recorded_journal_is_replayed_and_carried_on(recording: Recording, tmp_path: Path) -> None:
    """P1, P4. A finished run is replayed from its first entry: nothing is executed, and the result is the same. A run
    that was cut off executes the steps without an outcome alone."""
    restore(recording, tmp_path)
    if not recording.cut:
        open_again(tmp_path)
    life = live(tmp_path, recording.name, earlier=recording.executed)
    assert life.code == 0, life.errors
    assert sorted(life.steps) == recording.left, life.errors
    assert life.result == recording.result


def test_the_present_versions_have_recordings() -> None:
    """A raised version of the schema or of the segments needs recordings of its own, made by
    `scripts/record_journals.py`, beside those of every version before."""
    assert {recording.version for recording in RECORDINGS} >= {TODAY}, (
        f"tests/corpus/{TODAY} has no recordings: run python scripts/record_journals.py"
    )


def test_every_kind_of_entry_and_call_is_recorded(tmp_path: Path) -> None:
    """In the recordings of all versions together. A container needs an engine, so its kind alone is missing. `LOOSEN`
    comes from version 1, in which failed attempts had that result, too."""
    results: set[int] = set()
    kinds: set[int] = set()
    noted = placed = False
    for recording in RECORDINGS:
        folder = tmp_path / recording.version / recording.file.name
        folder.mkdir(parents=True)
        restore(recording, folder)
        entries = [entry for _, entry in recorded_in(folder / DATABASE)]
        results |= {entry.result for entry in entries}
        kinds |= {entry.kind for entry in entries if entry.kind}
        noted |= any(entry.notes for entry in entries)
        placed |= any(entry.after is not None for entry in entries)
    assert results >= set(Result) - {Result.NOTE}, sorted(set(Result) - results)
    assert kinds >= set(Kind) - {Kind.CONTAINER}, sorted(set(Kind) - kinds)
    assert noted
    assert placed


def test_each_directory_holds_its_version_and_all_stay_small(tmp_path: Path) -> None:
    for recording in RECORDINGS:
        assert re.fullmatch(r"\d+-\d+", recording.version)
    for number, recording in enumerate(RECORDINGS[:1]):
        folder = tmp_path / str(number)
        folder.mkdir()
        restore(recording, folder)
        with closing(sqlite3.connect(folder / DATABASE)) as connection:
            [[schema]] = connection.execute("PRAGMA user_version").fetchall()
        assert recording.version.startswith(f"{schema}-")
    assert sum(path.stat().st_size for path in HERE.rglob("*") if path.is_file()) < LIMIT
