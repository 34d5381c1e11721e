"""perdure: runs of a task that does nothing, submitted to workers that serve them; from the first submission to the
last run's end."""

from __future__ import annotations

import asyncio
from time import perf_counter, sleep

import perdure
from _common import emit, parser, workdir
from _workers import workers
from perdure import runtime
from perdure.core.ground.model import Status

env = perdure.TaskEnvironment(name="bench")
CHUNK = 1000


@env.task
async def trivial(number: int) -> int:
    return number


async def submit(count: int) -> None:
    for first in range(0, count, CHUNK):
        last = min(first + CHUNK, count)
        await asyncio.gather(*(perdure.submit.aio(trivial, number=number) for number in range(first, last)))


def main() -> None:
    arguments = parser(__doc__, count=5_000)
    arguments.add_argument("--workers", type=int, default=1, help="how many workers (1)")
    options = arguments.parse_args()
    with workdir(options.dir) as directory:
        url = f"sqlite:///{directory / 'perdure.db'}"
        perdure.init(store=url)
        store = runtime.worker().store
        with workers(__file__, url, options.workers):
            started = perf_counter()
            asyncio.run(submit(options.count))
            submitted = perf_counter()
            while store.runs(limit=1, statuses={Status.QUEUED, Status.RUNNING}):
                sleep(0.02)
            ended = perf_counter()
        ends = len(store.runs(statuses={Status.SUCCEEDED}))
        if ends != options.count:
            raise SystemExit(f"{ends} of {options.count} runs have succeeded")
    emit(
        options.count / (ended - started), "runs/s", count=options.count, workers=options.workers,
        submitted=options.count / (submitted - started),
    )  # fmt: skip


if __name__ == "__main__":
    main()
