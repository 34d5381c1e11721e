"""Server-sent events: the items of a stream, and published values as they change."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from ..api.jsonable import jsonable
from ..api.run import Run
from ..api.streaming import changes
from ..core.ground.digest import blake2b
from ..core.ground.model import FINISHED, Status
from ..errors import PerdureError
from ._absent import needed

with needed("web", "perdure.integrations.starlette"):
    from starlette.responses import StreamingResponse

HEARTBEAT_SECONDS = 15.0
"""Seconds of silence after which a comment is sent: proxies keep the connection, and a lost reader is noticed."""
HEARTBEAT = b": \n\n"


def response(events: AsyncGenerator[bytes, None]) -> StreamingResponse:
    """Events as the body of an answer."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_beating(events), media_type="text/event-stream", headers=headers)


async def _beating(events: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    """The events, with a heartbeat in each silence. Only one event is made before the reader has taken the last."""
    async with aclosing(events):
        upcoming: asyncio.Future[bytes] | None = None
        try:
            while True:
                if upcoming is None:
                    upcoming = asyncio.ensure_future(anext(events))
                done, _ = await asyncio.wait({upcoming}, timeout=HEARTBEAT_SECONDS)
                if not done:
                    yield HEARTBEAT
                    continue
                finished, upcoming = upcoming, None
                try:
                    event = finished.result()
                except StopAsyncIteration:
                    return
                yield event
        finally:
            if upcoming is not None:
                upcoming.cancel()
                await asyncio.wait({upcoming})


def _event(data: Any, *, kind: str = "", id: str = "") -> bytes:
    lines = [f"event: {kind}\n"] if kind else []
    if id:
        lines.append(f"id: {id}\n")
    return f"{''.join(lines)}data: {json.dumps(jsonable(data), ensure_ascii=False)}\n\n".encode()


async def _end(run: Run) -> bytes:
    """The last event, at which a reader closes the connection instead of connecting again."""
    return _event({"status": str(await asyncio.to_thread(lambda: run.status))}, kind="end")


async def stream(run: Run, name: str, after: int) -> AsyncGenerator[bytes, None]:
    """The items of a stream behind an offset. The id of an event is the offset of the item."""
    items: Any = run.stream.aio(name, after=after)
    try:
        async with aclosing(items):
            async for item in items:
                data = {"value": item.value, "attempt": item.attempt, "restarted": item.restarted}
                yield _event(data, id=str(item.offset))
    except PerdureError as error:
        yield _event({"error": type(error).__name__, "message": str(error)}, kind="error")
        return
    yield await _end(run)


async def published(run: Run, last: str) -> AsyncGenerator[bytes, None]:
    """The published values, all in one event, whenever a value has changed. The id of an event is a digest of the
    values: a reader that connects again gets an event only where the values differ from the last event."""

    def look() -> tuple[bool, dict[str, Any]]:
        # The status first, so that the values of a run that has ended are all there.
        over = run.row.status in FINISHED or run.row.status is Status.MOVED
        return over, run.published()

    try:
        async with aclosing(changes(run.row)) as rings:
            async for _ in rings:
                over, values = await asyncio.to_thread(look)
                data = jsonable(values)
                digest = blake2b(json.dumps(data).encode(), digest_size=12).hexdigest()
                if digest != last and values:
                    last = digest
                    yield _event(data, id=digest)
                if over:
                    break
    except PerdureError as error:
        yield _event({"error": type(error).__name__, "message": str(error)}, kind="error")
        return
    yield await _end(run)
