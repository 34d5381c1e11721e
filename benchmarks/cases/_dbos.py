"""dbos on SQLite or Postgres as its documentation sets it up, quiet and without any export of telemetry.

Nothing is tuned, for or against: the file stays in the journal mode that dbos leaves it in (rollback, synchronous
FULL), except with `--wal`, which answers "what if one switched the file to WAL by hand".
"""

from __future__ import annotations

import argparse
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from dbos import DBOS

from _common import workdir
from _postgres import add_options as postgres_option
from _postgres import database


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--wal", action="store_true", help="switch the database file to WAL first")
    postgres_option(parser, required=False)


@contextmanager
def launched(options: argparse.Namespace) -> Iterator[None]:
    """Decorated functions must exist by now: dbos registers them at import and is launched here."""
    with store(options) as url:
        DBOS(
            config={
                "name": "bench",
                "system_database_url": url,
                "enable_otlp": False,
                "log_level": "ERROR",
            }
        )
        DBOS.launch()
        try:
            yield
        finally:
            DBOS.destroy()


@contextmanager
def store(options: argparse.Namespace) -> Iterator[str]:
    """The URL of a new database."""
    with workdir(options.dir) as directory:
        if options.postgres is not None:
            with database(options.postgres) as url:
                yield url
            return
        path = directory / "dbos.db"
        if options.wal:
            connection = sqlite3.connect(path)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.close()
        yield f"sqlite:///{path}"
