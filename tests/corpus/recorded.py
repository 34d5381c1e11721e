"""Recorded stores: one directory for each pair of a schema and a segment format, never written again.

A directory holds `programs.py`, the program that was executed, `expected.json`, and a store for each recording as the
compressed SQL text of the whole SQLite file.
"""

from __future__ import annotations

import gzip
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from perdure.core.journal.segment import VERSION as SEGMENTS
from perdure.store.sqlite.file import VERSION as SCHEMA

HERE = Path(__file__).resolve().parent
TODAY = f"{SCHEMA}-{SEGMENTS}"
"""The directory of the present versions."""
DATABASE = Path(".perdure") / "perdure.db"


class Recording(NamedTuple):
    """One recorded store."""

    version: str
    name: str
    cut: int
    """Number of the step at which the recording process was killed; 0: the run has ended."""
    result: str
    """What the program prints at its end."""
    left: list[str]
    """The steps that a process executes that carries on, sorted: those without a recorded outcome."""
    executed: list[str]
    """The steps that the recording process has executed."""

    @property
    def folder(self) -> Path:
        return HERE / self.version

    @property
    def file(self) -> Path:
        return self.folder / (f"{self.name}-cut{self.cut}.sql.gz" if self.cut else f"{self.name}.sql.gz")


def recordings(version: str | None = None) -> list[Recording]:
    """The recordings of a version; by default of all versions."""
    versions = [version] if version else sorted(path.parent.name for path in HERE.glob("*-*/expected.json"))
    return [Recording(one, *row) for one in versions for row in json.loads((HERE / one / "expected.json").read_text())]


def dump(database: Path) -> bytes:
    """A database as compressed SQL text, with the numbers that say what it is."""
    with closing(sqlite3.connect(database)) as connection:
        pragmas = [
            f"PRAGMA {name} = {connection.execute(f'PRAGMA {name}').fetchone()[0]};"
            for name in ("application_id", "user_version")
        ]
        text = "\n".join([*pragmas, *connection.iterdump()])
    return gzip.compress(text.encode(), mtime=0)


def restore(recording: Recording, folder: Path) -> None:
    """Write the store and the program of a recording into a directory."""
    (folder / DATABASE).parent.mkdir(parents=True)
    os.chmod((folder / DATABASE).parent, 0o700)
    (folder / "programs.py").write_bytes((recording.folder / "programs.py").read_bytes())
    with closing(sqlite3.connect(folder / DATABASE)) as connection:
        connection.executescript(gzip.decompress(recording.file.read_bytes()).decode())


def open_again(folder: Path) -> None:
    """Let a run that has ended be one that its driver has left: the next start replays its whole journal."""
    with closing(sqlite3.connect(folder / DATABASE)) as connection:
        connection.execute(
            "UPDATE runs SET status = 'RUNNING', token = NULL, worker = NULL, result = NULL, value = NULL, "
            "ended_at = NULL"
        )
        connection.commit()


class Life(NamedTuple):
    """One process that executed a program."""

    code: int
    result: str
    steps: list[str]
    """What it has executed."""
    errors: str


def live(folder: Path, name: str, *, cut: int = 0, earlier: list[str] | None = None) -> Life:
    """Execute the program in the directory. `earlier`: the steps that earlier lives have executed."""
    log = folder / "log"
    log.write_text("".join(f"{line}\n" for line in earlier or ()))
    words = [sys.executable, "programs.py", name, *([str(cut)] if cut else [])]
    env = {**os.environ, "CORPUS_LOG": str(log), "PERDURE_STORE": "", "PYTHONDONTWRITEBYTECODE": "1"}
    env.pop("PERDURE_STORE")
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False)
    steps = log.read_text().splitlines()[len(earlier or ()) :]
    return Life(done.returncode, done.stdout.strip(), steps, done.stderr)
