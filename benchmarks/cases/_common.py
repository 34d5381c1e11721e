"""What every case shares: its arguments, its one line of JSON, and the row that stands for a journal entry.

A case measures one thing in a process of its own and prints one JSON object on stdout, so it can be run alone:

    python benchmarks/cases/raw_insert.py --count 3000

`figure` is the measurement in `unit`. Without `--dir` a case works in a new directory under `./.bench`, on the disk of
the project, and removes it afterwards.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# About what a small outcome takes in a journal: the benchmarked steps return it, the raw rows hold it.
VALUE = b"twenty bytes of data"

# Seconds between two submissions of the latency cases, and now and then.
PAUSE, PAUSES = 0.02, 0.5

# A row like an entry of perdure's journal: a few integers, a fingerprint, a short name, the value. A plain rowid table
# is the fastest home that SQLite has for it, so this baseline flatters nobody.
CREATE = (
    "CREATE TABLE entry (id INTEGER PRIMARY KEY, run INTEGER NOT NULL, branch INTEGER NOT NULL, seq INTEGER NOT NULL,"
    " kind INTEGER NOT NULL, fingerprint BLOB NOT NULL, name TEXT NOT NULL, value BLOB NOT NULL)"
)
INSERT = "INSERT INTO entry (run, branch, seq, kind, fingerprint, name, value) VALUES (?, ?, ?, ?, ?, ?, ?)"

Row = tuple[int, int, int, int, bytes, str, bytes]


def row(seq: int) -> Row:
    return (1, 0, seq, 3, seq.to_bytes(16, "little"), "bench.step", VALUE)


def open_raw(path: Path) -> sqlite3.Connection:
    """SQLite as perdure uses it: WAL, every commit fsynced, transactions in our own hands."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA fullfsync=ON")
    return connection


def parser(description: str | None, *, count: int) -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    result.add_argument("--count", type=int, default=count, help=f"how many ({count})")
    result.add_argument("--dir", type=Path, default=None, help="work here instead of in a new directory under ./.bench")
    return result


@contextmanager
def workdir(given: Path | None) -> Iterator[Path]:
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given.resolve()
        return
    base = Path(".bench").resolve()
    base.mkdir(exist_ok=True)
    path = Path(tempfile.mkdtemp(prefix="case-", dir=base))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        try:
            base.rmdir()
        except OSError:
            pass  # another case is still at work in it


def emit(figure: float, unit: str, **more: object) -> None:
    print(json.dumps({"figure": figure, "unit": unit, **more}, ensure_ascii=False), flush=True)
