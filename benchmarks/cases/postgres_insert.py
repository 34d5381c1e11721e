"""Raw Postgres: one INSERT and one commit per row, each commit fsynced, through perdure's own driver and settings."""

from __future__ import annotations

from time import perf_counter

import psycopg

from _common import emit, parser, row
from _postgres import add_options, database
from perdure.store.postgres.link import Address

CREATE = (
    "CREATE TABLE entry (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, run bigint NOT NULL,"
    " branch bigint NOT NULL, seq bigint NOT NULL, kind bigint NOT NULL, fingerprint bytea NOT NULL,"
    " name text NOT NULL, value bytea NOT NULL)"
)
INSERT = "INSERT INTO entry (run, branch, seq, kind, fingerprint, name, value) VALUES (%s, %s, %s, %s, %s, %s, %s)"


def insert(connection: psycopg.Connection[tuple[object, ...]], count: int) -> float:
    connection.execute(CREATE)
    rows = [row(seq) for seq in range(100 + count)]
    cursor = connection.cursor()
    for each in rows[:100]:
        cursor.execute(INSERT, each)
    started = perf_counter()
    for each in rows[100:]:
        cursor.execute(INSERT, each)  # in autocommit mode: a transaction of its own, prepared once
    return perf_counter() - started


def main() -> None:
    arguments = parser(__doc__, count=3000)
    add_options(arguments)
    options = arguments.parse_args()
    with database(options.postgres) as url, Address(url).connect() as connection:
        elapsed = insert(connection, options.count)
        connection.close()
    emit(options.count / elapsed, "rows/s", count=options.count)


if __name__ == "__main__":
    main()
