"""Fill an SQLite store with very many finished runs, in seconds: `python scripts/many_runs.py many.db 1000000`.

The rows are copies of two real runs, written by the database alone. Every hundredth run has failed, and every ten
thousandth run belongs to another task. Such a store is for measuring lists of runs, and has no journals.
"""

from __future__ import annotations

import argparse
import sqlite3
from contextlib import closing, suppress

import perdure

env = perdure.TaskEnvironment(name="many")


@env.task
def main(n: int) -> int:
    """Fail for a negative number."""
    if n < 0:
        raise ValueError(f"{n} is negative")
    return n


def fill(path: str, count: int) -> None:
    """Add `count` runs to the store at the path."""
    perdure.init(path)
    perdure.with_runcontext(name="fine").run(main, n=1)
    with suppress(ValueError):
        perdure.with_runcontext(name="failed").run(main, n=-1)
    perdure.init()
    with closing(sqlite3.connect(path)) as raw:
        columns = [row[1] for row in raw.execute("PRAGMA table_info(runs)") if row[1] != "id"]
        values = {
            "uid": "randomblob(16)",
            "name": "'run-' || i",
            "task": "CASE WHEN i % 10000 = 0 THEN 'many.rare' ELSE task END",
            "created_at": "created_at + i * 1000",
        }
        chosen = ", ".join(values.get(column, column) for column in columns)
        raw.execute(
            f"INSERT INTO runs ({', '.join(columns)}) WITH RECURSIVE numbers (i) AS ("
            f"SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < ?) "
            f"SELECT {chosen} FROM numbers JOIN runs AS old ON old.name = iif(i % 100 = 0, 'failed', 'fine')",
            (count,),
        )
        raw.commit()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path")
    parser.add_argument("count", type=int)
    arguments = parser.parse_args()
    fill(arguments.path, arguments.count)
