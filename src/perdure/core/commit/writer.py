"""The commit path: what many callers record at one time shares one transaction, and nobody waits for a thread hop.

Every driver has an *outbox* of records. Whoever wants them on disk becomes the leader if there is none: it empties
all outboxes into one transaction, commits, and tells everybody. Threads queue up behind the leader and mostly find
their record already committed when their turn comes. The event loop never queues: if there is a leader, that leader
looks again before it lets go (W3).

- W1 entry numbers are given by the leader, in the order in which records entered the outbox; they have no gaps.
- W2 a record's outcome is announced only after the transaction that holds it is on disk.
- W3 no record is left behind: a leader that has released the lock looks at `_ready` once more.
- W4 what stands in one outbox item is written in one transaction, whoever flushes when.

Where the disk is slow, committing on the loop's thread would stall every body, so a writer thread takes over. That is
decided by what commits really took.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import signal
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec.structs import replace

from ...errors import StoreError
from ..body.body import Body
from ..body.branch import Call
from ..body.delivery import Outcome
from ..body.scope import Slot
from ..body.waits import LoopWaiter, ThreadWaiter, Waiter
from ..ground.clock import perf
from ..ground.model import (
    Action,
    ActionState,
    CachePut,
    Created,
    CreateRun,
    Entry,
    Finish,
    Park,
    Result,
    RunWrites,
)

if TYPE_CHECKING:
    from ..ground.ports import Store
    from ..run.driver import Driver

log = logging.getLogger("perdure")

# The functions behind `signal.signal` and `signal.getsignal`, which turn every number into an enum's member and every
# handler into an attempt to; that costs more than the commit's own Python.
_signal: Any = importlib.import_module("_signal")

SLOW_NS = 5_000_000
"""A commit that takes longer than this (nanoseconds, smoothed) moves to the writer thread."""
FAST_NS = 2_000_000
"""Below this it comes back."""


class Record:
    """An outcome on its way into the journal."""

    __slots__ = (
        "after",
        "alone",
        "at",
        "call",
        "child",
        "done",
        "error",
        "item",
        "n",
        "result",
        "slot",
        "took",
        "value",
        "waiter",
    )

    def __init__(
        self,
        call: Call,
        result: int,
        value: bytes | None,
        at: int,
        took: int,
        item: int = 0,
        child: int | None = None,
        after: int | None = None,
        waiter: Waiter | None = None,
    ) -> None:
        self.call = call
        self.alone = False
        """Set where the task that records goes on with its outcome at once (`Body.alone`)."""
        self.slot: Slot | None = None
        """Set where a thread records, which waits for its turn (B2)."""
        self.result = result
        self.value = value
        self.at = at
        self.took = took
        self.item = item
        self.child = child
        self.after = after
        self.waiter = waiter
        self.n = 0
        self.done = False
        self.error: BaseException | None = None

    def __await__(self) -> Any:
        # Already on disk (`Writer.commit_now`): nothing to suspend for.
        yield from ()
        if self.error is not None:
            raise self.error
        return Outcome(self.n, self.result, self.value)

    def block(self) -> Outcome:
        """As an effect: get it onto disk from a thread, or from a loop that may block. No hop, the caller commits."""
        body = self.call.body
        body.driver.worker.writer.through(body.driver, self)
        if self.waiter is not None:
            # Others have come before, and this takes its turn behind them.
            outcome = self.waiter.block()
            assert isinstance(outcome, Outcome)
            return outcome
        if self.slot is None and self.n > body.delivery.last:
            body.passed(self.n)
        return Outcome(self.n, self.result, self.value)

    def announce(self) -> Body | None:
        """The outcome is on disk: it takes its turn (W2). The body that is to be pumped, if any."""
        waiter, body = self.waiter, self.call.body
        if self.slot is not None and self.result != Result.CANCELLED:
            if body.thread_committed(self.n):
                self.done = True
                return None
            waiter = self.waiter = ThreadWaiter(self.call, self.item, self.slot)
            body.delivery.in_flight += 1
        self.done = True
        if waiter is None:
            if self.alone:
                # Here, in the order of commits, and not when the task goes on: a thread may be faster.
                body.passed(self.n)
            return None
        body.committed(waiter, Outcome(self.n, self.result, self.value))
        return body


class Mark:
    """A row about other entries (`LOOSEN`, `DISCARD`, `NOTE`)."""

    __slots__ = ("action", "notes", "result", "seq")

    def __init__(self, action: int, result: Result, seq: int, notes: bytes | None = None) -> None:
        self.action = action
        self.result = result
        self.seq = seq
        self.notes = notes


class Reuse(Record):
    """A loose entry handed out again; `original` is the entry's number."""

    __slots__ = ("original",)

    def __init__(self, call: Call, entry: Entry, item: int, *, after: int | None, waiter: LoopWaiter | None) -> None:
        super().__init__(call, entry.result, entry.value, entry.at, entry.took, item, None, after, waiter)
        self.original = entry.n


