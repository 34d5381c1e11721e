"""Followers of a pod's log that are cancelled: each line is taken once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from perdure.containers.engine import LogLine
from perdure.containers.kubernetes.life import _follow
from perdure.containers.logs import LogSink
from perdure.containers.redaction import NO_SECRETS


class Log:
    """A log that breaks off until the container has its last line."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.requests = 0

    async def log(self, name: str, container: str) -> AsyncIterator[LogLine]:
        self.requests += 1
        for line in self.lines:
            yield LogLine("stdout", line, True, True)


@pytest.mark.parametrize("order", ["cancelled first", "ended first"])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_follower_cancelled_as_the_container_ends_asks_no_more(tmp_path: Path, order: str, turns: int) -> None:
    """K5. The family: a cancellation that comes together with the end of what the follower waits for. An outage of the
    cluster cancels the follower, whose successor takes the following lines."""

    async def both() -> int:
        log, ended = Log(), asyncio.Event()
        sink = LogSink(str(tmp_path / "log"), None, NO_SECRETS)
        follower = asyncio.ensure_future(_follow(log, "pod", sink, ended))  # type: ignore[arg-type]
        while not log.requests:
            await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        for act in (follower.cancel, ended.set) if order == "cancelled first" else (ended.set, follower.cancel):
            act()
        log.lines.append(b"the successor's")
        await asyncio.wait([follower], timeout=10)
        assert follower.cancelled()
        sink.close()
        return log.requests

    assert asyncio.run(both()) == 1
    assert (tmp_path / "log").read_bytes() == b""
