"""Real lives of random programs: forked processes against a real store, killed with SIGKILL.

This process is warm: perdure is imported, no thread has started and no store is open, so a fork of it is as good as a
fresh process. `history` gives one program several lives: each is killed at a line of its log, or before, inside or
behind a commit of its store. Then one life ends right behind its last durable call, and one replays the whole journal.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib
import json
import os
import random
import shutil
import signal
import sqlite3
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tests.crash import host
from tests.torture import exchange, oracle, programs
from tests.torture.oracle import DONE, FAILED, HUNG, KILLED, History, Life

import perdure
import perdure.api.run
import perdure.runtime
import perdure.store.sqlite
from perdure.core.ground.model import FINISHED, PARKED
from perdure.core.process.serving import ServedRun, Server

HANGS_AFTER = float(os.environ.get("PERDURE_TEST_HANG", "60"))
ENDED_AT_THE_END = 7
MEMORY = "/dev/shm"
LONG = 0.3
"""Seconds: a sleep for which a run leaves memory."""
LEASE = "2"
"""Seconds: how long a stopped process keeps its run."""
FROZEN = 4.0 * float(LEASE)
"""Seconds for which a process is stopped at most."""
LOST = "LeaseLostError"
NEVER = float("inf")
SLOW = 0.004
"""Seconds by which a slow commit is longer, at most; ten times as long for the first three of a process."""
WITH_CANCEL = 0.12
"""The share of histories in which the run is asked to cancel."""
WITH_WORKERS = 0.3
"""The share of histories in which workers drive the run."""


class Kill(NamedTuple):
    """When a life is killed: at a line of its log, or at a commit. `frozen`: the process is stopped by SIGSTOP instead,
    and goes on when all other processes have ended."""

    line: int = -1
    commit: str = "0:never"
    frozen: bool = False

    @property
    def kind(self) -> str:
        """The name of the fault in the counts."""
        if self.frozen:
            return "SIGSTOP past the lease"
        if self.line > 0:
            return "SIGKILL at a line of the log"
        return f"SIGKILL {self.commit.partition(':')[2]} a commit" if self.commit != "0:never" else "no kill"


class RealWorld(programs.LoggingWorld):
    """The world of a real life: a line of the log at which the process dies, and an end."""

    def __init__(self, program: programs.Node, log_file: Path, kill: Kill, ends: bool) -> None:
        super().__init__(program, str(log_file))
        self._kill = kill
        self._ends = ends
        self._lines = 0
        # For processes that this one starts.
        os.environ["TORTURE_PROGRAM"], os.environ["TORTURE_LOG"] = program.show(), str(log_file)

    def write(self, line: programs.Line) -> None:
        self._lines += 1
        if self._lines == self._kill.line:
            os.kill(os.getpid(), signal.SIGSTOP if self._kill.frozen else signal.SIGKILL)
        super().write(line)

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

    @property
    def database(self) -> Path:
        """The user's database."""
        return self.directory / "user.db"

    def effects(self) -> list[str]:
        """The rows in the user's database."""
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            return [name for (name,) in connection.execute("SELECT name FROM effects")]


def sqlite_place(*, on_disk: bool = False) -> Place:
    """A directory in memory where that is possible, with a SQLite file."""
    memory = MEMORY if os.access(MEMORY, os.W_OK) and not on_disk else None
    directory = Path(tempfile.mkdtemp(prefix="perdure-torture-", dir=memory))
    return Place(directory, str(directory / "p.db"), lambda: shutil.rmtree(directory))


def warm(*, postgres: bool = False) -> None:
    """Import what lives need, and keep it out of the garbage collector."""
    for name in perdure.__all__:
        getattr(perdure, name)
    for module in ("perdure.store.locks", "perdure.store.sqlite.store", "perdure.store.sqlite.bell"):
        importlib.import_module(module)
    if postgres:
        importlib.import_module("perdure.store.postgres")
    gc.collect()
    gc.freeze()


# -- processes -----------------------------------------------------------------------------------------------------


