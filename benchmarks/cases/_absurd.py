"""absurd in a database of its own. Its schema comes in the package of its command, `absurdctl`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from absurdctl import BUNDLED_SCHEMA_SQL

from _common import workdir
from _postgres import database


@contextmanager
def prepared(options: argparse.Namespace) -> Iterator[str]:
    """The URL of a database with its schema and the queue `default`."""
    with workdir(options.dir), database(options.postgres) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(BUNDLED_SCHEMA_SQL)
            connection.execute("SELECT absurd.create_queue('default')")
        yield url
