"""perdure: from a signal in this process to the body's next line on a worker that listens, in milliseconds.

Beside that, from a submission to the first line of the run, and from the last line to the result here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter, sleep

import perdure
from _common import parser
from _store import add_options, store
from _told import WORK, measure, reporter
from _workers import workers

env = perdure.TaskEnvironment(name="bench")


@env.task
async def listener(count: int, address: str) -> int:
    with reporter(address) as tell:
        tell(perf_counter(), "")
        for number in range(count):
            condition = await perdure.new_condition.aio(f"go-{number}", data_type=int)
            await condition.wait.aio()
            tell(perf_counter(), "")
    return count


@env.task
def work() -> list[float]:
    first = perf_counter()
    sleep(WORK)
    return [first, perf_counter()]


class Perdure:
    def listen(self, count: int, address: str) -> None:
        self.run = perdure.submit(listener, count, address)

    def send(self, number: int, word: str) -> None:
        self.run.signal(f"go-{number}", number)

    def submit(self) -> Callable[[], Sequence[float]]:
        run = perdure.submit(work)
        return lambda: run.wait(60).result


def main() -> None:
    arguments = parser(__doc__, count=200)
    arguments.add_argument("--runs", type=int, default=100, help="how many runs (100)")
    add_options(arguments)
    options = arguments.parse_args()
    with store(options) as url:
        perdure.init(store=url)
        with workers(__file__, url, 1):
            measure(Perdure(), options.count, options.runs)


if __name__ == "__main__":
    main()
