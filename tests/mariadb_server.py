"""A private MariaDB for tests: one per test process, from the distribution's programs, in a temporary directory.

It listens on a Unix socket only. A keeper process ends it, by its pid, and removes its directory when this process
ends, however that happens.
"""

from __future__ import annotations

import atexit
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from functools import cache
from typing import Any

import pymysql
import pytest
from tests.waiting import wait_for

# Starts the server that its argument tells, answers "ok", and ends it at the end of the input.
KEEPER = r"""
import json, os, shutil, signal, subprocess, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
setting = json.loads(sys.argv[1])
log = open(os.path.join(setting["root"], "log"), "ab")
server = subprocess.Popen(setting["command"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=setting["root"],
                          start_new_session=True)
try:
    print("ok", flush=True)
    sys.stdin.read()
finally:
    server.kill()
    server.wait()
    shutil.rmtree(setting["root"], ignore_errors=True)
"""


class MariaDB:
    """The server, and the databases that tests have in it."""

    def __init__(self, install: str, daemon: str) -> None:
        self.root = tempfile.mkdtemp(prefix="perdure-my-", dir="/tmp")  # short: the socket's path has 107 bytes at most
        data, self.socket = os.path.join(self.root, "data"), os.path.join(self.root, "socket")
        who = ["--user=root"] if os.geteuid() == 0 else []
        subprocess.run(
            [install, "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal",
             "--skip-test-db", *who],
            check=True, capture_output=True, cwd=self.root,
        )  # fmt: skip
        command = [
            daemon, "--no-defaults", f"--datadir={data}", f"--socket={self.socket}", "--skip-networking", *who,
            f"--pid-file={self.root}/pid", "--innodb-buffer-pool-size=32M", "--innodb-log-file-size=16M",
            "--innodb-lock-wait-timeout=20", "--performance-schema=OFF",
        ]  # fmt: skip
        self._keeper = subprocess.Popen(
            [sys.executable, "-c", KEEPER, json.dumps({"root": self.root, "command": command})],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        atexit.register(self.close)
        self._numbers = itertools.count(1)
        assert self._keeper.stdout
        assert self._keeper.stdout.readline() == "ok\n"
        wait_for(self._answers, story=lambda: f"the server did not start:\n{self._log()}")

    def _log(self) -> str:
        with open(os.path.join(self.root, "log"), encoding="utf-8", errors="replace") as file:
            return file.read()[-4000:]

    def _answers(self) -> bool:
        try:
            self.connect().close()
        except pymysql.OperationalError:
            return False
        return True

    def connect(self, database: str | None = None) -> pymysql.Connection[Any]:
        return pymysql.connect(unix_socket=self.socket, user="root", database=database, autocommit=True)

    def database(self) -> str:
        """The name of a new, empty database."""
        name = f"t{next(self._numbers)}"
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
        return name

    def close(self) -> None:
        if self._keeper.poll() is None:
            assert self._keeper.stdin
            self._keeper.stdin.close()
            self._keeper.wait(30)


_starting = threading.Lock()


def mariadb() -> MariaDB:
    """This process's server, started at first use."""
    with _starting:
        return _server()


@cache
def _server() -> MariaDB:
    install, daemon = shutil.which("mariadb-install-db"), shutil.which("mariadbd") or "/usr/sbin/mariadbd"
    if install is None or not os.path.exists(daemon) or shutil.which("my_print_defaults") is None:
        pytest.skip("no MariaDB programs (apt-get install mariadb-server-core mariadb-client-core): not tested there")
    return MariaDB(install, daemon)
