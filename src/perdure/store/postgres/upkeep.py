"""The upkeep of a store in Postgres: removal of what is over, moves to other stores, checks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final

from perdure.core.ground.clock import US, Clock, perf
from perdure.core.ground.model import FINISHED, Checked, Created, EndedRun, RunRow, Status, Wake, WholeRun

from .. import _moving
from .._reading import PAGE, Reading
from .._rows import EndOfRun, run_of
from .link import Cursor, PostgresLink
from .session import Session

_STATUS: Final = {str(status): status for status in Status}
_CHUNK: Final = 50
_PURGE_NS: Final = 50_000_000
_STEPS: Final = 3600 * US
"""Allowed difference of a wall clock during a search for unused snapshots."""


class UpkeepVerbs(Reading):
    """The verbs of the ports `Upkeep` and `Moving`."""

    _clock: Clock
    _session: Session | None
    _sql: dict[str, str]
    _writer: PostgresLink
    _version: int
    """The version of the schema."""
    _schema: str

    @property
    def url(self) -> str:
        """See `Store`."""
        raise NotImplementedError

    def _tell(self) -> None:
        """Notify other processes of a change."""
        raise NotImplementedError

    # -- removing what is over ---------------------------------------------------------------------------------

    def ended(self, before: int, statuses: Collection[Status], *, above: int = 0, limit: int) -> list[EndedRun]:
        wanted = [str(status) for status in FINISHED.intersection(statuses)]
        reused = {name for (name,) in self._rows("reused")}
        found: list[EndedRun] = []
        while len(found) < limit:
            page = self._rows("ended", (above, wanted, before, PAGE))
            for id, uid, name, status, at in page:
                if name not in reused:
                    found.append(EndedRun(id, uid, name, _STATUS[status], at))
            if len(page) < PAGE:
                break
            above = page[-1][0]
        return found[:limit]

    def remove(self, runs: Sequence[int], before: int, statuses: Collection[Status]) -> list[bool]:
        wanted = FINISHED.intersection(statuses)

        def take(cursor: Cursor) -> list[bool]:
            answers = []
            rows = {run: cursor.execute(self._sql["end_of_run"], (run,)).fetchone() for run in sorted(set(runs))}
            reused = {name for (name,) in cursor.execute(self._sql["reused"])}
            for run in runs:
                row = rows[run]
                over = row is not None and EndOfRun._make(row).is_removable(reused, wanted, before)
                if over:
                    cursor.execute(self._sql["remove"], (run,))
                    rows[run] = None
                answers.append(over)
            return answers

        def is_done(cursor: Cursor, answers: list[bool]) -> bool:
            gone = [run for run, over in zip(runs, answers, strict=True) if over]
            # All of them: others may have removed some.
            return bool(gone) and not any(cursor.execute(self._sql["run_by_id"], (run,)).fetchone() for run in gone)

        return self._writer.transaction(take, is_done)

    def purge(self, limit: int) -> bool:
        def delete(cursor: Cursor) -> bool:
            since = perf()
            left = limit
            while left > 0 and perf() - since < _PURGE_NS:
                row = cursor.execute(self._sql["removed"]).fetchone()
                if row is None:
                    return False
                (number,) = row
                chunk = min(left, 20 * _CHUNK)
                gone = cursor.execute(self._sql["purge_segments"], (number, chunk)).rowcount
                for purge in ("purge_actions", "purge_messages", "purge_published", "purge_streamed"):
                    if gone < chunk:
                        gone += cursor.execute(self._sql[purge], (number, chunk - gone)).rowcount
                if gone < chunk:
                    cursor.execute(self._sql["purge_tickets"], row)
                    cursor.execute(self._sql["purge_notices"], row)
                    cursor.execute(self._sql["purge_sources"], row)
                    cursor.execute(self._sql["purge_submission"], row)
                    cursor.execute(self._sql["purge_refusal"], row)
                    cursor.execute(self._sql["purge_run"], row)
                    gone += 1
                left -= gone
            return True

        return self._writer.transaction(delete)

    def uncache(self, keys: Sequence[bytes], before: int) -> int:
        def delete(cursor: Cursor) -> int:
            return sum(cursor.execute(self._sql["uncache"], (key, before)).rowcount for key in sorted(keys))

        return self._writer.transaction(delete)

    def drop_sources(self, is_dead: Callable[[str], bool]) -> int:
        since = self._clock.wall() - _STEPS
        unused = {id for (id,) in self._rows("unused_sources")}

        def drop(cursor: Cursor) -> int:
            cursor.execute(self._sql["lock_workers"])
            if not all(is_dead(worker) for worker, *_ in cursor.execute(self._sql["workers"]).fetchall()):
                return 0
            # What was written since the long look above belongs to runs that have not ended, or ended since.
            left = unused.difference(id for (id,) in cursor.execute(self._sql["recent_sources"], (since, since)))
            return sum(cursor.execute(self._sql["drop_source"], (id,)).rowcount for id in left)

        return self._writer.transaction(drop) if unused else 0

    # -- moving runs to another store --------------------------------------------------------------------------

    def move(self, runs: Sequence[int], to: str) -> list[RunRow | None]:
        return self._writer.transaction(lambda cursor: _moving.move(cursor, self._sql, runs, to))

    def arrived(self, runs: Sequence[int], store: str) -> None:
        self._writer.transaction(lambda cursor: _moving.arrived(cursor, self._sql, runs, store))

    def take_back(self, run: int) -> bool:
        def left(at: int) -> int:
            return at - self._clock.wall()

        def is_done(cursor: Cursor, taken: bool) -> bool:
            row = cursor.execute(self._sql["run_by_id"], (run,)).fetchone()
            return taken and row is not None and run_of(row).status is not Status.MOVED

        taken = self._writer.transaction(lambda cursor: _moving.take_back(cursor, self._sql, run, left), is_done)
        self._tell()
        return taken

    def adopt(self, runs: Sequence[WholeRun]) -> list[Created]:
        def is_done(cursor: Cursor, answers: list[Created]) -> bool:
            fresh = next((answer.run for answer in answers if answer.fresh), None)
            mine = None if fresh is None else (fresh.id, fresh.uid)
            return mine is not None and cursor.execute(self._sql["is_created"], mine).fetchone() is not None

        def left(due: Wake) -> int:
            return due.boot - self._clock.boot()

        adopted = self._writer.transaction(lambda cursor: _moving.adopt(cursor, self._sql, runs, left), is_done)
        self._tell()
        return adopted

    def check(self) -> Checked:
        [[version, fsync, pages, standbys, standby, connections]] = self._rows("server")
        session = self._session
        assert session is not None
        session.start()
        facts = {
            "kind": f"PostgreSQL {version}, its schema {self._schema!r}",
            "schema": str(self._version),
            "connections": f"at most {connections}; a worker takes up to 4",
            "notifications": "heard" if session.hears else "not heard: changes are looked for twice a second",
            "failover": "loses nothing that a synchronous standby has"
            if standbys
            else "may lose the last moments: no synchronous standby is named",
        }
        problems = []
        if "off" in (fsync, pages):
            problems.append(
                f"{self.url} runs with fsync or full_page_writes off: a power cut may destroy it; turn them on"
            )
        if standby:
            problems.append(f"{self.url} is a standby, which cannot be written: name the primary server")
        return Checked(facts, problems)
