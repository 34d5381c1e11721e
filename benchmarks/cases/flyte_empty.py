"""flyte, local: runs of a task that does nothing, one after the other."""

from __future__ import annotations

from time import perf_counter

from _common import emit, parser
from _flyte import env, local


@env.task
async def empty(number: int) -> int:
    return number


def main() -> None:
    options = parser(__doc__, count=200).parse_args()
    with local(options) as runner:
        for number in range(-10, 0):
            runner.run(empty, number=number)
        started = perf_counter()
        for number in range(options.count):
            runner.run(empty, number=number)
        elapsed = perf_counter() - started
    emit(options.count / elapsed, "runs/s", count=options.count)


if __name__ == "__main__":
    main()
