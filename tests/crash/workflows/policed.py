"""A task for submissions with policies, and a program that submits without end until it is killed."""

from __future__ import annotations

import sys
import time

from served import log

import perdure

env = perdure.TaskEnvironment(name="policed")
single = perdure.Queue("single", concurrency=1, when_full="skip")
EVERY = 0.3


@perdure.trace
def work(kind: str) -> None:
    log("begins", kind)
    time.sleep(0.05)
    log("ends", kind)


@env.task
def plain(kind: str) -> str:
    work(kind)
    return kind


@env.task(queue=single)
def alone(kind: str) -> str:
    work(kind)
    return kind


def main() -> None:
    """Submit by each policy in turn, and say which runs there are."""
    while True:
        for run in (
            perdure.submit(alone, kind="skip"),
            perdure.with_runcontext(when_full="replace").submit(alone, kind="replace"),
            perdure.with_runcontext(dedup="throttled", throttle=EVERY).submit(plain, kind="throttled"),
            perdure.with_runcontext(dedup="late", debounce=EVERY).submit(plain, kind="late"),
            perdure.with_runcontext(dedup="once").submit(plain, kind="once"),
            perdure.with_runcontext(start_by=0.02).submit(plain, kind="soon"),
        ):
            print(run.name, flush=True)


if __name__ == "__main__":
    sys.exit(main())
