"""How long an import takes in a fresh interpreter: the statement itself, and the whole process around it."""

from __future__ import annotations

import subprocess
import sys
from statistics import median
from time import perf_counter

from _common import emit, parser

PROGRAM = "from time import perf_counter as p; s = p(); import {modules}; print(p() - s)"


def main() -> None:
    arguments = parser(__doc__, count=7)
    arguments.add_argument("--modules", default="asyncio, sqlite3, msgspec", help="what to import")
    options = arguments.parse_args()
    command = [sys.executable, "-c", PROGRAM.format(modules=options.modules)]
    first = subprocess.run(command, capture_output=True, text=True, check=False)  # writes the .pyc files
    if first.returncode != 0:
        raise SystemExit(first.stderr.strip())
    statement, wall = [], []
    for _ in range(options.count):
        started = perf_counter()
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        wall.append(perf_counter() - started)
        statement.append(float(done.stdout))
    emit(median(statement) * 1e3, "ms", wall=median(wall) * 1e3, count=options.count, modules=options.modules)


if __name__ == "__main__":
    main()
