"""Text in the SQLite file that is not UTF-8: the error names run and column, and all other runs and workers go on.

Numbers and bytes of a wrong type cannot be stored, because the tables are STRICT.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.contract._records import TOKEN, action, created, new_run, root_action, worker

from perdure.core.ground.model import CachePut, Claim, CreateRun, RunWrites, Segment, Status
from perdure.errors import RowDamagedError, StoreError
from perdure.store.sqlite import SQLiteStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    with closing(SQLiteStore(path)) as made:
        yield made


def damage(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute(statement.replace("BAD", "CAST(x'62ff' AS TEXT)"))


@pytest.mark.parametrize("column", ["task", "target", "worker", "name"])
def test_a_damaged_run_is_left_out_of_lists_and_named(
    path: Path, store: SQLiteStore, column: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Each text of a run's row."""
    for name in ("a", "b", "c"):
        created(store, name)
    damage(path, f"UPDATE runs SET {column} = BAD WHERE id = 2")
    for found in (store.runs(), store.runs(statuses={Status.RUNNING}), store.runs(statuses=[*Status])):
        assert [run.name for run in found] == ["c", "a"]
    assert f"run number 2, column {column}" in caplog.text
    with pytest.raises(RowDamagedError, match=f"run number 2, column {column}: b'b.xff' is not UTF-8"):
        store.run_by_id(2)
    assert store.run("a") is not None
    assert store.claim(3, Claim(TOKEN, "w"), expect=TOKEN, entries=0, statuses={Status.RUNNING}) is not None
    [problem] = store.check().problems
    assert f"run number 2, column {column}" in problem


@pytest.mark.parametrize("column", ["target", "name", "reuse"])
def test_a_damaged_run_that_is_due_keeps_no_other_waiting(
    path: Path, store: SQLiteStore, column: str, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "b", "c"):
        store.commit([CreateRun(new_run(name), None)])
    damage(path, f"UPDATE runs SET {column} = BAD WHERE id = 2")
    with caplog.at_level(logging.ERROR):
        taken = store.take_due(["etl.main"], [Claim(bytes([n]) * 16, "w") for n in range(5)])
    assert [one.run.name for one in taken] == ["a", "c"]
    assert "run number 2 is damaged" in caplog.text


def test_a_damaged_worker_or_schedule_is_left_out(path: Path, store: SQLiteStore) -> None:
    for name in ("one", "two"):
        store.renew(worker(name))
        store.advance(name, 5, expect=None)
    damage(path, "UPDATE workers SET host = BAD WHERE id = 'two'")
    damage(path, "UPDATE schedules SET key = BAD WHERE key = 'two'")
    assert [row.id for row in store.workers()] == ["one"]
    assert [(row.key, row.at) for row in store.schedules()] == [("one", 5)]
    assert len(store.check().problems) == 2


def test_a_damaged_action_stops_its_run_alone(path: Path, store: SQLiteStore) -> None:
    """An action that was left out would be started again, so the list as a whole is refused."""
    for name in ("a", "b"):
        run = created(store, name).id
        store.commit([RunWrites(run, TOKEN, (), [root_action(run), action(run, 1)])])
    damage(path, "UPDATE actions SET name = BAD WHERE run = 1 AND action = 1")
    for ask in (store.actions, store.open_actions):
        with pytest.raises(StoreError, match="run number 1, column name"):
            ask(1)
        assert len(ask(2)) == 2


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE runs SET crashes = BAD", "UPDATE runs SET uid = 'text'", "UPDATE segments SET number = x'00'",
        "UPDATE segments SET data = 'text'", "UPDATE workers SET pid = x'00'", "UPDATE schedules SET at = BAD",
        "UPDATE actions SET wake_at = 'soon'",
    ],
)  # fmt: skip
def test_a_value_of_a_wrong_type_cannot_be_stored(path: Path, store: SQLiteStore, statement: str) -> None:
    run = created(store, "a").id
    store.commit([RunWrites(run, TOKEN, [Segment(1, b"x")], [action(run, 1)], (), (CachePut(b"k", b"v", 1),))])
    store.renew(worker())
    store.advance("s", 5, expect=None)
    with pytest.raises(sqlite3.IntegrityError):
        damage(path, statement)
