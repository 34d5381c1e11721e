"""How long one fsync of a 4 KiB write takes here: two targets read differently on a fast disk."""

from __future__ import annotations

import os
from statistics import median
from time import perf_counter

from _common import emit, parser, workdir


def main() -> None:
    arguments = parser(__doc__, count=500).parse_args()
    with workdir(arguments.dir) as directory:
        # As in a write-ahead log that has been through a checkpoint, the file already has its size.
        descriptor = os.open(directory / "fsync.bin", os.O_CREAT | os.O_WRONLY, 0o600)
        block = b"x" * 4096
        os.write(descriptor, block * arguments.count)
        os.fsync(descriptor)
        os.lseek(descriptor, 0, os.SEEK_SET)
        times = []
        for _ in range(arguments.count):
            os.write(descriptor, block)
            started = perf_counter()
            os.fsync(descriptor)
            times.append(perf_counter() - started)
        os.close(descriptor)
    emit(median(times) * 1e6, "µs", count=arguments.count)


if __name__ == "__main__":
    main()
