"""A private Postgres for tests: one per test process, from the distribution's programs, in a temporary directory.

It listens on a Unix socket only (where a test does not ask for more). Where a whole suite runs on it, it does so
without fsync: no test cuts the power, and what was written outlives any process. Passwords by md5, which costs a tenth
of what SCRAM does, at every connection of tens of thousands. A keeper process ends it and removes its directory when
this process ends, however that happens. Postgres refuses to run as root; then it runs as another user.
"""

from __future__ import annotations

import atexit
import glob
import itertools
import json
import os
import pwd
import shutil
import subprocess
import sys
import threading
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.waiting import wait_for

from perdure.core.ground.clock import Clock
from perdure.store.postgres import PostgresStore

USER = "tester"
DATABASE = "perdure"
PASSWORD = "s3cret-word"
ON_POSTGRES = os.environ.get("PERDURE_TEST_STORE") == "postgres"
"""Whether a whole suite runs on it."""

# Reads lines "start", "kill" (SIGKILL to the whole server), "quit" (immediate) and "stop" (fast), answers "ok"; at the
# end of its input it ends the server and removes the directory.
KEEPER = r"""
import json, os, select, shutil, signal, subprocess, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
setting = json.loads(sys.argv[1])
bin, data, root, user, options = (setting[key] for key in ("bin", "data", "root", "user", "options"))
who = {} if user is None else {"user": user, "group": user, "extra_groups": []}
server = None
def start():
    global server
    log = open(os.path.join(root, "log"), "ab")
    server = subprocess.Popen([os.path.join(bin, "postgres"), "-D", data, *options], stdin=subprocess.DEVNULL,
                              stdout=log, stderr=log, cwd=root, start_new_session=True, **who)
def end(sign):
    global server
    if server is None:
        return
    children = []
    if sign == signal.SIGKILL:
        for name in os.listdir("/proc"):
            try:
                parent = open(f"/proc/{name}/stat").read().rpartition(")")[2].split()[1] if name.isdigit() else ""
                if parent == str(server.pid):
                    children.append(int(name))
            except OSError:
                pass
    for pid in (server.pid, *children):
        try:
            os.kill(pid, sign)
        except ProcessLookupError:
            pass
    server.wait()
    for pid in children:
        try:
            select.select([os.pidfd_open(pid)], [], [])  # until the process has ended
        except ProcessLookupError:
            pass
    server = None
try:
    for line in sys.stdin:
        {
            "start": start,
            "kill": lambda: end(signal.SIGKILL),
            "quit": lambda: end(signal.SIGQUIT),
            "stop": lambda: end(signal.SIGINT),
        }[line.strip()]()
        print("ok", flush=True)
finally:
    end(signal.SIGQUIT)
    shutil.rmtree(root, ignore_errors=True)
"""


