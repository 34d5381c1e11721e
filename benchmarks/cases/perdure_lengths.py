"""perdure: what one durable call costs at the 100th entry of a run, at the 1,000th, and so on, to the `--count`th.

Each is the median of consecutive calls, timed one by one, at that place of one and the same run: a hundred calls at the
100th entry, a thousand from there on. `figure` is the last one against that at the 1,000th. `--durability process` (the
default) takes the fsync out, so that a growing share of our own shows undiluted.
"""

from __future__ import annotations

from statistics import median
from time import perf_counter

import perdure
from _common import VALUE, emit, parser, workdir

FIRST, BASE = 100, 1000  # entries

env = perdure.TaskEnvironment(name="bench")


@perdure.trace
def step(number: int) -> bytes:
    return VALUE


def window(first: int, size: int) -> float:
    times = []
    for number in range(first, first + size):
        started = perf_counter()
        step(number)
        times.append(perf_counter() - started)
    return median(times)


def lengths(count: int) -> list[int]:
    """100, 1,000, ... and `count`."""
    places = [FIRST]
    while places[-1] < count:
        places.append(min(places[-1] * 10, count))
    return places


@env.task
def main_task(count: int) -> list[float]:
    costs, reached = [], 0
    for place in lengths(count):
        for number in range(reached, place):
            step(number)
        size = min(place, 1000)
        costs.append(window(place, size))
        reached = place + size
    return costs


def main() -> None:
    arguments = parser(__doc__, count=100_000)
    arguments.add_argument("--durability", choices=("power", "process"), default="process")
    options = arguments.parse_args()
    if options.count <= BASE:
        arguments.error(f"--count must be greater than {BASE}")
    with workdir(options.dir) as directory:
        perdure.init(store=f"sqlite:///{directory / 'perdure.db'}", durability=options.durability)
        costs = perdure.run(main_task, count=options.count).outputs()[0]
    at = {f"at_{place}": cost * 1e6 for place, cost in zip(lengths(options.count), costs, strict=True)}
    emit(at[f"at_{options.count}"] / at[f"at_{BASE}"], "x", count=options.count, durability=options.durability, **at)


if __name__ == "__main__":
    main()
