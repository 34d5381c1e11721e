"""A database of its own for one case, in the server whose URL it was given; removed with the block."""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

import psycopg


def add_options(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    parser.add_argument("--postgres", required=required, help="the URL of a database, whose server is used")


@contextmanager
def database(url: str) -> Iterator[str]:
    """Its URL."""
    name = f"case_{secrets.token_hex(6)}"
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
        # What the case before has left to be written is written now, and not beside this one.
        admin.execute("CHECKPOINT")
    try:
        yield urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
    finally:
        with psycopg.connect(url, autocommit=True) as admin:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
