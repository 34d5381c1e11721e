"""Raw SQLite: SELECT every row of the journal that perdure_resume.py built, and decode it with msgspec.

A segment is decoded as the plain MessagePack that it holds behind its head, and the value of each of its entries as
the MessagePack that it is: what any reader has to do at least. No checksum is verified and no object is made.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from time import perf_counter

import msgspec

from _common import emit, parser

HEAD = 13  # bytes of a segment in front of its entries: version, checksum and mark
OUTCOME = 11  # the field of an entry that holds the encoded value


def main() -> None:
    arguments = parser(__doc__, count=100_000)
    arguments.add_argument("--db", type=Path, required=True, help="a copy of the database of perdure_resume.py")
    options = arguments.parse_args()
    decode = msgspec.msgpack.Decoder().decode
    connection = sqlite3.connect(options.db)
    entries = 0
    started = perf_counter()
    for _, _, data in connection.execute("SELECT run, number, data FROM segments ORDER BY run, number"):
        for entry in decode(data[HEAD:]):
            entries += 1
            value = entry[OUTCOME]
            if value is not None:
                decode(value)
    elapsed = perf_counter() - started
    connection.close()
    if entries < options.count:
        raise SystemExit(f"the journal has {entries} entries, not {options.count}")
    emit(elapsed, "s", count=entries)


if __name__ == "__main__":
    main()
