"""News that a thread has read while other threads gave messages to calls, or took them back (P12, MS1, MS2)."""

from __future__ import annotations

from typing import Any, cast

import pytest

from perdure.core.ground.model import Message
from perdure.core.run.mailbox import Mailbox

ORDERS = "mailbox:orders"


def message(number: int, box: str = ORDERS) -> Message:
    return Message(number, box, None, b"v", 1, None)


class Rows:
    """The untaken messages of one run."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = list(numbers)
        self.reads = 0

    def messages(self, run: int, box: str, *, above: int = 0, limit: int | None = None) -> list[Message]:
        self.reads += 1
        return [message(number, box) for number in self.numbers if number > above][:limit]

    def message(self, run: int, box: str, key: str) -> Message | None:
        return None


class Deaf:
    def attend(self, mailbox: Any) -> None: ...

    def forget(self, mailbox: Any) -> None: ...


class Waits:
    """A call that waits."""

    def __init__(self, action: int, box: str = ORDERS) -> None:
        self.box = box
        self.action = action
        self.message: Message | None = None

    def deliver(self, found: Message) -> None:
        self.message = found

    @property
    def number(self) -> int | None:
        return None if self.message is None else self.message.number


def made(rows: Rows) -> Mailbox:
    return Mailbox(1, cast(Any, rows), Deaf(), cast(Any, None), {})


def test_news_go_to_the_first_call_without_another_look() -> None:
    rows = Rows()
    mailbox, first, second = made(rows), Waits(1), Waits(2)
    mailbox.enter(second)
    mailbox.enter(first)
    moves, [wanted] = mailbox.wanted()
    assert wanted == (1, ORDERS, 0)
    rows.numbers.append(1)
    mailbox.leave(second)
    reads = rows.reads
    mailbox.arrived(message(1), moves)
    assert (first.number, second.number, rows.reads) == (1, None, reads)


@pytest.mark.parametrize("recorded", [False, True], ids=["given", "recorded"])
def test_news_that_are_out_of_date_are_read_again(recorded: bool) -> None:
    """A message that another call has is not given twice, before its entry is on disk or after. The family: what
    happens between the reading of the news and their arrival."""
    rows = Rows()
    mailbox, first, second = made(rows), Waits(1), Waits(2)
    mailbox.enter(first)
    moves, _ = mailbox.wanted()
    rows.numbers += [1, 2]
    mailbox.look([ORDERS])
    assert first.number == 1
    mailbox.leave(first)
    if recorded:
        rows.numbers.remove(1)
        mailbox.taken(1)
    mailbox.enter(second)
    assert second.number == 2
    third = Waits(3)
    mailbox.enter(third)
    mailbox.arrived(message(1), moves)
    assert third.number is None


def test_news_behind_a_message_that_was_given_back_wait() -> None:
    """MS2: the earlier message comes first, although the later one was read before."""
    rows = Rows(1)
    mailbox, first, second = made(rows), Waits(1), Waits(2)
    mailbox.enter(first)
    moves, [wanted] = mailbox.wanted()
    assert wanted.above == 1
    rows.numbers.append(2)
    mailbox.leave(first)
    mailbox.put_back(1)
    # Too early for the call to have read the store.
    mailbox._waits[ORDERS].append(second)
    mailbox.arrived(message(2), moves)
    assert second.number == 1


def test_a_signal_goes_to_all_that_wait() -> None:
    mailbox, calls = made(Rows()), [Waits(number, "condition:go") for number in (1, 2)]
    for call in calls:
        mailbox.enter(call)
    moves, _ = mailbox.wanted()
    mailbox.arrived(message(1, "condition:go"), moves)
    assert [call.number for call in calls] == [1, 1]
