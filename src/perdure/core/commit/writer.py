"""The commit path: concurrent records share one transaction, without a hop to another thread.

Every driver has an *outbox* of records. A caller that wants its records on disk becomes the leader if there is none:
the leader empties all outboxes into one transaction, commits, and tells all callers. Threads queue up behind the leader
and mostly find their record already committed. The event loop never queues: the present leader looks again before
releasing the lock (W3).

- W1 the leader gives entry numbers, in the order in which records entered the outbox, without gaps. After a failed
  commit the leader refuses all further records of that driver: numbers and checksums would not follow the journal.
- W2 the outcome of a record is announced only after the transaction of the record is on disk.
- W3 no record is left behind: a leader that has released the lock looks at `_ready` once more.
- W4 the parts of one outbox item are written in one transaction, by every way of flushing.
- W5 once the driver has been told to end, no call records anything more (`Body.over`): code may see `RunStopped` from
  then on, and what follows from that is no part of the run.

On a slow disk, commits on the loop's thread would stall every body, so a writer thread takes over. The measured
duration of commits decides.
"""

from __future__ import annotations

import importlib
import logging
import signal
import threading
from typing import Any

from ...errors import StoreError
from ..body.interfaces import BodyPort
from ..ground.clock import perf
from ..ground.model import (
    CANCELLED,
    Created,
    CreateRun,
    Finish,
    Park,
    RunWrites,
)
from ..ground.ports import Store
from .interfaces import Sink
from .records import (
    Foreign,
    Freeing,
    Item,
    Record,
    Reuse,
    Submission,
    Synced,
    Taking,
    Unheard,
    cut,
    entry_row,
    records_in,
    rows,
    without_abandoned,
)

log = logging.getLogger("perdure")

# The functions behind `signal.signal` and `signal.getsignal`, which turn every number into an enum's member and every
# handler into an attempt to; that costs more than the commit's own Python.
_signal: Any = importlib.import_module("_signal")

SLOW_NS = 5_000_000
"""A commit slower than this (nanoseconds, smoothed) moves to the writer thread."""
FAST_NS = 2_000_000
"""Below this it comes back."""


class Leaders:
    """Who commits, and when. `commit_alone` and `drain`, which do it, are a subclass's.

    `_lock` is the leader's. `_ready` and `_submissions` are appended to by any thread and cut by the leader alone.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ready: list[Sink] = []
        self._submissions: list[Submission] = []
        self._smoothed_ns = 0
        self._slow = False
        self._thread_wake: threading.Event | None = None

    def commit_alone(self, driver: Sink) -> bool:
        """Commit the one item in that outbox without the general case's bookkeeping, or answer `False`, with nothing
        done. Called by the leader."""
        raise NotImplementedError

    def drain(self) -> None:
        """Commit everything that waits now. Called by the leader."""
        raise NotImplementedError

    def create_alone(self, submission: Submission) -> bool:
        """The same for a submission. Called by the leader."""
        return False

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be committed. From any thread; late by a moment."""
        return not (self._ready or self._submissions or self._lock.locked())

    @property
    def commit_ns(self) -> int:
        """The duration of commits in nanoseconds, smoothed. From any thread."""
        return self._smoothed_ns

    def cut_ready(self) -> list[Sink]:
        """The runs in whose outboxes something waits, each once. Called by the leader."""
        ready = cut(self._ready)
        return list(dict.fromkeys(ready)) if len(ready) > 1 else ready

    def cut_submissions(self) -> list[Submission]:
        """The submissions that wait. Called by the leader."""
        return cut(self._submissions) if self._submissions else []

    def is_only(self, submission: Submission) -> bool:
        """Whether the submission waits alone; then take it. Called by the leader."""
        if self._ready or len(self._submissions) != 1 or self._submissions[0] is not submission:
            return False
        del self._submissions[:1]
        return True

    # -- three ways in -----------------------------------------------------------------------------------------

    def through(self, driver: Sink, record: Record | Foreign | Synced) -> None:
        """Commit `record` (already in the outbox) and all other waiting records; the calling thread blocks."""
        lock = self._lock
        if not lock.acquire(False):
            # So that the next leader takes the records along, be it this thread or another.
            self._ready.append(driver)
            lock.acquire()
        try:
            alone = len(driver.outbox) == 1 and not self._ready and not self._submissions
            if not record.done and not (alone and self.commit_alone(driver)):
                self._ready.append(driver)
                self.drain()
        finally:
            lock.release()
        if self._ready or self._submissions:
            self._look_again()
        if record.error is not None:
            raise record.error

    def commit_now(self, driver: Sink, record: Record) -> bool:
        """Commit one record on the event loop's thread, in the middle of its iteration: for the only work of the loop.
        `False`, and nothing done, if others wait or commits are slow."""
        if self._slow or driver.outbox or self._ready or self._submissions or not self._lock.acquire(False):
            return False
        try:
            driver.outbox.append(record)
            if len(driver.outbox) != 1 or not self.commit_alone(driver):
                self._ready.append(driver)
                self.drain()
        finally:
            self._lock.release()
        if self._ready or self._submissions:
            self._look_again()
        return True

    def mark_ready(self, driver: Sink) -> None:
        """Something in that driver's outbox waits for the next commit."""
        self._ready.append(driver)

    def submit(self, submission: Submission) -> None:
        """A new run waits for the next commit."""
        self._submissions.append(submission)

    def submit_through(self, create: CreateRun) -> Created:
        """Commit a new run, and all waiting records; the calling thread blocks."""
        submission = Submission(create)
        with _Uninterrupted():
            self._submissions.append(submission)
            with self._lock:
                if submission.outcome is None and not self.create_alone(submission):
                    self.drain()
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
                    if len(driver.outbox) == 1 and self.commit_alone(driver):
                        # After the fact: an early mark is harmless, a lost one is not. Others have only appended.
                        ready.pop(0)
                        if driver.outbox:
                            ready.append(driver)
                        continue
                self.drain()
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
                    self.drain()

    def measure(self, took_ns: int) -> None:
        self._smoothed_ns = smoothed = self._smoothed_ns + ((took_ns - self._smoothed_ns) >> 3)
        if smoothed > FAST_NS or self._slow:
            self._slow = smoothed > (FAST_NS if self._slow else SLOW_NS)


