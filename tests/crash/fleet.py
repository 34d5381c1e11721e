"""Workers (`perdure serve`) as real processes on one store, and a look at the store and at what they did."""

from __future__ import annotations

import json
import os
import resource
import secrets
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from tests.crash.harness import WORKFLOWS, Line
from tests.stores import drop_postgres, query_postgres, store_url
from tests.waiting import PATIENCE, is_stopped, kill, wait_for

import perdure
from perdure.api.loading import find_task
from perdure.core.ground.clock import US, SystemClock
from perdure.core.ground.model import Created, CreateRun, NewRun, RunRow, Status, Wake
from perdure.core.ground.ports import Store
from perdure.core.process.submission import new_run
from perdure.store import open_store
from perdure.store.sqlite import SQLiteStore

SERVED = WORKFLOWS / "served.py"
CLOCK = SystemClock()


class Fleet:
    """A project directory with a store, and the workers on it."""

    def __init__(
        self, directory: Path, file: Path = SERVED, env: dict[str, str] | None = None, remote: str | None = None
    ) -> None:
        """Make it. `remote`: the URL of a store that the caller removes; by default a new one."""
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.file = file
        self.env = {"LAB_LOG": str(directory / "log"), "PYTHONDONTWRITEBYTECODE": "1", **(env or {})}
        self.database = directory / ".perdure" / "perdure.db"
        self.store: Store = SQLiteStore(self.database, busy_timeout=30)
        self._own = remote is None
        self.remote = remote or store_url()
        if self.remote is not None:
            self.store.close()
            self.env["PERDURE_STORE"] = self.remote
            self.store = open_store(self.remote)[0]
        self.workers: list[Worker] = []

    # -- processes ---------------------------------------------------------------------------------------------

    def serve(
        self, *options: object, files: Iterable[Path] = (), env: dict[str, str] | None = None, wait: bool = True,
        limit: int | None = None, within: tuple[str, ...] = (),
    ) -> Worker:  # fmt: skip
        """Start a worker. `limit`: no file of its may become larger (bytes). `within`: the command that becomes it."""
        worker = Worker(self, tuple(files) or (self.file,), options, env or {}, limit, within)
        self.workers.append(worker)
        if wait:
            worker.ready()
        return worker

    def perdure(
        self, *words: object, env: dict[str, str] | None = None, timeout: float = PATIENCE
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of `perdure` to its end."""
        return subprocess.run(
            [sys.executable, "-m", "perdure", *map(str, words)],
            cwd=self.directory,
            env={**os.environ, **self.env, **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()
        self.store.close()
        if self.remote is not None and self._own:
            drop_postgres(self.remote)

    # -- runs --------------------------------------------------------------------------------------------------

    def new(self, task: str, name: str, file: Path | None = None, **inputs: Any) -> NewRun:
        spec = find_task(str(file or self.file), task).spec
        return new_run(spec, (), inputs, name=name, created_at=CLOCK.wall())

    def submit(self, *new: NewRun, after: float | None = None) -> list[RunRow]:
        """Store queued runs."""
        due = None if after is None else Wake(CLOCK.wall() + int(after * US), CLOCK.boot() + int(after * US))
        answers = self.store.commit([CreateRun(each, None, due) for each in new])
        return [answer.run for answer in answers if isinstance(answer, Created)]

    def run(self, name: str) -> RunRow:
        found = self.store.run(name)
        assert found is not None, f"no run {name}"
        return found

    def status(self, name: str) -> Status:
        return self.run(name).status

    def counts(self) -> Counter[str]:
        """How many runs there are of each stored status."""
        return Counter({str(status): count for status, count in self.store.counts().items()})

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """What a statement finds that both kinds of store understand."""
        if self.remote is not None:
            return query_postgres(self.remote, sql, ())
        assert isinstance(self.store, SQLiteStore)
        return self.store._reader.rows(sql, ())

    def is_writing(self) -> bool:
        """Whether any process is inside a transaction that writes."""
        if self.remote is not None:
            sql = "SELECT 1 FROM pg_locks WHERE locktype = 'transactionid' AND granted"
            return bool(query_postgres(self.remote, sql, ()))
        with closing(sqlite3.connect(self.database, timeout=0.2, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return True
            connection.execute("ROLLBACK")
        return False

    def all_are(self, status: Status) -> bool:
        return set(self.counts()) == {status}

    def wait(self, *names: str, status: Status = Status.SUCCEEDED, seconds: float = PATIENCE) -> None:
        """Wait until these runs, or all, are of that status."""
        if names:
            wait_for(lambda: all(self.status(name) is status for name in names), seconds, self.story)
        else:
            wait_for(lambda: self.all_are(status), seconds, self.story)

    # -- what they did -----------------------------------------------------------------------------------------

    def log(self, kind: str = "step") -> list[Line]:
        try:
            text = Path(self.env["LAB_LOG"]).read_text()
        except FileNotFoundError:
            return []
        found = [json.loads(line) for line in text.splitlines()]
        return [Line(pid, boot, what, fields) for pid, boot, what, *fields in found if what == kind]

    def steps(self, pid: int | None = None) -> list[str]:
        return [line.fields[0] for line in self.log() if pid is None or line.pid == pid]

    def story(self) -> str:
        """Everything, for the message of a failed check."""
        parts = [f"{self.directory}: {dict(self.counts())}"]
        for worker in self.workers:
            parts.append(f"-- worker {worker.pid}, code {worker.process.poll()}\n{worker.errors()[-3000:]}")
        parts += (str((r.id, r.name, r.status, r.worker, r.crashes, r.wake_at)) for r in self.store.runs(limit=20))
        parts += map(str, self.store.workers())
        return "\n".join(parts)


@contextmanager
def fleet_of(directory: Path, name: str, text: str, *, here: bool = True, remote: str | None = None) -> Iterator[Fleet]:
    """A fleet that serves a file with that text. `here`: this process uses its store, too. `remote`: as for `Fleet`."""
    file = directory / name
    file.write_text(text)
    found = Fleet(directory, file, remote=remote)
    if here:
        perdure.init(store=found.remote or found.database)
    try:
        yield found
    finally:
        if here:
            perdure.init()
        found.close()


def words(fleet: Fleet) -> list[str]:
    """What programs have written into the file `log` beside them, a word a line."""
    file = fleet.directory / "log"
    return file.read_text().split("\n")[:-1] if file.exists() else []


class Worker:
    """One `perdure serve`."""

    def __init__(
        self, fleet: Fleet, files: tuple[Path, ...], options: tuple[object, ...], env: dict[str, str],
        limit: int | None, within: tuple[str, ...],
    ) -> None:  # fmt: skip
        self.fleet = fleet
        self.errors_file = fleet.directory / f"worker-{secrets.token_hex(4)}.err"

        def prepare() -> None:
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

        with open(self.errors_file, "wb") as errors:
            self.process = subprocess.Popen(
                [*within, sys.executable, "-m", "perdure", "serve", *map(str, files), *map(str, options)],
                cwd=fleet.directory,
                env={**os.environ, **fleet.env, **env},
                stdout=subprocess.DEVNULL,
                stderr=errors,
                preexec_fn=prepare if limit is not None else None,
            )
        self.pid = self.process.pid

    def ready(self) -> None:
        """Wait until it serves."""
        wait_for(lambda: "serving " in self.errors() or self.process.poll() is not None, story=self.errors)
        assert self.process.poll() is None, self.errors()

    def errors(self) -> str:
        return self.errors_file.read_text()

    def says(self, text: str, seconds: float = PATIENCE) -> str:
        """Wait until it has written that, and give all that it has written."""
        wait_for(lambda: text in self.errors(), seconds, self.fleet.story)
        return self.errors()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It stands still, and not within a transaction: others would wait for that first."""
        wait_for(self._stopped_outside_of_a_transaction)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)

    def _stopped_outside_of_a_transaction(self) -> bool:
        self.signal(signal.SIGSTOP)
        wait_for(lambda: is_stopped(self.pid))
        if not self.fleet.is_writing():
            return True
        self.signal(signal.SIGCONT)
        return False

    def kill(self) -> None:
        kill(self.process)

    def terminate(self) -> None:
        self.signal(signal.SIGTERM)

    def code(self, seconds: float = PATIENCE) -> int:
        """Its exit code, once it has ended."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still there after {seconds} s\n{self.fleet.story()}") from None

    def memory(self) -> int:
        """Bytes in memory now."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def row(self) -> Any:
        """Its row in the store, if it is there."""
        return next((row for row in self.fleet.store.workers() if row.pid == self.pid), None)
