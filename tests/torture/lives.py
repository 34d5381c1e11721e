"""Real lives of random programs: forked processes against a real store, killed with SIGKILL.

This process is warm: perdure is imported, no thread has started and no store is open, so a fork of it is as good as a
fresh process. `history` gives one program several lives: each is killed at a line of its log, or before, inside or
behind a commit of its store. Then one life ends right behind its last durable call, and one replays the whole journal.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import random
import shutil
import signal
import tempfile
import threading
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tests.crash import host
from tests.torture import oracle, programs
from tests.torture.oracle import DONE, FAILED, HUNG, KILLED, History, Life

import perdure
import perdure.api.run
import perdure.runtime
import perdure.store.sqlite

HANGS_AFTER = float(os.environ.get("PERDURE_TEST_HANG", "60"))
ENDED_AT_THE_END = 7
MEMORY = "/dev/shm"


class Kill(NamedTuple):
    """When a life is killed: at a line of its log, or at a commit."""

    line: int = -1
    commit: str = "0:never"

    @property
    def kind(self) -> str:
        """The name of the fault in the counts."""
        if self.line > 0:
            return "SIGKILL at a line of the log"
        return f"SIGKILL {self.commit.partition(':')[2]} a commit" if self.commit != "0:never" else "no kill"


class FileWorld(programs.World):
    """The world of a real life: a log file, and a line of it at which the process dies."""

    def __init__(self, program: programs.Node, log_file: Path, kill: Kill, ends: bool) -> None:
        super().__init__(program)
        self._fd = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._kill = kill
        self._ends = ends
        self._lines = 0

    def write(self, line: programs.Line) -> None:
        self._lines += 1
        if self._lines == self._kill.line:
            os.kill(os.getpid(), signal.SIGKILL)
        os.write(self._fd, programs.encode(line))

    def recorded_all(self) -> None:
        if self._ends:
            os._exit(ENDED_AT_THE_END)


@dataclass
class Place:
    """The directory of one history, and its store."""

    directory: Path
    store: str
    remove: Callable[[], None]
    postgres: bool = False


def sqlite_place() -> Place:
    """A directory in memory where that is possible, with a SQLite file."""
    memory = MEMORY if os.access(MEMORY, os.W_OK) else None
    directory = Path(tempfile.mkdtemp(prefix="perdure-torture-", dir=memory))
    return Place(directory, str(directory / "p.db"), lambda: shutil.rmtree(directory))


def warm() -> None:
    """Import what lives need, and keep it out of the garbage collector."""
    for name in perdure.__all__:
        getattr(perdure, name)
    gc.collect()
    gc.freeze()


# -- one life ------------------------------------------------------------------------------------------------------


def _live(place: Place, number: int, program: programs.Node, kill: Kill, ends: bool) -> str:
    """What the process of a life does; the result."""
    # Other addresses than the siblings', so that no order of a set is the same by accident.
    junk = [bytearray(random.randrange(32, 700)) for _ in range(random.randrange(300))]
    del junk[:: random.randrange(2, 5)]
    host.arm(kill.commit, 0.0, postgres=place.postgres)
    programs.install(FileWorld(program, place.directory / f"log{number}", kill, ends))
    perdure.init(store=place.store)
    found: str = perdure.with_runcontext(name="r").run(programs.root).result
    return found


def one_life(place: Place, number: int, program: programs.Node, kill: Kill, ends: bool = True) -> Life:
    """Fork one life and wait until it has ended."""
    assert threading.active_count() == 1, threading.enumerate()
    directory = place.directory
    pid = os.fork()
    if pid == 0:
        code = 3
        try:
            random.seed()
            hang = open(directory / f"hang{number}", "w")  # noqa: SIM115 - open until the process ends
            faulthandler.dump_traceback_later(HANGS_AFTER, exit=True, file=hang)
            os.dup2(os.open(directory / f"err{number}", os.O_WRONLY | os.O_CREAT, 0o600), 2)
            (directory / f"out{number}").write_text(_live(place, number, program, kill, ends))
            code = 0
        except BaseException:
            (directory / f"out{number}").write_text(traceback.format_exc())
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return _life(directory, number, code)


def _life(directory: Path, number: int, code: int) -> Life:
    log, out, hang = (directory / f"{name}{number}" for name in ("log", "out", "hang"))
    lines = programs.decode(log.read_text()) if log.exists() else []
    text = out.read_text() if out.exists() else ""
    if code in (-signal.SIGKILL, ENDED_AT_THE_END):
        return Life(lines, KILLED, whole=code == ENDED_AT_THE_END)
    if code == 0:
        return Life(lines, DONE, text)
    if code == 3:
        return Life(lines, FAILED, text)
    return Life(lines, HUNG, f"code {code}\n{hang.read_text()[-4000:] if hang.exists() else ''}")


# -- one history ---------------------------------------------------------------------------------------------------


@dataclass
class Found:
    """What one history has shown."""

    violations: list[str]
    faults: Counter[str] = field(default_factory=Counter)
    lives: int = 0


def kills(rng: random.Random, program: programs.Node) -> list[Kill]:
    """Up to three kills, each at a random moment of a life."""
    found = []
    for _ in range(rng.choice([0, 1, 1, 1, 2, 2, 3])):
        size = 1 + programs.count(program) * rng.random()
        if rng.random() < 0.4:
            found.append(Kill(line=rng.randint(1, 2 + int(4 * size))))
        else:
            # A process's first commit submits the run or claims it.
            when = rng.choice(("before", "inside", "after"))
            found.append(Kill(commit=f"{rng.randint(1, 2 + int(size))}:{when}"))
    return found


def history(program: programs.Node, lives_seed: int, make: Callable[[], Place] = sqlite_place) -> Found:
    """A few lives of one program, judged."""
    place = make()
    faults: Counter[str] = Counter()
    story = History(program)
    try:
        for kill in (*kills(random.Random(lives_seed), program), Kill()):
            life = one_life(place, len(story.lives), program, kill)
            story.lives.append(life)
            faults[kill.kind if life.end == KILLED and not life.whole else "no kill"] += 1
            if life.end != KILLED or life.whole:
                break
        if story.lives[-1].whole:
            story.lives.append(one_life(place, len(story.lives), program, Kill(), ends=False))
            faults["replay of the whole journal"] += 1
            story.replayed = True
        found = [str(violation) for violation in oracle.judge(story)]
        if not story.replayed and not found:
            found = [f"hang: the last life ended too early: {story.lives[-1].end} {story.lives[-1].what}"]
        return Found(found, faults, len(story.lives))
    finally:
        with contextlib.suppress(FileNotFoundError):
            place.remove()
