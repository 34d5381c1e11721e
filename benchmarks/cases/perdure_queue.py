"""perdure: runs of a task that does nothing, submitted to a queue and driven by a worker in the same process."""

from __future__ import annotations

from time import perf_counter

import perdure
from _common import emit, parser, workdir

LARGE = 1_000_000
env = perdure.TaskEnvironment(name="bench")
wide = perdure.Queue(
    "wide", concurrency=LARGE, rate=perdure.Rate(LARGE, per=60), key=lambda number: number % 100, per_key=LARGE,
    order="fair",
)  # fmt: skip


@env.task
def plain(number: int) -> int:
    return number


@env.task(queue=wide)
def queued(number: int) -> int:
    return number


def main() -> None:
    arguments = parser(__doc__, count=2000)
    arguments.add_argument("--plain", action="store_true", help="a task without a queue")
    options = arguments.parse_args()
    task = plain if options.plain else queued
    with workdir(options.dir) as directory:
        perdure.init(store=f"sqlite:///{directory / 'perdure.db'}")
        with perdure.Worker([task]):
            perdure.submit(task, number=-1).wait(timeout=60)
            started = perf_counter()
            runs = [perdure.submit(task, number=number) for number in range(options.count)]
            for run in runs:
                run.wait(timeout=600)
            elapsed = perf_counter() - started
    emit(options.count / elapsed, "runs/s", count=options.count)


if __name__ == "__main__":
    main()
