"""The databases of the user's that the tests of `perdure.sql` work in, and projects that use them."""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from tests.mariadb_server import mariadb
from tests.postgres_server import server

ROOT = Path(__file__).resolve().parents[2]
TABLES = (
    "CREATE TABLE effects (name varchar(20))",
    "CREATE TABLE accounts (name varchar(20) PRIMARY KEY, n integer)",
    "INSERT INTO accounts VALUES ('a', 0), ('b', 0), ('c', 0)",
)
_numbers = itertools.count(1)


@dataclass
class Database:
    """A new database with the tables of `flows.py`."""

    kind: str
    directory: Path
    env: dict[str, str] = field(default_factory=dict)
    name: str = ""

    def __post_init__(self) -> None:
        if self.kind == "postgres":
            self.name = f"user{os.getpid()}x{next(_numbers)}"
            server().execute(f"CREATE DATABASE {self.name}")
            self.env = {"PERDURE_TEST_DSN": server().dsn(self.name)}
        elif self.kind == "mariadb":
            self.name = mariadb().database()
            self.env = {"PERDURE_TEST_SOCKET": mariadb().socket}
        for statement in TABLES:
            self.execute(statement)

    def url(self, colour: str) -> str:
        """For SQLAlchemy."""
        if self.kind == "postgres":
            return server().dsn(self.name).replace("postgresql://", "postgresql+psycopg://")
        if self.kind == "mariadb":
            return f"mariadb+{'pymysql' if colour == 'sync' else 'asyncmy'}://root@localhost/{self.name}"
        return f"sqlite{'' if colour == 'sync' else '+aiosqlite'}:///{self.directory / 'user.db'}"

    def execute(self, sql: str) -> list[Any]:
        """Run a statement and commit."""
        connection: Any
        if self.kind == "postgres":
            connection = psycopg.connect(server().dsn(self.name), autocommit=True)
        elif self.kind == "mariadb":
            connection = mariadb().connect(self.name)
        else:
            connection = sqlite3.connect(self.directory / "user.db", isolation_level=None, timeout=20)
        with closing(connection):
            cursor = connection.cursor()
            cursor.execute(sql)
            return list(cursor.fetchall()) if cursor.description else []

    def effects(self) -> list[str]:
        """The names of the calls that took effect, one for each time."""
        return sorted(name for (name,) in self.execute("SELECT name FROM effects"))

    def outcomes(self) -> int:
        return int(self.execute("SELECT count(*) FROM perdure_outcomes")[0][0])

    def reset(self) -> None:
        """As new, but for the table of outcomes, which stays."""
        self.execute("DELETE FROM effects")
        self.execute("UPDATE accounts SET n = 0")


class Host:
    """A warm process (`host.py`)."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.sql.host"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(30)


class Project:
    """A directory with a store of perdure's, and a database of the user's."""

    def __init__(self, host: Host, directory: Path, database: Database, store: str, place: str, colour: str) -> None:
        self.host = host
        self.directory = directory
        self.database = database
        self.store = store
        self.env = {
            **database.env,
            "PERDURE_TEST_PLACE": place,
            "PERDURE_TEST_COLOUR": colour,
            "PERDURE_TEST_URL": database.url(colour),
            "PERDURE_LEASE": "3",
        }

    def run(self, task: str, name: str = "r", kill_at: int | None = None) -> dict[str, Any]:
        """Begin or continue the run in a process of its own."""
        return self.host.run(
            {"directory": str(self.directory), "env": self.env, "store": self.store, "task": task, "run": name,
             "kill_at": kill_at}
        )  # fmt: skip

    def result(self, task: str, name: str = "r") -> Any:
        found = self.run(task, name)
        assert not found["error"], found["error"]
        return found["answer"]
