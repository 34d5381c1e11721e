"""P1, P2, P8 and the store's own promise after a power cut: what a body or a caller was told of is on disk.

The family: any program, cut off at any moment, where the disk keeps any part of what was not synced. Each program is
recorded once under strace. Then the power is cut behind every system call that changed the disk, several times with
other parts lost, and what is left is judged: the database is whole, each journal verifies, each outcome that was told
of is in the journal with its files, and each submission that was acknowledged is there. For a sample of the cuts, a
new process carries on from what is left.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.crash.harness import Hosts, Lab
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
)
WHOLE = os.environ.get("PERDURE_TEST_WHOLE") == "1"
SHARES = (0.0, 0.3, 0.7, 1.0)
"""How much of what was not synced is on disk: nothing, parts, and everything (as after SIGKILL)."""
AT_ONCE = len(SHARES) if WHOLE else 2
"""How many of the shares are tried at one cut; nothing at all (0.0) is always one of them."""
RESTARTS = 200 if WHOLE else 8
"""How many cuts of a program are followed by a new process."""


class Told(NamedTuple):
    """What the outside world has been told of."""

    steps: frozenset[str]
    submitted: frozenset[str]
    ended: bool

    @classmethod
    def of(cls, log: bytes) -> Told:
        lines = [json.loads(line)[2:] for line in log.splitlines()]
        return cls(
            frozenset(fields[1] for fields in lines if fields[0] == "told"),
            frozenset(fields[1] for fields in lines if fields[0] == "submitted"),
            any(fields[0] == "ended" for fields in lines),
        )


class Recorded(NamedTuple):
    """A program's system calls, and where it ran."""

    calls: list[Call]
    folder: Path
    log: Path


pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace, to record system calls")


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Recorded]:
    return {}


def recording(recordings: dict[str, Recorded], program: str, tmp: Path) -> Recorded:
    if program not in recordings:
        folder, log = tmp / "life" / "project", tmp / "life" / "log"
        folder.mkdir(parents=True)
        env = {**os.environ, "LAB_LOG": str(log), "PYTHONDONTWRITEBYTECODE": "1"}
        calls = record([sys.executable, str(SCRIPT), program], tmp / "calls", cwd=folder, env=env)
        recordings[program] = Recorded(calls, folder, log)
    return recordings[program]


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


def judge(folder: Path, told: Told, where: str) -> None:
    """What is left keeps what was promised."""
    file = folder / ".perdure" / "perdure.db"
    blobs = {path.name: path for path in folder.glob(".perdure/blobs/sha256/*/*")}
    for name, path in blobs.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == name, f"{where}: blob {name} is not whole"
    steps: set[str] = set()
    submitted: set[str] = set()
    ended = False
    if file.exists():
        connection = sqlite3.connect(file)
        try:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)], where
            if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'segments'").fetchall():
                for _, entry in decoded(connection.execute(SEGMENTS).fetchall()):
                    steps.add(name_of(entry, set(blobs), where))
                runs = connection.execute("SELECT name, result FROM runs").fetchall()
                submitted = {name for name, _ in runs}
                ended = ("r", Result.VALUE) in runs
        finally:
            connection.close()
    assert told.steps <= steps, f"{where}: told of {sorted(told.steps - steps)}, which is not recorded"
    assert told.submitted <= submitted, f"{where}: acknowledged {sorted(told.submitted - submitted)}, which is gone"
    assert ended or not told.ended, f"{where}: the end of the run was told of and is not recorded"


def name_of(entry: Entry, blobs: set[str], where: str) -> str:
    """What `told` calls that outcome; its content is there."""
    value = ANY.decode(entry.value) if entry.value is not None and entry.result in (Result.VALUE, Result.ITEM) else None
    if isinstance(value, File | Dir):
        assert value.hash in blobs, f"{where}: {value} is recorded, and its content is gone"
        return "tree" if isinstance(value, Dir) else value.name.replace("made", "file")
    return f"task {value}" if entry.kind == Kind.TASK else str(value)


@pytest.mark.parametrize("names", Names)
@pytest.mark.parametrize("program", PROGRAMS)
def test_what_was_told_survives_a_power_cut(
    recordings: dict[str, Recorded], tmp_path: Path, program: str, names: Names
) -> None:
    """P1, P2, P8. Every cut, with several shares of what was not synced."""
    found = recording(recordings, program, tmp_path)
    dice, tried = random.Random(program), 0
    for number, disk, outside in cuts(found, names):
        for share in (SHARES[0], *dice.sample(SHARES[1:], AT_ONCE - 1)):
            restore(disk.cut(names, random.Random(f"{number} {share}"), share), tmp_path / "left")
            judge(tmp_path / "left", Told.of(outside), f"{program}, cut behind call {number}, share {share}")
            tried += 1
    assert tried > 100 * AT_ONCE
    told = Told.of(outside)
    assert told.ended or len(told.submitted) == 4


@pytest.mark.parametrize("program", [program for program in PROGRAMS if program != "submissions"])
def test_a_run_carries_on_after_a_power_cut(
    hosts: Hosts, recordings: dict[str, Recorded], tmp_path: Path, program: str
) -> None:
    """P1, P4. What was told of is not executed again, and the run ends as an undisturbed one does."""
    found = recording(recordings, program, tmp_path)
    dice = random.Random(program)
    moments = [number for number, _, _ in cuts(found, Names.ANY)]
    chosen = {moments[round(place * (len(moments) - 1) / RESTARTS)] for place in range(1, RESTARTS + 1)}
    wanted: Any = None
    for number, disk, outside in cuts(found, Names.ANY):
        if number not in chosen:
            continue
        lab = Lab(hosts, tmp_path / f"again{number}", SCRIPT, program)
        restore(disk.cut(Names.ANY, dice, dice.choice(SHARES)), lab.directory)
        lab.log_file.write_bytes(outside)
        lab._new_lines()
        trial = lab.start()
        assert trial.answer is not None, lab.story()
        again = set(trial.executed()) & Told.of(outside).steps
        assert not again, f"cut behind call {number}: executed again: {sorted(again)}\n{lab.story()}"
        wanted = wanted or trial.answer
        assert trial.answer == wanted, lab.story()
        assert "value" in trial.answer, lab.story()
        lab.remove()
