"""Messages to runs: the same steps in every SQL dialect.

`send` works within a transaction of the caller, which excludes commits of the run: by SQLite's write lock, or by the
lock on the row of the run in Postgres. `sql` are the dialect's named statements.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from perdure.core.ground.model import (
    FINISHED,
    Action,
    Addressee,
    Message,
    NewMessage,
    OpenWait,
    Publication,
    RunRow,
    SendAnswer,
    Status,
    Streamed,
    Take,
    Unread,
)

from ._rows import run_of

Row = tuple[Any, ...]

_PAGE: Final = 500
_ALL: Final = (1 << 63) - 1


def accepts(run: RunRow) -> bool:
    """Whether the run takes messages."""
    return run.status not in FINISHED and run.status is not Status.MOVED


def send(cursor: Any, sql: Mapping[str, str], run: int, message: NewMessage, now: Sequence[int]) -> SendAnswer:
    """`Store.send`. `now`: the parameters of `wake_for_message` that say when a woken run is due."""
    row = cursor.execute(sql["receiver"], (run,)).fetchone()
    if row is None:
        return SendAnswer(None, False, None)
    receiver = run_of(row)
    box, key, value, at = message
    if key is not None:
        row = cursor.execute(sql["message_keyed"], (run, box, key)).fetchone()
        if row is not None:
            return SendAnswer(Message._make(row), False, None)
    if not accepts(receiver):
        return SendAnswer(None, False, receiver)
    [number] = cursor.execute(sql["last_message"], (run,)).fetchone()
    stored = Message(number + 1, box, key, value, at, None)
    cursor.execute(sql["insert_message"], (run, *stored))
    woken = cursor.execute(sql["wake_for_message"], (*now, run)).rowcount == 1
    return SendAnswer(stored, True, None, woken)


def by_box(rows: Sequence[Row]) -> dict[tuple[int, str], Message]:
    """The answer of `Store.news`: rows of a run and its message."""
    messages = [(run, Message._make(row)) for run, *row in rows]
    return {(run, message.box): message for run, message in messages}


def take_rows(run: int, takes: Sequence[Take]) -> list[Row]:
    """The parameters of `take_message` for the messages that a commit of the run takes or gives back."""
    return [(take.entry, take.entry, run, take.number) for take in takes]


def publish_rows(run: int, published: Sequence[Publication]) -> list[Row]:
    """The parameters of `publish` for the values that a run publishes."""
    return [(run, *one) for one in published]


def stream_rows(run: int, streamed: Sequence[Streamed]) -> list[Row]:
    """The parameters of `stream` for the items that a run writes."""
    return [(run, one.name, one.attempt, one.value, one.at, run, one.name) for one in streamed]


class ReadingMessages:
    """The reading verbs of the port `Messages`."""

    def _rows(self, name: str, row: Sequence[Any] = ()) -> list[Row]:
        """All rows of the named statement."""
        raise NotImplementedError

    def addressee(self, name: str, box: str) -> Addressee | None:
        rows = self._rows("addressee", (box, name))
        return Addressee(rows[0][0], bool(rows[0][1]), rows[0][2]) if rows else None

    def message(self, run: int, box: str, key: str) -> Message | None:
        rows = self._rows("message_keyed", (run, box, key))
        return Message._make(rows[0]) if rows else None

    def messages(self, run: int, box: str, *, above: int = 0, limit: int | None = None) -> list[Message]:
        most = _ALL if limit is None else limit
        return list(map(Message._make, self._rows("messages_of_box", (run, box, above, most))))

    def all_messages(self, run: int) -> Iterator[Message]:
        above = 0
        while page := list(map(Message._make, self._rows("messages", (run, above, _PAGE)))):
            yield from page
            above = page[-1].number

    def published(self, run: int) -> list[Publication]:
        return list(map(Publication._make, self._rows("published", (run,))))

    def streamed(
        self, run: int, name: str, *, above: int = 0, limit: int | None = None, size: int | None = None
    ) -> list[Streamed]:
        place = (run, name, above)
        most, bytes_ = _ALL if limit is None else limit, _ALL if size is None else size
        return list(map(Streamed._make, self._rows("streamed", (*place, *place, most, bytes_))))

    def last_streamed(self, run: int, name: str) -> Streamed | None:
        rows = self._rows("last_streamed", (run, name))
        return Streamed._make(rows[0]) if rows else None

    def all_streamed(self, run: int) -> Iterator[Streamed]:
        key: tuple[str, int] = ("", 0)
        while page := list(map(Streamed._make, self._rows("streamed_of_run", (run, *key, _PAGE)))):
            yield from page
            key = (page[-1].name, page[-1].number)

    def open_waits(self) -> list[OpenWait]:
        return [OpenWait(name, Action._make(action)) for name, *action in self._rows("open_waits")]

    def unread(self) -> list[Unread]:
        return list(map(Unread._make, self._rows("unread")))