class Foreign:
    """Rows of a body in another process, to be numbered and written in one transaction (`elsewhere`)."""

    __slots__ = ("actions", "body", "cache", "done", "entries", "error", "n", "states")

    def __init__(
        self,
        body: Body,
        entries: list[Entry],
        actions: list[Action],
        states: list[ActionState],
        cache: list[CachePut],
    ) -> None:
        self.body = body
        """What stands here for that body."""
        self.entries = entries
        self.actions = actions
        self.states = states
        self.cache = cache
        self.n = 0
        """The number before that of the first entry."""
        self.done = False
        self.error: BaseException | None = None


class Synced:
    """Not a row: tells a caller that everything before it in the outbox is on disk."""

    __slots__ = ("done", "error", "future")

    def __init__(self, future: asyncio.Future[None] | None) -> None:
        self.future = future
        self.done = False
        self.error: BaseException | None = None

    def announce(self) -> None:
        self.done = True
        if self.future is not None:
            self.future.get_loop().call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        assert self.future is not None
        if not self.future.done():
            self.future.set_result(None)


class Submission:
    """A run on its way into the store."""

    __slots__ = ("create", "outcome", "tell")

    def __init__(self, create: CreateRun, tell: Callable[[Created | StoreError], None] | None = None) -> None:
        self.create = create
        self.tell = tell
        self.outcome: Created | StoreError | None = None

    def answer(self, outcome: Created | StoreError) -> None:
        self.outcome = outcome
        if self.tell is not None:
            self.tell(outcome)


Item = Any
"""A Record, Mark, Action, ActionState, CachePut, Foreign, Finish, Park, or a tuple of them that must not be parted."""

_MARK_FP = bytes(16)


