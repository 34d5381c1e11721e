"""The store for many machines: a Postgres database (15 or later), through psycopg 3.

Guarantees: all writes except heartbeats are on disk when the call returns (`synchronous_commit`), claims and
submissions included, because a Postgres server can crash and come back while workers live on. Time is the server's
(`clock_timestamp()`): leases run out and runs become due by the server's clock, independent of the workers' clocks.

A run's row is the fence: every write, claim or end of a run locks the row first, in one lock order. A writer that finds
another token in the row writes nothing. Claims of due runs skip locked rows.

After a broken connection the operation is repeated on a new connection, unless the operation was done: the lost session
is ended first, then the store looks for the rows of the operation. A server that is away is waited for
(`link.PATIENCE`).

Three connections as in the SQLite store (journals, reading, claims and heartbeats), and a standing one that listens and
holds locks (`session`), opened for the first worker or the first watcher of changes.

psycopg rather than asyncpg: the port is synchronous and is called from threads, and a commit by the leader
needs no event loop; asyncpg would need one in a thread, and a hop for each commit. It also speaks libpq's language:
URLs, service and password files, TLS settings mean what they mean everywhere else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Generator, Sequence
from time import sleep
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from perdure.core.ground.clock import US, Clock, seconds
from perdure.core.ground.model import (
    PARKED,
    Action,
    ActionState,
    Awaited,
    CachePut,
    Claim,
    Created,
    CreateRun,
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
    WorkerRow,
    schedule_name,
)
from perdure.core.ground.ports import SqlStatement
from perdure.errors import ForeignStoreError, StoreError, StoreUnavailableError, StoreVersionError, UsageError

from .. import _limits, _messages, _queues, _submitting
from .._limit_verbs import LimitVerbs
from .._outbox_verbs import OutboxVerbs
from .._rows import SHORT, claimed, rows_of, run_of, submitted
from .._sql import migrations, queries
from .direct import Statement
from .errors import is_fenced
from .link import Address, Cursor, PostgresLink, Row, ServerClock, text_bytes
from .session import GRACE, PostgresLiveness, Session, channel_of
from .upkeep import UpkeepVerbs
from .watch import LONG_SILENCE, SILENCE, Watch

MIGRATIONS: Final = (
    "0001_initial.sql",
    "0002_messages.sql",
    "0003_cancelling_and_tags.sql",
    "0004_published.sql",
    "0005_paused_schedules.sql",
    "0006_streamed.sql",
    "0007_paused.sql",
    "0008_runs_of_a_task.sql",
    "0009_queues.sql",
    "0010_submissions.sql",
    "0011_paused_tasks.sql",
    "0012_limits.sql",
    "0013_carried.sql",
    "0014_notices.sql",
    "0015_refusals.sql",
    "0016_serving.sql",
)
VERSION: Final = len(MIGRATIONS)

_STATUS: Final = {str(status): status for status in Status}
_COLUMNS: Final = len(RunRow._fields)
_CHUNK: Final = 50
_PURGE_NS: Final = 50_000_000
_STEPS: Final = 3600 * US
"""Allowed difference of a wall clock during a search for unused snapshots."""
_LOOK_SECONDS: Final = 0.5
"""How often to look for changes without a notification: a process may die between commit and notification."""
_CLAIMS_SECONDS: Final = 30.0
"""How long the pause of a task waits for transactions that may claim a run of the task."""
_CLAIMS_PAUSE: Final = 0.005
_BRIEF: Final = 2.0
"""Seconds to wait for an unreachable server, for calls that are of little use later."""
_MIGRATING: Final = 0x70657264
"""Key of the advisory lock for the creation or migration of a schema ("perd")."""


T = TypeVar("T")
Trace = tuple[str, Sequence[Any]]
"""A query that finds a row if an operation was done."""


class Submitted(NamedTuple):
    """A submitted run and the delay until the run is due (microseconds); `None` for a run that is claimed at once."""

    run: RunRow
    left: int | None


class _Found(NamedTuple):
    """Runs of one look."""

    taken: list[Taken]
    entered: bool
    """Whether runs have gone into lanes."""


class PostgresStore(UpkeepVerbs, LimitVerbs, OutboxVerbs):
    """A `Store` in one schema of a Postgres database; a missing schema is created. Safe from any thread, not across a
    fork: a forked process opens its own store."""

    def __init__(self, url: str, *, clock: Clock | None = None, create: bool = True) -> None:
        """Open or create the store.

        Args:
            url: as libpq understands it (`postgresql://user@host/database`); `schema=name` in its query names the
                schema, `perdure` by default.
            create: create the schema, or bring the schema up to date.
            clock: for the caller's wake times and the time of a run's first claim; by default the server's clock.
        """
        self._server_clock = ServerClock()
        self._clock: Clock = clock or self._server_clock
        self._address = address = Address(url)
        self._schema = address.schema
        self._version = VERSION
        self._sql = {name: address.sql(text) for name, text in queries("postgres").items()}
        self._insert_segment = Statement(
            self._sql["insert_segment_fenced"], ("bigint", "bytea", "bigint", "bytea"), text_bytes
        )
        self._send_running = Statement(
            self._sql["send_running"], ("bigint", "text", "text", "bytea", "bigint"), text_bytes
        )
        self._writer = PostgresLink(address)
        self._reader = PostgresLink(address)
        self._aside = PostgresLink(address)
        self._session: Session | None = None
        self._watch: Watch | None = None
        self._looked_at = 0.0
        self._snapshot = 0
        try:
            self._id = self._prepare(create)
            self._read_clock()
            self._session = Session(address, self._id, self._say, self._sql["mark_locked"])
            self._watch = Watch((self._writer, self._aside), self._end_silent)
        except BaseException:
            self.close()
            raise

    def _prepare(self, create: bool) -> str:
        found = self._facts()
        if found is None or int(found.get("version", 0)) < VERSION:
            if not create:
                state = "there is no store yet" if found is None else f"its schema is {found['version']}, not {VERSION}"
                raise StoreError(f"{self.url}: {state}; `perdure store migrate` changes that")
            self._writer.transaction(self._migrate)
            found = self._facts() or {}
        if int(found.get("version", 0)) > VERSION:
            raise StoreVersionError(
                f"{self.url} was written by a newer perdure (schema {found['version']}, this one knows up to {VERSION})"
                ": upgrade perdure, or name another schema"
            )
        if "store_id" not in found:
            raise StoreError(f"{self.url} has lost its store id: restore it from a backup")
        return found["store_id"]

    def _facts(self) -> dict[str, str] | None:
        """The rows of `meta`; `None` without a store."""
        [[there, other]] = self._writer.rows(self._sql["schema_there"], (self._address.schema,))
        if there:
            return dict(self._writer.rows(self._sql["meta"]))
        if other:
            raise ForeignStoreError(
                f"{self.url}: the schema {self._address.schema!r} holds tables of another program: name another one "
                "with ?schema=name"
            )
        return None

    def _migrate(self, cursor: Cursor) -> None:
        # A second migration waits here and then finds the work done: a schema changes in one transaction.
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_MIGRATING,))
        [[there, _]] = cursor.execute(self._sql["schema_there"], (self._address.schema,)).fetchall()
        version = 0
        if there:
            known: dict[str, str] = dict(cursor.execute(self._sql["meta"]).fetchall())
            version = int(known["version"])
        else:
            # IF NOT EXISTS alone would ask for the right to create a schema even for an existing schema.
            [[made]] = cursor.execute("SELECT to_regnamespace(%s) IS NOT NULL", (self._address.schema,)).fetchall()
            if not made:
                cursor.execute(f"CREATE SCHEMA {self._address.schema}".encode())
        for step in migrations("postgres", MIGRATIONS)[version:]:
            for statement in step.statements:
                cursor.execute(self._address.sql(statement).encode())
            cursor.execute(self._sql["set_meta"], ("version", str(step.version)))
        if version == 0:
            cursor.execute(self._sql["set_meta"], ("store_id", os.urandom(16).hex()))

    def _read_clock(self) -> None:
        def ask() -> int:
            [[now]] = self._aside.rows(self._sql["now"], patience=_BRIEF)
            return int(now)

        self._server_clock.read(ask)

    @property
    def id(self) -> str:
        return self._id

    @property
    def clock(self) -> Clock:
        return self._clock

    @property
    def url(self) -> str:
        return self._address.url

    def liveness(self, *, grace: float = GRACE) -> PostgresLiveness:
        """The liveness of the workers that use this store. A lock counts as free after `grace` seconds."""
        assert self._session is not None
        return PostgresLiveness(self._session, self._reader, self._sql["lock_of"], grace=grace)

    def _end_silent(self) -> list[Row]:
        # Reading waits for no lock, so the link for reading is free soon.
        return self._reader.rows(self._sql["end_silent"], (SILENCE, self._address.schema, LONG_SILENCE), patience=0)

    def close(self) -> None:
        if self._watch is not None:
            self._watch.close()
        if self._session is not None:
            self._session.close()
        self._aside.close()
        self._reader.close()
        self._writer.close()

    # -- writing -----------------------------------------------------------------------------------------------

    def commit(self, writes: Sequence[RunWrites | CreateRun]) -> list[Created | bool]:
        if not writes:
            return []
        if len(writes) == 1:
            # A single statement is a transaction: one round trip.
            write = writes[0]
            if isinstance(write, CreateRun):
                return [self._submit(write)]
            only = write.only()
            if isinstance(only, Segment):
                return [self.append(write.run, write.token, only)]
            if only is not None:
                done = (self._sql["is_finished"], (*only, write.run))
                written = self._writer.change(self._sql["finish"], (*only, write.run, write.token), done)
                self._tell()
                return [written]

        def is_done(cursor: Cursor, answers: list[Created | bool]) -> bool:
            found = [is_there for trace in self._traces(writes, answers) for (is_there,) in cursor.execute(*trace)]
            return bool(found) and all(found)

        wanted: list[bool] = []

        def settled(cursor: Cursor, answers: list[Created | bool]) -> list[Created | bool]:
            wanted.append(_limits.settle(self._executing(cursor), writes, answers))
            return answers

        def write_all(cursor: Cursor) -> list[Created | bool]:
            # One round trip, because no statement waits for the answer to an earlier one.
            assumed = self._assume_held(cursor, writes)
            return settled(cursor, self._write_batch(cursor, writes, assumed))

        def write_held(cursor: Cursor) -> list[Created | bool]:
            return settled(cursor, self._write_batch(cursor, writes, self._held(cursor, writes)))

        # Where a slot is freed, rows are read, so that the statements cannot be sent ahead.
        pipelined = not any(isinstance(write, RunWrites) and write.frees for write in writes)
        try:
            answers = self._writer.transaction(write_all, is_done, pipelined=pipelined)
        except StoreError as error:
            if not is_fenced(error.__cause__):
                raise
            answers = self._writer.transaction(write_held, is_done, pipelined=pipelined)
        if any(wanted) or any(_is_news(write, answer) for write, answer in zip(writes, answers, strict=True)):
            self._tell()
        else:
            self._count()
        return answers

    def _submit(self, write: CreateRun) -> Created:
        submission = self._submission(write)

        def look(cursor: Cursor) -> list[Created]:
            row = cursor.execute(self._sql["run_by_name"], (write.new.name,)).fetchone()
            # The run as submitted: if another worker has taken the run since, the stored token is another.
            there = None if row is None else run_of(row)
            if there is None or there.uid != write.new.uid:
                return []
            if write.claim is not None and there.token is None:
                return [Created(there, True)]  # stored without the claim, because the task was paused
            return [Created(submission.run._replace(id=there.id), True)]

        created = self._writer.run(lambda cursor: self._create(cursor, write), look)
        if created.run.token is None:
            self._tell()
        else:
            self._count()
        return created

    def submit(self, write: CreateRun, policy: Policy) -> Created:
        def is_done(cursor: Cursor, created: Created) -> bool:
            # Another answer than the run itself changes nothing, and may be asked for again.
            mine = (created.run.id, created.run.uid)
            return created.fresh and cursor.execute(self._sql["is_created"], mine).fetchone() is not None

        created = self._writer.transaction(
            lambda cursor: _submitting.submit(self._submission_rows(cursor), write, policy), is_done
        )
        self._tell()
        return created

    def _submission_rows(self, cursor: Cursor) -> _submitting.SqlSubmissionRows:
        def cancel(run: int, reason: str) -> None:
            at = self._clock.wall()
            cursor.execute(self._sql["cancel"], (reason, None, at, at, run))

        def lock_key(key: str) -> None:
            cursor.execute(self._sql["lock_key"], (f"{self._schema} {key}",))

        return _submitting.SqlSubmissionRows(
            self._executing(cursor),
            self._clock,
            run=run_of,
            lock_key=lock_key,
            lock_queue=lambda name: self._locked(cursor, name)[0],
            cancel=cancel,
            create=lambda write: self._create(cursor, write),
        )

    def _expire(self) -> None:
        """End the runs whose time to begin is over."""
        while self._reader.rows(self._sql["unbegun_now"], (self._clock.wall(),)):
            looked_at = self._writer.transaction(
                lambda cursor: _submitting.expire(self._submission_rows(cursor)), lambda cursor, _: False
            )
            self._tell()
            if looked_at < _submitting.EXPIRING:
                break

    def creation(self, write: CreateRun) -> Generator[SqlStatement, list[Any], Created]:
        schema, new = self._address.schema, write.new
        # Asked in two steps: a statement about a missing table would end the caller's transaction.
        [(there,)] = yield SqlStatement("SELECT to_regclass(%s) IS NOT NULL", (f"{schema}.meta",))
        facts = (yield SqlStatement(self._sql["meta"])) if there else []
        if dict(facts).get("store_id") != self._id:
            raise UsageError(
                f"the connection does not lead to the database of the store, {self.url}: a run can only be submitted "
                "in a transaction of the database that it is stored in"
            )
        run, left = self._submission(write)
        values = (*new, str(run.status), None, None, None, run.crashes, run.wake_at, left, new.name, None, new.task)
        while True:
            yield SqlStatement(self._sql["insert_run"], values)
            for row in (yield SqlStatement(self._sql["run_by_name"], (new.name,))):
                # The notification leaves with the commit.
                yield SqlStatement(f"NOTIFY {channel_of(self._id)}")
                found = run_of(row)
                return Created(found, found.uid == new.uid)

    def append(self, run: int, token: bytes, segment: Segment) -> bool:
        written = self._writer.change_directly(
            self._insert_segment, (run, token, segment.number, segment.data), lambda: self._segment_trace(run, segment)
        )
        self._count()
        return written

    def _traces(self, writes: Sequence[RunWrites | CreateRun], answers: Sequence[Created | bool]) -> list[Trace]:
        """Queries that find out whether a batch with the given answers was committed, whole or not at all; no row if a
        query cannot tell. A row that another process could have written counts only without a better proof, and only if
        no query contradicts.

        If no query can tell, the runs have other tokens since, and a repetition writes nothing."""
        weak: list[Trace] = []
        for write, answer in zip(writes, answers, strict=True):
            if isinstance(answer, Created):
                if answer.fresh:
                    return [(self._sql["is_created"], (answer.run.id, answer.run.uid))]
            elif answer:
                assert isinstance(write, RunWrites)
                if write.segments:
                    return [self._segment_trace(write.run, write.segments[0])]
                if write.actions:
                    begun = write.actions[0]
                    return [(self._sql["is_action"], (begun.run, begun.parent, begun.action, begun.at, begun.fp))]
                if write.finish is not None:
                    return [(self._sql["is_finished"], (*write.finish, write.run))]
                if write.park is not None:
                    wake, mark, waits, _, _ = write.park
                    weak.append((self._sql["is_parked"], (write.run, write.token, _parked(waits), mark, wake.at)))
        return weak

    def _segment_trace(self, run: int, segment: Segment) -> Trace:
        """A query that finds out whether a segment was stored: no other driver writes the same bytes (SG4)."""
        return self._sql["is_segment"], (run, segment.number, segment.data)

    def _held(self, cursor: Cursor, writes: Sequence[RunWrites | CreateRun]) -> dict[int, bytes | None]:
        """The tokens of the runs of a batch, which the transaction locks."""
        runs = sorted({write.run for write in writes if isinstance(write, RunWrites)})
        return dict(cursor.execute(self._sql["held"], (runs,)).fetchall()) if runs else {}

    def _assume_held(self, cursor: Cursor, writes: Sequence[RunWrites | CreateRun]) -> dict[int, bytes | None]:
        """The same, where every run has the token of its writes; otherwise the transaction fails (`is_fenced`)."""
        tokens: dict[int, bytes | None] = {}
        for write in writes:
            if isinstance(write, RunWrites) and tokens.setdefault(write.run, write.token) != write.token:
                return self._held(cursor, writes)
        if tokens:
            cursor.execute(self._sql["hold"], (len(tokens), list(tokens), list(tokens.values())))
        return tokens

    def _write_batch(
        self, cursor: Cursor, writes: Sequence[RunWrites | CreateRun], holders: dict[int, bytes | None]
    ) -> list[Created | bool]:
        """Write what holds. `holders`: the tokens of the locked runs."""
        answers: list[Created | bool] = []
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
                self._finish(cursor, segments, ends, parks)
                answers.append(self._create(cursor, write))
                continue
            run = write.run
            holder = holders.get(run)
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
                ends.append((*write.finish, run, write.token))
                holders[run] = None
            elif write.park is not None:
                (at, boot), mark, waits, aware, _ = write.park
                parks.append((_parked(waits), mark, at, aware, boot - self._clock.boot(), run, write.token))
                holders[run] = None
            answers.append(True)
        _many(cursor, self._sql["insert_action"], actions)
        _many(cursor, self._sql["update_action"], [(*state[3:], *state[:3]) for state in states])
        _many(cursor, self._sql["end_action"], ended)
        _many(cursor, self._sql["note_source"], sources)
        # Sorted by key: a fixed lock order avoids deadlocks.
        cache.sort(key=_key)
        _many(cursor, self._sql["put_cache"], cache)
        _many(cursor, self._sql["take_message"], takes)
        _many(cursor, self._sql["publish"], published)
        _many(cursor, self._sql["stream"], streamed)
        self._finish(cursor, segments, ends, parks)
        return answers

    def _finish(self, cursor: Cursor, segments: list[Row], ends: list[Row], parks: list[Row]) -> None:
        # Segments first: the mark of a run that ends is the number of its last segment.
        _many(cursor, self._sql["insert_segment"], segments)
        segments.clear()
        _many(cursor, self._sql["finish"], ends)
        ends.clear()
        _many(cursor, self._sql["park"], parks)
        # A message may have come since the driver looked last. The lock on the run's row keeps later messages out.
        now = self._clock.wall()
        waiting = [(now, park[-2]) for park in parks if park[0] == Status.WAITING]
        _many(cursor, self._sql["wake_for_message"], waiting)
        parks.clear()

    def _submission(self, write: CreateRun) -> Submitted:
        new, claim, due = write
        if claim is not None:
            return Submitted(submitted(0, new, claim, None), None)
        at, left = (new.created_at, 0) if due is None else (due.at, due.boot - self._clock.boot())
        return Submitted(submitted(0, new, None, at), left)

    def _create(self, cursor: Cursor, write: CreateRun) -> Created:
        new = write.new
        while True:
            run, left = self._submission(write)
            values = (
                *new, run.status, run.token, run.worker, run.started_at, run.crashes, run.wake_at, left, new.name,
                run.token, new.task,
            )  # fmt: skip
            row = cursor.execute(self._sql["insert_run"], values).fetchone()
            if row is not None:
                return Created(run._replace(id=row[0]), True)
            row = cursor.execute(self._sql["run_by_name"], (new.name,)).fetchone()
            if row is not None:
                return Created(run_of(row), False)
            # The run of the name was removed in the meantime, or the task is paused.
            if write.claim is not None and cursor.execute(self._sql["is_task_paused"], (new.task,)).fetchone():
                write = write._replace(claim=None)

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
        def take(cursor: Cursor) -> RunRow | None:
            row = cursor.execute(self._sql["claimable"], (run,)).fetchone()
            old = None if row is None else run_of(row)
            if old is None or old.token != expect or old.status not in statuses:
                return None
            if old.paused is not None and not resumes:
                return None
            if cursor.execute(self._sql["is_task_paused"], (old.task,)).fetchone() is not None:
                return None
            if old.queue is not None:
                queue, rows, now = self._locked(cursor, old.queue)
                if not _queues.admit(queue, rows, old, claim.worker, now):
                    return None
            [new] = self._claim(cursor, [old], [claim], [entries], crashed=crashed)
            return new

        def is_done(cursor: Cursor, found: RunRow | None) -> bool:
            return self._holds(cursor, [] if found is None else [found])

        found = self._aside.transaction(take, is_done)
        self._count()
        return found

    def _claim(
        self,
        cursor: Cursor,
        old: list[RunRow],
        claims: Sequence[Claim],
        lengths: Sequence[int],
        *,
        crashed: bool = True,
    ) -> list[RunRow]:
        now = self._clock.wall()
        new = [
            claimed(run, claim, n, now, crashed=crashed) for run, claim, n in zip(old, claims, lengths, strict=False)
        ]
        rows = [(run.token, run.worker, run.started_at, run.crashes, run.mark, run.id) for run in new]
        _many(cursor, self._sql["claim"], rows)
        return new

    def _holds(self, cursor: Cursor, runs: list[RunRow]) -> bool:
        [[count]] = cursor.execute(
            self._sql["claimed_with"], ([run.id for run in runs], [run.token for run in runs])
        ).fetchall()
        return bool(count)

    def take_due(self, tasks: Collection[str], claims: Sequence[Claim]) -> list[Taken]:
        if not claims or not tasks:
            self._check()
            return []
        self._expire()
        self._call_parked(set(tasks).difference(self.paused_tasks()))
        limit, taken = len(claims), list[Taken]()
        while True:
            found = self._claiming(lambda cursor: self._take(cursor, tasks, claims[len(taken) :], limit))  # noqa: B023
            taken += found.taken
            # Runs of queues go from the due runs into their lanes, and the next due runs come to light.
            if not found.entered or len(taken) == len(claims):
                break
            limit = _queues.ENTERING
        if len(taken) < len(claims):
            for queue, *_ in self._rows("queues_of", (list(tasks),)):
                if left := claims[len(taken) :]:
                    taken += self._claiming(lambda cursor: self._leave(cursor, queue, tasks, left)).taken  # noqa: B023
        self._count()
        short: dict[int, tuple[list[Segment], list[Action]]] = {
            run.id: ([], []) for run, woken, _ in taken if woken and run.mark <= SHORT
        }
        if short:
            ids = (list(short),)
            for number, at, data in self._reader.rows(self._sql["segments_ahead"], ids):
                short[number][0].append(Segment(at, data))
            for row in self._reader.rows(self._sql["actions_ahead"], ids):
                action = Action._make(row)
                short[action.run][1].append(action)
        return [one._replace(known=short.get(one.run.id)) for one in taken]

    def _claiming(self, work: Callable[[Cursor], _Found]) -> _Found:
        def is_done(cursor: Cursor, found: _Found) -> bool:
            return self._holds(cursor, [one.run for one in found.taken])

        return self._aside.transaction(work, is_done)

    def _take(self, cursor: Cursor, tasks: Collection[str], claims: Sequence[Claim], limit: int) -> _Found:
        """Claim due runs, and put those of queues into their lanes."""
        rows = cursor.execute(self._sql["take_due"], (list(set(tasks)), limit, limit)).fetchall()
        due = [run_of(row[:_COLUMNS]) for row in rows]
        old = [run for run in due if run.queue is None][: len(claims)]
        new = self._claim(cursor, old, claims, [run.mark for run in old])
        # Sorted by name: a fixed lock order avoids deadlocks.
        for name in sorted({run.queue for run in due if run.queue is not None}):
            queue, of_queue, _ = self._locked(cursor, name)
            mine = [_queues.entering(run) for run in due if run.queue == name]
            of_queue.note_turn(_queues.enter(queue, of_queue, mine, self._clock.wall()))
        taken = [Taken(run, before.status in PARKED) for run, before in zip(new, old, strict=True)]
        return _Found(taken, any(run.queue is not None for run in due))

    def _leave(self, cursor: Cursor, name: str, tasks: Collection[str], claims: Sequence[Claim]) -> _Found:
        """Claim runs of a queue, as far as the queue has slots."""
        taken: list[Taken] = []

        def claim(runs: list[int]) -> int:
            old = list(map(run_of, cursor.execute(self._sql["waiting_runs"], (runs,)).fetchall()))
            new = self._claim(cursor, old, claims[len(taken) :], [run.mark for run in old])
            taken.extend(Taken(run, before.status in PARKED) for run, before in zip(new, old, strict=True))
            return len(new)

        tasks = set(tasks).difference(task for task, _ in cursor.execute(self._sql["paused_tasks"]).fetchall())
        queue, rows, now = self._locked(cursor, name)
        most = len(claims)
        turn = _queues.leave(queue, rows, tasks, claims[0].worker, most, now, self._clock.wall(), claim)
        if turn != queue.turn:
            rows.note_turn(turn)
        return _Found(taken, False)

    def _locked(self, cursor: Cursor, name: str) -> tuple[QueueRow, _queues.SqlQueueRows, int]:
        """A queue, locked; its rows for this transaction; and the time of the server."""
        row = cursor.execute(self._sql["lock_queue"], (name,)).fetchone()
        if row is None:
            cursor.execute(self._sql["ensure_queue"], (name,))
            row = cursor.execute(self._sql["lock_queue"], (name,)).fetchone()
            assert row is not None
        # After the lock: starts are recorded in the order of their times.
        [[now]] = cursor.execute(self._sql["now"]).fetchall()
        return QueueRow._make(row), self._rows_of(name, self._executing(cursor)), now

    def _executing(self, cursor: Cursor) -> _queues.Execute:
        """Executes named statements by this cursor."""

        def execute(statement: str, values: Sequence[Any]) -> list[Row]:
            done = cursor.execute(self._sql[statement], values)
            return done.fetchall() if done.description is not None else []

        return execute

    def _rows_of(self, name: str, execute: _queues.Execute) -> _queues.SqlQueueRows:
        return _queues.SqlQueueRows(execute, name, lambda: (name, execute("now", ())[0][0], name))

    def release(self, run: int, token: bytes, refusal: NewRefusal | None = None) -> bool:
        def let_go(cursor: Cursor) -> bool:
            released = cursor.execute(self._sql["release"], (run, token)).rowcount == 1
            if released and refusal is not None:
                # Postgres stores no NUL in text.
                told = (refusal.worker, *(text.replace("\0", "\\0") for text in refusal[1:4]), *refusal[4:])
                cursor.execute(self._sql["put_refusal"], (run, *told, run))
            elif released:
                cursor.execute(self._sql["purge_refusal"], (run,))
            return released

        def is_done(cursor: Cursor, released: bool) -> bool:
            return released and cursor.execute(self._sql["is_released"], (run, token)).fetchone() is not None

        released = self._aside.transaction(let_go, is_done, patience=_BRIEF)
        self._tell()
        return released

    def refusal(self, run: int) -> Refusal | None:
        found = self._rows("refusal", (run,))
        return next(map(Refusal._make, found), None)

    def move_code(self, run: int, token: bytes, target: str) -> bool:
        return self._writer.change(self._sql["move_code"], (target, run, token))

    def abort(self, run: int, ended_at: int) -> bool:
        done = (self._sql["is_aborted"], (ended_at, run))
        aborted = self._writer.change(self._sql["abort"], (ended_at, run), done)
        self._tell()
        return aborted

    def cancel(self, run: int, reason: str, until: int | None, at: int) -> RunRow | None:
        row = (reason, until, at, self._clock.wall(), run)
        asked = self._writer.change(self._sql["cancel"], row, (self._sql["is_cancelling"], (run,)))
        self._tell()
        return self.run_by_id(run) if asked else None

    def end_cancelled(self, run: int, ended_at: int) -> bool:
        done = (self._sql["is_cancelled"], (ended_at, run))
        ended = self._writer.change(self._sql["end_cancelled"], (ended_at, run), done)
        self._tell()
        return ended

    def pause(self, run: int, at: int) -> bool:
        paused = self._writer.change(self._sql["pause"], (at, run), (self._sql["is_paused"], (run,)))
        self._tell()
        return paused

    def pause_task(self, task: str, at: int) -> bool:
        fresh = self._change_rows("pause_task", (task, at)) == 1
        self._wait_for_claims()
        return fresh

    def _wait_for_claims(self) -> None:
        """Wait until the transactions have ended that have read, before the pause of a task, which tasks are paused."""
        end = seconds() + _CLAIMS_SECONDS
        waited = {name for (name,) in self._rows("readers_of_paused_tasks")}
        while waited:
            if seconds() > end:
                raise StoreUnavailableError(
                    f"{self.url}: the task is paused, but a transaction of another process has been open for "
                    f"{_CLAIMS_SECONDS:g} s and may still claim a run of the task; look at pg_stat_activity"
                )
            sleep(_CLAIMS_PAUSE)
            waited.intersection_update(name for (name,) in self._rows("readers_of_paused_tasks"))

    def resume_task(self, task: str) -> bool:
        return self._change_rows("resume_task", (task,)) == 1

    def paused_tasks(self) -> dict[str, int]:
        return dict(self._rows("paused_tasks"))

    def unpause(self, run: int) -> bool:
        unpaused = self._writer.change(self._sql["unpause"], (run,), (self._sql["is_unpaused"], (run,)))
        self._tell()
        return unpaused

    def wake(self, run: int) -> bool:
        woken = self._aside.change(self._sql["wake"], (self._clock.wall(), run), (self._sql["is_woken"], (run,)))
        self._tell()
        return woken

    # -- reading -----------------------------------------------------------------------------------------------

    def _read(self, sql: str, row: Sequence[Any]) -> list[Row]:
        return self._reader.rows(sql, row)

    def _list(self, values: Collection[int]) -> list[int]:
        return list(values)

    def _check(self) -> None:
        self._reader.rows("SELECT 1")

    def next_due(self, tasks: Collection[str], worker: str = "") -> float | None:
        [[left, now, queues]] = self._rows("next_due", (list(set(tasks)), list(set(tasks))))
        waits = [] if left is None else [left]
        if queues:
            tasks = set(tasks).difference(self.paused_tasks())
        for name in queues or ():
            queue = self.queue(name)
            if queue is not None:
                wait = _queues.delay(queue, self._rows_of(name, self._rows), tasks, worker, now)
                waits += [] if wait is None else [wait]
        waits += self._limit_delays(set(tasks).difference(self.paused_tasks()))
        first = min(waits, default=_queues.FAR)
        return None if now + first >= _queues.FAR else first / US

    def slots_of_others(self, workers: Collection[str]) -> list[RunRow]:
        return list(map(run_of, self._rows("slots_of_others", (list(workers), list(workers)))))

    def end_claim(self, run: int, token: bytes, *, crashed: bool) -> bool:
        ended = self._aside.change(
            self._sql["end_claim"], (0 if crashed else 1, run, token), (self._sql["is_released"], (run, token))
        )
        self._tell()
        return ended

    def declare_queue(self, name: str, declared: str) -> None:
        known = self.queue(name)
        if known is None or known.declared != declared:
            # A repetition changes nothing.
            self._writer.change(self._sql["declare_queue"], (name, declared, name, declared))

    def override_queue(self, name: str, override: str | None) -> bool:
        return self._change_rows("override_queue", (override, name)) == 1

    def pause_queue(self, name: str, now: int) -> bool:
        return self._change_rows("pause_queue", (now, name)) == 1

    def resume_queue(self, name: str) -> bool:
        return self._change_rows("resume_queue", (name,)) == 1

    # -- limits ------------------------------------------------------------------------------------------------

    def declare_limit(self, name: str, declared: str) -> None:
        known = self.limit(name)
        if known is None or known.declared != declared:
            # A repetition changes nothing.
            self._writer.change(self._sql["declare_limit"], (name, declared, name, declared))
            self._tell()

    def override_limit(self, name: str, override: str | None) -> bool:
        return self._change_rows("override_limit", (override, name)) == 1

    def _names(self, values: Collection[str]) -> list[str]:
        return list(values)

    def _giving(self, work: Callable[[_queues.Execute], T]) -> T:
        # A repetition may count a use twice, never too few.
        return self._aside.transaction(lambda cursor: work(self._executing(cursor)))

    def _keeping(self, work: Callable[[_queues.Execute], T]) -> T:
        return self._writer.transaction(lambda cursor: work(self._executing(cursor)))

    def _limit_rows(self, name: str, execute: _queues.Execute) -> _limits.SqlLimitRows:
        return _limits.SqlLimitRows(execute, name, (self._clock.wall(),), (name,))

    def _time(self, execute: _queues.Execute) -> int:
        [[now]] = execute("now", ())
        return int(now)

    def _ring_slots(self) -> None:
        self._tell()

    def abandoned(self, tasks: Collection[str], workers: Collection[str], *, limit: int) -> list[RunRow]:
        return [run_of(row) for row in self._rows("abandoned", (list(set(tasks)), list(workers), limit))]

    def version(self) -> int:
        session = self._session
        assert session is not None
        session.start()
        now = seconds()
        if not session.hears or now - self._looked_at >= _LOOK_SECONDS:
            self._looked_at = now
            [[snapshot]] = self._rows("version")
            if snapshot != self._snapshot:
                self._snapshot = snapshot
                session.count += 1
        return session.count

    def listen(self, bell: Callable[[], None], *, ends: bool = False) -> bool:
        session = self._session
        assert session is not None
        session.start()
        session.ring(bell)
        return session.hears

    def _count(self) -> None:
        if self._session is not None:
            self._session.count += 1

    def _tell(self) -> None:
        """Notify other processes, in a separate transaction after the transaction with the change."""
        session = self._session
        if session is None:
            return
        session.count += 1
        try:
            self._say(session.tell)
        except StoreError:
            pass  # other processes look for changes twice a second

    def _say(self, words: str) -> None:
        self._aside.run(lambda cursor: cursor.connection.execute(words.encode()), patience=0)

    # -- sources, cache, workers -------------------------------------------------------------------------------

    def source_id(self, source: Source) -> int:
        # On disk: if a crashed server forgot the row, the number would later stand for another snapshot.
        if not (rows := self._rows("source_id", (source.digest,))):
            modules = msgspec.json.encode(source.modules).decode()
            self._aside.change(self._sql["insert_source"], (source.digest, source.python, modules))
            rows = self._rows("source_id", (source.digest,))
        number: int = rows[0][0]
        return number

    def source(self, id: int) -> Source | None:
        if not (rows := self._rows("source", (id,))):
            return None
        digest, python, modules = rows[0]
        try:
            return Source(digest, python, msgspec.json.decode(modules, type=dict[str, bytes]))
        except (ValueError, RecursionError) as error:
            raise StoreError(f"{self.url}: the source snapshot {id} cannot be read: {error}") from error

    def renew(self, worker: WorkerRow) -> None:
        locked = self._session is not None and self._session.takes(worker.id)
        asked = seconds()
        self._aside.change(self._sql["renew"], (*worker, locked), patience=_BRIEF)
        if self._session is not None:
            self._session.renewed(worker.id, asked + worker.lease / US)
        if self._server_clock.is_old:
            self._read_clock()

    def worker(self, id: str) -> WorkerRow | None:
        rows = self._rows("worker", (id,))
        return WorkerRow._make(rows[0]) if rows else None

    def workers(self) -> list[WorkerRow]:
        return list(map(WorkerRow._make, self._rows("workers")))

    def forget(self, id: str) -> None:
        self._aside.change(self._sql["forget"], (id,), patience=_BRIEF)

    # -- messages ----------------------------------------------------------------------------------------------

    def send(self, run: int, message: NewMessage) -> SendAnswer:
        def work(cursor: Cursor) -> SendAnswer:
            return _messages.send(cursor, self._sql, run, message, (self._clock.wall(),))

        def is_done(cursor: Cursor, sent: SendAnswer) -> bool:
            stored = sent.message
            if not sent.fresh or stored is None:
                return False
            trace = (run, stored.number, stored.box, stored.value, stored.at)
            return cursor.execute(self._sql["is_message"], trace).fetchone() is not None

        session = self._session
        assert session is not None
        box, key, value, at = message
        trace = (self._sql["is_sent"], (run, *message))
        number = self._writer.number_directly(self._send_running, (run, *message), session.tell.encode(), trace)
        if number is not None:
            session.count += 1
            return SendAnswer(Message(number, box, key, value, at, None), True, None)
        sent = self._writer.transaction(work, is_done)
        if sent.fresh:
            self._tell()
        return sent

    def news(self, wanted: Collection[Awaited]) -> dict[tuple[int, str], Message]:
        columns = ([one.run for one in wanted], [one.box for one in wanted], [one.above for one in wanted])
        return _messages.by_box(self._rows("news", columns))

    def publish(
        self, run: int, token: bytes, published: Sequence[Publication], streamed: Sequence[Streamed] = ()
    ) -> bool:
        writes = [RunWrites(run, token, published=published, streamed=streamed)]

        def work(cursor: Cursor) -> list[Created | bool]:
            return self._write_batch(cursor, writes, self._held(cursor, writes))

        def is_done(cursor: Cursor, answers: list[Created | bool]) -> bool:
            if answers != [True] or not streamed:
                return False
            last = cursor.execute(self._sql["last_streamed"], (run, streamed[-1].name)).fetchone()
            return last is not None and Streamed._make(last)._replace(number=0) == streamed[-1]

        written = self._aside.transaction(work, is_done) == [True]
        self._tell()
        return written

    def hear(self, bell: Callable[[], None]) -> bool:
        return self.listen(bell)

    # -- schedules ---------------------------------------------------------------------------------------------

    def advance(
        self, key: str, at: int, *, expect: int | None, runs: Sequence[NewRun] = (), fired: int | None = None
    ) -> list[Created] | None:
        def move(cursor: Cursor) -> list[Created] | None:
            if expect is None:
                cursor.execute(self._sql["begin_schedule"], (key, at, schedule_name(key)))
            else:
                cursor.execute(self._sql["advance_schedule"], (at, fired, key, expect, at))
            if cursor.rowcount != 1:
                return None
            rows = self._submission_rows(cursor)
            return [_submitting.submit(rows, CreateRun(new, None), Policy()) for new in runs]

        def is_done(cursor: Cursor, answers: list[Created] | None) -> bool:
            for answer in answers or ():
                if answer.fresh:
                    mine = (answer.run.id, answer.run.uid)
                    return cursor.execute(self._sql["is_created"], mine).fetchone() is not None
            # Without a created run the mover of the schedule does not matter.
            row = cursor.execute(self._sql["schedule"], (key,)).fetchone()
            return answers is not None and row is not None and ScheduleRow._make(row).at == at

        answers = self._writer.transaction(move, is_done)
        if answers:
            self._tell()
        return answers

    def pause_schedules(self, name: str, now: int) -> int:
        return self._change_rows("pause_schedules", (now, name))

    def resume_schedules(self, name: str, now: int) -> int:
        return self._change_rows("resume_schedules", (now, name))

    def adopt_schedule(self, row: ScheduleRow) -> bool:
        return self._change_rows("adopt_schedule", row) == 1

    def _change_rows(self, statement: str, row: Row) -> int:
        """Execute the statement, and give the number of changed rows."""
        found: list[int] = []

        def change(cursor: Cursor) -> int:
            # The work is repeated when the answer to COMMIT was lost: if the first try has changed rows, the second
            # finds nothing to change, and the first number counts.
            found.append(cursor.execute(self._sql[statement], row).rowcount)
            return max(found)

        changed = self._writer.transaction(change)
        self._tell()
        return changed


def _many(cursor: Cursor, sql: str, rows: Sequence[Row]) -> None:
    if len(rows) == 1:
        cursor.execute(sql, rows[0])
    elif rows:
        cursor.executemany(sql, rows)


def _is_news(write: RunWrites | CreateRun, answer: Created | bool) -> bool:
    """Whether another process may wait for the write: a run to claim, the end of a run, or what a run publishes."""
    if isinstance(answer, Created):
        return answer.run.token is None
    assert isinstance(write, RunWrites)
    return write.finish is not None or write.park is not None or write.tells


def _parked(waits: bool) -> Status:
    return Status.WAITING if waits else Status.SLEEPING


def _key(put: CachePut) -> bytes:
    return put.key
