"""The two ends of a child's socket, without a child."""

from __future__ import annotations

import os
import socket
import threading
import traceback
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from perdure.core.run.attached import Attachments
from perdure.core.run.driver import Driver as RunDriver
from perdure.core.run.gate import Gate
from perdure.core.run.interfaces import Report
from perdure.core.run.remote_body import StandIn
from perdure.errors import RunStopped
from perdure.executors import _frames as frames
from perdure.executors._inner.driver import InnerDriver
from perdure.executors._inner.store import Connection
from perdure.executors._session import BodySession
from perdure.executors._tracebacks import frames_of, with_frames

Ends = tuple[frames.Channel, frames.Channel]


@pytest.fixture
def ends() -> Iterator[Ends]:
    one, two = socket.socketpair()
    outer, inner = frames.Channel(one, frames.ToParent), frames.Channel(two, frames.ToChild)
    yield outer, inner
    outer.close()
    inner.close()


def test_frames_arrive_whole_and_in_order(ends: Ends) -> None:
    outer, inner = ends
    big = frames.BodyEnded(0, os.urandom(3 * 2**20), False, 0.0, [], [], 0, 0, True, False)

    def send() -> None:
        inner.send(frames.Begun())
        inner.send(big)
        inner.send(frames.Idle(True))

    sender = threading.Thread(target=send)
    sender.start()
    assert [outer.receive(5) for _ in range(3)] == [frames.Begun(), big, frames.Idle(True)]
    sender.join(5)


def test_sending_never_waits_for_the_other_end(ends: Ends) -> None:
    outer, inner = ends
    count = 50_000
    for number in range(count):
        outer.send(frames.Free(number, True))
    assert [inner.receive(5).report for _ in range(count)] == list(range(count))


def test_receiving_from_a_closed_end_raises_closed(ends: Ends) -> None:
    outer, inner = ends
    with pytest.raises(TimeoutError):
        outer.receive(0.01)
    inner.send(frames.Begun())
    inner.close()
    assert outer.receive() == frames.Begun()
    with pytest.raises(frames.Closed):
        outer.receive()
    outer.send(frames.Free(0, True))


def test_a_traceback_is_rebuilt_with_its_files_lines_and_names() -> None:
    def fails() -> None:
        raise KeyError("far away")

    with pytest.raises(KeyError) as caught:
        fails()
    found = frames_of(caught.value)
    text = "".join(traceback.format_exception(with_frames(KeyError("far away"), found)))
    assert 'raise KeyError("far away")' in text
    assert "in fails" in text
    assert [name for _, _, name in found] == [frame.f_code.co_name for frame, _ in
                                              traceback.walk_tb(caught.value.__traceback__)]  # fmt: skip


class Driver:
    """As much of one as a session needs."""

    def __init__(self) -> None:
        self.outbox: list[Any] = []
        self.gate = Gate(lambda: None)
        self.attached = Attachments()
        self.stopping = False
        self.free = True
        self.checked = 0
        self.worker = SimpleNamespace(writer=SimpleNamespace(through=lambda driver, rows: None))
        self.mailbox = SimpleNamespace(leave=lambda wait: None)

    def stopped_error(self) -> BaseException:
        return RuntimeError("stopped")

    def check_stuck(self) -> None:
        self.checked += 1


class Pool:
    """Likewise."""

    def submit(self, session: BodySession) -> None: ...

    def left(self, session: BodySession) -> None: ...

    def waits(self, session: BodySession, waits: bool) -> None: ...


@pytest.fixture
def session() -> BodySession:
    driver: Any = Driver()
    pool: Any = Pool()
    body = StandIn(driver, 1, "task", SimpleNamespace(soon=lambda *_: None), floor=0, label=None)  # type: ignore[arg-type]
    return BodySession(pool, body, SimpleNamespace(timeout=None), None, b"", 1, 0, False)  # type: ignore[arg-type]


def test_nothing_is_written_for_a_stand_in_that_is_closed(session: BodySession) -> None:
    """E3: a frame that arrives, or is being handled, when the body is closed."""
    session._begin()
    commit = frames.Commit(1, *([] for _ in frames.Commit.__struct_fields__[1:]))  # type: ignore[arg-type]
    session.handle(commit)
    driver: Any = session.body.driver
    assert len(driver.outbox) == 1
    session.body.close()
    session.handle(commit)
    session._commit(commit)  # one that was being handled at that moment
    assert len(driver.outbox) == 1


