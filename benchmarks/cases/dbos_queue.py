"""dbos: workflows that do nothing, put into a queue whose limit never binds and executed in the same process."""

from __future__ import annotations

from time import perf_counter

from dbos import DBOS

from _common import emit, parser
from _dbos import add_options, launched

QUEUE, LARGE = "wide", 1_000_000


@DBOS.workflow()
def empty(number: int) -> int:
    return number


def main() -> None:
    arguments = parser(__doc__, count=200)
    add_options(arguments)
    options = arguments.parse_args()
    with launched(options):
        queue = DBOS.register_queue(QUEUE, global_concurrency=LARGE, limiter={"limit": LARGE, "period": 60})
        queue.enqueue(empty, -1).get_result()
        started = perf_counter()
        for handle in [queue.enqueue(empty, number) for number in range(options.count)]:
            handle.get_result()
        elapsed = perf_counter() - started
    emit(options.count / elapsed, "runs/s", count=options.count)


if __name__ == "__main__":
    main()
