"""The dbos program that the cases call from another process: a workflow that receives messages, and one that works."""

from __future__ import annotations

import argparse
import threading
from time import perf_counter, sleep

from dbos import DBOS

from _told import PATIENCE, WORK, reporter

QUEUE = "bench"


@DBOS.workflow()
async def listener(count: int, address: str) -> int:
    with reporter(address) as tell:
        tell(perf_counter(), "")
        for _ in range(count):
            if await DBOS.recv_async("go", PATIENCE) is None:
                raise SystemExit("a message did not come")
            tell(perf_counter(), "")
    return count


@DBOS.workflow()
def work() -> list[float]:
    first = perf_counter()
    sleep(WORK)
    return [first, perf_counter()]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--database", required=True, help="its URL")
    options = arguments.parse_args()
    DBOS(
        config={
            "name": "bench",
            "system_database_url": options.database,
            "enable_otlp": False,
            "log_level": "ERROR",
        }
    )
    DBOS.launch()
    DBOS.register_queue(QUEUE)
    print("ready", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
