"""Run a workflow in real processes, kill them with SIGKILL, start them again, and look at what is left.

`Lab` is one project directory with one run in it; `explore` kills a workflow at every journal write in turn and
checks the promises that hold for every workflow:

- P1 a step whose outcome was in the database when the kill came never runs again (unless a retry discarded it);
- P1 what a body has seen before the kill, it sees again, in the same order, before it sees anything new (P4);
- the run ends well, with a result that the caller of `explore` accepts;
- the finished journal, replayed from its first entry, gives the same result and executes nothing.
"""

from __future__ import annotations

import json
import os
import queue
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial, wraps
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tests.journals import SEGMENTS, decoded
from tests.stores import drop_postgres, has_tables, query_postgres, store_url

from perdure.core.ground.clock import US

HERE = Path(__file__).resolve().parent
WORKFLOWS = HERE / "workflows"
WORKERS = 2
WHOLE = os.environ.get("PERDURE_TEST_WHOLE") == "1"
"""Whether every moment is tried, and cases that differ little from others (`make test-long`)."""
SAMPLE = int(os.environ.get("PERDURE_TEST_SAMPLE", "1" if WHOLE else "5"))
"""Of all moments at which a process could be killed, one in so many is tried. A prime number meets every kind."""
COLD = ("choices", "long")

T = TypeVar("T")

VALUE, ERROR, CANCELLED, ITEM, END, CLOSED, FIRED, LOOSEN, DISCARD, REUSE = range(10)
TRACE_KIND, TIME_KIND, UUID_KIND = 2, 4, 6


class HostBroke(RuntimeError):
    """The warm host died; that is no result of a test."""