class Writer(Leaders):
    """The commit path into a store; one per store and process."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store

    def commit_alone(self, driver: Sink) -> bool:
        """The usual case of a sequential body, without the bookkeeping of the general case: one plain outcome of one
        driver.

        Called with the lock held; `False` in any other case, and nothing was done.
        """
        record = driver.outbox[0]
        if driver.abandoning or driver.broken:
            return False
        if type(record) is not Record:
            alone = type(record) is tuple and len(record) == 1 and record[0].__class__ is Finish
            return alone and self._finish_one(driver, record[0])
        if record.result == CANCELLED:
            return False
        driver.outbox.pop(0)
        driver.n = n = driver.n + 1
        record.n = n
        began = perf()
        try:
            entry = entry_row(record, n, driver.source_id)
            segment = driver.journal.append_plain(entry)
            if segment is not None:
                written: Any = self._store.append(driver.run_id, driver.token, segment)
            else:
                segments, ends, sources = driver.journal.append((entry,))
                writes = RunWrites(driver.run_id, driver.token, segments, ends=ends, sources=sources)
                written = self._store.commit((writes,))[0]
        except BaseException as error:
            self._failed([(driver, [record])], [], _store_error(error))
            return True
        self.measure(perf() - began)
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

    def _finish_one(self, driver: Sink, finish: Finish) -> bool:
        """`commit_alone` for a run's end."""
        del driver.outbox[:1]
        began = perf()
        try:
            (written,) = self._store.commit((RunWrites(driver.run_id, driver.token, finish=finish),))
        except BaseException as error:
            self._failed([(driver, [finish])], [], _store_error(error))
            return True
        self.measure(perf() - began)
        with _last_resort:
            if written:
                driver.finished()
            else:
                _refuse(driver, [finish])
        return True

    def create_alone(self, submission: Submission) -> bool:
        """The same for a lone submission. `False`: others wait as well."""
        if not self.is_only(submission):
            return False
        began = perf()
        try:
            (created,) = self._store.commit((submission.create,))
        except BaseException as error:
            submission.answer(_store_error(error))
            return True
        self.measure(perf() - began)
        assert isinstance(created, Created)
        submission.answer(created)
        return True

    def drain(self) -> None:
        """Commit all waiting records as one transaction. Called with the lock held."""
        # Lists are cut, never replaced: a thread may hold a reference to one and be about to append to it, and what
        # it appends must either be in the cut or stay for the next leader.
        ready = self.cut_ready()
        submissions = self.cut_submissions()
        taken: list[tuple[Sink, list[Item]]] = []
        writes: list[RunWrites | CreateRun] = []
        for driver in ready:
            outbox = cut(driver.outbox)
            if driver.broken:
                _tell_stopped(driver, outbox)
                continue
            if driver.abandoning:
                outbox = without_abandoned(outbox)
            if outbox:
                try:
                    writes.append(rows(driver, outbox).sealed(driver))
                except Exception as error:
                    # Entries without an encoding end the driving of their run alone.
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
        self.measure(perf() - began)
        bodies: dict[BodyPort, None] = {}
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

    def _failed(self, taken: list[tuple[Sink, list[Item]]], submissions: list[Submission], error: StoreError) -> None:
        for driver, outbox in taken:
            driver.broken = True
            driver.failed(error)
            _tell_stopped(driver, outbox)
        for submission in submissions:
            submission.answer(error)


_SIGINT = int(signal.SIGINT)


class _Uninterrupted:
    """Ctrl-C strikes the main thread between any two lines; a commit for all callers must finish first."""

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


def pump(body: BodyPort) -> None:
    if body.loop.here():
        body.pump(leading=True)
    else:
        body.loop.soon(body.pump)


def _refuse(driver: Sink, outbox: list[Item]) -> None:
    driver.fenced()
    _tell_stopped(driver, outbox)


def _tell_stopped(driver: Sink, outbox: list[Item]) -> None:
    """Nothing of the outbox was written: each caller that waits gets the reason for the end of driving."""
    for record in records_in(outbox):
        record.done = True
        record.error = driver.stopped_error()


def _store_error(error: BaseException) -> StoreError:
    if isinstance(error, StoreError):
        return error
    # A fault of perdure, not a condition of the database: no caller may wait for ever because of the fault.
    failure = StoreError(f"the journal could not be written: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure


def announce(driver: Sink, outbox: list[Item], bodies: dict[BodyPort, None]) -> None:
    """Tell everybody whose record is on disk (W2)."""
    finish = park = False
    for item in outbox:
        for part in item if item.__class__ is tuple else (item,):
            kind = part.__class__
            if kind is Record or kind is Reuse:
                body = part.announce()
                if body is not None:
                    bodies[body] = None
                if part.result == CANCELLED and part.child is not None:
                    driver.settled(part.child)
            elif kind is Foreign:
                part.done = True
            elif kind is Synced or kind is Taking or kind is Unheard or kind is Freeing:
                part.announce()
            elif kind is Finish:
                finish = True
            elif kind is Park:
                park = True
    if finish:
        driver.finished()
    if park:
        driver.parked()
