"""A statement on a shorter way through the driver: prepared once per connection, its parameters packed here, its answer
awaited inside libpq.

For each parameter a cursor of psycopg chooses the encoding again, and each wait goes through Python. With the 23
parameters of an entry that takes as long as a fast server's commit.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from hashlib import blake2b
from itertools import count
from typing import Any, Final

import psycopg
from psycopg import pq
from psycopg.errors import error_from_result

_OIDS: Final = {"bigint": 20, "bytea": 17, "text": 25}
_BINARY: Final = 1
_bigint: Final = struct.Struct("!q").pack


class Statement:
    """One that changes rows and returns none."""

    def __init__(self, sql: str, types: Sequence[str], text: Callable[[str], bytes]) -> None:
        """Take it down; nothing is sent yet.

        Args:
            sql: with a mark `%s` for each parameter, as psycopg has it.
            types: of the parameters: bigint, bytea or text.
            text: how text is written.
        """
        numbers = count(1)
        self.sql: Final = sql
        self._sql = re.sub("%s", lambda _: f"${next(numbers)}", sql).encode()
        # The same name is always the same statement: behind a pooler others' connections come to be ours.
        self._name = b"perdure_" + blake2b(self._sql, digest_size=16).hexdigest().encode()
        self._oids = [_OIDS[kind] for kind in types]
        self._formats = [_BINARY] * len(types)
        how: dict[str, Callable[[Any], Any]] = {"bigint": _bigint, "bytea": _same, "text": text}
        self._write = [how[kind] for kind in types]

    def prepare(self, connection: psycopg.Connection[Any]) -> None:
        """Make it known to a connection."""
        _check(connection.pgconn.prepare(self._name, self._sql, self._oids))

    def change(self, connection: psycopg.Connection[Any], row: Sequence[Any]) -> int:
        """Run it on a connection that knows it; how many rows it has changed."""
        values: list[Any] = [
            None if value is None else write(value) for write, value in zip(self._write, row, strict=True)
        ]
        result = connection.pgconn.exec_prepared(self._name, values, self._formats, _BINARY)
        _check(result)
        return result.command_tuples or 0


def _check(result: pq.abc.PGresult) -> None:
    if result.status != pq.ExecStatus.COMMAND_OK:
        error = error_from_result(result, "utf-8")
        # Without a code it is libpq that speaks: the connection broke.
        raise error if error.sqlstate is not None else psycopg.OperationalError(str(error))


def _same(value: Any) -> Any:
    return value
