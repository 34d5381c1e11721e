"""Where perdure's cases keep their runs: a new SQLite file in their directory, or with `--postgres` a new database."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

from _common import workdir


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--postgres", help="the URL of a database, whose server is used instead of a SQLite file")


@contextmanager
def store(options: argparse.Namespace) -> Iterator[str]:
    """Its URL."""
    with workdir(options.dir) as directory:
        if options.postgres is None:
            yield f"sqlite:///{directory / 'perdure.db'}"
            return
        from _postgres import database

        with database(options.postgres) as url:
            yield url
