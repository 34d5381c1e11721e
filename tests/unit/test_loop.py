"""perdure's event loop counts what a body still has to do; fails if asyncio's internals change their meaning."""

from __future__ import annotations

import asyncio
import contextvars
import socket
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from perdure.core.body.body import Body
from perdure.core.body.loop import PerdureLoop
from perdure.core.body.scope import SCOPE
from perdure.executors.local import DaemonThreads


class Probe(Body):
    """A body without a run: only its counters are used."""

    def __init__(self, loop: PerdureLoop) -> None:
        driver = SimpleNamespace(
            gate=SimpleNamespace(free=True), run=SimpleNamespace(uid=b"", name="probe"), stopping=False
        )
        soon = SimpleNamespace(loop=loop, here=lambda: True, soon=loop.call_soon_unscoped)
        super().__init__(driver, 0, "probe", soon, floor=0, label=None)  # type: ignore[arg-type]
        self.pumps = 0

    def pump(self) -> None:
        self.pumps += 1


@pytest.fixture
def loop() -> Iterator[PerdureLoop]:
    loop = PerdureLoop(DaemonThreads())
    yield loop
    loop.close()


@pytest.fixture
def body(loop: PerdureLoop) -> Body:
    # `SCOPE` is recognised by its exact class, which a subclass is not; so the counters are tried on the class itself.
    probe = Probe(loop)
    probe.__class__ = Body
    return probe


def inside(body: Body, action: Callable[[], Any]) -> Any:
    context = contextvars.copy_context()
    context.run(SCOPE.set, body)
    return context.run(action)


def spin(loop: PerdureLoop) -> None:
    loop.call_soon_unscoped(loop.stop)
    loop.run_forever()


def test_a_ready_callback_counts_until_it_has_run(loop: PerdureLoop, body: Body) -> None:
    seen: list[int] = []
    inside(body, lambda: loop.call_soon(lambda: seen.append(body.active)))
    assert body.active == 1
    spin(loop)
    assert (seen, body.active) == ([1], 0)


def test_a_cancelled_callback_is_taken_back_once(loop: PerdureLoop, body: Body) -> None:
    handle = inside(body, lambda: loop.call_soon(print))
    handle.cancel()
    handle.cancel()
    assert body.active == 0
    spin(loop)
    assert body.active == 0


def test_a_callback_cancelled_after_it_ran_is_not_taken_back_twice(loop: PerdureLoop, body: Body) -> None:
    handle = inside(body, lambda: loop.call_soon(lambda: None))
    spin(loop)
    handle.cancel()
    assert body.active == 0


def test_a_callback_that_raises_still_counts_down(loop: PerdureLoop, body: Body) -> None:
    loop.set_exception_handler(lambda *_: None)
    inside(body, lambda: loop.call_soon(lambda: 1 / 0))
    spin(loop)
    assert body.active == 0


def test_a_plain_timer_counts_until_it_fires_or_is_cancelled(loop: PerdureLoop, body: Body) -> None:
    fired = inside(body, lambda: loop.call_later(0, lambda: None))
    other = inside(body, lambda: loop.call_later(60, lambda: None))
    assert body.timers == 2
    other.cancel()
    other.cancel()
    assert body.timers == 1
    loop.run_until_complete(asyncio.sleep(0.01))
    assert (body.timers, body.active) == (0, 0)
    fired.cancel()
    assert body.timers == 0


def test_asyncio_sleep_and_timeout_are_plain_timers_of_the_body(loop: PerdureLoop, body: Body) -> None:
    counts: list[int] = []

    async def main() -> None:
        task = asyncio.create_task(asyncio.sleep(0.01))
        await asyncio.sleep(0)
        counts.append(body.timers)
        async with asyncio.timeout(5):
            counts.append(body.timers)
            await task
        counts.append(body.timers)

    inside(body, lambda: loop.run_until_complete(main()))
    assert counts == [1, 2, 0]


def test_watched_sockets_count(loop: PerdureLoop, body: Body) -> None:
    left, right = socket.socketpair()
    with left, right:
        inside(body, lambda: loop.add_reader(left, print))
        inside(body, lambda: loop.add_reader(left, print))
        assert body.descriptors == 1
        loop.remove_reader(left)
        assert body.descriptors == 0


def test_tasks_of_a_body_are_counted_and_get_branches(loop: PerdureLoop, body: Body) -> None:
    names: list[str] = []

    async def helper(x: int) -> None:
        task: Any = asyncio.current_task()
        names.append(task.branch.describe())

    async def main() -> None:
        await asyncio.gather(helper(1), helper(2))

    inside(body, lambda: loop.run_until_complete(main()))
    assert body.active == 0
    assert len(names) == 2


def test_branches_are_named_by_arguments_not_by_order(loop: PerdureLoop, body: Body) -> None:
    async def helper(x: int) -> int:
        task: Any = asyncio.current_task()
        return int(task.branch.id)

    order = [1, 2, 3]

    async def main() -> dict[int, int]:
        coros = {x: helper(x) for x in order}
        values = await asyncio.gather(*coros.values())
        return dict(zip(coros, values, strict=True))

    first = inside(body, lambda: loop.run_until_complete(main()))
    order = [3, 1, 2]
    fresh = Probe(loop)
    fresh.__class__ = Body
    second = inside(fresh, lambda: loop.run_until_complete(main()))
    assert first == second
    assert len(set(first.values())) == 3


def test_other_scopes_are_not_counted(loop: PerdureLoop, body: Body) -> None:
    loop.call_soon(lambda: None)
    loop.call_later(0, lambda: None)
    assert (body.active, body.timers) == (0, 0)
    spin(loop)