class Orders(NamedTuple):
    """What a process does: "run" drives the run, "submit" leaves it to workers, "serve" is a worker, "send" sends all
    messages that the program waits for, "cancel" asks to cancel the run."""

    how: str = "run"
    kill: Kill = Kill()
    ends: bool = True
    """Whether the process ends right behind the last durable call of the program."""
    may_end: bool = False
    """Whether a run that workers drive may end before its last durable call."""
    park_after: float = 60.0
    slow: float = 0.0
    """Seconds that each commit takes longer: commits move from the event loop to the writer's thread."""


def _run(orders: Orders, program: programs.Node, left: Path) -> str:
    context = perdure.with_runcontext(name="r")
    if orders.how == "send":
        _send(context.submit(programs.root), program)
        return ""
    if orders.how == "cancel":
        _cancel(context.submit(programs.root))
        return ""
    if orders.how == "submit":
        context.submit(programs.root)
        return ""
    if orders.how == "serve":
        spec = programs.root.spec
        server = Server(perdure.runtime.worker(), {spec.name: spec}, park_after=orders.park_after, tell=_heard)
        if orders.may_end:
            threading.Thread(target=_stop_at_the_end, args=(server,), daemon=True).start()
        server.serve()
    try:
        run = perdure.Run.get("r") if orders.how == "serve" else context.run(programs.root)
        if not orders.ends:
            left.write_text(json.dumps(exchange.kept(perdure.runtime.worker().store, run.row.id)))
        found: str = run.result
    except perdure.errors.RunCancelledError:
        return oracle.RUN_CANCELLED
    return found


def _send(run: perdure.Run, program: programs.Node) -> None:
    """Send all messages, some of them again."""
    for mail in exchange.mails(program):
        for _ in range(random.choice((1, 1, 1, 2))):
            time.sleep(random.choice((0.0, random.random() * programs.SCALE)))
            try:
                mail.send(run)
            except perdure.errors.RunEndedError:
                return


def _cancel(run: perdure.Run) -> None:
    """Ask to cancel the run, a moment after it has begun."""
    until = time.monotonic() + 1.0
    while run.status == perdure.Status.QUEUED and time.monotonic() < until:
        time.sleep(0.002)
    time.sleep(random.random() ** 2 * 0.1)
    exchange.Cancel().send(run)


def _stop_at_the_end(server: Server) -> None:
    """End a worker when the run has ended."""
    while perdure.Run.get("r").row.status not in FINISHED:
        time.sleep(0.1)
    server.stop()


def _heard(end: ServedRun) -> None:
    if end.status not in (*PARKED, perdure.Status.CANCELLED):
        raise RuntimeError(f"the worker stopped driving: {end.status} {end.error}") from end.error


def start(place: Place, number: int, program: programs.Node, orders: Orders) -> int:
    """Fork a process; its pid."""
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
            # Other addresses than the siblings', so that no order of a set is the same by accident.
            junk = [bytearray(random.randrange(32, 700)) for _ in range(random.randrange(300))]
            del junk[:: random.randrange(2, 5)]
            host.arm(orders.kill.commit, random.random() * orders.slow, postgres=place.postgres)
            programs.install(RealWorld(program, directory / f"log{number}", orders.kill, orders.ends))
            os.environ["PERDURE_LEASE"] = LEASE
            os.environ[programs.DATABASE_VARIABLE] = str(place.database)
            perdure.init(store=place.store)
            (directory / f"out{number}").write_text(_run(orders, program, directory / "left"))
            code = 0
        except BaseException:
            (directory / f"out{number}").write_text(traceback.format_exc())
        finally:
            os._exit(code)
    return pid