class Server:
    """The server, and the schemas that tests have in it."""

    def __init__(self, programs: str, *, listen: str = "", subnet: str = "") -> None:
        """Start one. `listen`: an address on which it listens too, for those in that subnet."""
        self.root = _directory()
        data = os.path.join(self.root, "data")
        user = _other_user() if os.geteuid() == 0 else None
        who: dict[str, Any] = {} if user is None else {"user": user, "group": user, "extra_groups": []}
        if user is not None:
            os.chown(self.root, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
        secret = os.path.join(self.root, "password")
        with open(secret, "w") as file:
            file.write(PASSWORD)
        os.chmod(secret, 0o644)
        subprocess.run(
            [os.path.join(programs, "initdb"), "-D", data, "-U", USER, "--encoding=UTF8", "--locale=C",
             "--auth=md5", f"--pwfile={secret}"],
            check=True, capture_output=True, cwd=self.root, **who,
        )  # fmt: skip
        if subnet:
            with open(os.path.join(data, "pg_hba.conf"), "a") as file:
                file.write(f"host all all {subnet} md5\n")
        fsync = "off" if ON_POSTGRES else "on"
        options = ["-c", f"listen_addresses={listen}", "-c", f"unix_socket_directories={self.root}",
                   "-c", "max_connections=60", "-c", f"fsync={fsync}", "-c", "shared_buffers=32MB",
                   "-c", "max_wal_size=512MB"]  # fmt: skip
        setting = {"bin": programs, "data": data, "root": self.root, "user": user, "options": options}
        self._keeper = subprocess.Popen(
            [sys.executable, "-c", KEEPER, json.dumps(setting)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        atexit.register(self.close)
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._admin: psycopg.Connection[Any] | None = None
        self.start()
        with psycopg.connect(self.dsn("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {DATABASE}")

    def dsn(self, database: str = DATABASE) -> str:
        return f"postgresql://{USER}:{PASSWORD}@/{database}?host={self.root}"

    def url(self) -> str:
        """A store's URL with a schema of its own."""
        return f"{self.dsn()}&schema=t{next(self._numbers)}"

    def _say(self, word: str) -> None:
        assert self._keeper.stdin
        assert self._keeper.stdout
        self._keeper.stdin.write(word + "\n")
        self._keeper.stdin.flush()
        assert self._keeper.stdout.readline() == "ok\n"

    def start(self, *, wait: bool = True) -> None:
        self._say("start")
        if wait:
            log = Path(self.root, "log")
            wait_for(self._answers, story=lambda: f"the server did not start:\n{log.read_text()[-4000:]}")

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.dsn("postgres")).close()
        except psycopg.OperationalError:
            return False
        return True

    def kill(self) -> None:
        """SIGKILL to all of its processes, as when its machine is lost."""
        self._say("kill")

    def quit(self) -> None:
        """SIGQUIT, as `pg_ctl stop -m immediate`: its sessions end, nothing is written, its next start recovers."""
        self._say("quit")

    def stop(self) -> None:
        """An orderly end that waits for no client."""
        self._say("stop")

    def execute(self, sql: str, row: Any = ()) -> list[tuple[Any, ...]]:
        """Run a statement as the administrator."""
        with self._lock:
            try:
                if self._admin is None or self._admin.closed:
                    self._admin = psycopg.connect(self.dsn(), autocommit=True)
                cursor = self._admin.execute(sql, row)  # type: ignore[arg-type]
            except psycopg.OperationalError:  # the server was started again
                self._admin = psycopg.connect(self.dsn(), autocommit=True)
                cursor = self._admin.execute(sql, row)  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    def close(self) -> None:
        if self._keeper.poll() is None:
            assert self._keeper.stdin
            self._keeper.stdin.close()
            self._keeper.wait(30)


def _directory() -> str:
    import tempfile

    return tempfile.mkdtemp(prefix="perdure-pg-", dir="/tmp")  # short: the socket's path has 107 bytes at most


def _other_user() -> str:
    with suppress(KeyError):
        return pwd.getpwnam("postgres").pw_name
    with suppress(KeyError):
        return pwd.getpwuid(65534).pw_name  # the account without any rights
    raise AssertionError("no user to run Postgres as")


def programs() -> str | None:
    """The directory of the newest server programs of 15 or later."""
    found = [folder for folder in glob.glob("/usr/lib/postgresql/*/bin") if os.path.exists(f"{folder}/initdb")]
    found = [folder for folder in found if int(folder.split("/")[-2]) >= 15]
    if found:
        return max(found, key=lambda folder: int(folder.split("/")[-2]))
    on_path = shutil.which("initdb")
    return os.path.dirname(os.path.realpath(on_path)) if on_path else None


_starting = threading.Lock()


def server() -> Server:
    """This process's server, started at first use."""
    with _starting:  # `cache` alone would let two threads start one each
        return _server()


@cache
def _server() -> Server:
    found = programs()
    if found is None:
        pytest.skip("no Postgres server programs (apt-get install postgresql): the Postgres store is not tested")
    return Server(found)


class Handed:
    """A store whose database goes by a clock that the test moves, as its server's own clock cannot be moved."""

    def __init__(self, clock: Clock, url: str | None = None) -> None:
        self.clock = clock
        self.schema_url = url or server().url()
        self._store = PostgresStore(self.schema_url, clock=clock)
        self._schema = self.schema_url.rpartition("=")[2]
        self._shown: int | None = None
        self._mutex = threading.Lock()
        server().execute(f"CREATE TABLE IF NOT EXISTS {self._schema}.hand (us bigint)")
        server().execute(
            f"CREATE OR REPLACE FUNCTION {self._schema}.now_us() RETURNS bigint LANGUAGE sql VOLATILE AS "
            f"'SELECT us FROM {self._schema}.hand'"
        )

    def _sync(self) -> None:
        with self._mutex:
            now = self.clock.boot()
            if now != self._shown:
                server().execute(f"DELETE FROM {self._schema}.hand")
                server().execute(f"INSERT INTO {self._schema}.hand VALUES (%s)", (now,))
                self._shown = now

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self._sync()
            return found(*args, **kwargs)

        return call
