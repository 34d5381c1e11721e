"""Raw SQLite: SELECT every row of the journal that perdure_resume.py built, and decode the values with msgspec.

The journal's table is found, not named: it is the one with the most rows, and its values are the BLOB columns that
decode as MessagePack. So the case needs no knowledge of perdure's schema.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from time import perf_counter

import msgspec

from _common import emit, parser


def largest_table(connection: sqlite3.Connection) -> tuple[str, int]:
    names = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    counts = {name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in names}
    table = max(counts, key=lambda name: counts[name])
    return table, counts[table]


def decodes(value: object) -> bool:
    if not isinstance(value, bytes):
        return False
    try:
        msgspec.msgpack.decode(value)
    except msgspec.DecodeError:
        return False
    return True


def main() -> None:
    arguments = parser(__doc__, count=100_000)
    arguments.add_argument("--db", type=Path, required=True, help="a copy of the database of perdure_resume.py")
    options = arguments.parse_args()
    connection = sqlite3.connect(options.db)
    table, count = largest_table(connection)
    if count < options.count:
        raise SystemExit(f"the largest table, {table!r}, has {count} rows, not {options.count}")
    sample = connection.execute(f'SELECT * FROM "{table}" LIMIT 50 OFFSET 100').fetchall()
    columns = [index for index, column in enumerate(zip(*sample, strict=True)) if all(map(decodes, column))]
    connection.close()

    decode = msgspec.msgpack.Decoder().decode
    connection = sqlite3.connect(options.db)
    started = perf_counter()
    for row in connection.execute(f'SELECT * FROM "{table}"'):
        for index in columns:
            value = row[index]
            if value is not None:
                decode(value)
    elapsed = perf_counter() - started
    connection.close()
    emit(elapsed, "s", count=count, table=table, decoded_columns=len(columns))


if __name__ == "__main__":
    main()
