"""Reading verbs of `Store` that differ between SQL dialects in the statements alone."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from perdure.core.ground.model import Action, CachePut, QueueLoad, QueueRow, RunRow, ScheduleRow, Segment, Status
from perdure.errors import RowDamagedError

from ._messages import ReadingMessages
from ._rows import run_of

log = logging.getLogger("perdure")

Row = tuple[Any, ...]

PAGE: Final = 2_000
_CHUNK: Final = 50
_PAGE_BYTES: Final = 16 << 20
"""Approximate size of a page: the size of the rows in a page decides the number of rows in the next page."""
_NUMBERS: Final = 500
_ALL: Final = (1 << 63) - 1


class Reading(ReadingMessages):
    """See the module text."""

    _sql: Mapping[str, str]
    """The named statements of the dialect."""

    def _read(self, sql: str, row: Sequence[Any]) -> list[Row]:
        """All rows of a statement, on the connection for reading."""
        raise NotImplementedError

    def _rows(self, name: str, row: Sequence[Any] = ()) -> list[Row]:
        """All rows of the named statement."""
        return self._read(self._sql[name], row)

    def _list(self, values: Collection[int]) -> Any:
        """Numbers as one parameter of a statement."""
        raise NotImplementedError

    def _good(self, sql: str, row: Sequence[Any] = ()) -> list[Row]:
        """The rows of a list: a damaged row is logged and left out, because other runs and workers must go on."""
        try:
            return self._read(sql, row)
        except RowDamagedError as error:
            log.error("%s", error)
            return error.good

    def run(self, name: str) -> RunRow | None:
        rows = self._rows("run_by_name", (name,))
        return run_of(rows[0]) if rows else None

    def run_by_id(self, run: int) -> RunRow | None:
        rows = self._rows("run_by_id", (run,))
        return run_of(rows[0]) if rows else None

    def runs(
        self,
        *,
        limit: int | None = None,
        statuses: Collection[Status] | None = None,
        below: int | None = None,
        task: str | None = None,
    ) -> list[RunRow]:
        of, only = ("", ()) if task is None else ("_of_task", (task,))
        most = (*only, _ALL if below is None else below, _ALL if limit is None else limit)
        if statuses is None:
            return list(map(run_of, self._good(self._sql[f"runs_all{of}"], most)))
        arms: list[tuple[str, Row]] = []
        for status in set(statuses):
            if status is Status.RUNNING:
                arms.append((f"runs_running{of}", most))
            elif status is Status.SUCCEEDED:
                arms.append((f"runs_succeeded{of}", most))
            else:
                arms.append((f"runs_rare{of}", (status, *most)))
        if not arms:
            return []
        # One statement reads one snapshot. Between two statements a run could change status and be missed by both.
        statement = " UNION ALL ".join(f"SELECT * FROM ({self._sql[name]}) AS part" for name, _ in arms)
        found = list(map(run_of, self._good(statement, [value for _, row in arms for value in row])))
        found.sort(key=lambda run: run.id, reverse=True)
        return found[:limit]

    def counts(self) -> dict[Status, int]:
        return {Status(status): count for status, count in self._rows("counts")}

    def similar(self, task: str, inputs_hash: bytes) -> list[RunRow]:
        return [run_of(row) for row in self._good(self._sql["similar"], (task, inputs_hash))]

    def journal_length(self, run: int) -> int:
        length: int = self._rows("journal_length", (run,))[0][0]
        return length

    def last_action(self, run: int) -> int:
        number: int = self._rows("last_action", (run,))[0][0]
        return number

    def segments(self, run: int, numbers: Collection[int] | None = None) -> Iterator[Segment]:
        if numbers is None:
            # By pages, because an open read transaction would keep SQLite from resetting the WAL.
            for _, number, data in self._pages("segments_of_run", (run, 0)):
                yield Segment(number, data)
            return
        wanted = sorted(numbers)
        for first in range(0, len(wanted), _NUMBERS):
            some = self._list(wanted[first : first + _NUMBERS])
            for _, number, data in self._rows("segments_numbered", (run, some)):
                yield Segment(number, data)

    def actions(self, run: int, parent: int | None = None) -> list[Action]:
        if parent is None:
            return list(map(Action._make, self._rows("actions_of_run", (run,))))
        return list(map(Action._make, self._rows("actions_of_parent", (run, parent))))

    def start_by(self, run: int) -> int | None:
        found = self._rows("start_by", (run,))
        return found[0][0] if found else None

    def open_actions(self, run: int) -> list[Action]:
        return list(map(Action._make, self._rows("open_actions", (run,))))

    def cache_get(self, key: bytes) -> bytes | None:
        rows = self._rows("cache_get", (key,))
        return rows[0][0] if rows else None

    def uids(self) -> set[bytes]:
        return {uid for (uid,) in self._rows("uids")}

    def claimed_since(self) -> dict[str, int]:
        return dict(self._rows("claimed_since"))

    def stored(self, skip: Collection[int] = ()) -> Iterator[bytes]:
        for run, *values in self._pages("stored_runs", (0,)):
            if run not in skip:
                yield from filter(None, values)
        for name, start in (
            ("stored_segments", (0, 0)),
            ("stored_actions", (0, -2, -1)),
            ("stored_messages", (0, 0)),
            ("stored_published", (0, "")),
            ("stored_streamed", (0, "", 0)),
        ):
            for run, *columns in self._pages(name, start):
                if run not in skip:
                    yield from filter(None, columns[len(start) - 1 :])
        for _, value in self._pages("stored_cache", (b"",)):
            yield value

    def _pages(self, name: str, start: Row) -> Iterator[Row]:
        """A query by pages. The first columns are the key; each page begins behind the key of the last row before."""
        key, size = start, _CHUNK
        while page := self._rows(name, (*key, size)):
            yield from page
            key = page[-1][: len(key)]
            held = sum(len(value) for row in page for value in row if value.__class__ is bytes)
            size = max(1, min(PAGE, len(page) * _PAGE_BYTES // (held or 1)))

    def cached(self, before: int, *, limit: int) -> list[CachePut]:
        return list(map(CachePut._make, self._rows("cached", (before, limit))))

    def queues(self) -> list[QueueRow]:
        return list(map(QueueRow._make, self._good(self._sql["queues"])))

    def queue(self, name: str) -> QueueRow | None:
        rows = self._rows("queue", (name,))
        return QueueRow._make(rows[0]) if rows else None

    def queue_load(self, name: str) -> QueueLoad:
        [(held,)] = self._rows("queue_held", (name,))
        [(waiting,)] = self._rows("queue_waiting", (name,))
        return QueueLoad(held, waiting)

    def schedules(self) -> list[ScheduleRow]:
        return list(map(ScheduleRow._make, self._good(self._sql["schedules"])))

    def schedule(self, key: str) -> ScheduleRow | None:
        rows = self._rows("schedule", (key,))
        return ScheduleRow._make(rows[0]) if rows else None
