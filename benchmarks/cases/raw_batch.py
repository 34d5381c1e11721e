"""Raw SQLite: all rows with one executemany in one transaction, fsynced once."""

from __future__ import annotations

from time import perf_counter

from _common import CREATE, INSERT, emit, open_raw, parser, row, workdir


def main() -> None:
    arguments = parser(__doc__, count=10_000).parse_args()
    with workdir(arguments.dir) as directory:
        connection = open_raw(directory / "raw.db")
        connection.execute(CREATE)
        connection.execute(INSERT, row(arguments.count))
        rows = [row(seq) for seq in range(arguments.count)]
        started = perf_counter()
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(INSERT, rows)
        connection.execute("COMMIT")
        elapsed = perf_counter() - started
        connection.close()
    emit(arguments.count / elapsed, "rows/s", count=arguments.count)


if __name__ == "__main__":
    main()
