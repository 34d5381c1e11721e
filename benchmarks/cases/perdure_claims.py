"""perdure: what a worker pays to find and claim one run of a queue, by the number of runs that wait."""

from __future__ import annotations

import json
import random
from statistics import median
from time import perf_counter

from _common import emit, parser, workdir
from perdure.core.ground.model import Claim, CreateRun, NewRun
from perdure.store.sqlite import SQLiteStore

TASKS = {"bench.queued"}
CLAIMS, CHUNK = 90, 5000


def claim(store: SQLiteStore) -> None:
    store.next_due(TASKS, "worker")
    if len(store.take_due(TASKS, [Claim(random.randbytes(16), "worker")])) != 1:
        raise SystemExit("no run was claimed")


def main() -> None:
    arguments = parser(__doc__, count=100)
    arguments.add_argument("--keys", type=int, default=100, help="how many keys (100)")
    options = arguments.parse_args()
    with workdir(options.dir) as directory:
        store = SQLiteStore(directory / "perdure.db")
        store.declare_queue("wide", json.dumps({"concurrency": 1000, "per_key": 1000, "order": "fair"}))
        news = [
            NewRun(random.randbytes(16), f"run-{number}", "bench.queued", "::", b"", b"h" * 16, number, None, None,
                   "wide", str(number % options.keys))
            for number in range(options.count)
        ]  # fmt: skip
        for first in range(0, options.count, CHUNK):
            store.commit([CreateRun(new, None) for new in news[first : first + CHUNK]])
        begun = perf_counter()
        claim(store)
        look = perf_counter() - begun
        taken = []
        for _ in range(CLAIMS):
            started = perf_counter()
            claim(store)
            taken.append(perf_counter() - started)
        store.close()
    emit(median(taken) * 1e6, "µs", count=options.count, keys=options.keys, first_look=look)


if __name__ == "__main__":
    main()
