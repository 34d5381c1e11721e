"""P3: every store answers like its twin in memory, for calls that are nearly right (`random_stores.py`).

The family: what a store computes of other rows: fences, marks, wake times, references, names that are taken.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.contract.random_stores import History, on_postgres, sqlite
from tests.postgres_server import programs


@pytest.mark.parametrize("first", range(0, 100, 20))
def test_sqlite_answers_like_the_store_in_memory(tmp_path: Path, first: int) -> None:
    for seed in range(first, first + 20):
        folder = tmp_path / str(seed)
        folder.mkdir()
        History(seed, sqlite(folder)).run()


@pytest.mark.skipif(programs() is None, reason="needs the programs of Postgres")
def test_postgres_answers_like_the_store_in_memory() -> None:
    for seed in range(3):
        on_postgres(seed).run()
