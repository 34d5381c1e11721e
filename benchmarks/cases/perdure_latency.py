"""perdure: a run of three steps, submitted by this process to a worker that listens, from the submission to the result.

The submissions come one by one with a short pause between, now and then with a longer one, so that both a worker that
is awake and one that has gone to rest are met. `figure` is the median, in milliseconds.
"""

from __future__ import annotations

from statistics import quantiles
from time import perf_counter, sleep

import perdure
from _common import PAUSE, PAUSES, emit, parser, workdir
from _workers import workers

env = perdure.TaskEnvironment(name="bench")


@perdure.trace
def step(number: int) -> int:
    return number


@env.task
def three(number: int) -> int:
    return step(number) + step(number + 1) + step(number + 2)


def once(number: int) -> float:
    """Milliseconds until the result is here."""
    sleep(PAUSES if number % 20 == 0 else PAUSE)
    started = perf_counter()
    run = perdure.submit(three, number=number).wait(60)
    took = perf_counter() - started
    if run.result != 3 * number + 3:
        raise SystemExit("a run gave another run's result")
    return took * 1000


def main() -> None:
    options = parser(__doc__, count=200).parse_args()
    with workdir(options.dir) as directory:
        url = f"sqlite:///{directory / 'perdure.db'}"
        perdure.init(store=url)
        with workers(__file__, url, 1):
            for number in range(-10, 0):
                once(number)
            times = [once(number) for number in range(options.count)]
    cuts = quantiles(times, n=100)
    emit(cuts[49], "ms", p99=cuts[98], worst=max(times), count=options.count)


if __name__ == "__main__":
    main()