class Writer:
    """One per store and process."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._ready: list[Driver] = []
        self._submissions: list[Submission] = []
        self._smoothed_ns = 0
        self._slow = False
        self._thread_wake: threading.Event | None = None

    # -- three ways in -----------------------------------------------------------------------------------------

    def through(self, driver: Driver, record: Record | Foreign | Synced) -> None:
        """Commit `record` (already in the outbox) and whatever else waits; the calling thread blocks."""
        lock = self._lock
        if not lock.acquire(blocking=False):
            # So that the leader after the present one takes it along, whoever that is.
            self._ready.append(driver)
            lock.acquire()
        try:
            alone = len(driver.outbox) == 1 and not self._ready and not self._submissions
            if not record.done and not (alone and self._commit_one(driver)):
                self._ready.append(driver)
                self._drain()
        finally:
            lock.release()
        if self._ready or self._submissions:
            self._look_again()
        if record.error is not None:
            raise record.error

    def commit_now(self, driver: Driver, record: Record) -> bool:
        """Commit one record on the event loop's thread, in the middle of its iteration: for the only thing that the
        loop has to do. `False`, and nothing done, if others wait or commits are slow."""
        if self._slow or driver.outbox or self._ready or self._submissions or not self._lock.acquire(blocking=False):
            return False
        try:
            driver.outbox.append(record)
            if len(driver.outbox) != 1 or not self._commit_one(driver):
                self._ready.append(driver)
                self._drain()
        finally:
            self._lock.release()
        if self._ready or self._submissions:
            self._look_again()
        return True

    def mark_ready(self, driver: Driver) -> None:
        """Something in that driver's outbox waits for the next commit."""
        self._ready.append(driver)

    def submit(self, submission: Submission) -> None:
        """A new run waits for the next commit."""
        self._submissions.append(submission)

    def submit_through(self, create: CreateRun) -> Created:
        """Commit a new run, and whatever else waits; the calling thread blocks."""
        submission = Submission(create)
        with _Uninterrupted():
            self._submissions.append(submission)
            with self._lock:
                if submission.outcome is None and not self._create_one(submission):
                    self._drain()
            self._look_again()
        if isinstance(submission.outcome, StoreError):
            raise submission.outcome
        assert submission.outcome is not None
        return submission.outcome

    def flush(self) -> None:
        """Commit what waits, without ever blocking on another committer. For event loops."""
        if self._slow:
            self._to_thread()
            return
        self._look_again()

    def _look_again(self) -> None:
        while (self._ready or self._submissions) and self._lock.acquire(blocking=False):
            try:
                ready = self._ready
                if len(ready) == 1 and not self._submissions:
                    driver = ready[0]
                    if len(driver.outbox) == 1 and self._commit_one(driver):
                        # After the fact: an early mark is harmless, a lost one is not. Others have only appended.
                        ready.pop(0)
                        if driver.outbox:
                            ready.append(driver)
                        continue
                self._drain()
            finally:
                self._lock.release()

    def _to_thread(self) -> None:
        if self._thread_wake is None:
            self._thread_wake = threading.Event()
            threading.Thread(target=self._writer_thread, name="perdure-writer", daemon=True).start()
        self._thread_wake.set()

    def _writer_thread(self) -> None:
        wake = self._thread_wake
        assert wake is not None
        while True:
            wake.wait()
            wake.clear()
            while self._ready or self._submissions:
                with self._lock:
                    self._drain()

    # -- the leader --------------------------------------------------------------------------------------------

    def _commit_one(self, driver: Driver) -> bool:
        """The usual case of a sequential body, without the general one's bookkeeping: one plain outcome of one driver.

        Called with the lock held; `False` if it is not that case, and then nothing was done."""
        record = driver.outbox[0]
        if driver.abandoning:
            return False
        if record.__class__ is tuple:
            return len(record) == 1 and record[0].__class__ is Finish and self._finish_one(driver, record[0])
        if record.__class__ is not Record or record.result == Result.CANCELLED:
            return False
        del driver.outbox[:1]
        driver.n = n = driver.n + 1
        record.n = n
        began = perf()
        try:
            segments, ends, sources = driver.journal.append((_entry(record, n, driver.source_id),))
            writes = RunWrites(driver.run_id, driver.token, segments, ends=ends, sources=sources)
            (written,) = self._store.commit((writes,))
        except BaseException as error:
            self._failed([(driver, [record])], [], _store_error(error))
            return True
        self._measure(perf() - began)
        if not written:
            record.done = True
            with _last_resort:
                _refuse(driver, [record])
            return True
        body = record.announce()
        if body is not None:
            with _last_resort:
                pump(body)
        return True

    def _finish_one(self, driver: Driver, finish: Finish) -> bool:
        """`_commit_one` for a run's end."""
        del driver.outbox[:1]
        began = perf()
        try:
            (written,) = self._store.commit((RunWrites(driver.run_id, driver.token, finish=finish),))
        except BaseException as error:
            self._failed([(driver, [finish])], [], _store_error(error))
            return True
        self._measure(perf() - began)
        with _last_resort:
            if written:
                driver.finished()
            else:
                _refuse(driver, [finish])
        return True

    def _create_one(self, submission: Submission) -> bool:
        """The same for a submission of which nobody else's commit can be part. `False`: others wait as well."""
        if self._ready or len(self._submissions) != 1 or self._submissions[0] is not submission:
            return False
        del self._submissions[:1]
        began = perf()
        try:
            (created,) = self._store.commit((submission.create,))
        except BaseException as error:
            submission.answer(_store_error(error))
            return True
        self._measure(perf() - began)
        assert isinstance(created, Created)
        submission.answer(created)
        return True

    def _drain(self) -> None:
        """Commit everything that waits now, as one transaction. Called with the lock held."""
        # Lists are cut, never replaced: a thread may hold a reference to one and be about to append to it, and what
        # it appends must either be in the cut or stay for the next leader.
        ready = cut(self._ready)
        submissions = cut(self._submissions) if self._submissions else []
        taken: list[tuple[Driver, list[Item]]] = []
        writes: list[RunWrites | CreateRun] = []
        for driver in dict.fromkeys(ready) if len(ready) > 1 else ready:
            outbox = cut(driver.outbox)
            if driver.abandoning:
                outbox = without_abandoned(outbox)
            if outbox:
                try:
                    writes.append(rows(driver, outbox).sealed(driver))
                except Exception as error:
                    # Entries that cannot be encoded end the driving of their run and of no other.
                    self._failed([(driver, outbox)], [], _store_error(error))
                    continue
                taken.append((driver, outbox))
        for submission in submissions:
            writes.append(submission.create)
        if not writes:
            return
        began = perf()
        try:
            answers = self._store.commit(writes)
        except BaseException as error:
            self._failed(taken, submissions, _store_error(error))
            return
        self._measure(perf() - began)
        bodies: dict[Body, None] = {}
        for (driver, outbox), answer in zip(taken, answers, strict=False):
            with _last_resort:
                if answer:
                    announce(driver, outbox, bodies)
                else:
                    _refuse(driver, outbox)
        if submissions:
            for submission, created in zip(submissions, answers[len(taken) :], strict=True):
                assert isinstance(created, Created)
                with _last_resort:
                    submission.answer(created)
        for body in bodies:
            with _last_resort:
                pump(body)

    def _failed(self, taken: list[tuple[Driver, list[Item]]], submissions: list[Submission], error: StoreError) -> None:
        for driver, outbox in taken:
            driver.failed(error)
            for record in records_in(outbox):
                record.done = True
                record.error = driver.stopped_error()
        for submission in submissions:
            submission.answer(error)

    def _measure(self, took_ns: int) -> None:
        self._smoothed_ns += (took_ns - self._smoothed_ns) // 8
        if self._slow:
            self._slow = self._smoothed_ns > FAST_NS
        else:
            self._slow = self._smoothed_ns > SLOW_NS


