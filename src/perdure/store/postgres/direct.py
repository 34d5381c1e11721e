"""A statement on a shorter way through the driver: prepared once per connection, its parameters packed here, its answer
awaited without the driver's machinery.

For each parameter a cursor of psycopg chooses the encoding again, and each wait goes through Python. With the 23
parameters of an entry that takes as long as a fast server's commit.
"""

from __future__ import annotations

import re
import select
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
_unpack: Final = struct.Struct("!q").unpack


class Statement:
    """One that changes rows, and returns none or the number of a new row."""

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
        result = connection.pgconn.exec_prepared(self._name, self._values(row), self._formats, _BINARY)
        _check(result)
        return result.command_tuples or 0

    def number(self, connection: psycopg.Connection[Any], row: Sequence[Any], behind: bytes) -> int | None:
        """Run it on a connection that knows it, and the statement `behind` in a transaction after it; both are on their
        way at once. The number that it returns; `None`: it has changed nothing."""
        pgconn = connection.pgconn
        pgconn.enter_pipeline_mode()
        try:
            pgconn.send_query_prepared(self._name, self._values(row), self._formats, _BINARY)
            pgconn.pipeline_sync()
            pgconn.send_query_params(behind, None)
            pgconn.pipeline_sync()
            first, second = _until_sync(pgconn), _until_sync(pgconn)
            pgconn.exit_pipeline_mode()
        except BaseException:
            # Answers are on their way: the connection is of no more use.
            connection.close()
            raise
        _check(first, pq.ExecStatus.TUPLES_OK)
        _check(second, pq.ExecStatus.TUPLES_OK)
        value = first.get_value(0, 0) if first.ntuples else None
        return None if value is None else int(_unpack(value)[0])

    def _values(self, row: Sequence[Any]) -> list[Any]:
        return [None if value is None else write(value) for write, value in zip(self._write, row, strict=True)]


def _until_sync(pgconn: pq.abc.PGconn) -> pq.abc.PGresult:
    """The answer to one statement of a pipeline."""
    found: pq.abc.PGresult | None = None
    while True:
        unsent = pgconn.flush()
        while pgconn.is_busy():
            # Here and not in libpq, which would keep the interpreter's lock.
            select.select([pgconn.socket], [pgconn.socket] if unsent else [], [])
            pgconn.consume_input()
            unsent = pgconn.flush()
        result = pgconn.get_result()
        if result is None:
            if pgconn.status == pq.ConnStatus.BAD:
                raise psycopg.OperationalError("the connection was lost in a pipeline")
        elif result.status == pq.ExecStatus.PIPELINE_SYNC:
            assert found is not None
            return found
        else:
            found = found or result


def _check(result: pq.abc.PGresult, good: pq.ExecStatus = pq.ExecStatus.COMMAND_OK) -> None:
    if result.status != good:
        error = error_from_result(result, "utf-8")
        # Without a code it is libpq that speaks: the connection broke.
        raise error if error.sqlstate is not None else psycopg.OperationalError(str(error))


def _same(value: Any) -> Any:
    return value
