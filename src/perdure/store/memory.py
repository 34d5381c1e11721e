"""The store and the liveness of workers, in memory: the reference for every other adapter in the contract suite.

Nothing survives the process. One lock, plain dicts, every verb as its port words it.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from itertools import accumulate
from typing import Any, Final, NamedTuple

from perdure.core.ground.clock import US, Clock, SystemClock
from perdure.core.ground.model import (
    FINISHED,
    NO_PARENT,
    PARKED,
    ROOT,
    UNDRIVEN,
    UNFINISHED,
    WAITS,
    Action,
    Addressee,
    Ask,
    Awaited,
    CachePut,
    Checked,
    Claim,
    Created,
    CreateRun,
    Ended,
    EndedRun,
    FreedSlot,
    LimitLoad,
    LimitRow,
    Message,
    NewMessage,
    NewRefusal,
    NewRun,
    Notice,
    NoticeCount,
    NoticeKind,
    NoticeState,
    OpenWait,
    Policy,
    Publication,
    Queued,
    QueueLoad,
    QueueRow,
    Refusal,
    Result,
    RunRow,
    RunWrites,
    ScheduleRow,
    Segment,
    SendAnswer,
    Source,
    Status,
    Streamed,
    Subscription,
    Taken,
    Ticket,
    Turn,
    Unread,
    Wake,
    WholeRun,
    WorkerRow,
    schedule_name,
)
from perdure.core.ground.ports import Hold, SqlStatement
from perdure.errors import StoreError, StoreUnavailableError, UsageError

from . import _limits, _queues, _submitting
from ._messages import accepts
from ._rows import (
    MOVABLE,
    SHORT,
    adopted,
    asked_to_cancel,
    claimed,
    comes_back,
    is_due_now,
    parked,
    submitted,
    unmoved,
)


class MemoryStore:
    """A `Store` in the memory of one process."""

    id: Final[str]
    url: Final = "memory://"

    def __init__(self, *, clock: Clock | None = None) -> None:
        self.id = os.urandom(16).hex()
        self._clock = clock or SystemClock()
        self._mutex = threading.RLock()
        self._closed = False
        self._runs: dict[int, RunRow] = {}
        self._names: dict[str, int] = {}
        self._adopted: set[bytes] = set()
        """The runs that have come from other stores, by their `uid`, also those that have been removed since."""
        self._wakes: dict[int, int] = {}
        self._version = 0
        self._segments: dict[int, dict[int, bytes]] = {}
        self._actions: dict[int, dict[tuple[int, int], Action]] = {}
        self._ended: dict[int, set[tuple[int, int]]] = {}
        self._used: dict[int, set[int]] = {}
        self._sources: dict[int, Source] = {}
        self._cache: dict[bytes, CachePut] = {}
        self._workers: dict[str, WorkerRow] = {}
        self._leases: dict[str, int] = {}
        self._schedules: dict[str, ScheduleRow] = {}
        self._messages: dict[int, list[Message]] = {}
        self._published: dict[int, dict[str, Publication]] = {}
        self._streamed: dict[int, dict[str, list[Streamed]]] = {}
        self._paused_tasks: dict[str, int] = {}
        self._refusals: dict[int, Refusal] = {}
        self._queues: dict[str, QueueRow] = {}
        self._lanes: dict[int, int] = {}
        """The level of the lane in which a run waits, by the run."""
        self._turns: dict[tuple[str, str, str, int], int] = {}
        """The turn of each lane, by queue, task, key and level."""
        self._starts: dict[str, list[int]] = {}
        self._submissions: dict[int, _Submission] = {}
        self._limits: dict[str, LimitRow] = {}
        self._tickets: dict[tuple[str, int], _Ticket] = {}
        self._uses: dict[str, list[_limits.Use]] = {}
        self._subscriptions: dict[str, Subscription] = {}
        self._notices: dict[int, Notice] = {}
        self._leased: dict[int, bytes] = {}
        """The tokens under which events are delivered, by the numbers of the events."""
        self._noted = 0
        """The number of the newest event."""
        self._bells: list[Callable[[], None]] = []

    def copy(self) -> MemoryStore:
        """The store as it is at this moment; rows are never changed in place."""
        other = MemoryStore(clock=self._clock)
        with self._lock:
            for name, value in vars(self).items():
                if isinstance(value, dict):
                    setattr(other, name, {k: v.copy() if hasattr(v, "copy") else v for k, v in value.items()})
                elif isinstance(value, (int, set)):
                    setattr(other, name, value.copy() if isinstance(value, set) else value)
            other._published = {run: dict(values) for run, values in self._published.items()}
            other._streamed = {run: {n: list(i) for n, i in streams.items()} for run, streams in self._streamed.items()}
        return other

    @property
    def clock(self) -> Clock:
        return self._clock

    def close(self) -> None:
        self._closed = True

    @property
    def _lock(self) -> threading.RLock:
        if self._closed:
            raise StoreUnavailableError(f"the store {self.url} is closed")
        return self._mutex

    # -- writing -----------------------------------------------------------------------------------------------

    def commit(self, writes: Sequence[RunWrites | CreateRun]) -> list[Created | bool]:
        with self._lock:
            self._version += 1
            answers = [self._create(w) if isinstance(w, CreateRun) else self._write(w) for w in writes]
        if any(isinstance(write, RunWrites) and (write.tells or write.frees) for write in writes):
            self._ring()
        return answers

    def _ring(self) -> None:
        for bell in list(self._bells):
            bell()

    def append(self, run: int, token: bytes, segment: Segment) -> bool:
        return self.commit([RunWrites(run, token, [segment])]) == [True]

    def submit(self, write: CreateRun, policy: Policy) -> Created:
        with self._lock:
            self._version += 1
            return _submitting.submit(_MemorySubmissions(self), write, policy)

    def start_by(self, run: int) -> int | None:
        with self._lock:
            found = self._submissions.get(run)
            return None if found is None else found.start_by

    def creation(self, write: CreateRun) -> Generator[SqlStatement, list[Any], Created]:
        raise UsageError("the store is in memory, where no transaction of another connection reaches")

    def _create(self, write: CreateRun) -> Created:
        new, claim, due = write
        if new.name in self._names:
            return Created(self._runs[self._names[new.name]], False)
        if claim is not None and new.task in self._paused_tasks:
            claim = None
        if claim is None and due is None:
            due = Wake(new.created_at, self._clock.boot())
        run = submitted(max(self._runs, default=0) + 1, new, claim, due.at if due is not None else None)
        if claim is None and due is not None:
            self._wakes[run.id] = due.boot
        self._runs[run.id] = run
        self._names[run.name] = run.id
        self._begin(run.id)
        return Created(run, True)

    def _begin(self, run: int) -> None:
        self._segments[run] = {}
        self._actions[run] = {}
        self._ended[run] = set()
        self._used[run] = set()
        self._messages[run] = []
        self._published[run] = {}
        self._streamed[run] = {}

    def _drop(self, run: int) -> None:
        tables = (self._segments, self._actions, self._ended, self._used, self._messages, self._published)
        for rows in (self._runs, *tables, self._streamed):
            del rows[run]
        self._submissions.pop(run, None)
        self._refusals.pop(run, None)
        for key in [key for key, ticket in self._tickets.items() if ticket.ask.run == run]:
            del self._tickets[key]
        for id in [id for id, notice in self._notices.items() if notice.run == run]:
            del self._notices[id]

    def _write(self, write: RunWrites) -> bool:
        run = self._runs.get(write.run)
        if run is None or run.status is not Status.RUNNING or run.token != write.token:
            return False
        segments, actions = self._segments[run.id], self._actions[run.id]
        if any(s.number in segments for s in write.segments) or any(a[1:3] in actions for a in write.actions):
            raise StoreError(f"run {run.id} already holds a segment or action of that number")
        for action in write.actions:
            actions[action.parent, action.action] = action
        for state in write.states:
            if started := actions.get((state.parent, state.action)):
                actions[state.parent, state.action] = started._replace(**state._asdict())
        self._end(run.id, write.ends)
        segments.update((segment.number, segment.data) for segment in write.segments)
        self._used[run.id].update(write.sources)
        for put in write.cache:
            self._cache[put.key] = put
        for take in write.takes:
            self._take(run.id, take.number, take.entry)
        self._published[run.id].update((one.name, one) for one in write.published)
        self._stream(run.id, write.streamed)
        self._free(run.id, write.token, write.frees)
        if end := write.finish:
            length = max(segments, default=0)
            self._runs[run.id] = run._replace(
                **end._asdict(), token=None, worker=None, crashes=0, mark=length, paused=None
            )
            self._note_failure(self._runs[run.id])
        elif write.park is not None:
            for key in write.park.tickets:
                if (ticket := self._tickets.get(key)) is not None and ticket.ask[1:3] == (run.id, write.token):
                    self._tickets[key] = ticket._replace(state=_limits.PARKED)
            self._runs[run.id] = parked(run, write.park)
            self._wakes[run.id] = self._clock.boot() if is_due_now(run, write.park) else write.park.wake.boot
            if write.park.waits:
                self._wake_for_message(run.id)
        return True

    def _stream(self, run: int, streamed: Sequence[Streamed]) -> None:
        for one in streamed:
            items = self._streamed[run].setdefault(one.name, [])
            items.append(one._replace(number=len(items) + 1))

    def _take(self, run: int, number: int, entry: int | None) -> None:
        messages = self._messages[run]
        if number <= len(messages):
            old = messages[number - 1]
            taken = None if entry is None else entry if old.taken is None else old.taken
            messages[number - 1] = old._replace(taken=taken)

    def _end(self, run: int, ends: Sequence[Ended]) -> None:
        for parent, action, ended in ends:
            if (parent, action) in self._actions[run]:
                (self._ended[run].add if ended else self._ended[run].discard)((parent, action))

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
        with self._lock:
            old = self._runs.get(run)
            if old is None or old.token != expect or old.status not in statuses:
                return None
            if (old.paused is not None and not resumes) or old.task in self._paused_tasks:
                return None
            if old.queue is not None:
                queue = self._queue_or_new(old.queue)
                rows = _MemoryRows(self, old.queue)
                if not _queues.admit(queue, rows, old, claim.worker, self._clock.boot()):
                    return None
            return self._claim(old, claim, entries, crashed=crashed)

    def _claim(self, old: RunRow, claim: Claim, entries: int, *, crashed: bool = True) -> RunRow:
        self._version += 1
        self._wakes.pop(old.id, None)
        self._lanes.pop(old.id, None)
        self._runs[old.id] = claimed(old, claim, entries, self._clock.wall(), crashed=crashed)
        return self._runs[old.id]

    def take_due(self, tasks: Collection[str], claims: Sequence[Claim]) -> list[Taken]:
        with self._lock:
            while _submitting.expire(_MemorySubmissions(self)):
                pass
            now, wall = self._clock.boot(), self._clock.wall()
            tasks = set(tasks).difference(self._paused_tasks)
            for name in self._waited_for(tasks):
                limit, of_limit = self._limits[name], _MemoryLimitRows(self, name)
                if _limits.delay(limit, of_limit, tasks, now) == 0:
                    self._limits[name] = _limits.call(limit, of_limit, tasks, now)
            due = [self._runs[run] for _, run in sorted((wake, run) for run, wake in self._due(tasks) if wake <= now)]
            taken = [
                self._take_run(run, claim)
                for run, claim in zip([run for run in due if run.queue is None], claims, strict=False)
            ]
            for name in sorted({run.queue for run in due if run.queue is not None}):
                queue, mine = self._queue_or_new(name), [run for run in due if run.queue == name]
                turn = _queues.enter(queue, _MemoryRows(self, name), map(_queues.entering, mine), wall)
                self._put_queue(queue._replace(turn=turn))
            for name in sorted({queue for queue, task, *_ in self._turns if task in tasks}):
                queue, rows, left = self._queues[name], _MemoryRows(self, name), claims[len(taken) :]

                def claim(runs: list[int]) -> int:
                    for run in runs:
                        taken.append(self._take_run(self._runs[run], claims[len(taken)]))
                    return len(runs)

                if left:
                    turn = _queues.leave(queue, rows, tasks, left[0].worker, len(left), now, wall, claim)
                    self._queues[name] = self._queues[name]._replace(turn=turn)
            return taken

    def _take_run(self, run: RunRow, claim: Claim) -> Taken:
        known = self._known(run)
        return Taken(self._claim(run, claim, run.mark), run.status in PARKED, known)

    def _known(self, run: RunRow) -> tuple[list[Segment], list[Action]] | None:
        if run.status not in PARKED or run.mark > SHORT:
            return None
        actions = sorted(self.actions(run.id, NO_PARENT) + self.actions(run.id, ROOT), key=lambda action: action.action)
        return list(self.segments(run.id)), actions

    def _due(self, tasks: Collection[str]) -> list[tuple[int, int]]:
        rows = ((self._runs[run], wake) for run, wake in self._wakes.items())
        return [(run.id, wake) for run, wake in rows if run.task in tasks and run.paused is None]

    def release(self, run: int, token: bytes, refusal: NewRefusal | None = None) -> bool:
        with self._lock:
            old = self._runs.get(run)
            if old is None or old.token != token or old.status is not Status.RUNNING:
                return False
            self._version += 1
            before = self._refusals.pop(run, None)
            if refusal is not None:
                entries = self.journal_length(run)
                tries = before.tries + 1 if before is not None and before.entries == entries else 1
                self._refusals[run] = Refusal(*refusal, tries, entries)
            self._runs[run] = old._replace(token=None, worker=None, crashes=0)
            return True

    def refusal(self, run: int) -> Refusal | None:
        with self._lock:
            found, row = self._refusals.get(run), self._runs.get(run)
            if found is None or row is None or row.token is not None or row.status is not Status.RUNNING:
                return None
            return found if found.entries == self.journal_length(run) else None

    def move_code(self, run: int, token: bytes, target: str) -> bool:
        with self._lock:
            old = self._runs.get(run)
            if old is None or old.token != token or old.status is not Status.RUNNING:
                return False
            self._version += 1
            self._runs[run] = old._replace(target=target)
            return True

    def abort(self, run: int, ended_at: int) -> bool:
        with self._lock:
            old = self._runs.get(run)
            if old is None or old.status in FINISHED or old.status is Status.MOVED:
                return False
            self._version += 1
            self._wakes.pop(run, None)
            self._runs[run] = old._replace(
                status=Status.ABORTED, token=None, worker=None, ended_at=ended_at, wake_at=None, paused=None
            )
            self._note_failure(self._runs[run])
            return True

    def cancel(self, run: int, reason: str, until: int | None, at: int) -> RunRow | None:
        with self._lock:
            old = self._runs.get(run)
            if old is None or old.status in FINISHED or old.status is Status.MOVED:
                return None
            self._version += 1
            if old.status is Status.QUEUED:
                self._wakes.pop(run, None)
            elif run in self._wakes:
                self._wakes[run] = min(self._wakes[run], self._clock.boot())
            self._runs[run] = asked_to_cancel(old, reason, until, at, self._clock.wall())
            return self._runs[run]

    def end_cancelled(self, run: int, ended_at: int) -> bool:
        with self._lock:
            old = self._runs.get(run)
            if old is None or old.cancel is None or old.status in FINISHED or old.status is Status.MOVED:
                return False
            self._version += 1
            self._wakes.pop(run, None)
            self._runs[run] = old._replace(
                status=Status.CANCELLED, result=Result.CANCELLED, token=None, worker=None, ended_at=ended_at,
                wake_at=None, paused=None,
            )  # fmt: skip
            return True

    def pause(self, run: int, at: int) -> bool:
        with self._lock:
            old = self._runs.get(run)
            if old is None or old.status not in UNFINISHED or old.cancel is not None:
                return False
            self._version += 1
            self._runs[run] = old._replace(paused=at if old.paused is None else old.paused)
            return True

    def pause_task(self, task: str, at: int) -> bool:
        with self._lock:
            fresh = task not in self._paused_tasks
            self._version += 1
            self._paused_tasks.setdefault(task, at)
            return fresh

    def resume_task(self, task: str) -> bool:
        with self._lock:
            self._version += 1
            return self._paused_tasks.pop(task, None) is not None

    def paused_tasks(self) -> dict[str, int]:
        with self._lock:
            return dict(self._paused_tasks)

    def unpause(self, run: int) -> bool:
        with self._lock:
            old = self._runs.get(run)
            if old is None or old.paused is None or old.status not in UNFINISHED:
                return False
            self._version += 1
            self._runs[run] = old._replace(paused=None)
            if run in self._lanes:
                # The run enters the queue again: the lane may be gone.
                self._wakes[run] = 0
            return True

    def wake(self, run: int) -> bool:
        with self._lock:
            if run not in self._wakes:
                return False
            self._version += 1
            self._wakes[run] = min(self._wakes[run], self._clock.boot())
            old = self._runs[run]
            assert old.wake_at is not None
            self._runs[run] = old._replace(wake_at=min(old.wake_at, self._clock.wall()))
            return True

    # -- reading -----------------------------------------------------------------------------------------------

    def run(self, name: str) -> RunRow | None:
        with self._lock:
            return self._runs.get(self._names.get(name, 0))

    def run_by_id(self, run: int) -> RunRow | None:
        with self._lock:
            return self._runs.get(run)

    def runs(
        self,
        *,
        limit: int | None = None,
        statuses: Collection[Status] | None = None,
        below: int | None = None,
        task: str | None = None,
    ) -> list[RunRow]:
        with self._lock:
            found = [run for run in reversed(self._runs.values()) if statuses is None or run.status in statuses]
            found = [run for run in found if task is None or run.task == task]
            return [run for run in found if below is None or run.id < below][:limit]

    def counts(self) -> dict[Status, int]:
        with self._lock:
            return dict(Counter(run.status for run in self._runs.values()))

    def similar(self, task: str, inputs_hash: bytes) -> list[RunRow]:
        return [r for r in self.runs(statuses={Status.RUNNING}) if r.task == task and r.inputs_hash == inputs_hash]

    def next_due(self, tasks: Collection[str], worker: str = "") -> float | None:
        with self._lock:
            now = self._clock.boot()
            tasks = set(tasks).difference(self._paused_tasks)
            wakes = [wake for _, wake in self._due(tasks) if wake < _queues.FAR]
            for name in {queue for queue, task, *_ in self._turns if task in tasks}:
                left = _queues.delay(self._queues[name], _MemoryRows(self, name), tasks, worker, now)
                if left is not None:
                    wakes.append(now + left)
            for name in self._waited_for(tasks):
                left = _limits.delay(self._limits[name], _MemoryLimitRows(self, name), tasks, now)
                if left is not None:
                    wakes.append(now + left)
            return (min(wakes) - now) / US if wakes else None

    def slots_of_others(self, workers: Collection[str]) -> list[RunRow]:
        with self._lock:
            by_call = {ticket.ask.run for ticket in self._tickets.values() if self._is_held(ticket)}
            holding = [run for run in self._runs.values() if holds_slot(run) or run.id in by_call]
            return [run for run in holding if run.worker not in workers]

    def end_claim(self, run: int, token: bytes, *, crashed: bool) -> bool:
        with self._lock:
            old = self._runs.get(run)
            if old is None or old.token != token or old.status is not Status.RUNNING:
                return False
            self._version += 1
            crashes = max(old.crashes - (not crashed), 0)
            self._runs[run] = old._replace(token=None, worker=None, crashes=crashes)
            return True

    # -- limits ------------------------------------------------------------------------------------------------

    def declare_limit(self, name: str, declared: str) -> None:
        with self._lock:
            old = self._limits.get(name, LimitRow(name, "{}", None, 0, 0))
            if old.declared != declared or name not in self._limits:
                self._version += 1
                self._limits[name] = old._replace(declared=declared)
        self._ring()

    def override_limit(self, name: str, override: str | None) -> bool:
        with self._lock:
            if name not in self._limits:
                return False
            self._version += 1
            self._limits[name] = self._limits[name]._replace(override=override)
        self._ring()
        return True

    def limits(self) -> list[LimitRow]:
        with self._lock:
            return [self._limits[name] for name in sorted(self._limits)]

    def limit(self, name: str) -> LimitRow | None:
        with self._lock:
            return self._limits.get(name)

    def limit_load(self, name: str) -> LimitLoad:
        with self._lock:
            mine = [ticket for key, ticket in self._tickets.items() if key[0] == name]
            return LimitLoad(sum(map(self._is_held, mine)), sum(map(self._is_waiting, mine)))

    def ask(self, asks: Sequence[Ask]) -> list[Ticket]:
        with self._lock:
            self._version += 1
            for name in sorted({one.name for one in asks}):
                limit = self._limits.setdefault(name, LimitRow(name, "{}", None, 0, 0))
                mine = [one for one in asks if one.name == name]
                self._limits[name] = _limits.ask(limit, _MemoryLimitRows(self, name), mine, self._clock.boot())
            places = {(one.ask.run, key[0], one.ask.place): key for key, one in self._tickets.items()}
            keys = [places[one.run, one.name, one.place] for one in asks]
            return [Ticket(number, self._tickets[name, number].state == _limits.HOLDS) for name, number in keys]

    def turn(self, names: Collection[str]) -> Turn:
        with self._lock:
            delays = {}
            for name in names:
                if name not in self._limits:
                    continue
                rows = _MemoryLimitRows(self, name)
                self._limits[name], left = _limits.grant(self._limits[name], rows, self._clock.boot())
                if left is not None:
                    delays[name] = left
            mine = [(key, one) for key, one in self._tickets.items() if key[0] in names and self._is_held(one)]
            return Turn({(*key, one.ask.token) for key, one in mine}, delays)

    def give_back(self, run: int, token: bytes, frees: Sequence[FreedSlot]) -> None:
        with self._lock:
            self._version += 1
            self._free(run, token, frees)
        self._ring()

    def _free(self, run: int, token: bytes, frees: Sequence[FreedSlot]) -> None:
        for name, number, used in frees:
            ticket = self._tickets.get((name, number))
            if ticket is None or ticket.ask[1:3] != (run, token):
                continue
            uses = self._uses.get(name, [])
            if used is not None:
                uses[:] = [one._replace(cost=used) if one.number == ticket.used else one for one in uses]
            del self._tickets[name, number]

    def queued(self, run: int) -> list[Queued]:
        with self._lock:
            waiting = sorted(key for key, ticket in self._tickets.items() if self._is_waiting(ticket))
            found = []
            for name, number in waiting:
                ask = self._tickets[name, number].ask
                if ask.run == run:
                    ahead = sum(other[0] == name and other[1] < number for other in waiting)
                    found.append(Queued(name, ask.since, ahead))
            return found

    def _is_held(self, ticket: _Ticket) -> bool:
        run = self._runs.get(ticket.ask.run)
        claimed = run is not None and run.status is Status.RUNNING and run.token == ticket.ask.token
        return ticket.state == _limits.HOLDS and claimed

    def _is_waiting(self, ticket: _Ticket) -> bool:
        run = self._runs.get(ticket.ask.run)
        return ticket.state not in (_limits.HOLDS, _limits.LOST) and run is not None and run.status in UNFINISHED

    def _waited_for(self, tasks: Collection[str]) -> list[str]:
        """The limits that parked runs of these tasks wait for."""
        parked = (key for key, one in self._tickets.items() if one.state == _limits.PARKED and one.ask.task in tasks)
        return sorted({name for name, _ in parked})

    # -- queues ------------------------------------------------------------------------------------------------

    def declare_queue(self, name: str, declared: str) -> None:
        with self._lock:
            old = self._queue_or_new(name)
            self._put_queue(old._replace(declared=declared))

    def override_queue(self, name: str, override: str | None) -> bool:
        with self._lock:
            old = self._queues.get(name)
            return old is not None and self._put_queue(old._replace(override=override))

    def pause_queue(self, name: str, now: int) -> bool:
        with self._lock:
            old = self._queues.get(name)
            return old is not None and old.paused is None and self._put_queue(old._replace(paused=now))

    def resume_queue(self, name: str) -> bool:
        with self._lock:
            old = self._queues.get(name)
            return old is not None and old.paused is not None and self._put_queue(old._replace(paused=None))

    def _queue_or_new(self, name: str) -> QueueRow:
        return self._queues.setdefault(name, QueueRow(name, "{}", None, None, 0))

    def _put_queue(self, row: QueueRow) -> bool:
        self._version += 1
        self._queues[row.name] = row
        return True

    def queues(self) -> list[QueueRow]:
        with self._lock:
            return [self._queues[name] for name in sorted(self._queues)]

    def queue(self, name: str) -> QueueRow | None:
        with self._lock:
            return self._queues.get(name)

    def queue_load(self, name: str) -> QueueLoad:
        with self._lock:
            mine = [run for run in self._runs.values() if run.queue == name]
            return QueueLoad(
                sum(map(holds_slot, mine)), sum(run.status in UNDRIVEN and run.paused is None for run in mine)
            )

    def abandoned(self, tasks: Collection[str], workers: Collection[str], *, limit: int) -> list[RunRow]:
        with self._lock:
            return [
                run
                for run in self._runs.values()
                if run.status is Status.RUNNING
                and run.task in tasks
                and run.worker not in workers
                and (run.token is not None or (run.paused is None and run.task not in self._paused_tasks))
            ][:limit]

    def version(self) -> int:
        return self._version

    def listen(self, bell: Callable[[], None], *, ends: bool = False) -> bool:
        return False

    def journal_length(self, run: int) -> int:
        with self._lock:
            return max(self._segments.get(run, ()), default=0)

    def last_action(self, run: int) -> int:
        with self._lock:
            return max((number for _, number in self._actions.get(run, ())), default=0)

    def segments(self, run: int, numbers: Collection[int] | None = None) -> Iterator[Segment]:
        with self._lock:
            found = self._segments.get(run, {})
            return iter([Segment(n, found[n]) for n in sorted(found) if numbers is None or n in numbers])

    def actions(self, run: int, parent: int | None = None) -> list[Action]:
        with self._lock:
            found = [a for a in self._actions.get(run, {}).values() if parent is None or a.parent == parent]
            return sorted(found, key=lambda action: action.action)

    def open_actions(self, run: int) -> list[Action]:
        with self._lock:
            ended = self._ended.get(run, set())
            return [action for action in self.actions(run) if (action.parent, action.action) not in ended]

    # -- sources, cache, workers -------------------------------------------------------------------------------

    def source_id(self, source: Source) -> int:
        with self._lock:
            for number, known in self._sources.items():
                if known.digest == source.digest:
                    return number
            number = max(self._sources, default=0) + 1
            self._sources[number] = source
            return number

    def source(self, id: int) -> Source | None:
        with self._lock:
            return self._sources.get(id)

    def cache_get(self, key: bytes) -> bytes | None:
        with self._lock:
            put = self._cache.get(key)
            return None if put is None else put.value

    def renew(self, worker: WorkerRow) -> None:
        with self._lock:
            self._workers[worker.id] = worker
            self._leases[worker.id] = self._clock.boot() + worker.lease

    def worker(self, id: str) -> WorkerRow | None:
        with self._lock:
            row = self._workers.get(id)
            return None if row is None else row._replace(lease=self._leases[id] - self._clock.boot())

    def workers(self) -> list[WorkerRow]:
        with self._lock:
            now = self._clock.boot()
            return [row._replace(lease=self._leases[row.id] - now) for row in self._workers.values()]

    def forget(self, id: str) -> None:
        with self._lock:
            self._workers.pop(id, None)
            self._leases.pop(id, None)

    # -- removing what is over ---------------------------------------------------------------------------------

    def ended(self, before: int, statuses: Collection[Status], *, above: int = 0, limit: int) -> list[EndedRun]:
        with self._lock:
            found = [
                EndedRun(run.id, run.uid, run.name, run.status, run.ended_at)
                for run in self._runs.values()
                if run.id > above and run.ended_at is not None and self._is_over(run, before, statuses)
            ]
            return found[:limit]

    def _is_over(self, run: RunRow | None, before: int, statuses: Collection[Status]) -> bool:
        if run is None or run.status not in FINISHED.intersection(statuses):
            return False
        begin = (Status.QUEUED, Status.RUNNING)
        reused = any(other.reuse == run.name and other.status in begin for other in self._runs.values())
        return run.ended_at is not None and run.ended_at < before and not reused

    def remove(self, runs: Sequence[int], before: int, statuses: Collection[Status]) -> list[bool]:
        with self._lock:
            answers = []
            for number in runs:
                run = self._runs.get(number)
                over = self._is_over(run, before, statuses)
                if over and run is not None:
                    del self._names[run.name]
                    self._drop(number)
                answers.append(over)
            return answers

    def purge(self, limit: int) -> bool:
        return False  # `remove` has left nothing

    def uids(self) -> set[bytes]:
        with self._lock:
            return {run.uid for run in self._runs.values()}

    def claimed_since(self) -> dict[str, int]:
        with self._lock:
            found: dict[str, int] = {}
            for run in self._runs.values():
                if run.status is Status.RUNNING and run.worker is not None and run.token is not None:
                    since = run.created_at if run.started_at is None else run.started_at
                    found[run.worker] = min(since, found.get(run.worker, since))
            return found

    def stored(self, skip: Collection[int] = ()) -> Iterator[bytes]:
        with self._lock:
            numbers = [number for number in self._runs if number not in skip]
            values = [value for n in numbers for value in (self._runs[n].inputs, self._runs[n].value)]
            values += [data for n in numbers for data in self._segments[n].values()]
            values += [value for n in numbers for a in self._actions[n].values() for value in (a.inputs, a.state)]
            values += [message.value for n in numbers for message in self._messages[n]]
            values += [one.value for n in numbers for one in self._published[n].values()]
            values += [one.value for n in numbers for one in self.all_streamed(n)]
            values += [put.value for put in self._cache.values()]
        return iter([value for value in values if value])

    def cached(self, before: int, *, limit: int) -> list[CachePut]:
        with self._lock:
            return [put for put in self._cache.values() if put.at < before][:limit]

    def uncache(self, keys: Sequence[bytes], before: int) -> int:
        with self._lock:
            old = [key for key in keys if key in self._cache and self._cache[key].at < before]
            for key in old:
                del self._cache[key]
            return len(old)

    def drop_sources(self, is_dead: Callable[[str], bool]) -> int:
        with self._lock:
            if not all(map(is_dead, self._workers)):
                return 0
            used = {source for sources in self._used.values() for source in sources}
            used |= {action.source for started in self._actions.values() for action in started.values()}
            unused = self._sources.keys() - used
            for number in unused:
                del self._sources[number]
            return len(unused)

    # -- moving runs to another store --------------------------------------------------------------------------

    def move(self, runs: Sequence[int], to: str) -> list[RunRow | None]:
        with self._lock:
            self._version += 1
            return [self._move(self._runs.get(number), to) for number in runs]

    def _move(self, run: RunRow | None, to: str) -> RunRow | None:
        if run is None:
            return None
        if run.status is Status.MOVED:
            return unmoved(run) if run.worker == to and run.token is None else None
        if run.status not in MOVABLE:
            return None
        self._runs[run.id] = run._replace(status=Status.MOVED, worker=to)
        self._wakes.pop(run.id, None)
        # The tickets of the run stay here: in the other store the run asks again.
        asks = (one for one in self._tickets.values() if one.state in (_limits.PARKED, _limits.CALLED))
        waits = any(one.ask.run == run.id for one in asks)
        return run._replace(wake_at=run.created_at) if waits and run.wake_at is not None else run

    def arrived(self, runs: Sequence[int], store: str) -> None:
        with self._lock:
            for number in runs:
                run = self._runs.get(number)
                if run is not None and run.status is Status.MOVED:
                    self._runs[number] = run._replace(token=store.encode())

    def take_back(self, run: int) -> bool:
        with self._lock:
            old = self._runs.get(run)
            if old is None or old.status is not Status.MOVED:
                return False
            self._version += 1
            self._runs[run] = unmoved(old)
            if old.wake_at is not None:
                self._wakes[run] = self._clock.boot() + old.wake_at - self._clock.wall()
            return True

    def adopt(self, runs: Sequence[WholeRun]) -> list[Created]:
        with self._lock:
            self._version += 1
            return [self._adopt(whole) for whole in runs]

    def _adopt(self, whole: WholeRun) -> Created:
        run, due = whole.run, whole.due
        free = max(self._runs, default=0) + 1
        number = self._names.get(run.name)
        if run.uid in self._adopted and (number is None or self._runs[number].uid != run.uid):
            return Created(run, False)
        if number is not None:
            if not comes_back(run, self._runs[number]):
                return Created(self._runs[number], False)
            self._drop(number)
        self._adopted.add(run.uid)
        run = adopted(run, due)._replace(id=free)
        self._runs[run.id] = run
        self._names[run.name] = run.id
        self._begin(run.id)
        self._segments[run.id].update((segment.number, segment.data) for segment in whole.segments)
        self._actions[run.id].update({(one.parent, one.action): one._replace(run=run.id) for one in whole.actions})
        self._end(run.id, whole.ended)
        self._used[run.id].update(whole.sources)
        self._messages[run.id] = list(whole.messages)
        self._published[run.id] = {one.name: one for one in whole.published}
        self._stream(run.id, whole.streamed)
        if due is not None:
            self._wakes[run.id] = due.boot
        return Created(run, True)

    def check(self) -> Checked:
        return Checked({"kind": "memory"}, [])

    # -- messages ----------------------------------------------------------------------------------------------

    def send(self, run: int, message: NewMessage) -> SendAnswer:
        with self._lock:
            receiver = self._runs.get(run)
            if receiver is None:
                return SendAnswer(None, False, None)
            earlier = None if message.key is None else self.message(run, message.box, message.key)
            if earlier is not None:
                return SendAnswer(earlier, False, None)
            if not accepts(receiver):
                return SendAnswer(None, False, receiver)
            self._version += 1
            stored = Message(len(self._messages[run]) + 1, *message, None)
            self._messages[run].append(stored)
            woken = self._wake_for_message(run)
        self._ring()
        return SendAnswer(stored, True, None, woken)

    def _wake_for_message(self, run: int) -> bool:
        row = self._runs[run]
        boxes = {message.box for message in self._messages[run] if message.taken is None}
        if row.status in PARKED and any(w.kind in WAITS and w.name in boxes for w in self.open_actions(run)):
            assert row.wake_at is not None
            self._wakes[run] = min(self._wakes[run], self._clock.boot())
            self._runs[run] = row._replace(wake_at=min(row.wake_at, self._clock.wall()))
            return True
        return False

    def message(self, run: int, box: str, key: str) -> Message | None:
        with self._lock:
            found = (one for one in self._messages.get(run, ()) if one.box == box and one.key == key)
            return next(found, None)

    def messages(self, run: int, box: str, *, above: int = 0, limit: int | None = None) -> list[Message]:
        with self._lock:
            found = self._messages.get(run, [])[above:]
            return [message for message in found if message.box == box and message.taken is None][:limit]

    def all_messages(self, run: int) -> Iterator[Message]:
        with self._lock:
            return iter(list(self._messages.get(run, ())))

    def publish(
        self, run: int, token: bytes, published: Sequence[Publication], streamed: Sequence[Streamed] = ()
    ) -> bool:
        return self.commit([RunWrites(run, token, published=published, streamed=streamed)]) == [True]

    def streamed(
        self, run: int, name: str, *, above: int = 0, limit: int | None = None, size: int | None = None
    ) -> list[Streamed]:
        with self._lock:
            found = self._streamed.get(run, {}).get(name, [])[above:][:limit]
        before = accumulate((len(one.value or b"") for one in found), initial=0)
        return [one for one, total in zip(found, before, strict=False) if size is None or total == 0 or total < size]

    def last_streamed(self, run: int, name: str) -> Streamed | None:
        items = self.streamed(run, name)
        return items[-1] if items else None

    def all_streamed(self, run: int) -> Iterator[Streamed]:
        with self._lock:
            streams = self._streamed.get(run, {})
            return iter([one for name in sorted(streams) for one in streams[name]])

    def published(self, run: int) -> list[Publication]:
        with self._lock:
            found = self._published.get(run, {})
            return [found[name] for name in sorted(found)]

    def addressee(self, name: str, box: str) -> Addressee | None:
        with self._lock:
            run = self.run(name)
            if run is None:
                return None
            waits = [one for one in self.open_actions(run.id) if one.kind in WAITS and one.name == box]
            return Addressee(run.id, bool(waits), waits[0].inputs if waits else None)

    def news(self, wanted: Collection[Awaited]) -> dict[tuple[int, str], Message]:
        found = {(run, box): self.messages(run, box, above=above, limit=1) for run, box, above in wanted}
        return {place: messages[0] for place, messages in found.items() if messages}

    def hear(self, bell: Callable[[], None]) -> bool:
        self._bells.append(bell)
        return True

    def open_waits(self) -> list[OpenWait]:
        with self._lock:
            return [
                OpenWait(run.name, action)
                for run in self._runs.values()
                if accepts(run)
                for action in self.open_actions(run.id)
                if action.kind in WAITS and not any(action.parent == body for _, body in self._ended[run.id])
            ]

    def unread(self) -> list[Unread]:
        with self._lock:
            found: dict[tuple[int, str], Unread] = {}
            for run in filter(accepts, self._runs.values()):
                for message in self._messages[run.id]:
                    if message.taken is None:
                        old = found.get((run.id, message.box), Unread(run.name, message.box, 0, message.at))
                        found[run.id, message.box] = old._replace(total=old.total + 1, since=min(old.since, message.at))
            return [found[key] for key in sorted(found)]

    # -- schedules ---------------------------------------------------------------------------------------------

    def schedules(self) -> list[ScheduleRow]:
        with self._lock:
            return [self._schedules[key] for key in sorted(self._schedules)]

    def schedule(self, key: str) -> ScheduleRow | None:
        with self._lock:
            return self._schedules.get(key)

    def advance(
        self, key: str, at: int, *, expect: int | None, runs: Sequence[NewRun] = (), fired: int | None = None
    ) -> list[Created] | None:
        with self._lock:
            old = self._schedules.get(key)
            if old is None and expect is None:
                pauses = [row.paused for row in self._named(schedule_name(key)) if row.paused is not None]
                self._schedules[key] = ScheduleRow(key, at, max(pauses, default=None))
            elif old is not None and old.at == expect and at > expect and old.paused is None:
                self._schedules[key] = old._replace(at=at, fired=old.fired if fired is None else fired)
            else:
                return None
            self._version += 1
            return [_submitting.submit(_MemorySubmissions(self), CreateRun(new, None), Policy()) for new in runs]

    def pause_schedules(self, name: str, now: int) -> int:
        with self._lock:
            changed = [row._replace(paused=now) for row in self._named(name) if row.paused is None]
            return self._put_schedules(changed)

    def resume_schedules(self, name: str, now: int) -> int:
        with self._lock:
            changed = [
                row._replace(paused=None, at=max(row.at, now)) for row in self._named(name) if row.paused is not None
            ]
            return self._put_schedules(changed)

    def adopt_schedule(self, row: ScheduleRow) -> bool:
        with self._lock:
            return row.key not in self._schedules and self._put_schedules([row]) == 1

    def _named(self, name: str) -> list[ScheduleRow]:
        return [row for row in self._schedules.values() if schedule_name(row.key) == name]

    def _put_schedules(self, rows: Sequence[ScheduleRow]) -> int:
        self._version += 1
        self._schedules.update((row.key, row) for row in rows)
        return len(rows)

    # -- the outbox --------------------------------------------------------------------------------------------

    def subscribe(self, subscription: Subscription) -> None:
        with self._lock:
            known = self._subscriptions.get(subscription.name, subscription)
            self._subscriptions[subscription.name] = subscription._replace(created_at=known.created_at)

    def unsubscribe(self, name: str) -> bool:
        with self._lock:
            for id in [id for id, notice in self._notices.items() if notice.subscription == name]:
                del self._notices[id]
            return self._subscriptions.pop(name, None) is not None

    def subscriptions(self) -> list[Subscription]:
        with self._lock:
            return [self._subscriptions[name] for name in sorted(self._subscriptions)]

    def _note_failure(self, run: RunRow) -> None:
        if run.status in (Status.FAILED, Status.ABORTED) and run.ended_at is not None:
            self.note_event(run.id, NoticeKind.FAILURE, str(run.ended_at), run.ended_at, run.value)

    def note_event(self, run: int, kind: str, cause: str, at: int, detail: bytes | None) -> int:
        with self._lock:
            row, before = self._runs.get(run), self._noted
            for one in self._subscriptions.values() if row is not None else ():
                assert row is not None
                known = any(n[1:5] == (one.name, run, kind, cause) for n in self._notices.values())
                if kind in one.kinds and one.task in (None, row.task) and not known:
                    self._noted += 1
                    notice = Notice(self._noted, one.name, run, kind, cause, at, row.status, detail, 0, at, 0, None)
                    self._notices[self._noted] = notice
            return self._noted - before

    def take_notice(self, subscription: str, token: bytes, now: int, until: int) -> Notice | None:
        with self._lock:
            due = [notice for notice in self._pending(subscription) if notice.due <= now]
            if not due:
                return None
            notice = min(due, key=lambda notice: (notice.due, notice.id))
            self._leased[notice.id] = token
            self._notices[notice.id] = notice._replace(due=until)
            return self._notices[notice.id]

    def _pending(self, subscription: str) -> list[Notice]:
        mine = (notice for notice in self._notices.values() if notice.subscription == subscription)
        return [notice for notice in mine if notice.state == NoticeState.PENDING]

    def next_notice(self, subscription: str) -> int | None:
        with self._lock:
            return min((notice.due for notice in self._pending(subscription)), default=None)

    def settle_notice(
        self, id: int, token: bytes, state: NoticeState, due: int, error: str | None, *, failed: bool
    ) -> bool:
        with self._lock:
            notice = self._notices.get(id)
            if notice is None or notice.state != NoticeState.PENDING or self._leased.get(id) != token:
                return False
            del self._leased[id]
            attempts = notice.attempts + failed
            self._notices[id] = notice._replace(state=int(state), due=due, error=error, attempts=attempts)
            return True

    def revive_notices(self, subscription: str, now: int) -> int:
        with self._lock:
            dead = [n for n in self._notices.values() if (n.subscription, n.state) == (subscription, NoticeState.DEAD)]
            for notice in dead:
                self._notices[notice.id] = notice._replace(state=0, due=now, attempts=0)
            return len(dead)

    def notices(self, limit: int) -> list[Notice]:
        with self._lock:
            return list(reversed(self._notices.values()))[:limit]

    def notice_counts(self) -> list[NoticeCount]:
        with self._lock:
            times: dict[tuple[str, int], list[int]] = {}
            for notice in self._notices.values():
                times.setdefault((notice.subscription, notice.state), []).append(notice.at)
            return [NoticeCount(*key, len(times[key]), min(times[key])) for key in sorted(times)]

    def noted_of_task(self, task: str, kind: str, cause: str) -> int | None:
        with self._lock:
            found = [n for n in self._notices.values() if (n.kind, n.cause) == (kind, cause)]
            return max((n.at for n in found if n.run in self._runs and self._runs[n.run].task == task), default=None)


def holds_slot(run: RunRow) -> bool:
    """Whether the run holds a slot of a queue (FC1)."""
    return run.queue is not None and run.token is not None and run.status is Status.RUNNING


class _MemoryRows:
    """The rows of one queue."""

    def __init__(self, store: MemoryStore, queue: str) -> None:
        self._store = store
        self._queue = queue

    def held(self) -> list[_queues.Holder]:
        mine = (run for run in self._store._runs.values() if run.queue == self._queue and holds_slot(run))
        return [_queues.Holder(run.key, run.worker or "") for run in mine]

    def lanes(self, task: str) -> Iterator[_queues.Lane]:
        turns = self._store._turns.items()
        found = [
            _queues.Lane(turn, level, key, task)
            for (queue, of_task, key, level), turn in turns
            if (queue, of_task) == (self._queue, task)
        ]
        return iter(sorted(found))

    def heads(self, lane: _queues.Lane, count: int) -> list[_queues.LaneHead]:
        waiting = (self._store._runs[run] for run, level in self._store._lanes.items() if level == lane.level)
        found = [
            (run.wake_at or 0, run.id)
            for run in waiting
            if (run.queue, run.task, run.key) == (self._queue, lane.task, lane.key)
            and run.status in UNDRIVEN
            and run.paused is None
        ]
        return [_queues.LaneHead(run, wake) for wake, run in sorted(found)[:count]]

    def set_turn(self, lane: _queues.Lane, turn: int) -> None:
        self._store._turns[self._queue, lane.task, lane.key, lane.level] = turn

    def drop(self, lane: _queues.Lane) -> None:
        if not self.heads(lane, 1):
            self._store._turns.pop((self._queue, lane.task, lane.key, lane.level), None)

    def enter(self, runs: Sequence[tuple[int, _queues.Lane]]) -> None:
        for run, lane in runs:
            self._store._wakes[run] = _queues.FAR
            self._store._lanes[run] = lane.level
            self._store._turns.setdefault((self._queue, lane.task, lane.key, lane.level), lane.turn)

    def starts(self, since: int) -> _queues.Window:
        found = [at for at in self._store._starts.get(self._queue, ()) if at >= since]
        return _queues.Window(len(found), min(found, default=since))

    def record(self, count: int, since: int) -> None:
        at = self._store._clock.boot()
        kept = [one for one in self._store._starts.get(self._queue, ()) if one >= since]
        self._store._starts[self._queue] = kept + [max([at, *kept])] * count


class _Submission(NamedTuple):
    """What is kept of a submission with a policy."""

    task: str
    key: str | None
    until: int | None
    start_by: int | None


class _MemorySubmissions:
    """The rows that a submission looks at."""

    def __init__(self, store: MemoryStore) -> None:
        self.clock = store._clock
        self._store = store

    def run(self, name: str) -> RunRow | None:
        return self._store.run(name)

    def lock_key(self, task: str, key: str) -> None:
        """The store's lock is held."""

    def lock_queue(self, name: str) -> QueueRow:
        return self._store._queue_or_new(name)

    def _of_key(self, task: str, key: str) -> list[tuple[RunRow, _Submission]]:
        runs = self._store._runs
        found = sorted(self._store._submissions.items())
        return [(runs[run], one) for run, one in found if (one.task, one.key) == (task, key) and run in runs]

    def holder(self, task: str, key: str) -> _submitting.KeyHolder | None:
        for run, one in reversed(self._of_key(task, key)):
            if run.status not in (Status.CANCELLED, Status.ABORTED):
                return _submitting.KeyHolder(run.name, run.status, one.until)
        return None

    def queued(self, task: str, key: str) -> list[int]:
        return [run.id for run, _ in self._of_key(task, key) if run.status is Status.QUEUED]

    def last_start(self, task: str, key: str) -> int | None:
        return max((run.started_at for run, _ in self._of_key(task, key) if run.started_at is not None), default=None)

    def unfinished(self, queue: str, key: str | None) -> list[tuple[int, str, str | None]]:
        mine = (run for run in self._store._runs.values() if run.queue == queue and run.status in UNFINISHED)
        return sorted((run.id, str(run.status), run.cancel) for run in mine if key is None or run.key == key)

    def cancel(self, run: int, reason: str) -> None:
        self._store.cancel(run, reason, None, self.clock.wall())

    def create(self, write: CreateRun) -> Created:
        return self._store._create(write)

    def note(self, run: int, task: str, policy: Policy, until: int | None) -> None:
        self._store._submissions[run] = _Submission(task, policy.key, until, policy.start_by)

    def unbegun(self, now: int, most: int) -> list[_submitting.Unbegun]:
        runs = self._store._runs
        return [
            _submitting.Unbegun(run, one.start_by, runs[run].status)
            for run, one in self._store._submissions.items()
            if one.start_by is not None and one.start_by < now and run in runs
        ][:most]

    def forget_start_by(self, run: int) -> None:
        self._store._submissions[run] = self._store._submissions[run]._replace(start_by=None)