_SIGINT = int(signal.SIGINT)


class _Uninterrupted:
    """Ctrl-C strikes the main thread between any two lines; while that thread commits for everybody, it has to wait."""

    def __enter__(self) -> None:
        self._before: Any = None
        self._struck = False
        if threading.current_thread() is threading.main_thread():
            self._before = _signal.getsignal(_SIGINT)
            if callable(self._before):
                _signal.signal(_SIGINT, self._strike)

    def _strike(self, *_: object) -> None:
        self._struck = True

    def __exit__(self, *_: object) -> None:
        if callable(self._before):
            _signal.signal(_SIGINT, self._before)
            if self._struck:
                _signal.raise_signal(_SIGINT)


class _LastResort:
    """One listener's fault may neither end the leader's thread nor keep the others from being told (W2)."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if error is None or not isinstance(error, Exception):
            return False
        log.error("a committed outcome could not be announced", exc_info=error)
        return True


_last_resort = _LastResort()


def without_abandoned(outbox: list[Item]) -> list[Item]:
    """What bodies were about to record whose attempt is over: refused here, at the last moment."""
    kept = []
    for item in outbox:
        parts = item if item.__class__ is tuple else (item,)
        records = [part for part in parts if isinstance(part, (Record, Foreign))]
        dead = [record for record in records if _recorder(record).abandoned]
        if not dead:
            kept.append(item)
        for record in dead:
            record.done = True
            record.error = _recorder(record).driver.stopped_error()
    return kept


def _recorder(record: Record | Foreign) -> Body:
    return record.body if isinstance(record, Foreign) else record.call.body


def pump(body: Body) -> None:
    if body.loop.here():
        body.pump()
    else:
        body.loop.soon(body.pump)


def _refuse(driver: Driver, outbox: list[Item]) -> None:
    driver.fenced()
    for record in records_in(outbox):
        record.done = True
        record.error = driver.stopped_error()


def _store_error(error: BaseException) -> StoreError:
    if isinstance(error, StoreError):
        return error
    # Not a condition of the database but a fault of ours: nobody may wait for ever because of it.
    failure = StoreError(f"the journal could not be written: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure


def cut(queue: list[Any]) -> list[Any]:
    taken = queue[:]
    del queue[: len(taken)]
    return taken


class Rows(NamedTuple):
    """What one driver writes in one transaction, its entries numbered but not encoded yet."""

    entries: list[Entry]
    actions: list[Action]
    states: list[ActionState]
    cache: list[CachePut]
    finish: Finish | None
    park: Park | None

    def sealed(self, driver: Driver) -> RunWrites:
        """With the entries as the next segments of the run's journal."""
        entries, actions, states, cache, finish, park = self
        segments, ends, sources = driver.journal.append(entries)
        return RunWrites(driver.run_id, driver.token, segments, actions, states, cache, finish, park, ends, sources)


