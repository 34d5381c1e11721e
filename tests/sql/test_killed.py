"""P13: the process is killed, frozen or cut off at every moment, and the effect is there once."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.mariadb_server import mariadb
from tests.postgres_server import server
from tests.sql.conftest import Make
from tests.sql.databases import ROOT, Project
from tests.waiting import PATIENCE, is_stopped, wait_for

SAMPLE = 1 if os.environ.get("PERDURE_TEST_WHOLE") == "1" else 31
"""Of all moments, one in so many is tried; the first moment differs from case to case."""

KILLED = [
    ("postgres", "engine", "sync", "sqlite"),
    ("postgres", "factory", "async", "postgres"),
    ("mariadb", "engine", "async", "sqlite"),
    ("mariadb", "sessions", "sync", "postgres"),
    ("sqlite", "engine", "sync", "postgres"),
    ("sqlite", "sessions", "async", "sqlite"),
]


@pytest.mark.parametrize(("kind", "place", "colour", "store"), KILLED)
def test_a_step_takes_effect_once_killed_before_and_after_every_statement_and_commit(
    project: Make, kind: str, place: str, colour: str, store: str
) -> None:
    """P13, TX2. Family: a moment, on either side, after which the effect and the outcome do not agree. The steps stand
    in the body of the run and in a child task; in the async colour side by side."""
    made = project(kind, place, colour, store)
    moments = made.run("main", "whole")["events"]
    assert moments > 20
    for kill_at in range(1 + KILLED.index((kind, place, colour, store)) % SAMPLE, moments + 1, SAMPLE):
        made.database.reset()
        killed = made.run("main", f"k{kill_at}", kill_at)
        assert killed["code"] == -9 or killed["answer"] is not None, killed
        assert made.result("main", f"k{kill_at}") == [1, 10, 100], kill_at
        assert made.database.effects() == ["a", "b", "c"], kill_at


@pytest.mark.parametrize(("kind", "store"), [("sqlite", "postgres")])
def test_a_step_in_a_pool_process_takes_effect_once(project: Make, kind: str, store: str) -> None:
    """TX1. Family: a body whose action has no row yet when its step commits: a body in another process, and a task
    called from there."""
    made = project(kind, "engine", "sync", store)
    moments = made.run("pool", "whole")["events"]
    # The moments before the commits of the driving process: the steps have committed in the other process by then.
    for kill_at in range(1, moments + 1, 2):
        made.database.reset()
        made.run("pool", f"k{kill_at}", kill_at)
        assert made.result("pool", f"k{kill_at}") == [5, 15]
        assert made.database.effects() == ["a", "a"]


# -- two processes at once -------------------------------------------------------------------------------------

MAIN = """
import sys
import perdure
perdure.init(store=sys.argv[1])
from tests.sql import flows
print(flows.run(sys.argv[2], "r"))
"""


def start(made: Project, task: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, made.store, task], cwd=made.directory, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env={**os.environ, **made.env, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def take_over(made: Project, task: str) -> subprocess.Popen[str]:
    """A process that drives the run, once the lease of the frozen one is over."""

    def attempt() -> subprocess.Popen[str] | None:
        process = start(made, task)
        wait_for(lambda: process.poll() is not None or f"-{process.pid}-" in _worker(made))
        return process if process.poll() is None else None

    found = wait_for(attempt)
    assert found is not None
    return found


def _worker(made: Project) -> str:
    """The worker that holds the claim of the run."""
    with closing(sqlite3.connect(made.store, timeout=20)) as connection:
        return str(connection.execute("SELECT worker FROM runs").fetchone()[0])


@pytest.mark.parametrize("kind", ["postgres", "mariadb", "sqlite"])
def test_a_worker_frozen_in_a_step_does_not_commit_a_second_time(project: Make, kind: str) -> None:
    """P13, TX1. Family: a stale worker, fenced in perdure's store, that is still connected to the user's database. The
    unique key decides: one of the two is rolled back. In SQLite the frozen process holds the lock of the file, and
    commits first."""
    made = project(kind)
    log = made.directory / "log"
    first = start(made, "slowly")
    wait_for(lambda: log.exists() and f"begins-{first.pid}" in log.read_text())
    os.kill(first.pid, signal.SIGSTOP)
    wait_for(lambda: is_stopped(first.pid))
    second = take_over(made, "slowly")
    try:
        wait_for(lambda: kind == "sqlite" or f"begins-{second.pid}" in log.read_text())
        with log.open("a") as file:
            file.write("go\n")
        if kind == "sqlite":
            os.kill(first.pid, signal.SIGCONT)
        out, err = second.communicate(timeout=PATIENCE)
    finally:
        os.kill(first.pid, signal.SIGCONT)
    assert out.strip() == "1", err
    out, err = first.communicate(timeout=PATIENCE)
    assert not out.strip() or out.strip() == "1", err
    assert made.database.effects() == ["a"]
    assert made.result("slowly") == 1


@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
def test_a_deadlock_between_two_steps_is_resolved(project: Make, kind: str) -> None:
    """Family: an execution that the database has rolled back for the sake of another is repeated within the step."""
    made = project(kind)
    assert made.result("crossing") == [0, 0]
    assert made.database.effects() == ["a", "a", "b", "b"]
    assert made.database.execute("SELECT n FROM accounts ORDER BY name") in ([(2,), (2,), (0,)], [[2], [2], [0]])


# -- a connection that is cut -----------------------------------------------------------------------------------


class Cutter:
    """Stands between a client and its server, and cuts the connection at the first COMMIT of an outcome: before the
    server hears of it, or before the client hears the answer."""

    def __init__(self, path: str, *, deliver: bool, last: bool = False) -> None:
        """`last`: no connection gets through after the cut."""
        self._last = last
        self._path = path
        self._deliver = deliver
        self.cuts = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self._last and self.cuts:
                    client.close()
                    continue
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        upstream = socket.socket(socket.AF_UNIX)
        upstream.connect(self._path)
        cut = threading.Event()
        holds_outcome = False

        def back() -> None:
            with suppress(OSError):
                while data := upstream.recv(65536):
                    if cut.is_set():
                        break
                    client.sendall(data)
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

        threading.Thread(target=back, daemon=True).start()
        with suppress(OSError):
            while data := client.recv(65536):
                holds_outcome = holds_outcome or b"INSERT INTO perdure_outcomes" in data
                if b"COMMIT" in data and holds_outcome and not self.cuts:
                    self.cuts += 1
                    cut.set()
                    if self._deliver:
                        upstream.sendall(data)
                        continue
                    client.shutdown(socket.SHUT_RDWR)
                    break
                upstream.sendall(data)
        with suppress(OSError):
            upstream.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def cutters() -> Iterator[list[Cutter]]:
    found: list[Cutter] = []
    yield found
    for cutter in found:
        cutter.close()


@pytest.mark.parametrize("deliver", [True, False], ids=["answer lost", "question lost"])
@pytest.mark.parametrize(
    ("kind", "place", "colour"),
    [("postgres", "engine", "sync"), ("postgres", "factory", "async"), ("mariadb", "engine", "sync")],
)
def test_a_connection_cut_at_commit_is_resolved_by_looking(
    project: Make, cutters: list[Cutter], kind: str, place: str, colour: str, deliver: bool
) -> None:
    """TX4. Family: the answer to a COMMIT is unknown. The step looks for its outcome before it executes again."""
    made = project(kind, place, colour)
    cutter = cut(made, cutters, deliver=deliver)
    assert made.result("main") == [1, 10, 100]
    assert cutter.cuts == 1
    assert made.database.effects() == ["a", "b", "c"]


def test_a_run_is_interrupted_while_a_commit_is_in_doubt(project: Make, cutters: list[Cutter]) -> None:
    """TX4. Family: a failure is recorded although the effect is there. The database cannot be asked after a COMMIT
    without an answer; the run goes on when the database is back, and finds the outcome."""
    made = project("postgres")
    direct = dict(made.env)
    cut(made, cutters, deliver=True, last=True)
    assert "whether add has committed is not known" in made.run("main")["error"]
    assert made.database.effects() == ["a"]
    made.env = direct
    assert made.result("main") == [1, 10, 100]
    assert made.database.effects() == ["a", "b", "c"]


def cut(made: Project, cutters: list[Cutter], *, deliver: bool, last: bool = False) -> Cutter:
    """Let the project reach its database through a cutter that cuts the first commit of a step."""
    kind = made.database.kind
    path: Any = str(Path(server().root, ".s.PGSQL.5432")) if kind == "postgres" else mariadb().socket
    cutter = Cutter(path, deliver=deliver, last=last)
    cutters.append(cutter)
    if kind == "postgres":
        for name in ("PERDURE_TEST_URL", "PERDURE_TEST_DSN"):
            place = made.env.get(name, "").partition("?host=")[0]
            made.env[name] = f"{place}?host=127.0.0.1&port={cutter.port}&sslmode=disable&gssencmode=disable"
    else:
        made.env["PERDURE_TEST_SOCKET"] = ""
        made.env["PERDURE_TEST_URL"] = made.env["PERDURE_TEST_URL"].replace("localhost", f"127.0.0.1:{cutter.port}")
    return cutter
