"""Tasks whose submitted runs take slots of queues."""

from __future__ import annotations

import time

from served import log

import perdure
from perdure.extras import durable_sleep

env = perdure.TaskEnvironment(name="queued")
crawl = perdure.Queue(
    "crawl", concurrency=3, per_worker=2, key=lambda site, **_: site, per_key=2, rate=perdure.Rate(12, per=2.0),
    order="fair",
)  # fmt: skip


@perdure.trace
def fetch(tag: str, seconds: float) -> str:
    log("begins", tag)
    time.sleep(seconds)
    log("step", tag)
    return tag


@env.task(queue=crawl)
def crawled(site: str, tag: str, seconds: float = 0.05, pause: float = 0.0) -> str:
    """Two steps, with a pause between that may park the run."""
    fetch(f"{tag}.0", seconds)
    durable_sleep(pause)
    return fetch(f"{tag}.1", seconds)
