"""Private servers for the benchmarks, which helpers of the tests start and stop: a Postgres, and container engines."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from peers import PROJECT


class MissingError(Exception):
    """The server cannot be had here; says why."""


def _tests_module(name: str) -> ModuleType:
    """A helper of the tests."""
    sys.path.insert(0, str(PROJECT))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(PROJECT))


@contextmanager
def private_postgres() -> Iterator[str]:
    """A private server with its usual durability for as long as the block lasts: the URL of a database in it."""
    try:
        helper = _tests_module("tests.postgres_server")
    except ImportError as error:
        raise MissingError(f"the tests' helpers cannot be imported: {error}") from error
    folder = helper.programs()
    if folder is None:
        raise MissingError("the programs of a Postgres server (15 or later) are not installed")
    server = helper.Server(folder)
    try:
        yield server.dsn()
    finally:
        server.close()


@contextmanager
def private_engine(kind: str) -> Iterator[tuple[str, str]]:
    """A private engine of the tests' kind for as long as the block lasts: its URL, and an image that it has."""
    try:
        engines = _tests_module("tests.containers.engines")
    except ImportError as error:
        raise MissingError(f"the tests' helpers cannot be imported: {error}") from error
    engine = engines.KINDS[kind]()
    try:
        try:
            engine.start()
        except (engines.NoEngineError, AssertionError, OSError, subprocess.SubprocessError) as error:
            raise MissingError((str(error).strip() or type(error).__name__).splitlines()[0]) from error
        yield engine.url, engine.image
    finally:
        engine.stop()
