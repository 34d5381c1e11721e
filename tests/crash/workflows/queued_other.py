"""Another program whose task shares a queue with `queued.py`."""

from __future__ import annotations

from queued import crawl, fetch

import perdure

other = perdure.TaskEnvironment(name="other")


@other.task(queue=crawl)
def scanned(site: str, tag: str, seconds: float = 0.05) -> str:
    return fetch(f"{tag}.0", seconds)
