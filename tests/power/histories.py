"""Recorded histories of programs, what a power cut leaves of them, and the judgement of what is left."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from tests.journals import SEGMENTS, decoded
from tests.power.disk import Disk, Names
from tests.power.recording import Call, Player, record

from perdure.core.ground.model import Entry, Kind, Result
from perdure.core.ground.values import ANY
from perdure.io import Dir, File

SCRIPT = Path(__file__).parent / "workflows" / "told.py"
PROGRAMS = (
    "in_turn",
    "in_turn_sync",
    "gathered",
    "with_children",
    "with_items",
    "with_files",
    "submissions",
    "parked",
    "moved",
    "backed_up",
    "collected",
)
SHARES = (0.0, 0.3, 0.7, 1.0)
"""How much of what was not synced is on disk: nothing, parts, and everything (as after SIGKILL)."""


class Told(NamedTuple):
    """What the outside world has been told of."""

    steps: frozenset[str]
    submitted: frozenset[str]
    ended: bool
    copies: frozenset[str]
    moved: bool

    @classmethod
    def of(cls, log: bytes) -> Told:
        lines = [json.loads(line)[2:] for line in log.splitlines()]
        return cls(
            frozenset(fields[1] for fields in lines if fields[0] == "told"),
            frozenset(fields[1] for fields in lines if fields[0] == "submitted"),
            any(fields[0] == "ended" for fields in lines),
            frozenset(fields[1] for fields in lines if fields[0] == "copied"),
            any(fields[0] == "moved" for fields in lines),
        )


class Recorded(NamedTuple):
    """A program's system calls, and where it ran."""

    calls: list[Call]
    folder: Path
    log: Path


def cuts(found: Recorded, names: Names) -> Iterator[tuple[int, Disk, bytes]]:
    """The disk behind each call that changed it or told of something."""
    player = Player(found.folder, found.log, names)
    for number, call in enumerate(found.calls):
        if player.play(call):
            yield number, player.disk, player.outside


def restore(left: dict[str, bytes | None], folder: Path) -> None:
    """Write what is left into a directory."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, content in left.items():
        path = folder / name
        if content is None:
            path.mkdir(mode=0o700)
        # The index of the log is memory that processes share: SQLite makes it again.
        elif not name.endswith("-shm"):
            path.write_bytes(content)


class Left(NamedTuple):
    """What one store has."""

    steps: set[str]
    runs: dict[str, tuple[str, int | None]]
    """Status and result of each run."""

    @classmethod
    def of(cls, file: Path, blobs_at: Path, where: str) -> Left:
        """Read a store, and judge what can be judged of it alone."""
        blobs = {path.name for path in blobs_at.glob("sha256/*/*")}
        for path in blobs_at.glob("sha256/*/*"):
            whole = hashlib.sha256(path.read_bytes()).hexdigest() == path.name
            assert whole, f"{where}: blob {path.name} is not whole"
        if not file.exists():
            return cls(set(), {})
        with closing(sqlite3.connect(file)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)], where
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'segments'").fetchall():
                return cls(set(), {})
            entries = [entry for _, entry in decoded(connection.execute(SEGMENTS).fetchall())]
            steps = {name_of(entry, blobs, where) for entry in entries}
            rows = connection.execute("SELECT name, status, result FROM runs WHERE status <> 'REMOVED'").fetchall()
        return cls(steps, {name: (status, result) for name, status, result in rows})


def judge(folder: Path, told: Told, where: str) -> None:
    """What is left keeps what was promised."""
    here = Left.of(folder / ".perdure" / "perdure.db", folder / ".perdure" / "blobs", where)
    there = Left.of(folder / "moved.db", folder / "moved.db-blobs", where)
    steps = here.steps | there.steps
    assert told.steps <= steps, f"{where}: told of {sorted(told.steps - steps)}, which is not recorded"
    runs = here.runs | there.runs
    assert told.submitted <= set(runs), f"{where}: acknowledged {sorted(told.submitted - set(runs))}, which is gone"
    ended = runs.get("r", ("", None))[1] == Result.VALUE
    assert ended or not told.ended, f"{where}: the end of the run was told of and is not recorded"
    for name in there.runs:
        # M1: no run can be driven in both stores.
        assert here.runs[name][0] == "MOVED", (
            f"{where}: run {name} is in both stores, {here.runs[name][0]} at the source"
        )
    assert not told.moved or told.submitted <= set(there.runs), f"{where}: the end of the move was told of"
    for name in told.copies:
        copy = Left.of(folder / name, folder / "none", where)
        assert "r" in copy.runs, f"{where}: the copy {name} was told of and does not have the run"


def name_of(entry: Entry, blobs: set[str], where: str) -> str:
    """What `told` calls that outcome; its content is there."""
    value = ANY.decode(entry.value) if entry.value is not None and entry.result in (Result.VALUE, Result.ITEM) else None
    if isinstance(value, File | Dir):
        assert value.hash in blobs, f"{where}: {value} is recorded, and its content is gone"
        return "tree" if isinstance(value, Dir) else value.name.replace("made", "file")
    return f"task {value}" if entry.kind == Kind.TASK else str(value)


class Histories:
    """The system calls of each program, recorded once, at first use."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._recorded: dict[str, Recorded] = {}

    def of(self, program: str) -> Recorded:
        """The history of that program."""
        if program not in self._recorded:
            place = self._folder / program
            folder, log = place / "life" / "project", place / "life" / "log"
            folder.mkdir(parents=True)
            env = {**os.environ, "LAB_LOG": str(log), "PYTHONDONTWRITEBYTECODE": "1"}
            calls = record([sys.executable, str(SCRIPT), program], place / "calls", cwd=folder, env=env)
            self._recorded[program] = Recorded(calls, folder, log)
        return self._recorded[program]

    def trial(self, program: str, dice: random.Random) -> str:
        """One power cut at a random call; what was not synced is kept in a random part. The program and the part."""
        found, names, share = self.of(program), dice.choice(list(Names)), dice.choice(SHARES)
        moment = dice.randrange(len(found.calls))
        for number, disk, outside in cuts(found, names):
            if number >= moment:
                where = f"{program}, cut behind call {number}, {names.name}, share {share}"
                restore(disk.cut(names, dice, share), self._folder / "left")
                judge(self._folder / "left", Told.of(outside), where)
                break
        return f"{program}, {share:.0%} kept"