def test_a_stand_in_is_quiet_only_while_nothing_is_on_its_way(session: BodySession) -> None:
    """E5."""
    body, driver = session.body, session.body.driver
    session._child = SimpleNamespace(channel=SimpleNamespace(send=lambda frame: None))  # type: ignore[assignment]
    assert not body.quiet()
    session.handle(frames.Quiet(0, [1, 5], 0, [], [], False))
    assert body.quiet()
    assert body.stands_for() == {1, 5}
    assert driver.checked == 1  # type: ignore[attr-defined]
    session._tell()
    assert not body.quiet()
    session.handle(frames.Quiet(0, [1, 5], 0, [], [], False))
    assert not body.quiet(), "as of before that word"
    session.handle(frames.Quiet(1, [1, 5], 0, [], [], False))
    assert body.quiet()
    session.handle(frames.Idle(True))
    assert body.report is None
    body.report = Report([1], 2, [7], [], False)
    assert body.idle_replaying
    assert not body.awaits_cancellation()


def test_no_process_may_start_new_calls_while_driving_ends() -> None:
    """P5: bodies are closed in turn, here and in children, and an outcome for the first body held the others back."""
    driver = RunDriver(
        SimpleNamespace(store=None, post=None),  # type: ignore[arg-type]
        SimpleNamespace(token=b"", id=1, uid=b"", name="r", target="f::m::t", cancel=None, cancel_until=None),  # type: ignore[arg-type]
        SimpleNamespace(target=lambda: "f::m::t"),  # type: ignore[arg-type]
        SimpleNamespace(soon=lambda *_: None),  # type: ignore[arg-type]
        fresh=False,
    )
    told: list[bool] = []
    driver.gate.change((1, 2), (), lambda: told.append(driver.free))
    driver.gate.change((), (1,), lambda: told.append(driver.free))
    driver.stop(RuntimeError("a mismatch, say"))
    driver.gate.change((), (2,), lambda: told.append(driver.free))
    assert told == [False, False, False]


def test_a_frame_before_the_journal_is_loaded_allows_no_new_calls(ends: Ends) -> None:
    """E4: outcomes that have yet to be loaded are not reported as handed over."""
    outer, inner = ends
    driver = InnerDriver(
        SimpleNamespace(),  # type: ignore[arg-type]
        Connection(inner),
        SimpleNamespace(  # type: ignore[arg-type]
            run=SimpleNamespace(token=b"", id=1, uid=b"", name="r", target="f::m::t", cancel=None, cancel_until=None),
            fresh=False,
            undrained=[1],
            accepts=False,
            cancel=None,
        ),
        SimpleNamespace(target=lambda: "f::m::t"),  # type: ignore[arg-type]
        SimpleNamespace(),  # type: ignore[arg-type]
    )
    driver.heard(frames.Free(0, False))
    with pytest.raises(TimeoutError):
        outer.receive(0.1)
    driver.drained(1)
    assert outer.receive(5) == frames.Undrained(1, [], [1])


def test_a_thread_left_behind_sends_no_frames_in_the_turn_of_the_next_body(ends: Ends) -> None:
    outer, inner = ends
    connection = Connection(inner)
    first = connection.next_turn()
    assert connection.tell(frames.Idle(True), first)
    end = frames.BodyEnded(0, b"", False, 0.0, [], [], 0, 0, True, False)
    connection.next_turn(end)
    assert not connection.tell(frames.Idle(False), first)
    connection.next_turn()
    with pytest.raises(RunStopped):
        connection.ask(frames.NextAction, int, first)
    connection.tell(frames.Begun())
    assert [outer.receive(5) for _ in range(3)] == [frames.Idle(True), end, frames.Begun()]


def test_a_session_that_is_given_up_before_it_has_a_child_needs_none(session: BodySession) -> None:
    session._begin()
    session.body.close()
    assert not session.assigned(SimpleNamespace())  # type: ignore[arg-type]
    assert session.body.gate.listeners == []
