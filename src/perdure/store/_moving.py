"""Runs that leave for another store or come from another store: the same steps in every SQL dialect.

Each function works within a transaction of the caller. `sql` are the dialect's named statements.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from perdure.core.ground.model import Created, RunRow, Status, Wake, WholeRun

from ._messages import publish_rows, stream_rows
from ._rows import MOVABLE, adopted, comes_back, run_of, unmoved

_CHUNK: Final = 1000


class Cursor(Protocol):
    """The common methods of the cursors of `sqlite3` and psycopg."""

    def execute(self, sql: str, row: Sequence[Any], /) -> Any: ...

    def executemany(self, sql: str, rows: Sequence[Sequence[Any]], /) -> Any: ...


def move(cursor: Cursor, sql: Mapping[str, str], runs: Sequence[int], to: str) -> list[RunRow | None]:
    """`Store.move`."""
    # Sorted by number: a fixed lock order avoids deadlocks.
    found = {number: _move(cursor, sql, number, to) for number in sorted(set(runs))}
    return [found[number] for number in runs]


def _move(cursor: Cursor, sql: Mapping[str, str], number: int, to: str) -> RunRow | None:
    row = cursor.execute(sql["movable"], (number,)).fetchone()
    if row is None:
        return None
    run = run_of(row)
    if run.status is Status.MOVED:
        return unmoved(run) if run.worker == to and run.token is None else None
    if run.status not in MOVABLE:
        return None
    cursor.execute(sql["move"], (to, number))
    # The tickets of the run stay here: in the other store the run asks again.
    waits = cursor.execute(sql["waits_parked"], (number,)).fetchone() is not None
    return run._replace(wake_at=run.created_at) if waits and run.wake_at is not None else run


def arrived(cursor: Cursor, sql: Mapping[str, str], runs: Sequence[int], store: str) -> None:
    """`Store.arrived`."""
    # Sorted by number: a fixed lock order avoids deadlocks.
    cursor.executemany(sql["arrived"], [(store.encode(), number) for number in sorted(set(runs))])


def take_back(cursor: Cursor, sql: Mapping[str, str], number: int, wake: Callable[[int], int]) -> bool:
    """`Store.take_back`. `wake` maps a wall time to a value of the wake-time index."""
    row = cursor.execute(sql["movable"], (number,)).fetchone()
    run = None if row is None else run_of(row)
    if run is None or run.status is not Status.MOVED:
        return False
    due = None if run.wake_at is None else wake(run.wake_at)
    cursor.execute(sql["take_back"], (str(unmoved(run).status), due, number))
    return True


def adopt(
    cursor: Cursor, sql: Mapping[str, str], runs: Sequence[WholeRun], wake: Callable[[Wake], int]
) -> list[Created]:
    """`Store.adopt`. `wake` maps a wake time to a value of the wake-time index."""
    return [_adopt(cursor, sql, whole, None if whole.due is None else wake(whole.due)) for whole in runs]


def _adopt(cursor: Cursor, sql: Mapping[str, str], whole: WholeRun, due: int | None) -> Created:
    run = adopted(whole.run, whole.due)
    values = (
        *run[1:9], str(run.status), run.started_at, run.ended_at, run.result, run.value, run.crashes, run.mark,
        run.wake_at, run.cancel, run.cancel_until, run.tags, run.paused, run.queue, run.key, run.priority, run.carried,
        due,
    )  # fmt: skip
    if _is_gone(cursor, sql, run):
        return Created(run, False)
    row = None
    while row is None:
        # The name is looked up first, since a conflict would use up a number.
        found = cursor.execute(sql["run_by_name"], (run.name,)).fetchone()
        if found is not None:
            there = run_of(found)
            if not comes_back(run, there):
                return Created(there, False)
            cursor.execute(sql["remove"], (there.id,))
        row = cursor.execute(sql["adopt_run"], values).fetchone()
    number = row[0]
    _insert(cursor, sql["insert_action"], [(number, *action[1:]) for action in whole.actions])
    _insert(cursor, sql["insert_segment"], [(number, segment.number, segment.data) for segment in whole.segments])
    _insert(cursor, sql["end_action"], [(int(end.ended), number, end.parent, end.action) for end in whole.ended])
    _insert(cursor, sql["note_source"], [(number, source) for source in whole.sources])
    _insert(cursor, sql["insert_message"], [(number, *message) for message in whole.messages])
    _insert(cursor, sql["publish"], publish_rows(number, whole.published))
    _insert(cursor, sql["stream"], stream_rows(number, whole.streamed))
    cursor.execute(sql["note_adopted"], (run.uid,))
    return Created(run._replace(id=number), True)


def _is_gone(cursor: Cursor, sql: Mapping[str, str], run: RunRow) -> bool:
    """Whether the run has come here before and has been removed since."""
    if cursor.execute(sql["was_adopted"], (run.uid,)).fetchone() is None:
        return False
    row = cursor.execute(sql["run_by_name"], (run.name,)).fetchone()
    return row is None or run_of(row).uid != run.uid


def _insert(cursor: Cursor, sql: str, rows: Sequence[tuple[Any, ...]]) -> None:
    for first in range(0, len(rows), _CHUNK):
        cursor.executemany(sql, rows[first : first + _CHUNK])