class Host:
    """A warm process (see `host.py`)."""

    def __init__(self, directory: Path, extra_env: dict[str, str] | None = None) -> None:
        self._errors = open(directory / f"host-{id(self):x}.err", "w+b")  # noqa: SIM115 - closed in `close`
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "host.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **(extra_env or {})},
        )

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise HostBroke(f"exit code {self._process.wait(5)}: {self._errors.read().decode()[-4000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._errors.close()


class Hosts:
    """A few warm hosts, used in turn. Counts the processes and the kills."""

    def __init__(self, directory: Path, count: int = WORKERS, extra_env: dict[str, str] | None = None) -> None:
        self._free: queue.SimpleQueue[Host] = queue.SimpleQueue()
        self._all = [Host(directory, extra_env) for _ in range(count)]
        for host in self._all:
            self._free.put(host)
        self._lock = threading.Lock()
        self.processes = 0
        self.kills = 0
        self.cpu = 0.0

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        host = self._free.get()
        try:
            answer = host.run(request)
        finally:
            self._free.put(host)
        with self._lock:
            self.processes += 1
            self.kills += answer["code"] == -9
            self.cpu += answer["cpu"]
        return answer

    def close(self) -> None:
        for host in self._all:
            host.close()


class Line(NamedTuple):
    """One line of a workflow's outside log."""

    pid: int
    boot: float
    kind: str
    fields: list[Any]


class Row(NamedTuple):
    """What the checks need of an entry."""

    action: int
    n: int
    branch: int
    seq: int
    occ: int
    item: int
    kind: int
    result: int
    name: str
    value: bytes | None
    inputs: bytes | None


@dataclass
class Trial:
    """One process: how it ended, and what it left in the log and in the database."""

    code: int
    answer: Any
    log: list[Line]
    recorded: frozenset[str]
    """Steps whose outcome was in the database when the process had ended."""
    rows: list[Row]
    errors: str
    hung: bool = False
    kill_at: str | None = None
    commits: int = 0
    """How many commits it made, if it was not killed."""

    @property
    def killed(self) -> bool:
        return self.code == -9

    def executed(self) -> list[str]:
        return [line.fields[0] for line in self.log if line.kind == "executed"]

    def seen(self) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for line in self.log:
            if line.kind == "see":
                found.setdefault(line.fields[0], []).append(line.fields[1])
        return found


class Lab:
    """A project directory with one run, `r`."""

    def __init__(
        self,
        hosts: Hosts,
        directory: Path,
        script: Path,
        workflow: str,
        env: dict[str, str] | None = None,
        slow: float = 0.0,
    ) -> None:
        self.hosts = hosts
        self.directory = directory
        self.script = script
        self.workflow = workflow
        self.env = env or {}
        self.slow = slow
        self.log_file = directory / "log"
        self.database = directory / ".perdure" / "perdure.db"
        self.remote = store_url()
        if self.remote is not None:
            self.env = {**self.env, "PERDURE_STORE": self.remote}
        self.trials: list[Trial] = []
        self.repeats: frozenset[str] = frozenset()
        directory.mkdir(parents=True)
        self._read = 0

    def start(
        self,
        kill_at: str | None = None,
        kill_after: float | None = None,
        env: dict[str, str] | None = None,
        script: Path | None = None,
    ) -> Trial:
        """One process: start the run, or start it again under its name."""
        number = len(self.trials)
        out, err = self.directory / f"out{number}", self.directory / f"err{number}"
        answer = self.hosts.run(
            {
                "script": str(script or self.script),
                # What depends on the environment or is about to be edited, each process has to load by itself.
                "warm": script is None and self.script.parent == WORKFLOWS and self.script.stem not in COLD,
                "args": [self.workflow],
                "cwd": str(self.directory),
                "env": {"LAB_LOG": str(self.log_file), **self.env, **(env or {})},
                "out": str(out),
                "err": str(err),
                "kill_at": kill_at,
                "kill_after": kill_after,
                "slow": self.slow,
            }
        )
        text = out.read_text() if out.exists() else ""
        rows = self.journal()
        commits = self.directory / f"out{number}.commits"
        trial = Trial(
            commits=int(commits.read_text()) if commits.exists() else 0,
            code=answer["code"],
            answer=json.loads(text) if answer["code"] == 0 and text.strip() else None,
            log=self._new_lines(),
            recorded=recorded_steps(rows),
            rows=rows,
            errors=err.read_text() if err.exists() else "",
            hung=answer["hung"],
            kill_at=kill_at or (f"{kill_after:.4f} s" if kill_after is not None else None),
        )
        self.trials.append(trial)
        return trial

    def _new_lines(self) -> list[Line]:
        if not self.log_file.exists():
            return []
        with open(self.log_file, "rb") as stream:
            stream.seek(self._read)
            data = stream.read()
        self._read += len(data)
        lines = []
        for text in data.splitlines():
            pid, boot, kind, *fields = json.loads(text)
            lines.append(Line(pid, boot, kind, fields))
        return lines

    def query(self, sql: str, *args: Any) -> list[Any]:
        if self.remote is not None:
            return query_postgres(self.remote, sql, args)
        connection = sqlite3.connect(self.database)
        try:
            with connection:
                return connection.execute(sql, args).fetchall()
        finally:
            connection.close()

    def has_store(self) -> bool:
        """Whether some process has made the store."""
        if self.remote is not None:
            return has_tables(self.remote)
        return self.database.exists() and bool(self.query("SELECT 1 FROM sqlite_master WHERE name = 'segments'"))

    def journal(self) -> list[Row]:
        if not self.has_store():
            return []
        entries = sorted((entry for _, entry in decoded(self.query(SEGMENTS))), key=lambda entry: entry.n)
        return [
            Row(
                entry.action, entry.n, entry.branch, entry.seq, entry.occ, entry.item, entry.kind, entry.result,
                entry.name, entry.value, entry.inputs,
            )
            for entry in entries
        ]  # fmt: skip

    def remove(self) -> None:
        """Nothing is left of it."""
        shutil.rmtree(self.directory)
        if self.remote is not None:
            drop_postgres(self.remote)

    def deadlines(self) -> list[float]:
        """The recorded deadlines of what is under way or was, in seconds since boot."""
        return [wake_boot / US for *_, wake_boot in self.actions() if wake_boot is not None] if self.has_store() else []

    def actions(self) -> list[tuple[Any, ...]]:
        return self.query(
            "SELECT parent, action, kind, coalesce(label, name), attempt, failures, wake_at, wake_boot FROM actions"
        )

    def run_row(self) -> dict[str, Any]:
        if not self.has_store():
            return {}
        columns = ("status", "token", "worker", "crashes", "mark", "result")
        rows = self.query(f"SELECT {', '.join(columns)} FROM runs WHERE name = 'r'")
        return dict(zip(columns, rows[0], strict=True)) if rows else {}

    def aside(self, name: str) -> tuple[Any, int]:
        """One process beside others, from any thread: its answer, and its exit code."""
        out, err = self.directory / f"out-{name}", self.directory / f"err-{name}"
        answer = self.hosts.run(
            {
                "script": str(self.script),
                "args": [self.workflow],
                "cwd": str(self.directory),
                "env": {"LAB_LOG": str(self.log_file), **self.env},
                "out": str(out),
                "err": str(err),
            }
        )
        text = out.read_text()
        return json.loads(text) if text.strip() else None, answer["code"]

    def status(self) -> str:
        """The run's status, as a process that looks on says it."""
        looker = self.directory / "looker.py"
        looker.write_text('import perdure\nprint("\\"" + perdure.Run.get("r").status + "\\"")\n')
        trial = self.start(script=looker)
        self.trials.pop()
        assert isinstance(trial.answer, str), trial.errors
        return trial.answer

    def reopen(self) -> None:
        """Forget the run's end, so that its whole journal is replayed."""
        self.query("UPDATE runs SET status='RUNNING', token=NULL, worker=NULL, result=NULL, value=NULL, ended_at=NULL")

    def story(self) -> str:
        """Everything, for the message of a failed check."""
        parts = [f"{self.workflow} in {self.directory}"]
        for number, trial in list(enumerate(self.trials))[-8:]:
            parts.append(f"-- process {number}: killed at {trial.kill_at}, code {trial.code}, hung {trial.hung}")
            parts.append(f"   answer {trial.answer}")
            parts.extend(f"   {line.boot:.4f} {line.kind} {line.fields}" for line in trial.log)
            if trial.errors.strip():
                parts.append("   " + trial.errors.strip()[-3000:].replace("\n", "\n   "))
        parts.append("-- journal")
        parts.extend(
            f"   {row.n} action {row.action} branch {row.branch % 10007} seq {row.seq} occ {row.occ} item {row.item} "
            f"kind {row.kind} result {row.result} {row.name} {row.value!r} {row.inputs!r}"
            for row in self.journal()
        )
        if self.has_store():
            parts.append("-- actions")
            parts.extend(f"   {action}" for action in self.actions())
        return "\n".join(parts)


def recorded_steps(rows: Iterable[Row]) -> frozenset[str]:
    """The names of the steps that have a recorded outcome which no failed attempt has discarded."""
    return _steps(list(rows), discarded=False)


def discarded_steps(rows: Iterable[Row]) -> frozenset[str]:
    """The names of the steps of which a failed attempt has discarded an outcome."""
    return _steps(list(rows), discarded=True)


def _steps(rows: list[Row], *, discarded: bool) -> frozenset[str]:
    origin = {(row.action, row.n): row.seq for row in rows if row.result == REUSE}
    gone = set()
    for row in rows:
        if row.result == DISCARD:
            gone.add((row.action, row.seq))
            while (row.action, row.seq) in origin:
                row = row._replace(seq=origin[row.action, row.seq])
                gone.add((row.action, row.seq))
    return frozenset(
        name
        for row in rows
        if row.kind == TRACE_KIND and row.result in (VALUE, ERROR) and ((row.action, row.n) in gone) == discarded
        for name in [_step_name(row)]
        if name is not None
    )


def _step_name(row: Row) -> str | None:
    # A step's value is its name; a failed one's message is.
    if row.value is None:
        return None
    from perdure.core.ground.values import ANY, decode_error

    if row.result == ERROR:
        return str(decode_error(row.value)).removeprefix("lab.").removeprefix("LabError: ")
    value = ANY.decode(row.value)
    return value if isinstance(value, str) else None


class Broken(AssertionError):
    """A promise was not kept."""


class Late(Broken):
    """Something came later than promised. A busy machine may be the cause, so the trial is repeated."""


def patient(trial: Callable[..., T]) -> Callable[..., T]:
    """Repeat a trial that was late, four times at most."""

    @wraps(trial)
    def repeated(*args: Any) -> T:
        for _ in range(4):
            try:
                return trial(*args)
            except Late:
                pass
        return trial(*args)

    return repeated


def check(lab: Lab, first: int = 0) -> None:
    """Check the promises of every workflow over all processes so far; sights are compared from process `first` on.

    `lab.repeats` names steps that a body rightly calls more than once: only what is recorded of them is looked at.
    """
    recorded: frozenset[str] = frozenset()
    for number, trial in enumerate(lab.trials):
        if trial.hung:
            raise Broken(f"process {number} hung\n{lab.story()}")
        # A failure may be replayed, end its attempt, and be discarded by it: then, and only then, it runs again.
        again = (recorded & set(trial.executed())) - discarded_steps(trial.rows)
        if again:
            raise Broken(f"P1: recorded steps ran again in process {number}: {sorted(again)}\n{lab.story()}")
        twice = {name for name, count in Counter(trial.executed()).items() if count > 1}
        twice -= discarded_steps(trial.rows) | lab.repeats
        if twice:
            raise Broken(f"P1: process {number} executed steps twice: {sorted(twice)}\n{lab.story()}")
        recorded = trial.recorded
    sights: dict[str, list[Any]] = {}
    for number, trial in list(enumerate(lab.trials))[first:]:
        for line, now in trial.seen().items():
            before = sights.get(line, [])
            short = min(len(before), len(now))
            if before[:short] != now[:short]:
                raise Broken(
                    f"P4: on {line!r}, process {number} saw\n  {now}\nwhere earlier ones had seen\n  {before}\n"
                    + lab.story()
                )
            if len(now) > len(before):
                sights[line] = now
            elif number == len(lab.trials) - 1 and not trial.killed and len(now) < len(before):
                raise Broken(f"P4: on {line!r}, process {number} saw only\n  {now}\nof\n  {before}\n{lab.story()}")
    _check_readings(lab)


def _check_readings(lab: Lab) -> None:
    # A row, once written, is never changed: compare what each process found with what it left.
    known: dict[tuple[int, int], Row] = {}
    for number, trial in enumerate(lab.trials):
        for row in trial.rows:
            if known.setdefault((row.action, row.n), row) != row:
                raise Broken(f"the journal's entry {row.n} was changed by process {number}\n{lab.story()}")


def finish(lab: Lab, accept: Callable[[Any], Any], timer_race: bool = False) -> Any:
    """Resume undisturbed, check everything; the result.

    `timer_race`: a plain timer races a durable call. Its victory is recorded with the first call that follows from it,
    so a process that dies before that may be followed by one in which the other side wins.
    """
    last = lab.trials[-1] if lab.trials else None
    if last is None or last.killed:
        last = lab.start()
    check(lab, len(lab.trials) - 1 if timer_race else 0)
    if last.code != 0 or last.answer is None or "value" not in last.answer:
        raise Broken(f"the run did not end well: {last.answer} (code {last.code})\n{lab.story()}")
    value = last.answer["value"]
    try:
        verdict = accept(value)
    except Exception as error:
        raise Broken(f"the result {value!r} is wrong: {type(error).__name__}: {error}\n{lab.story()}") from error
    if verdict is False:
        raise Broken(f"the result {value!r} is wrong\n{lab.story()}")
    return value


def replay_all(lab: Lab, value: Any, leftovers: bool = False) -> None:
    """Replay the whole journal: the same result, the same sights, nothing executed, nothing written.

    `leftovers`: the body ended while calls were under way, which no thread can be stopped from; they may run again.
    """
    before = lab.journal()
    last = len(lab.trials) - 1
    lab.reopen()
    trial = lab.start()
    check(lab, last)
    if trial.answer != {"value": value}:
        raise Broken(f"replaying the finished journal gives {trial.answer}, not {value!r}\n{lab.story()}")
    if leftovers:
        return
    if trial.executed():
        raise Broken(f"replaying the finished journal executed {trial.executed()}\n{lab.story()}")
    if lab.journal() != before:
        raise Broken(f"replaying the finished journal wrote to it\n{lab.story()}")


Accept = Callable[[Any], Any]


@dataclass
class Explorer:
    """Trials of one workflow, a few in parallel."""

    hosts: Hosts
    directory: Path
    script: Path
    workflow: str
    accept: Accept
    env: dict[str, str] = field(default_factory=dict)
    slow: float = 0.0
    leftovers: bool = False
    timer_race: bool = False
    repeats: frozenset[str] = frozenset()
    extra: Callable[[Lab], None] = lambda lab: None
    """What else is checked at the end of each trial."""
    _count: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def lab(self) -> Lab:
        with self._lock:
            self._count += 1
            number = self._count
        directory = self.directory / f"{self.workflow}-{number}"
        lab = Lab(self.hosts, directory, self.script, self.workflow, self.env, self.slow)
        lab.repeats = self.repeats
        return lab

    @patient
    def undisturbed(self) -> int:
        """One run without a kill, and its replay; how many commits it made."""
        lab = self.lab()
        value = finish(lab, self.accept, self.timer_race)
        self.extra(lab)
        commits = lab.trials[-1].commits
        replay_all(lab, value, self.leftovers)
        lab.remove()
        return commits

    def duration(self) -> float:
        """How many seconds a run takes without a kill, on this machine at this moment."""
        lab = self.lab()
        begun = time.monotonic()
        lab.start()
        took = time.monotonic() - begun
        lab.remove()
        return took

    @patient
    def one_kill(self, kill_at: str) -> bool:
        """Kill at one write, resume to the end. Whether the kill came."""
        lab = self.lab()
        hit = lab.start(kill_at=kill_at).killed
        value = finish(lab, self.accept, self.timer_race)
        self.extra(lab)
        if re.fullmatch(r"\d*[02468]:after", kill_at):
            replay_all(lab, value, self.leftovers)
        lab.remove()
        return hit

    @patient
    def chain(self, *points: str, limit: int = 200) -> int:
        """Kill every process at one of these writes of its own, in turn, until one ends by itself. A process's first
        commit is the attempt to submit the run, so the second is the first to add something."""
        lab = self.lab()
        for number in range(limit):
            if not lab.start(kill_at=points[number % len(points)]).killed:
                break
            check(lab, len(lab.trials) - 1 if self.timer_race else 0)
        else:
            raise Broken(f"still not done after {limit} processes\n{lab.story()}")
        value = finish(lab, self.accept, self.timer_race)
        self.extra(lab)
        replay_all(lab, value, self.leftovers)
        lab.remove()
        return len(lab.trials)

    @patient
    def random_kills(self, delays: list[float]) -> int:
        """Kill at random moments, then resume to the end."""
        lab = self.lab()
        for delay in delays:
            if not lab.start(kill_after=delay).killed:
                break
        value = finish(lab, self.accept, self.timer_race)
        self.extra(lab)
        replay_all(lab, value, self.leftovers)
        lab.remove()
        return len(lab.trials)

    def every_write(self, whens: tuple[str, ...], commits: int) -> int:
        """Kill at every write in turn (or a sample), and beyond `commits` until the run ends; how many kills came."""
        kills = 0
        first, last = 1, commits
        while True:
            points = sampled([f"{number}:{when}" for number in range(first, last + 1) for when in whens], self.workflow)
            kills += sum(run_parallel([partial(self.one_kill, point) for point in points]))
            first, last = last + 1, last + 1
            # Which writes share a commit differs from run to run.
            if not self.one_kill(f"{first}:{whens[0]}"):
                return kills
            kills += 1


def sampled(points: Sequence[T], key: str) -> Sequence[T]:
    """One in `SAMPLE` of these, at least one; another one first for each `key`."""
    return points[zlib.crc32(key.encode()) % min(SAMPLE, len(points)) :: SAMPLE]


def in_sample(all: int) -> int:
    """So many are sure to come of a sample, where so many come of all: some of a few may not be reached."""
    return all if SAMPLE == 1 else all // (2 * SAMPLE)


def run_parallel(jobs: Iterable[Callable[[], Any]]) -> list[Any]:
    """Run the jobs, two at a time; the first failure is raised, and what has not begun then is left out."""
    with ThreadPoolExecutor(WORKERS) as pool:
        futures = [pool.submit(job) for job in jobs]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def explore(explorer: Explorer, *, inside: bool = False) -> int:
    """Everything that every workflow goes through; the number of kills at writes. In a sample, one undisturbed run has
    to do, and one workflow in three has all its processes killed."""
    commits = max(run_parallel([explorer.undisturbed] * (2 if SAMPLE == 1 else 1)))
    kills = explorer.every_write(("before", "inside", "after") if inside else ("before", "after"), commits)
    if SAMPLE == 1 or zlib.crc32(explorer.workflow.encode()) % 3 == 0:
        explorer.chain("2:after", "3:before", "4:after")
    return kills


def plain_text(text: str) -> str:
    """Text without the codes that colour a terminal."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)