def wait(pids: list[int]) -> tuple[dict[int, int], dict[int, float]]:
    """Wait until all these processes have ended; their exit codes, and when (since boot) a process was seen to be
    stopped. A stopped process goes on when the others have ended, and after `FROZEN` seconds at the latest: a process
    that is stopped inside a transaction on SQLite holds the lock that the others need."""
    codes: dict[int, int] = {}
    times: dict[int, float] = {}
    stopped: list[int] = []
    timers: list[int] = []
    while len(codes) < len(pids):
        if stopped and len(codes) + len(stopped) == len(pids):
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
            stopped.clear()
        pid, status = os.waitpid(-1, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            stopped.append(pid)
            times[pid] = time.clock_gettime(time.CLOCK_BOOTTIME)
            timers.append(_continue_later(pid))
        elif pid in pids:
            codes[pid] = os.waitstatus_to_exitcode(status)
        else:
            timers.remove(pid)
            stopped.clear()
    for timer in timers:
        os.kill(timer, signal.SIGKILL)
        os.waitpid(timer, 0)
    return codes, times


def _continue_later(pid: int) -> int:
    """A process that lets a stopped process go on after a while; its pid."""
    timer = os.fork()
    if timer == 0:
        time.sleep(FROZEN)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
        os._exit(0)
    return timer


def read(place: Place, number: int, code: int, frozen_at: float, taken_over_at: float) -> list[Life]:
    """The lives that an ended process gave the run, each from a first line of the root body on. `taken_over_at`: when
    another process was first seen to drive the run after this process had been frozen."""
    log, out, hang = (place.directory / f"{name}{number}" for name in ("log", "out", "hang"))
    text = out.read_text() if out.exists() else ""
    if code in (-signal.SIGKILL, ENDED_AT_THE_END):
        end = KILLED
    elif frozen_at < NEVER and code == 3 and LOST in text:
        end = KILLED  # the process has noticed that another worker has the run
    elif code in (0, 3):
        end = FAILED if code else DONE
    else:
        end, text = HUNG, f"code {code}\n{hang.read_text()[-4000:] if hang.exists() else ''}"
    parts: list[list[programs.Line]] = []
    late: list[programs.Line] = []
    for line in programs.decode(log.read_text()) if log.exists() else []:
        if line.at > max(frozen_at, taken_over_at):
            # What a frozen process does when it goes on is no life of the run, but it must be told of nothing new.
            # Until another process drives the run, the claim is still its own: a process that was frozen inside a
            # transaction on SQLite keeps the others from taking the run over.
            late.append(line)
            continue
        if line.kind == "drive" or not parts:
            parts.append([])
        parts[-1].append(line)
    # A run that was parked and woken in one process has had a life before that one.
    found = [Life(lines, KILLED) for lines in parts[:-1]]
    return [*found, Life(parts[-1] if parts else [], end, text, whole=code == ENDED_AT_THE_END, late=late)]


def taken_over(place: Place, others: list[int], since: float) -> float:
    """When one of these other processes first began to drive the run after that moment."""
    logs = [place.directory / f"log{number}" for number in others]
    lines = [line for log in logs if log.exists() for line in programs.decode(log.read_text())]
    return min((line.at for line in lines if line.kind == "drive" and line.at > since), default=NEVER)


# -- one history ---------------------------------------------------------------------------------------------------


@dataclass
class Found:
    """What one history has shown."""

    violations: list[str]
    faults: Counter[str] = field(default_factory=Counter)
    lives: int = 0


def a_kill(rng: random.Random, program: programs.Node) -> Kill:
    """A random moment of a life."""
    size = 1 + programs.count(program) * rng.random()
    if rng.random() < 0.4:
        return Kill(line=rng.randint(1, 2 + int(4 * size)))
    # A process's first commit submits the run or claims it.
    return Kill(commit=f"{rng.randint(1, 2 + int(size))}:{rng.choice(('before', 'inside', 'after'))}")


class Story:
    """One history under way."""

    def __init__(self, program: programs.Node, place: Place, rng: random.Random) -> None:
        self.place = place
        self.rng = rng
        self.history = History(program, cancelled=rng.random() < WITH_CANCEL)
        self.faults: Counter[str] = Counter()
        self.processes = 0
        self.has_mails = bool(exchange.mails(program))

    def together(self, *all_orders: Orders) -> list[Life]:
        """Start processes side by side, and wait for all. In one life of four, commits are slow."""
        started = []
        if self.has_mails and all_orders[0].how in ("run", "serve") and all_orders[0].ends:
            if self.rng.random() < 0.3:
                # A sender that dies somewhere in between; the next sender repeats the messages.
                kill = Kill(commit=f"{self.rng.randint(1, 4)}:{self.rng.choice(('before', 'inside', 'after'))}")
                self.together(Orders("send", kill))
            all_orders = (*all_orders, Orders("send"))
        if self.history.cancelled and all_orders[0].how in ("run", "serve") and all_orders[0].ends:
            all_orders = (*all_orders, Orders("cancel"))
        for orders in (each._replace(slow=self.rng.choice((0.0, 0.0, 0.0, SLOW))) for each in all_orders):
            started.append((self.processes, start(self.place, self.processes, self.history.program, orders), orders))
            self.processes += 1
        lives = []
        codes, frozen = wait([pid for _, pid, _ in started])
        for number, pid, orders in started:
            since = frozen.get(pid, NEVER)
            others = [other for other, _, _ in started if other != number]
            own = read(self.place, number, codes[pid], since, taken_over(self.place, others, since))
            if orders.how not in ("send", "cancel") or own[-1].end not in (DONE, KILLED):
                lives += own
            was_killed = own[-1].end == KILLED and not own[-1].whole
            self.faults[f"{orders.how}: {orders.kill.kind if was_killed else 'no kill'}"] += 1
            self.faults["lives with slow commits"] += orders.slow > 0
            self.faults["lives that began when a parked run was woken"] += len(own) - 1
        lives = [life for life in lives if life.lines or life.end != KILLED]
        lives.sort(key=lambda life: life.lines[0].at if life.lines else float("inf"))
        self.history.lives += lives
        return lives

    def by_one_process_after_the_other(self) -> None:
        """Each process drives the run itself."""
        kills = [a_kill(self.rng, self.history.program) for _ in range(self.rng.choice((0, 1, 1, 1, 2, 2, 3)))]
        for kill in (*kills, Kill()):
            lives = self.together(Orders(kill=kill))
            if lives and (lives[-1].end != KILLED or lives[-1].whole):
                return

    def by_workers(self) -> None:
        """Two workers serve the store at the same time; when the first dies, the second takes the run over."""
        if self.rng.random() < 0.2:
            self.together(Orders("submit", Kill(commit=f"1:{self.rng.choice(('before', 'inside', 'after'))}")))
        self.history.lives.clear()
        [submitted] = self.together(Orders("submit"))
        if submitted.end == DONE:
            self.history.lives.clear()
        park_after = self.rng.choice((60.0, 0.0))
        if park_after == 0.0:
            # Long enough for the worker to park the run.
            tree = self.history.program
            long = programs.Node("dsleep", LONG)
            self.history.program = programs.Node("seq", kids=[tree, long, programs.Node("time"), long])
        kills = [a_kill(self.rng, self.history.program), Kill()]
        if self.rng.random() < 0.25:
            kills[0] = Kill(self.rng.randint(1, 4 * programs.count(self.history.program)), frozen=True)
        may_end = self.history.cancelled
        self.together(*(Orders("serve", kill, may_end=may_end, park_after=park_after) for kill in kills))


def history(program: programs.Node, lives_seed: int, make: Callable[[], Place] = sqlite_place) -> Found:
    """A few lives of one program, judged."""
    place = make()
    with contextlib.closing(sqlite3.connect(place.database)) as connection:
        connection.execute("CREATE TABLE effects (name TEXT)")
    story = Story(program, place, random.Random(lives_seed))
    try:
        if story.rng.random() < WITH_WORKERS:
            story.by_workers()
        else:
            story.by_one_process_after_the_other()
        if any(life.whole for life in story.history.lives):
            story.together(Orders(ends=False))
            story.faults["replay of the whole journal"] += 1
            story.history.replayed = True
            left = place.directory / "left"
            story.history.left = exchange.from_json(json.loads(left.read_text())) if left.exists() else None
        story.history.effects = place.effects()
        found = [str(violation) for violation in oracle.judge(story.history)]
        ended = story.history.cancelled and any(life.end == DONE for life in story.history.lives)
        if not story.history.replayed and not found and not ended:
            found = [f"hang: no life has come to the end: {[life.end for life in story.history.lives]}"]
        return Found(found, story.faults, story.processes)
    finally:
        with contextlib.suppress(FileNotFoundError):
            place.remove()
