"""perdure: what one durable call costs late in a run against early in it (`figure`: late / early).

Each side is the median of a thousand consecutive calls, timed one by one: at the 1,000th entry and at the `--count`th.
`--durability process` takes the fsync out, so that a growing share of our own shows undiluted.
"""

from __future__ import annotations

from statistics import median
from time import perf_counter

import perdure
from _common import VALUE, emit, parser, workdir

WINDOW = 1000

env = perdure.TaskEnvironment(name="bench")


@perdure.trace
def step(number: int) -> bytes:
    return VALUE


def window(first: int) -> float:
    times = []
    for number in range(first, first + WINDOW):
        started = perf_counter()
        step(number)
        times.append(perf_counter() - started)
    return median(times)


@env.task
def main_task(count: int) -> list[float]:
    for number in range(1000):
        step(number)
    early = window(1000)
    for number in range(1000 + WINDOW, count):
        step(number)
    return [early, window(count)]


def main() -> None:
    arguments = parser(__doc__, count=100_000)
    arguments.add_argument("--durability", choices=("power", "process"), default="process")
    options = arguments.parse_args()
    with workdir(options.dir) as directory:
        perdure.init(store=f"sqlite:///{directory / 'perdure.db'}", durability=options.durability)
        early, late = perdure.run(main_task, count=options.count).outputs()[0]
    emit(late / early, "x", count=options.count, early=early * 1e6, late=late * 1e6, durability=options.durability)


if __name__ == "__main__":
    main()
