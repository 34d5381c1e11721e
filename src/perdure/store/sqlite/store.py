"""The default store: one SQLite file, no server.

Guarantees: writes of `commit` and `abort` are fsynced when the call returns (`synchronous=FULL`; also `fullfsync` on
macOS). With `durability="process"` writes are handed to the operating system only: the writes survive the death of
every process, and a power cut may take back the newest writes, in order. Claims, sources and heartbeats need only be
visible and are always written in the second way; the next commit takes earlier writes to disk.

Three connections, each with a lock: for journals, for reading, for claims and heartbeats. So neither a long read nor a
slow commit delays the renewal of a lease. In WAL mode the connections work side by side; SQLite's write lock orders the
writers of all processes.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Collection, Generator, Sequence
from typing import Any, Final, Literal, NamedTuple, TypeVar

import msgspec

from perdure.core.ground.clock import US, Clock, SystemClock, perf
from perdure.core.ground.model import (
    FINISHED,
    PARKED,
    Action,
    ActionState,
    Awaited,
    CachePut,
    Checked,
    Claim,
    Created,
    CreateRun,
    EndedRun,
    Finish,
    Message,
    NewMessage,
    NewRefusal,
    NewRun,
    Policy,
    Publication,
    QueueRow,
    Refusal,
    RunRow,
    RunWrites,
    ScheduleRow,
    Segment,
    SendAnswer,
    Source,
    Status,
    Streamed,
    Taken,
    Wake,
    WholeRun,
    WorkerRow,
    schedule_name,
)
from perdure.core.ground.ports import SqlStatement
from perdure.errors import RowDamagedError, StoreError, UsageError

from .. import _limits, _messages, _moving, _queues, _submitting
from .._limit_verbs import LimitVerbs
from .._outbox_verbs import OutboxVerbs
from .._reading import PAGE, Reading, log
from .._rows import SHORT, EndOfRun, claimed, rows_of, run_of, submitted
from .._sql import queries
from .backup import copy_database
from .bell import ENDED, MESSAGES, QUEUED, Bells
from .errors import REPAIR, is_undecodable
from .file import VERSION, SQLiteLink, StoreFile

Durability = Literal["power", "process"]
Row = tuple[Any, ...]
T = TypeVar("T")

_SQL: Final = queries("sqlite")
_INSERT_RUN: Final = _SQL["insert_run"]
_INSERT_CLAIMED_RUN: Final = _SQL["insert_claimed_run"]
_INSERT_SEGMENT_FENCED: Final = _SQL["insert_segment_fenced"]
_FINISH: Final = _SQL["finish"]
_STATUS: Final = {str(status): status for status in Status}
_QUEUED: Final = str(Status.QUEUED)
_SLEEPING: Final = str(Status.SLEEPING)
_WAITING: Final = str(Status.WAITING)
_RUNNING: Final = str(Status.RUNNING)
_NO_ROW: Final = object()
_CHUNK: Final = 50
_ALL: Final = (1 << 63) - 1
_PURGE_NS: Final = 50_000_000
"""Limit for the duration of a purging transaction, because other writers wait for the lock."""
_LOOK_NS: Final = 200_000_000
"""How often a poll checks that the file is still there."""
_STEPS: Final = 3600 * US
"""Allowed step of the wall clock during a search for unused snapshots."""


class _Found(NamedTuple):
    """Due runs of one look."""

    taken: list[Taken]
    entered: bool
    """Whether runs have gone into lanes."""


class SQLiteStore(Reading, LimitVerbs, OutboxVerbs):
    """A `Store` in one SQLite file.

    A missing file is created, readable for the owner only; a missing directory `.perdure` is created too, and no other
    directory. Safe from any thread. A forked child can neither use the store nor open the same file again; both are
    refused with an error.
    """

    _sql = _SQL

    def __init__(
        self,
        path: str | os.PathLike[str],
        durability: Durability = "power",
        busy_timeout: float = 5.0,
        *,
        clock: Clock | None = None,
    ) -> None:
        """Open or create the store.

        Args:
            path: the database file.
            durability: `"power"`: commits survive a power cut; `"process"`: commits survive the death of every process.
            busy_timeout: seconds to wait while another process writes; then `StoreUnavailableError` names the process.
            clock: for the time of a run's first claim, and for wake times.
        """
        self._clock = clock or SystemClock()
        self._look_at = 0
        file = StoreFile(path, busy_timeout)
        file.create()
        self._file = file
        self._bells: Bells | None = None
        self._writer = SQLiteLink(file, synchronous="FULL" if durability == "power" else "NORMAL")
        self._reader = SQLiteLink(file, synchronous="NORMAL", read_only=True)
        self._aside = SQLiteLink(file, synchronous="NORMAL")
        try:
            self._id = self._writer.run(file.prepare)
            self._bells = Bells(self._id)
            self._aside.run(self._rebase)
        except BaseException:
            self.close()
            raise

    def _rebase(self, cursor: sqlite3.Cursor) -> None:
        """Wake times are ordered by the time since boot; after a reboot the wake times are computed again."""
        boot = self._clock.boot_id
        known = cursor.execute(_SQL["meta"], ("boot",)).fetchone()
        if known is not None and known[0] == boot:
            return
        cursor.execute("BEGIN IMMEDIATE")
        # Another process may have been faster.
        known = cursor.execute(_SQL["meta"], ("boot",)).fetchone()
        if known is None or known[0] != boot:
            if known is not None:
                cursor.execute(_SQL["rebase"], (self._clock.boot(), self._clock.wall()))
                cursor.execute(_SQL["rebase_starts"], (self._clock.boot(), self._clock.wall()))
                cursor.execute(_SQL["rebase_uses"], (self._clock.boot(), self._clock.wall()))
            cursor.execute(_SQL["set_meta"], ("boot", boot))
        cursor.execute("COMMIT")

    @property
    def id(self) -> str:
        return self._id

    @property
    def url(self) -> str:
        return f"sqlite:///{self._file.path}"

    @property
    def clock(self) -> Clock:
        return self._clock

    @property
    def path(self) -> str:
        """The database file, absolute, links resolved."""
        return self._file.path

    def close(self) -> None:
        if self._bells is not None:
            self._bells.close()
        self._writer.checkpoint()
        self._aside.close()
        self._reader.close()
        self._writer.close()

    def _now(self) -> Wake:
        return Wake(self._clock.wall(), self._clock.boot())

    def _ring(self, kind: str) -> None:
        if self._bells is not None:
            self._bells.ring(kind)

    # -- writing -----------------------------------------------------------------------------------------------

    def commit(self, writes: Sequence[RunWrites | CreateRun]) -> list[Created | bool]:
        if len(writes) == 1:
            # One statement is a transaction by itself, and saves BEGIN, a query for the fence, and COMMIT.
            write = writes[0]
            if isinstance(write, CreateRun):
                now = self._clock.boot()
                if write.claim is not None:
                    claimed_one = self._aside.run(lambda cursor: _create_claimed(cursor, write))
                    if claimed_one is not None:
                        return [claimed_one]
                created = self._writer.run(lambda cursor: _create(cursor, write, now))
                self._ring(QUEUED)
                return [created]
            only = write.only()
            if isinstance(only, Segment):
                return [self.append(write.run, write.token, only)]
            if only is not None:
                written = self._writer.change(_FINISH, (*_plain(only), write.run, write.token))
                self._ring(ENDED)
                return [written]
        elif not writes:
            return []
        if all(isinstance(write, CreateRun) and write.claim is not None for write in writes):
            # Visible is enough: the first segment or the end of a run takes the creation to disk.
            try:
                return self._aside.transaction(lambda cursor: _create_all_claimed(cursor, writes))
            except _TaskIsPaused:
                pass  # a run is QUEUED without its claim, and has to be on disk
        answers, frees = self._writer.transaction(lambda cursor: self._write_all(cursor, writes))
        if any(isinstance(answer, Created) and answer.run.token is None for answer in answers):
            self._ring(QUEUED)
        if frees:
            self._ring_slots()
        if any(isinstance(write, RunWrites) and write.finish is not None for write in writes):
            self._ring(ENDED)
        if any(isinstance(write, RunWrites) and write.tells for write in writes):
            self._ring(MESSAGES)
        return answers

    def submit(self, write: CreateRun, policy: Policy) -> Created:
        created = self._writer.transaction(
            lambda cursor: _submitting.submit(self._submission_rows(cursor), write, policy)
        )
        self._ring(QUEUED)
        self._ring(ENDED)
        return created

    def _submission_rows(self, cursor: sqlite3.Cursor) -> _submitting.SqlSubmissionRows:
        def cancel(run: int, reason: str) -> None:
            at, boot = self._now()
            cursor.execute(_SQL["cancel"], (reason, None, at, at, boot, run))

        return _submitting.SqlSubmissionRows(
            lambda statement, row: cursor.execute(_SQL[statement], row).fetchall(),
            self._clock,
            run=run_of,
            lock_key=lambda key: None,  # SQLite has one writer
            lock_queue=lambda name: self._locked(cursor, name)[0],
            cancel=cancel,
            create=lambda write: _create(cursor, write, self._clock.boot()),
        )

    def _expire(self) -> None:
        """End the runs whose time to begin is over."""
        while self._reader.rows(_SQL["unbegun"], (self._clock.wall(), 1)):
            looked_at = self._writer.transaction(lambda cursor: _submitting.expire(self._submission_rows(cursor)))
            self._ring(ENDED)
            if looked_at < _submitting.EXPIRING:
                break

    def _write_all(
        self, cursor: sqlite3.Cursor, writes: Sequence[RunWrites | CreateRun]
    ) -> tuple[list[Created | bool], bool]:
        """The answers, and whether slots were freed for which other calls wait."""
        answers = _write_batch(cursor, writes, self._now())
        return answers, _limits.settle(_executing(cursor), writes, answers)

    def creation(self, write: CreateRun) -> Generator[SqlStatement, list[Any], Created]:
        files = yield SqlStatement("PRAGMA database_list")
        file = next((path for _, name, path in files if name == "main"), "")
        if not file or os.path.realpath(file) != self.path:
            raise UsageError(
                f"the connection is to {file or 'a database in memory'}, and the store is {self.path}: a run can only "
                "be submitted in a transaction of the file that it is stored in"
            )
        yield SqlStatement(_INSERT_RUN, _queued(write, self._clock.boot()))
        [row] = yield SqlStatement(_SQL["run_by_name"], (write.new.name,))
        run = run_of(row)
        return Created(run, run.uid == write.new.uid)

    def append(self, run: int, token: bytes, segment: Segment) -> bool:
        # The driver looks for an adapter of every bytes object, and makes an exception when there is none. A bytearray
        # is bound as it is.
        row = (segment.number, bytearray(segment.data), run, bytearray(token))
        return self._writer.change(_INSERT_SEGMENT_FENCED, row)

    def claim(
        self,
        run: int,
        claim: Claim,
        *,
        expect: bytes | None,
        entries: int,
        statuses: Collection[Status],
        crashed: bool = True,
        resumes: bool = False,
    ) -> RunRow | None:
        def take(cursor: sqlite3.Cursor) -> RunRow | None:
            row = cursor.execute(_SQL["run_by_id"], (run,)).fetchone()
            old = None if row is None else run_of(row)
            if old is None or old.token != expect or old.status not in statuses:
                return None
            if (old.paused is not None and not resumes) or old.task in _paused_tasks(cursor):
                return None
            if old.queue is not None:
                queue, rows = self._locked(cursor, old.queue)
                if not _queues.admit(queue, rows, old, claim.worker, self._clock.boot()):
                    return None
            return self._claim(cursor, old, claim, entries, crashed=crashed)

        return self._aside.transaction(take)

    def _claim(
        self, cursor: sqlite3.Cursor, old: RunRow, claim: Claim, entries: int, *, crashed: bool = True
    ) -> RunRow:
        new = claimed(old, claim, entries, self._clock.wall(), crashed=crashed)
        cursor.execute(_SQL["claim"], (new.token, new.worker, new.started_at, new.crashes, new.mark, new.id))
        return new

    def take_due(self, tasks: Collection[str], claims: Sequence[Claim]) -> list[Taken]:
        self._expire()
        self._call_parked(set(tasks).difference(self.paused_tasks()))
        now, limit, taken = self._clock.boot(), len(claims), list[Taken]()
        tasks = self._unpaused(tasks)
        while True:
            # The search happens outside of the transaction, so that the write lock is held for the writes alone.
            due = sorted(
                (wake, id) for task in tasks for id, wake in self._reader.rows(_SQL["due"], (task, now, limit))
            )[:limit]
            if not due:
                break
            left = claims[len(taken) :]
            found = self._aside.transaction(lambda cursor: self._take(cursor, [id for _, id in due], left, now))  # noqa: B023
            taken += found.taken
            # Runs of queues go from the due runs into their lanes, and the next due runs come to light.
            if not found.entered or len(taken) == len(claims):
                break
            limit = _queues.ENTERING
        for queue in self._queues_of(tasks) if len(taken) < len(claims) else ():
            left = claims[len(taken) :]
            taken += self._aside.transaction(lambda cursor: self._leave(cursor, queue, tasks, left))  # noqa: B023
        short: dict[int, tuple[list[Segment], list[Action]]] = {
            run.id: ([], []) for run, woken, _ in taken if woken and run.mark <= SHORT
        }
        if short:
            self._read_ahead(short)
        return [one._replace(known=short.get(one.run.id)) for one in taken]

    def _take(self, cursor: sqlite3.Cursor, due: Sequence[int], claims: Sequence[Claim], now: int) -> _Found:
        """Claim due runs, and put those of queues into their lanes."""
        taken: list[Taken] = []
        paused = _paused_tasks(cursor)
        entering = self._entering(cursor, due, now)
        for id in due:
            if len(taken) == len(claims):
                break
            if id in entering:
                continue
            # Another claim may have been faster, and the run may have been parked again.
            old = self._readable(cursor, "due_run", id, now)
            if old is not None and old.task not in paused:
                run = self._claim(cursor, old, claims[len(taken)], old.mark)
                taken.append(Taken(run, old.status in PARKED))
        waiting: dict[str, list[_queues.Entering]] = {}
        for name, one in (entering[id] for id in due if id in entering):
            if one.task not in paused:
                waiting.setdefault(name, []).append(one)
        for name, runs in waiting.items():
            queue, rows = self._locked(cursor, name)
            rows.note_turn(_queues.enter(queue, rows, runs, self._clock.wall()))
        return _Found(taken, bool(waiting))

    def _entering(
        self, cursor: sqlite3.Cursor, due: Sequence[int], now: int
    ) -> dict[int, tuple[str, _queues.Entering]]:
        """Those of the runs that are due and wait in queues, each with its queue; a damaged row is left out."""
        statement = _SQL["entering"]
        try:
            rows = cursor.execute(statement, (self._list(due), now)).fetchall()
        except sqlite3.OperationalError as error:
            if not is_undecodable(error):
                raise
            rows = []
            for id in due:
                if self._readable(cursor, "due_run", id, now) is not None:
                    rows += cursor.execute(statement, (self._list([id]), now)).fetchall()
        return {row[0]: (row[6], _queues.Entering._make(row[:6])) for row in rows}

    def _readable(self, cursor: sqlite3.Cursor, statement: str, id: int, *more: int) -> RunRow | None:
        """The run that the statement finds; a damaged row is logged and left out."""
        try:
            row = cursor.execute(_SQL[statement], (id, *more)).fetchone()
        except sqlite3.OperationalError as error:
            if not is_undecodable(error):
                raise
            log.error("%s: run number %s is damaged: %s; %s", self.path, id, error, REPAIR)
            return None
        return None if row is None else run_of(row)

    def _leave(
        self, cursor: sqlite3.Cursor, queue: str, tasks: Collection[str], claims: Sequence[Claim]
    ) -> list[Taken]:
        """Claim runs of a queue, as far as the queue has slots."""
        taken: list[Taken] = []

        def claim(runs: list[int]) -> int:
            before = len(taken)
            for id in runs:
                old = self._readable(cursor, "waiting_runs", id)
                if old is None:
                    cursor.execute(_SQL["leave_lane"], (id,))
                else:
                    run = self._claim(cursor, old, claims[len(taken)], old.mark)
                    taken.append(Taken(run, old.status in PARKED))
            return len(taken) - before

        tasks = set(tasks).difference(_paused_tasks(cursor))
        found, rows = self._locked(cursor, queue)
        most, now, wall = len(claims), self._clock.boot(), self._clock.wall()
        turn = _queues.leave(found, rows, tasks, claims[0].worker, most, now, wall, claim)
        if turn != found.turn:
            rows.note_turn(turn)
        return taken

    def _locked(self, cursor: sqlite3.Cursor, name: str) -> tuple[QueueRow, _queues.SqlQueueRows]:
        """A queue, and its rows for this transaction."""
        cursor.execute(_SQL["ensure_queue"], (name,))
        queue = QueueRow._make(cursor.execute(_SQL["lock_queue"], (name,)).fetchone())
        return queue, self._rows_of(name, _executing(cursor))

    def _rows_of(self, name: str, execute: _queues.Execute) -> _queues.SqlQueueRows:
        return _queues.SqlQueueRows(execute, name, lambda: (name, self._clock.boot(), self._clock.wall()))

    def _unpaused(self, tasks: Collection[str]) -> set[str]:
        """Those of the tasks that are not paused at this moment."""
        return set(tasks).difference(self.paused_tasks())

    def _queues_of(self, tasks: Collection[str]) -> list[str]:
        """The queues in which runs of the tasks wait."""
        return [name for name, *_ in self._rows("queues_of", (msgspec.json.encode(list(tasks)).decode(),))]

    def _read_ahead(self, runs: dict[int, tuple[list[Segment], list[Action]]]) -> None:
        ids = (self._list(runs),)
        for run, number, data in self._reader.rows(_SQL["segments_ahead"], ids):
            runs[run][0].append(Segment(number, data))
        for row in self._reader.rows(_SQL["actions_ahead"], ids):
            action = Action._make(row)
            runs[action.run][1].append(action)

    def release(self, run: int, token: bytes, refusal: NewRefusal | None = None) -> bool:
        def let_go(cursor: sqlite3.Cursor) -> bool:
            released = cursor.execute(_SQL["release"], (run, token)).rowcount == 1
            if released and refusal is not None:
                cursor.execute(_SQL["put_refusal"], (run, *refusal, run))
            elif released:
                cursor.execute(_SQL["purge_refusal"], (run,))
            return released

        return self._aside.transaction(let_go)

    def refusal(self, run: int) -> Refusal | None:
        found = self._reader.rows(_SQL["refusal"], (run,))
        return next(map(Refusal._make, found), None)

    def move_code(self, run: int, token: bytes, target: str) -> bool:
        return self._writer.change(_SQL["move_code"], (target, run, token))

    def abort(self, run: int, ended_at: int) -> bool:
        return self._writer.change(_SQL["abort"], (ended_at, run))

    def cancel(self, run: int, reason: str, until: int | None, at: int) -> RunRow | None:
        now = (self._clock.wall(), self._clock.boot())
        asked = self._writer.change(_SQL["cancel"], (reason, until, at, *now, run))
        self._ring(QUEUED)
        self._ring(ENDED)
        return self.run_by_id(run) if asked else None

    def end_cancelled(self, run: int, ended_at: int) -> bool:
        ended = self._writer.change(_SQL["end_cancelled"], (ended_at, run))
        self._ring(ENDED)
        return ended

    def pause(self, run: int, at: int) -> bool:
        paused = self._writer.change(_SQL["pause"], (at, run))
        self._ring(QUEUED)
        return paused

    def pause_task(self, task: str, at: int) -> bool:
        fresh = self._writer.change(_SQL["pause_task"], (task, at))
        self._ring(QUEUED)
        return fresh

    def resume_task(self, task: str) -> bool:
        resumed = self._writer.change(_SQL["resume_task"], (task,))
        self._ring(QUEUED)
        return resumed

    def paused_tasks(self) -> dict[str, int]:
        return dict(self._reader.rows(_SQL["paused_tasks"], ()))

    def unpause(self, run: int) -> bool:
        unpaused = self._writer.change(_SQL["unpause"], (run,))
        self._ring(QUEUED)
        return unpaused

    def wake(self, run: int) -> bool:
        woken = self._aside.change(_SQL["wake"], (self._clock.wall(), self._clock.boot(), run))
        self._ring(QUEUED)
        return woken

    # -- reading -----------------------------------------------------------------------------------------------

    def _read(self, sql: str, row: Sequence[Any]) -> list[Row]:
        return self._reader.rows(sql, row)

    def _list(self, values: Collection[int]) -> str:
        return msgspec.json.encode(list(values)).decode()

    def next_due(self, tasks: Collection[str], worker: str = "") -> float | None:
        tasks = self._unpaused(tasks)
        wakes = [wake for task in tasks for (wake,) in self._reader.rows(_SQL["next_due"], (task,))]
        now = self._clock.boot()
        for row in self._rows("queues_of", (msgspec.json.encode(list(tasks)).decode(),)):
            queue = QueueRow._make(row)
            left = _queues.delay(queue, self._rows_of(queue.name, self._rows), tasks, worker, now)
            if left is not None:
                wakes.append(now + left)
        wakes += [now + left for left in self._limit_delays(set(tasks).difference(self.paused_tasks()))]
        first = min(wakes, default=_queues.FAR)
        return None if first >= _queues.FAR else (first - now) / US

    def slots_of_others(self, workers: Collection[str]) -> list[RunRow]:
        known = msgspec.json.encode(list(workers)).decode()
        return list(map(run_of, self._good(_SQL["slots_of_others"], (known, known))))

    def end_claim(self, run: int, token: bytes, *, crashed: bool) -> bool:
        ended = self._aside.change(_SQL["end_claim"], (0 if crashed else 1, run, token))
        self._ring(QUEUED)
        return ended

    def declare_queue(self, name: str, declared: str) -> None:
        known = self.queue(name)
        if known is None or known.declared != declared:
            self._writer.change(_SQL["declare_queue"], (name, declared, name, declared))

    def override_queue(self, name: str, override: str | None) -> bool:
        return self._change_queue("override_queue", (override, name))

    def pause_queue(self, name: str, now: int) -> bool:
        return self._change_queue("pause_queue", (now, name))

    def resume_queue(self, name: str) -> bool:
        return self._change_queue("resume_queue", (name,))

    def _change_queue(self, statement: str, row: Row) -> bool:
        changed = self._writer.change(_SQL[statement], row)
        self._ring(QUEUED)
        return changed

    # -- limits ------------------------------------------------------------------------------------------------

    def declare_limit(self, name: str, declared: str) -> None:
        known = self.limit(name)
        if known is None or known.declared != declared:
            self._writer.change(_SQL["declare_limit"], (name, declared, name, declared))
            self._ring_slots()

    def override_limit(self, name: str, override: str | None) -> bool:
        changed = self._writer.change(_SQL["override_limit"], (override, name))
        self._ring_slots()
        return changed

    def _names(self, values: Collection[str]) -> str:
        return msgspec.json.encode(list(values)).decode()

    def _giving(self, work: Callable[[_queues.Execute], T]) -> T:
        return self._aside.transaction(lambda cursor: work(_executing(cursor)))

    def _keeping(self, work: Callable[[_queues.Execute], T]) -> T:
        return self._writer.transaction(lambda cursor: work(_executing(cursor)))

    def _limit_rows(self, name: str, execute: _queues.Execute) -> _limits.SqlLimitRows:
        wall, boot = self._clock.wall(), self._clock.boot()
        return _limits.SqlLimitRows(execute, name, (wall, boot), (boot, wall))

    def _time(self, execute: _queues.Execute) -> int:
        return self._clock.boot()

    def _ring_slots(self) -> None:
        self._ring(MESSAGES)
        self._ring(QUEUED)

    def abandoned(self, tasks: Collection[str], workers: Collection[str], *, limit: int) -> list[RunRow]:
        known = msgspec.json.encode(list(workers)).decode()
        rows = [row for task in set(tasks) for row in self._good(_SQL["abandoned"], (task, known, limit))]
        return sorted(map(run_of, rows), key=lambda run: run.id)[:limit]

    def version(self) -> int:
        # Not each time: a busy caller asks a thousand times a second.
        if (now := perf()) > self._look_at:
            self._look_at = now + _LOOK_NS
            self._file.look()
        number: int = self._reader.rows(_SQL["version"], ())[0][0]
        return number

    def listen(self, bell: Callable[[], None], *, ends: bool = False) -> bool:
        return self._bells is not None and self._bells.listen(ENDED if ends else QUEUED, bell)

    # -- sources, cache, workers -------------------------------------------------------------------------------

    def source_id(self, source: Source) -> int:
        if not (rows := self._reader.rows(_SQL["source_id"], (source.digest,))):
            modules = msgspec.json.encode(source.modules).decode()
            self._aside.change(_SQL["insert_source"], (source.digest, source.python, modules))
            rows = self._reader.rows(_SQL["source_id"], (source.digest,))
        number: int = rows[0][0]
        return number

    def source(self, id: int) -> Source | None:
        if not (rows := self._reader.rows(_SQL["source"], (id,))):
            return None
        digest, python, modules = rows[0]
        try:
            return Source(digest, python, msgspec.json.decode(modules, type=dict[str, bytes]))
        except (ValueError, RecursionError) as error:
            raise StoreError(f"{self.path}: the source snapshot {id} cannot be read: {error}") from error

    def renew(self, worker: WorkerRow) -> None:
        self._file.look()
        until = self._clock.boot() + worker.lease
        self._aside.change(_SQL["renew"], (*worker[:4], until, *worker[5:]))

    def worker(self, id: str) -> WorkerRow | None:
        rows = self._reader.rows(_SQL["worker"], (id,))
        return self._worker(rows[0]) if rows else None

    def workers(self) -> list[WorkerRow]:
        return list(map(self._worker, self._good(_SQL["workers"])))

    def _worker(self, row: Row) -> WorkerRow:
        """A lease that was counted from another boot, of the same or another machine, has run out."""
        worker = WorkerRow._make(row)  # with the end of the lease, by the clock of the boot, as the lease
        return worker._replace(lease=worker.lease - self._clock.boot() if worker.boot == self._clock.boot_id else 0)

    def forget(self, id: str) -> None:
        self._aside.change(_SQL["forget"], (id,))
        # A worker says goodbye with this call at a clean exit, when nothing closes the store any more.
        self._writer.checkpoint()

    # -- removing what is over ---------------------------------------------------------------------------------

    def ended(self, before: int, statuses: Collection[Status], *, above: int = 0, limit: int) -> list[EndedRun]:
        wanted = [status if status in statuses else None for status in sorted(FINISHED)]
        reused = {name for (name,) in self._reader.rows(_SQL["reused"], ())}
        found: list[EndedRun] = []
        while len(found) < limit:
            page = self._reader.rows(_SQL["ended"], (above, *wanted, before, PAGE))
            for id, uid, name, status, at in page:
                if name not in reused:
                    found.append(EndedRun(id, uid, name, _STATUS[status], at))
            if len(page) < PAGE:
                break
            above = page[-1][0]
        return found[:limit]

    def remove(self, runs: Sequence[int], before: int, statuses: Collection[Status]) -> list[bool]:
        wanted = FINISHED.intersection(statuses)

        def take(cursor: sqlite3.Cursor) -> list[bool]:
            answers = []
            reused = {name for (name,) in cursor.execute(_SQL["reused"])}
            for run in runs:
                row = cursor.execute(_SQL["end_of_run"], (run,)).fetchone()
                over = row is not None and EndOfRun._make(row).is_removable(reused, wanted, before)
                if over:
                    cursor.execute(_SQL["remove"], (run,))
                answers.append(over)
            return answers

        return self._writer.transaction(take)

    def purge(self, limit: int) -> bool:
        def delete(cursor: sqlite3.Cursor) -> bool:
            since = perf()
            left = limit
            while left > 0 and perf() - since < _PURGE_NS:
                row = cursor.execute(_SQL["removed"]).fetchone()
                if row is None:
                    return False
                # In small chunks: values may be large, and SQLite walks all pages of a deleted value.
                (number,) = row
                chunk = min(left, _CHUNK)
                gone = cursor.execute(_SQL["purge_segments"], (number, chunk)).rowcount
                for purge in ("purge_actions", "purge_messages", "purge_published", "purge_streamed"):
                    if gone < chunk:
                        gone += cursor.execute(_SQL[purge], (number, chunk - gone)).rowcount
                if gone < chunk:
                    cursor.execute(_SQL["purge_tickets"], row)
                    cursor.execute(_SQL["purge_notices"], row)
                    cursor.execute(_SQL["purge_sources"], row)
                    cursor.execute(_SQL["purge_submission"], row)
                    cursor.execute(_SQL["purge_refusal"], row)
                    cursor.execute(_SQL["purge_run"], row)
                    gone += 1
                left -= gone
            return True

        return self._writer.transaction(delete)

    def uncache(self, keys: Sequence[bytes], before: int) -> int:
        def delete(cursor: sqlite3.Cursor) -> int:
            return sum(cursor.execute(_SQL["uncache"], (key, before)).rowcount for key in keys)

        return self._writer.transaction(delete)

    def drop_sources(self, is_dead: Callable[[str], bool]) -> int:
        since = self._clock.wall() - _STEPS
        unused = {id for (id,) in self._reader.rows(_SQL["unused_sources"], ())}

        def drop(cursor: sqlite3.Cursor) -> int:
            if not all(is_dead(worker) for worker, *_ in cursor.execute(_SQL["workers"]).fetchall()):
                return 0
            # Writes since the long search above belong to runs that have not ended, or ended since.
            left = unused.difference(id for (id,) in cursor.execute(_SQL["recent_sources"], (since, since)))
            return sum(cursor.execute(_SQL["drop_source"], (id,)).rowcount for id in left)

        return self._writer.transaction(drop) if unused else 0

    # -- moving runs to another store --------------------------------------------------------------------------

    def move(self, runs: Sequence[int], to: str) -> list[RunRow | None]:
        return self._writer.transaction(lambda cursor: _moving.move(cursor, _SQL, runs, to))

    def arrived(self, runs: Sequence[int], store: str) -> None:
        self._writer.transaction(lambda cursor: _moving.arrived(cursor, _SQL, runs, store))

    def take_back(self, run: int) -> bool:
        def boot(at: int) -> int:
            return self._clock.boot() + at - self._clock.wall()

        return self._writer.transaction(lambda cursor: _moving.take_back(cursor, _SQL, run, boot))

    def adopt(self, runs: Sequence[WholeRun]) -> list[Created]:
        return self._writer.transaction(lambda cursor: _moving.adopt(cursor, _SQL, runs, lambda due: due.boot))

    def check(self) -> Checked:
        faults = [text for (text,) in self._reader.rows(_SQL["quick_check"], ()) if text != "ok"]
        problems = []
        for name, row in (("runs_all", (_ALL, _ALL)), ("workers", ()), ("schedules", ())):
            try:
                self._reader.rows(_SQL[name], row)
            except RowDamagedError as error:
                problems.append(str(error))
        facts = {
            "kind": f"SQLite {sqlite3.sqlite_version}",
            "file": f"{self.path} ({os.path.getsize(self.path) / 1e6:,.1f} MB)",
            "schema": str(VERSION),
        }
        remedy = "restore it from a backup, or save what is left with sqlite3's .recover"
        problems += [f"{self.path} is damaged: {fault}; {remedy}" for fault in faults]
        return Checked(facts, problems)

    def backup(self, to: str, verify: Callable[[str], None]) -> None:
        """Copy the database to a new file while other processes write: one moment of it, on disk, private to the owner.

        Args:
            verify: looks at the copy, at a preliminary path, and raises an error for a copy with problems.

        Raises:
            UsageError: there is a file already, or the directory cannot be written.
            StoreError: the database cannot be read, or the copy cannot be written.
        """
        copy_database(self._file, to, verify)

    # -- messages ----------------------------------------------------------------------------------------------

    def send(self, run: int, message: NewMessage) -> SendAnswer:
        sent = self._writer.transaction(lambda cursor: _messages.send(cursor, _SQL, run, message, self._now()))
        if sent.fresh:
            self._ring(QUEUED if sent.woken else MESSAGES)
        return sent

    def news(self, wanted: Collection[Awaited]) -> dict[tuple[int, str], Message]:
        return _messages.by_box(self._rows("news", (msgspec.json.encode([tuple(one) for one in wanted]).decode(),)))

    def publish(
        self, run: int, token: bytes, published: Sequence[Publication], streamed: Sequence[Streamed] = ()
    ) -> bool:
        writes = [RunWrites(run, token, published=published, streamed=streamed)]
        written = self._aside.transaction(lambda cursor: _write_batch(cursor, writes, self._now())) == [True]
        self._ring(MESSAGES)
        return written

    def hear(self, bell: Callable[[], None]) -> bool:
        return self._bells is not None and self._bells.listen(MESSAGES, bell)

    # -- schedules ---------------------------------------------------------------------------------------------

    def advance(
        self, key: str, at: int, *, expect: int | None, runs: Sequence[NewRun] = (), fired: int | None = None
    ) -> list[Created] | None:
        def move(cursor: sqlite3.Cursor) -> list[Created] | None:
            if expect is None:
                cursor.execute(_SQL["begin_schedule"], (key, at, schedule_name(key)))
            else:
                cursor.execute(_SQL["advance_schedule"], (at, fired, key, expect, at))
            if cursor.rowcount != 1:
                return None
            rows = self._submission_rows(cursor)
            return [_submitting.submit(rows, CreateRun(new, None), Policy()) for new in runs]

        return self._writer.transaction(move)

    def pause_schedules(self, name: str, now: int) -> int:
        return self._change_schedules("pause_schedules", (now, name))

    def resume_schedules(self, name: str, now: int) -> int:
        return self._change_schedules("resume_schedules", (now, name))

    def adopt_schedule(self, row: ScheduleRow) -> bool:
        return self._change_schedules("adopt_schedule", row) == 1

    def _change_schedules(self, statement: str, row: Row) -> int:
        """Execute the statement, and give the number of changed rows."""
        changed = self._writer.transaction(lambda cursor: cursor.execute(_SQL[statement], row).rowcount)
        # A worker with a paused schedule looks again when the store has changed.
        self._ring(QUEUED)
        return changed


def _plain(finish: Finish) -> Row:
    status, result, value, ended_at = finish
    return (str(status), int(result), value, ended_at)


def _queued(write: CreateRun, now: int) -> Row:
    """The parameters of `insert_run` for a run without a claim."""
    at, boot = (write.new.created_at, now) if write.due is None else write.due
    # Plain text and numbers: `sqlite3` converts members of an enum on a slower path.
    return (*write.new, _QUEUED, None, None, None, 0, at, boot)


def _create(cursor: sqlite3.Cursor, write: CreateRun, now: int) -> Created:
    new, claim, due = write
    if claim is not None:
        created = _create_claimed(cursor, write)
        if created is not None:
            return created
    cursor.execute(_INSERT_RUN, _queued(write, now))
    if cursor.rowcount == 1:
        assert cursor.lastrowid is not None
        # Building the fresh row is cheaper than reading the row back.
        at = new.created_at if due is None else due.at
        return Created(submitted(cursor.lastrowid, new, None, at), True)
    return Created(run_of(cursor.execute(_SQL["run_by_name"], (new.name,)).fetchone()), False)


def _create_claimed(cursor: sqlite3.Cursor, write: CreateRun) -> Created | None:
    """Create a run with its claim; `None`: the task is paused, and nothing is written."""
    new, claim, _ = write
    assert claim is not None
    cursor.execute(_INSERT_CLAIMED_RUN, (*new, _RUNNING, claim.token, claim.worker, new.created_at, 1, None, None))
    if cursor.rowcount == 1:
        assert cursor.lastrowid is not None
        return Created(submitted(cursor.lastrowid, new, claim, None), True)
    row = cursor.execute(_SQL["run_by_name"], (new.name,)).fetchone()
    return None if row is None else Created(run_of(row), False)


def _create_all_claimed(cursor: sqlite3.Cursor, writes: Sequence[RunWrites | CreateRun]) -> list[Created | bool]:
    answers: list[Created | bool] = []
    for write in writes:
        assert isinstance(write, CreateRun)
        created = _create_claimed(cursor, write)
        if created is None:
            raise _TaskIsPaused
        answers.append(created)
    return answers


class _TaskIsPaused(Exception):
    """A claim was asked for with a run of a paused task."""


def _paused_tasks(cursor: sqlite3.Cursor) -> set[str]:
    """The paused tasks, for a transaction that claims runs."""
    return {task for task, _ in cursor.execute(_SQL["paused_tasks"])}


def _write_batch(cursor: sqlite3.Cursor, writes: Sequence[RunWrites | CreateRun], now: Wake) -> list[Created | bool]:
    answers: list[Created | bool] = []
    holders: dict[int, object] = {}
    segments: list[Row] = []
    ended: list[Row] = []
    sources: list[Row] = []
    actions: list[Action] = []
    states: list[ActionState] = []
    cache: list[CachePut] = []
    takes: list[Row] = []
    published: list[Row] = []
    streamed: list[Row] = []
    ends: list[Row] = []
    parks: list[Row] = []
    for write in writes:
        if isinstance(write, CreateRun):
            # The answer shows a run of the same name after all earlier elements of the batch.
            _end(cursor, segments, ends, parks, now)
            answers.append(_create(cursor, write, now.boot))
            continue
        run = write.run
        holder = holders.get(run, _NO_ROW)
        if holder is _NO_ROW:
            row = cursor.execute(_SQL["holder"], (run,)).fetchone()
            holder = holders[run] = None if row is None else row[0]
        if holder is None or holder != write.token:
            answers.append(False)
            continue
        more, some, noted = rows_of(write)
        segments += more
        ended += some
        sources += noted
        actions += write.actions
        states += write.states
        cache += write.cache
        takes += _messages.take_rows(run, write.takes)
        published += _messages.publish_rows(run, write.published)
        streamed += _messages.stream_rows(run, write.streamed)
        if write.finish is not None:
            ends.append((*_plain(write.finish), run, write.token))
            holders[run] = None
        elif write.park is not None:
            (at, boot), mark, waits, aware, _ = write.park
            parks.append((_WAITING if waits else _SLEEPING, mark, aware, at, aware, boot, run, write.token))
            holders[run] = None
        answers.append(True)
    _many(cursor, "insert_action", actions)
    _many(cursor, "update_action", [(*state[3:], *state[:3]) for state in states])
    _many(cursor, "end_action", ended)
    _many(cursor, "note_source", sources)
    _many(cursor, "put_cache", cache)
    _many(cursor, "take_message", takes)
    _many(cursor, "publish", published)
    _many(cursor, "stream", streamed)
    _end(cursor, segments, ends, parks, now)
    return answers


def _executing(cursor: sqlite3.Cursor) -> _queues.Execute:
    """Executes named statements with the cursor."""
    return lambda statement, row: cursor.execute(_SQL[statement], row).fetchall()


def _many(cursor: sqlite3.Cursor, name: str, rows: Sequence[Sequence[Any]]) -> None:
    if rows:
        cursor.executemany(_SQL[name], rows)


def _end(cursor: sqlite3.Cursor, segments: list[Row], ends: list[Row], parks: list[Row], now: Wake) -> None:
    if segments:
        # Before the ends: the mark of a run that ends is the number of its last segment.
        cursor.executemany(_SQL["insert_segment"], segments)
        segments.clear()
    if ends:
        cursor.executemany(_FINISH, ends)
        ends.clear()
    if parks:
        cursor.executemany(_SQL["park"], parks)
        waiting = [(*now, park[-2]) for park in parks if park[0] is _WAITING]
        if waiting:
            # A message may have come since the driver looked last.
            cursor.executemany(_SQL["wake_for_message"], waiting)
        parks.clear()