def rows(driver: Driver, outbox: list[Item]) -> Rows:
    """Number the records of one driver and turn them into rows."""
    n, source = driver.n, driver.source_id
    entries: list[Entry] = []
    actions: list[Action] = []
    states: list[ActionState] = []
    cache: list[CachePut] = []
    finish: Finish | None = None
    park: Park | None = None
    stack = outbox
    if any(item.__class__ is tuple for item in outbox):
        stack = []
        for item in outbox:
            if item.__class__ is tuple:
                stack.extend(item)
            else:
                stack.append(item)
    for item in stack:
        kind = item.__class__
        if kind is Record:
            n += 1
            item.n = n
            entries.append(_entry(item, n, source))
        elif kind is Mark:
            n += 1
            entries.append(replace(_mark(item.action, n, item.seq, item.result, source), notes=item.notes))
        elif kind is Reuse:
            n += 1
            item.n = n
            call = item.call
            row = _mark(call.body.action, n, item.original, Result.REUSE, source)
            # `seq` names the entry; where the call stands now, and when it was made, go along for the next replay.
            entries.append(replace(row, item=item.item, after=item.after, occ=call.seq, begun=call.begun))
        elif kind is Action:
            actions.append(item)
        elif kind is ActionState:
            states.append(item)
        elif kind is CachePut:
            cache.append(item)
        elif kind is Foreign:
            item.n = n
            for row in item.entries:
                n += 1
                entries.append(replace(row, n=n))
            actions.extend(item.actions)
            states.extend(item.states)
            cache.extend(item.cache)
        elif kind is Synced:
            pass
        elif kind is Finish:
            finish = item
        else:
            assert kind is Park, kind
            park = item._replace(mark=n)
    driver.n = n
    return Rows(entries, actions, states, cache, finish, park)


def _mark(action: int, n: int, seq: int, result: Result, source: int) -> Entry:
    return Entry(action, n, 0, seq, 0, 0, 0, int(result), _MARK_FP, "", None, None, None, source, None, None, 0, 0)


def _entry(record: Record, n: int, source: int) -> Entry:
    # Positional, because that is the fastest way to build a struct, and this runs for every recorded call.
    call = record.call
    return Entry(
        call.body.action, n, call.branch.id, call.seq, call.occ, record.item, int(call.kind), int(record.result),
        call.fp, call.name, call.label, record.value, call.inputs, source, record.child, record.after,
        record.at, record.took, call.begun, call.body.take_notes(),
    )  # fmt: skip


def records_in(outbox: list[Item]) -> list[Record | Foreign | Synced]:
    """Those parts that somebody waits for."""
    found: list[Record | Foreign | Synced] = []
    for item in outbox:
        for part in item if item.__class__ is tuple else (item,):
            if isinstance(part, (Record, Foreign, Synced)):
                found.append(part)
    return found


def announce(driver: Driver, outbox: list[Item], bodies: dict[Body, None]) -> None:
    """Tell everybody whose record is on disk (W2)."""
    finish = park = False
    for item in outbox:
        for part in item if item.__class__ is tuple else (item,):
            kind = part.__class__
            if kind is Record or kind is Reuse:
                body = part.announce()
                if body is not None:
                    bodies[body] = None
                if part.result == Result.CANCELLED and part.child is not None:
                    driver.settled(part.child)
            elif kind is Foreign:
                part.done = True
            elif kind is Synced:
                part.announce()
            elif kind is Finish:
                finish = True
            elif kind is Park:
                park = True
    if finish:
        driver.finished()
    if park:
        driver.parked()
