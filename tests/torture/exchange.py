"""What programs exchange with the outside: messages, conditions, published values and streams.

`mails` names the messages that a sender outside of the run has to send, so that no receive of the program waits for
ever. `judge` checks P12 over all lives of a run, and what the store has kept at the end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any, NamedTuple

from tests.torture.meaning import Facts
from tests.torture.programs import LAST, Line, Node, box_name, condition_name, condition_value, has_limit, stream_items

import perdure
from perdure.core.ground.values import ANY
from perdure.core.run.mailbox import CONDITION
from perdure.errors import UsageError

RECEIVES = ("receive", "receive_in_thread")


class Mail(NamedTuple):
    """A message that comes from outside. A sender may send the message any number of times."""

    name: str
    """Of the mailbox or condition."""
    value: str
    signals: bool = False

    def send(self, run: perdure.Run) -> None:
        """Send the message from outside of a run."""
        if self.signals:
            run.signal(self.name, self.value)
        else:
            run.send(self.name, self.value, key=self.value)


class Cancel(NamedTuple):
    """The request to cancel a run."""

    def send(self, run: perdure.Run) -> None:
        """Ask from outside of the run."""
        with suppress(UsageError):  # the run has ended
            run.cancel("enough")


def mails(program: Node) -> list[Mail]:
    """One message for each receive that the program may execute, and a value for each condition."""
    wanted: Counter[str] = Counter()
    conditions: set[str] = set()

    def count(node: Node, times: int) -> None:
        if node.kind in RECEIVES:
            wanted[box_name(node)] += times
        if node.kind == "ask":
            conditions.add(condition_name(node))
        for kid in node.kids:
            count(kid, 3 * times if node.kind == "retry" else times)

    count(program, 1)
    rows = [[Mail(box, f"{box} {number}") for number in range(many)] for box, many in sorted(wanted.items())]
    rows += [[Mail(name, condition_value(name), signals=True)] for name in sorted(conditions)]
    # In turn, one of each, so that the senders of two boxes come into each other's way.
    longest = max(map(len, rows), default=0)
    return [row[place] for place in range(longest) for row in rows if place < len(row)]


def number_of(box: str, value: str) -> int | None:
    """The number of a message that came from outside to that mailbox; `None` for every other message."""
    name, _, number = value.partition(" ")
    return int(number) if name == box and number.isdigit() else None


# -- what the store keeps ------------------------------------------------------------------------------------------


class KeptMessage(NamedTuple):
    """A message in the store."""

    box: str
    value: str
    taken: bool


class KeptItem(NamedTuple):
    """An item of a stream in the store; the value `None` closes the stream."""

    stream: str
    attempt: int
    value: str | None


class Kept(NamedTuple):
    """What the store holds of a run that has ended, besides the journal."""

    messages: list[KeptMessage]
    published: dict[str, str]
    items: list[KeptItem]


def kept(store: Any, run: int) -> Kept:
    """Read what the store holds."""
    return Kept(
        [KeptMessage(one.box.partition(":")[2], ANY.decode(one.value), one.taken is not None)
         for one in store.all_messages(run) if not one.box.startswith(CONDITION)],
        {one.name: ANY.decode(one.value) for one in store.published(run)},
        [KeptItem(one.name, one.attempt, None if one.value is None else ANY.decode(one.value))
         for one in store.all_streamed(run)],
    )  # fmt: skip


def from_json(found: Any) -> Kept:
    """The reverse of `json.dumps`."""
    messages, published, items = found
    return Kept([KeptMessage(*one) for one in messages], published, [KeptItem(*one) for one in items])


# -- P12 -----------------------------------------------------------------------------------------------------------


def judge(facts: Sequence[Facts], left: Kept | None) -> Iterator[str]:
    """What is wrong with messages, published values and streams. `left`: what the store holds at the end."""
    if not facts:
        return
    receivers: dict[str, str] = {}
    for number, life in enumerate(facts):
        for line in _told(life, *RECEIVES):
            value = line.what.removeprefix("ok ")
            if not line.what.startswith("ok "):
                continue
            other = receivers.setdefault(value, line.name)
            if other != line.name:
                yield f"life {number}: {line.name} received {value!r}, which {other} had received"
            if box_name(life.nodes[line.name]) not in value:
                yield f"life {number}: {line.name} received {value!r}, which was sent to another mailbox"
        for line in _told(life, "ask"):
            value = condition_value(condition_name(life.nodes[line.name]))
            if line.what.startswith("ok ") and line.what != f"ok {value}":
                yield f"life {number}: {line.name} got {line.what}, where the condition has {value!r}"
        yield from _disorder(number, life)
    if left is not None:
        yield from _messages_left(facts, receivers, left)
        yield from _published(facts, left)
        yield from _streamed(facts, left)


def _told(life: Facts, *kinds: str) -> Iterator[Line]:
    for line in life.lines:
        if line.kind != "told" or line.name not in life.nodes or life.nodes[line.name].kind not in kinds:
            continue
        if line.body == line.name or not line.name.endswith(".c"):  # else the outcome of a child task, whose body it is
            yield line


def _strict_boxes(life: Facts) -> set[str]:
    """The mailboxes that no call leaves without a message."""
    receives = {path: node for path, node in life.nodes.items() if node.kind in RECEIVES}
    loose = {box_name(node) for path, node in receives.items() if has_limit(node) or life.may_be_cancelled(path)}
    return {box_name(node) for node in receives.values()} - loose


def _disorder(life_number: int, life: Facts) -> Iterator[str]:
    """Messages of the outside sender that came in another order than that of their commits."""
    for box in _strict_boxes(life):
        rows: dict[tuple[str, str], list[int]] = {}
        for line in _told(life, *RECEIVES):
            number = number_of(box, line.what.removeprefix("ok "))
            if number is not None:
                rows.setdefault((line.body, line.thread), []).append(number)
        for row in rows.values():
            if any(after < before for before, after in pairwise(row)):
                yield f"life {life_number}: the messages of {box} came in the order {row}"


def _is_below(path: str, above: str) -> bool:
    return path.startswith((f"{above}.", f"{above}r"))


def _messages_left(facts: Sequence[Facts], receivers: dict[str, str], left: Kept) -> Iterator[str]:
    values = Counter(message.value for message in left.messages)
    yield from (f"message {value!r} is {many} times in the store" for value, many in values.items() if many > 1)
    taken = {message.value for message in left.messages if message.taken}
    if missing := sorted(receivers.keys() - taken):
        yield f"{missing} were received, and are not marked as taken"
    last = facts[-1]
    # A call of a child task that has ended, and whose thread has not heard of the message when the process died, is not
    # made again. What a body leaves behind may receive after the end of the log.
    told: set[str] = set()
    for life in facts:
        end = next((place for place, line in enumerate(life.lines) if (line.kind, line.name) == ("told", LAST)), None)
        # Behind the end of the body, a call that was left behind is cancelled, even where the journal has its message.
        counted = set(life.lines[:end])
        told |= {line.name for line in _told(life, *RECEIVES) if line.what.startswith("ok ") or line in counted}
    entered = {path for life in facts for path in life.entered}
    behind = [path for path in last.entered if path not in last.left]
    open_calls = {
        path
        for path, node in last.nodes.items()
        if node.kind in RECEIVES
        and path not in told
        and (path in entered or any(_is_below(path, one) for one in behind))
    }
    lost = sorted(taken - receivers.keys())
    if len(lost) > len(open_calls):
        yield f"{lost} are marked as taken, and no receive was told of them"
    for box in _strict_boxes(last):
        numbers = sorted(number for value in taken if (number := number_of(box, value)) is not None)
        if numbers != list(range(len(numbers))):
            yield f"of {box} the messages {numbers} were taken"


def _published(facts: Sequence[Facts], left: Kept) -> Iterator[str]:
    told: dict[str, list[Line]] = {}
    entered: set[str] = set()
    for life in facts:
        entered |= life.entered.keys()
        for line in _told(life, "publish"):
            if line.what.startswith("ok"):
                told.setdefault(f"p{life.nodes[line.name].choice % 2}", []).append(line)
    for name, value in left.published.items():
        # What a body leaves behind may publish after the end of the log, so a node of the program is enough.
        node = facts[-1].nodes.get(value)
        if value not in entered and (node is None or node.kind != "publish"):
            yield f"{name} is published as {value!r}, which no life has published"
    for name, lines in told.items():
        if name not in left.published:
            yield f"{name} was published by {lines[-1].name}, and is not in the store"
        elif len({line.name for line in lines}) == 1 and left.published[name] != lines[-1].name:
            others = [p for p, n in facts[-1].nodes.items() if n.kind == "publish" and f"p{n.choice % 2}" == name]
            if len(others) == 1:
                yield f"{name} was published by {lines[-1].name}, and is {left.published[name]!r}"


def _streamed(facts: Sequence[Facts], left: Kept) -> Iterator[str]:
    rows: dict[str, list[KeptItem]] = {}
    for item in left.items:
        rows.setdefault(item.stream, []).append(item)
    for path, node in facts[-1].nodes.items():
        if node.kind not in ("stream", "stream_step"):
            continue
        whole: list[str | None] = [*stream_items(path, node), None]
        found = rows.get(path, [])
        attempt = max((item.attempt for item in found), default=0)
        last = [item.value for item in found if item.attempt == attempt]
        if node.kind == "stream" and attempt > 1:
            yield f"the body has begun stream {path} {attempt} times"
        if last != whole[: len(last)]:
            yield f"stream {path} has {last}, where the program writes {whole}"
        ended = any(life.outcomes.get(path, "").startswith("ok") for life in facts)
        if ended and last != whole and not any(_gave_up(life, path) for life in facts):
            yield f"stream {path} has ended with {last} instead of {whole}"


def _gave_up(life: Facts, path: str) -> bool:
    """Whether the node went on after an error of the store."""
    return any(what.startswith("gives up") for _, what in life.sees.get(path, []))
