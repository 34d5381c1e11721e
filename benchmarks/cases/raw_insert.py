"""Raw SQLite: one INSERT and one commit per row, each commit fsynced."""

from __future__ import annotations

from time import perf_counter

from _common import CREATE, INSERT, emit, open_raw, parser, row, workdir


def main() -> None:
    arguments = parser(__doc__, count=3000).parse_args()
    with workdir(arguments.dir) as directory:
        connection = open_raw(directory / "raw.db")
        connection.execute(CREATE)
        for seq in range(100):
            connection.execute(INSERT, row(seq))
        rows = [row(seq) for seq in range(100, 100 + arguments.count)]
        started = perf_counter()
        for each in rows:
            connection.execute(INSERT, each)  # in autocommit mode: a transaction of its own
        elapsed = perf_counter() - started
        connection.close()
    emit(arguments.count / elapsed, "rows/s", count=arguments.count)


if __name__ == "__main__":
    main()