class _Ticket(NamedTuple):
    """A ticket of a limit (see `_limits`)."""

    ask: Ask
    state: int
    at: int = 0
    """When the run was made due."""
    used: int | None = None


class _MemoryLimitRows:
    """The rows of one limit."""

    def __init__(self, store: MemoryStore, name: str) -> None:
        self._store = store
        self._name = name
        self._uses = store._uses.setdefault(name, [])

    def _in_state(self, state: int) -> list[tuple[int, _Ticket]]:
        found = self._store._tickets.items()
        return sorted((key[1], one) for key, one in found if key[0] == self._name and one.state == state)

    def _set(self, number: int, **fields: Any) -> None:
        self._store._tickets[self._name, number] = self._store._tickets[self._name, number]._replace(**fields)

    def _waiting(self, number: int, ticket: _Ticket) -> _limits.WaitingCall:
        ask, run = ticket.ask, self._store._runs.get(ticket.ask.run)
        claimed = run is not None and run.status is Status.RUNNING and run.token == ask.token
        status, paused = (None, None) if run is None else (str(run.status), run.paused)
        return _limits.WaitingCall(number, ask.run, ask.cost, claimed, status, paused)

    def holding(self) -> int:
        return sum(self._store._is_held(ticket) for _, ticket in self._in_state(_limits.HOLDS))

    def waiting(self, above: int, count: int) -> list[_limits.WaitingCall]:
        found = [one for one in self._in_state(_limits.WAITS) if one[0] > above]
        return [self._waiting(*one) for one in found[:count]]

    def parked(self, task: str, above: int, count: int) -> list[_limits.WaitingCall]:
        found = [one for one in self._in_state(_limits.PARKED) if one[0] > above and one[1].ask.task == task]
        return [self._waiting(*one) for one in found[:count]]

    def called(self, since: int) -> int:
        return sum(ticket.at > since for _, ticket in self._in_state(_limits.CALLED))

    def known(self, run: int, place: bytes) -> int | None:
        found = self._store._tickets.items()
        mine = (key[1] for key, one in found if key[0] == self._name and (one.ask.run, one.ask.place) == (run, place))
        return next(mine, None)

    def add(self, number: int, ask: Ask) -> None:
        self._store._tickets[self._name, number] = _Ticket(ask, _limits.WAITS)

    def again(self, number: int, ask: Ask) -> None:
        since = self._store._tickets[self._name, number].ask.since
        self._set(number, ask=ask._replace(since=since), state=_limits.WAITS, used=None)

    def hold(self, number: int, used: int | None) -> None:
        self._set(number, state=_limits.HOLDS, used=used)

    def call(self, number: int, run: int, now: int) -> None:
        self._set(number, state=_limits.CALLED, at=now)
        self._store.wake(run)

    def drop(self, number: int) -> None:
        del self._store._tickets[self._name, number]

    def sweep(self) -> None:
        for number, ticket in self._in_state(_limits.HOLDS):
            if not self._store._is_held(ticket):
                self._set(number, state=_limits.LOST)

    def first_use(self, since: int) -> _limits.Use | None:
        return next(self.uses(since), None)

    def spent(self, since: int) -> int:
        return sum(use.cost for use in self.uses(since))

    def uses(self, since: int) -> Iterator[_limits.Use]:
        return (use for use in self._uses if use.at >= since)

    def record(self, number: int, cost: int) -> None:
        last = self._uses[-1].at if self._uses else 0
        self._uses.append(_limits.Use(number, max(self._store._clock.boot(), last), cost))

    def prune(self, since: int) -> None:
        self._uses[:] = [use for use in self._uses if use.at >= since]

    def note(self, limit: LimitRow) -> None:
        self._store._limits[self._name] = limit


class MemoryLiveness:
    """A `Liveness` for workers that are all in this process."""

    def __init__(self) -> None:
        self._held: set[str] = set()

    def hold(self, worker: str) -> None:
        if worker in self._held:
            raise UsageError(f"worker {worker} is already held by this process")
        self._held.add(worker)

    def drop(self, worker: str) -> None:
        self._held.discard(worker)

    def doubts(self, worker: str) -> bool:
        return False

    def is_dead(self, worker: str) -> bool:
        return worker not in self._held

    def hold_of(self, worker: str) -> Hold:
        return Hold.AT_WORK if worker in self._held else Hold.FREE
