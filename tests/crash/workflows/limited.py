"""Tasks with calls under a limit."""

from __future__ import annotations

import time

from served import log

import perdure
from perdure.extras import durable_sleep

env = perdure.TaskEnvironment(name="limited")
api = perdure.Limit("api", concurrency=3, rate=perdure.Rate(20, per=1.0))


@perdure.trace(limit=api)
def request(tag: str, seconds: float) -> str:
    log("begins", tag)
    time.sleep(seconds)
    log("step", tag)
    return tag


@env.task
def called(tag: str, seconds: float = 0.05, pause: float = 0.0) -> str:
    """Two calls, with a pause between that may park the run."""
    request(f"{tag}.0", seconds)
    durable_sleep(pause)
    return request(f"{tag}.1", seconds)
