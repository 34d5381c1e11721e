"""Conditions and messages, on SQLite and on Postgres: who gets which, what is refused, what is kept.

P12, MS1, MS2, MS3.
"""

from __future__ import annotations

import asyncio
import enum
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.postgres_server import programs, server
from tests.waiting import PATIENCE, wait_for

import perdure
from perdure import errors, runtime
from perdure.api import messages, shapes
from perdure.core.ground.model import Kind, Status
from perdure.core.ground.values import ANY, INLINE_LIMIT
from perdure.extras import durable_sleep
from perdure.upkeep.moving import move

pytestmark = pytest.mark.filterwarnings("ignore::perdure.errors.PerdureWarning")

env = perdure.TaskEnvironment(name="messages")


class Mood(enum.Enum):
    GOOD = 1
    BAD = 2


@dataclass
class Decision:
    ok: bool
    mood: Mood = Mood.GOOD
    why: str = ""


@pytest.fixture(autouse=True, params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    if request.param == "postgres" and programs() is None:
        pytest.skip("no Postgres here")
    perdure.init(store=server().url() if request.param == "postgres" else tmp_path / "perdure.db")
    yield
    perdure.init()


class Driven:
    """A run that a thread drives."""

    def __init__(self, task: Any, *args: Any, name: str = "r") -> None:
        self._done = threading.Event()
        self.result: Any = None
        self._thread = threading.Thread(target=self._drive, args=(task, name, args))
        self._thread.start()
        self.run = wait_for(lambda: find(name))

    def _drive(self, task: Any, name: str, args: Any) -> None:
        try:
            self.result = perdure.with_runcontext(name=name).run(task, *args).result
        except BaseException as error:
            self.result = error
        self._done.set()

    def ended(self) -> Any:
        assert self._done.wait(PATIENCE)
        self._thread.join()
        return self.result

    def waits(self, count: int = 1) -> None:
        wait_for(lambda: len([one for one in messages.conditions() if one.waits]) == count)


def find(name: str) -> Any:
    try:
        return perdure.Run.get(name)
    except errors.RunNotFoundError:
        return None


@env.task
async def approval() -> Decision:
    condition = await perdure.new_condition.aio("approve", prompt="Refund 400 EUR?", data_type=Decision)
    found: Decision = await condition.wait.aio()
    return found


@env.task
async def mailbox(count: int) -> list[Any]:
    return [await perdure.receive.aio("box", int) for _ in range(count)]


@env.task
async def two_branches() -> list[Any]:
    async def branch() -> Any:
        return await perdure.receive.aio("box", int)

    first = asyncio.create_task(branch())
    await asyncio.sleep(0)
    second = asyncio.create_task(branch())
    return [await first, await second]


@env.task
async def cancels() -> list[Any]:
    found: list[Any] = []
    for _ in range(3):
        try:
            found.append(await asyncio.wait_for(perdure.receive.aio("box", int), 0.02))
        except TimeoutError:
            found.append("late")
    found.append(await perdure.receive.aio("box", int))
    return found


@env.task
async def times_out() -> list[Any]:
    found: list[Any] = []
    for timeout in (0.01, timedelta(milliseconds=10), 0):
        try:
            await perdure.receive.aio("box", int, timeout=timeout)
        except errors.MessageTimedoutError as error:
            found.append(isinstance(error, TimeoutError))
    return found


@env.task
async def sends(to: str, count: int) -> None:
    for number in range(count):
        await perdure.Run.get(to).send.aio("box", number)
    perdure.Run.get(to).send("box", 99)


def test_a_condition_has_the_value_of_the_first_signal() -> None:
    driven = Driven(approval)
    driven.waits()
    assert driven.run.status == Status.WAITING
    driven.run.signal("approve", Decision(True, Mood.BAD, "fine"))
    assert driven.ended() == Decision(True, Mood.BAD, "fine")
    driven.run.signal("approve", Decision(True, Mood.BAD, "fine"))
    with pytest.raises(errors.AlreadySignalledError, match=r"'approve': .*'fine'.* and not .*the first value counts"):
        driven.run.signal("approve", Decision(False))


def test_a_signal_before_the_run_waits_is_kept() -> None:
    run = perdure.with_runcontext(name="r").submit(approval)
    run.signal("approve", {"ok": True, "mood": "BAD", "why": ""})
    assert perdure.with_runcontext(name="r").run(approval).result == Decision(True, Mood.BAD)


def test_messages_are_received_in_the_order_of_sending() -> None:
    driven = Driven(mailbox, 6)
    for number in range(3):
        driven.run.send("box", number)
    driven.waits()
    for number in range(3, 6):
        driven.run.send("box", number)
    assert driven.ended() == [0, 1, 2, 3, 4, 5]


def test_two_sends_with_one_key_are_one_message() -> None:
    run = perdure.with_runcontext(name="r").submit(mailbox, 2)
    for _ in range(3):
        run.send("box", 1, key="evt-77")
    run.send("box", 2, key="evt-78")
    with pytest.raises(errors.AlreadySignalledError, match=r"key 'evt-77'.*another message needs another key"):
        run.send("box", 3, key="evt-77")
    assert perdure.with_runcontext(name="r").run(mailbox, 2).result == [1, 2]
    run.send("box", 1, key="evt-77")


def test_of_two_branches_the_one_that_waited_first_gets_the_first_message() -> None:
    driven = Driven(two_branches)
    driven.waits(2)
    driven.run.send("box", 1)
    driven.run.send("box", 2)
    assert driven.ended() == [1, 2]


def test_a_receive_that_is_cancelled_takes_no_message() -> None:
    driven = Driven(cancels)
    wait_for(lambda: driven.run.row.status == Status.RUNNING)
    time.sleep(0.03)
    for number in range(4):
        driven.run.send("box", number)
    found = driven.ended()
    assert [one for one in found if one != "late"] == list(range(len([one for one in found if one != "late"])))


heard: list[int] = []


@env.task
async def listens(ends: bool) -> None:
    async def listen() -> None:
        heard.append(await perdure.receive.aio("box", int))

    left = asyncio.create_task(listen())
    await asyncio.sleep(0)
    if not ends:
        await asyncio.wait([left])
        await durable_sleep.aio(60)


@env.task
def listens_in_thread() -> None:
    heard.append(perdure.receive("box", int))


@env.task(timeout=0.02)
async def listens_for_a_while() -> None:
    await asyncio.gather(listens(False), durable_sleep.aio(60))


@env.task
async def ends_children(how: str, count: int) -> list[int]:
    """In rounds: a message comes, and a child that may hear of it is cancelled, ends, or runs out of time."""
    for number in range(count):
        child = asyncio.create_task(
            listens_for_a_while()
            if how == "timeout"
            else listens_in_thread.aio()
            if how == "thread"
            else listens(how == "ends")
        )
        for _ in range(number // 2 % 7):
            await asyncio.sleep(0)
        # A later child hears of the message where this one does not.
        await perdure.Run.get("r").send.aio("box", number)
        for _ in range(number % 9):
            await asyncio.sleep(0)
        if how in ("cancel", "thread"):
            child.cancel()
        with suppress(asyncio.CancelledError, errors.TaskTimeoutError):
            await child
    rest: list[int] = []
    with suppress(errors.MessageTimedoutError):
        while True:
            rest.append(await perdure.receive.aio("box", int, timeout=0))
    return rest


@pytest.mark.parametrize("how", ["cancel", "ends", "timeout", "thread"])
def test_a_message_is_heard_once_however_a_child_ends(how: str) -> None:
    """MS3: what is recorded in a child whose code never hears of it is given back.

    The family: a receive at work in a child that its caller cancels, that ends and leaves the receive behind, or that
    runs out of time, on the loop and in a thread; the message comes before, at and after the end."""
    heard.clear()
    count = 12 if how == "timeout" else 60
    rest = perdure.with_runcontext(name="r").run(ends_children, how, count).result
    wait_for(lambda: sorted(heard + rest) == list(range(count)))


def test_a_receive_gives_up_after_its_timeout() -> None:
    assert perdure.run(times_out).result == [True, True, True]


def test_a_send_in_the_body_of_another_run_is_recorded_and_sent_once() -> None:
    receiver = perdure.with_runcontext(name="receiver").submit(mailbox, 4)
    sender = perdure.run(sends, "receiver", 3)
    worker = runtime.worker()
    store: Any = worker.store
    assert len(list(store.all_messages(receiver.row.id))) == 4
    again = perdure.with_runcontext(name=sender.name).run(sends, "receiver", 3)
    assert again.status == Status.SUCCEEDED
    assert len(list(store.all_messages(receiver.row.id))) == 4
    assert perdure.with_runcontext(name="receiver").run(mailbox, 4).result == [0, 1, 2, 99]


@env.task
async def cleans_up() -> list[str]:
    try:
        await perdure.receive.aio("box", int)
    except asyncio.CancelledError:
        await noted.aio("cleaned up")
        raise
    return []


noted_words: list[str] = []


@perdure.trace
def noted(word: str) -> str:
    noted_words.append(word)
    return word


def test_a_cancelled_run_stops_waiting_and_cleans_up() -> None:
    noted_words.clear()
    driven = Driven(cleans_up)
    driven.waits()
    driven.run.cancel()
    assert isinstance(driven.ended(), errors.PerdureError)
    assert driven.run.status == Status.CANCELLED
    assert noted_words == ["cleaned up"]
    with pytest.raises(errors.RunEndedError, match=r"has ended .CANCELLED."):
        driven.run.send("box", 1)


# -- refusals --------------------------------------------------------------------------------------------------


def test_a_value_that_does_not_fit_is_refused_before_anything_is_written() -> None:
    driven = Driven(approval)
    driven.waits()
    for misfit in ("yes", {"ok": "yes"}, {"mood": "GOOD"}, {"ok": True, "mood": "UGLY"}):
        with pytest.raises(
            errors.ValueMismatchError, match=r"condition 'approve' of run 'r' takes `.*Decision`.*, and not"
        ):
            driven.run.signal("approve", misfit)
    assert list(runtime.worker().store.all_messages(driven.run.row.id)) == []
    driven.run.signal("approve", {"ok": True})
    assert driven.ended() == Decision(True)


def test_a_value_over_the_limit_is_refused() -> None:
    run = perdure.with_runcontext(name="r").submit(mailbox, 1)
    with pytest.raises(errors.ValueTooLargeError, match="the message for mailbox 'box'"):
        run.send("box", b"x" * (INLINE_LIMIT + 1))
    assert list(runtime.worker().store.all_messages(run.row.id)) == []


def test_a_run_that_is_over_takes_no_messages(tmp_path: Path) -> None:
    run = perdure.with_runcontext(name="r").submit(mailbox, 1)
    run.send("box", 1)
    assert perdure.with_runcontext(name="r").run(mailbox, 1).result == [1]
    with pytest.raises(errors.RunEndedError, match=r"run 'r' has ended .SUCCEEDED. and takes no more messages"):
        run.send("box", 2)
    moved = perdure.with_runcontext(name="moved").submit(mailbox, 1)
    moved.send("box", 7)
    move(runtime.store_url(), str(tmp_path / "other.db"))
    with pytest.raises(errors.RunMovedError, match="was moved to"):
        moved.send("box", 2)
    perdure.init(store=tmp_path / "other.db")
    assert perdure.with_runcontext(name="moved").run(mailbox, 1).result == [7]


def test_a_message_to_an_unknown_run_names_the_remedy() -> None:
    run = perdure.with_runcontext(name="r").submit(mailbox, 1)
    run._row = run._row._replace(name="stranger")
    with pytest.raises(errors.RunNotFoundError, match=r"no run is called 'stranger'.*perdure ls"):
        run.send("box", 1)


@pytest.mark.parametrize("name", ["", 7, "x" * 300])
def test_a_wrong_name_is_refused(name: Any) -> None:
    run = perdure.with_runcontext(name="r").submit(mailbox, 1)
    with pytest.raises(errors.UsageError, match="needs a name of 1 to 200 characters"):
        run.send(name, 1)
    with pytest.raises(errors.UsageError, match="needs a name of 1 to 200 characters"):
        perdure.new_condition(name)


def test_waiting_outside_of_a_body_is_refused() -> None:
    with pytest.raises(errors.UsageError, match="outside of a run"):
        perdure.receive("box", int)
    with pytest.raises(errors.UsageError, match="outside of a run"):
        perdure.new_condition("approve").wait()

    @perdure.trace
    async def inside() -> None:
        await perdure.receive.aio("box", int)

    async def body() -> None:
        await inside()

    with pytest.raises(errors.InsideTraceError, match="inside trace"):
        perdure.run(env.task(body))


@pytest.mark.parametrize(
    ("tp", "value"),
    [(tuple[int, str], (1, "a")), (set[int], {1}), (dict[str, tuple[int, ...]], {"a": (1, 2)}), (list[Decision], [])],
)
def test_a_value_sent_without_a_type_is_received_under_the_declared_type(tp: Any, value: Any) -> None:
    run = perdure.with_runcontext(name="r").submit(typed)
    run.send("box", value)
    declared.append(tp)
    assert perdure.with_runcontext(name="r").run(typed).result == repr(value)
    declared.clear()


declared: list[Any] = []


@env.task
async def typed() -> Any:
    return repr(await perdure.receive.aio("box", declared[0]))


# -- looking ---------------------------------------------------------------------------------------------------


def test_conditions_show_who_waits_and_what_no_call_has_asked_for() -> None:
    driven = Driven(approval)
    driven.waits()
    driven.run.send("forgotten", 1)
    driven.run.send("forgotten", 2)
    waiting, unread = messages.conditions()
    assert (waiting.run, waiting.kind, waiting.name) == ("r", "condition", "approve")
    assert (waiting.prompt, waiting.until, waiting.waits) == ("Refund 400 EUR?", None, True)
    assert waiting.type.endswith("Decision")
    assert (unread.kind, unread.name, unread.unread, unread.waits) == ("mailbox", "forgotten", 2, False)
    driven.run.signal("approve", Decision(True))
    driven.ended()
    assert messages.conditions() == []


def test_many_messages_to_one_run_take_a_time_in_proportion_to_their_number() -> None:
    """The first and the last of many messages are sent and received equally fast, give or take a busy machine."""
    run = perdure.with_runcontext(name="r").submit(mailbox, 600)
    store: Any = runtime.worker().store
    row = run.row
    took = []
    for _ in range(4):
        began = time.process_time()
        for number in range(150):
            messages.deliver(row.name, "mailbox:box", ANY.encode(number), None)
        took.append(time.process_time() - began)
    assert took[3] < 4 * took[0] + 0.1
    assert perdure.with_runcontext(name="r").run(mailbox, 600).result == list(range(150)) * 4
    assert store.messages(row.id, "mailbox:box") == []


def test_each_kind_of_wait_has_a_kind_of_its_own_in_the_journal() -> None:
    from tests.journals import recorded

    run = perdure.with_runcontext(name="r").submit(mailbox, 1)
    run.send("box", 5)
    perdure.with_runcontext(name="r").run(mailbox, 1)
    [entry] = recorded(runtime.worker().store, run.row)
    assert (entry.kind, entry.name) == (Kind.RECEIVE, "mailbox:box")
    [message] = runtime.worker().store.all_messages(run.row.id)
    assert message.taken == entry.n


@pytest.mark.parametrize(
    ("tp", "text"),
    [
        (bool, "bool"),
        (int | None, "int | None"),
        (list[Mood], "list[GOOD | BAD]"),
        (dict[str, tuple[int, ...]], "dict[tuple[int, ...]]"),
        (Decision, '{"ok": bool, "mood": GOOD | BAD (optional), "why": str (optional)}'),
    ],
)
def test_the_type_of_a_message_is_described_for_senders(tp: Any, text: str) -> None:
    assert shapes.text_of(shapes.shape_of(tp)) == text


@pytest.mark.parametrize("data", [None, [], 7, ["record"], ["record", "x", 7], ["union"], ["literal"], [["list"]], {}])
def test_a_description_that_is_damaged_says_nothing_about_the_type(data: Any) -> None:
    assert shapes.type_of(data) is Any or data == ["record", "x", 7]
    assert isinstance(shapes.text_of(data), str)
