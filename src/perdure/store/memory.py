"""The store and the liveness of workers, in memory: what the contract suite holds every other adapter to.

Nothing survives the process. One lock, plain dicts, every verb as its port words it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from perdure.core.clock import Clock, SystemClock
from perdure.core.model import (
    FINISHED,
    Action,
    Claim,
    Created,
    CreateRun,
    Entry,
    Run,
    RunWrites,
    Source,
    Status,
    Worker,
)
from perdure.errors import StoreError, StoreUnavailableError, UsageError

from ._rows import claimed, submitted


class MemoryStore:
    """A `Store` in this process's memory."""

    id: Final[str]
    url: Final = "memory://"

    def __init__(self, *, clock: Clock | None = None) -> None:
        self.id = os.urandom(16).hex()
        self._clock = clock or SystemClock()
        self._mutex = threading.RLock()
        self._closed = False
        self._runs: dict[int, Run] = {}
        self._names: dict[str, int] = {}
        self._entries: dict[int, dict[tuple[int, int], Entry]] = {}
        self._actions: dict[int, dict[tuple[int, int], Action]] = {}
        self._sources: list[Source] = []
        self._cache: dict[bytes, bytes] = {}
        self._workers: dict[str, Worker] = {}

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
            return [self._create(w) if isinstance(w, CreateRun) else self._write(w) for w in writes]

    def _create(self, write: CreateRun) -> Created:
        new, claim = write
        if new.name in self._names:
            return Created(self._runs[self._names[new.name]], False)
        run = submitted(len(self._runs) + 1, new, claim)
        self._runs[run.id] = run
        self._names[run.name] = run.id
        self._entries[run.id] = {}
        self._actions[run.id] = {}
        return Created(run, True)

    def _write(self, write: RunWrites) -> bool:
        run = self._runs.get(write.run)
        if run is None or run.status is not Status.RUNNING or run.token != write.token:
            return False
        # The driver may send plain tuples in the order of `Entry`.
        added = [Entry._make(entry) for entry in write.entries]
        entries, actions = self._entries[run.id], self._actions[run.id]
        if any((e.action, e.n) in entries for e in added) or any(a[1:3] in actions for a in write.actions):
            raise StoreError(f"run {run.id} already holds an entry or action of that number")
        for action in write.actions:
            actions[action.parent, action.action] = action
        for state in write.states:
            if started := actions.get((state.parent, state.action)):
                actions[state.parent, state.action] = started._replace(**state._asdict())
        for entry in added:
            entries[entry.action, entry.n] = entry
        for put in write.cache:
            self._cache[put.key] = put.value
        if end := write.finish:
            self._runs[run.id] = run._replace(**end._asdict(), token=None, worker=None)
        return True

    def claim(
        self, run: int, claim: Claim, *, expect: bytes | None, entries: int, statuses: Collection[Status]
    ) -> Run | None:
        with self._lock:
            old = self._runs.get(run)
            if old is None or old.token != expect or old.status not in statuses:
                return None
            self._runs[run] = claimed(old, claim, entries, self._clock.wall())
            return self._runs[run]

    def release(self, run: int, token: bytes) -> bool:
        with self._lock:
            old = self._runs.get(run)
            if old is None or old.token != token or old.status is not Status.RUNNING:
                return False
            self._runs[run] = old._replace(token=None, worker=None, crashes=0)
            return True

    def abort(self, run: int, ended_at: int) -> bool:
        with self._lock:
            old = self._runs.get(run)
            if old is None or old.status in FINISHED:
                return False
            self._runs[run] = old._replace(status=Status.ABORTED, token=None, worker=None, ended_at=ended_at)
            return True

    # -- reading -----------------------------------------------------------------------------------------------

    def run(self, name: str) -> Run | None:
        with self._lock:
            return self._runs.get(self._names.get(name, 0))

    def run_by_id(self, run: int) -> Run | None:
        with self._lock:
            return self._runs.get(run)

    def runs(self, *, limit: int | None = None, statuses: Collection[Status] | None = None) -> list[Run]:
        with self._lock:
            found = [run for run in reversed(self._runs.values()) if statuses is None or run.status in statuses]
            return found[:limit]

    def similar(self, task: str, inputs_hash: bytes) -> list[Run]:
        return [r for r in self.runs(statuses={Status.RUNNING}) if r.task == task and r.inputs_hash == inputs_hash]

    def journal_length(self, run: int) -> int:
        with self._lock:
            return max((n for _, n in self._entries.get(run, ())), default=0)

    def last_action(self, run: int) -> int:
        with self._lock:
            return max((number for _, number in self._actions.get(run, ())), default=0)

    def entries(self, run: int, action: int | None = None) -> Iterable[Entry]:
        with self._lock:
            found = [e for e in self._entries.get(run, {}).values() if action is None or e.action == action]
            return sorted(found, key=lambda entry: entry.n)

    def actions(self, run: int, parent: int | None = None) -> list[Action]:
        with self._lock:
            found = [a for a in self._actions.get(run, {}).values() if parent is None or a.parent == parent]
            return sorted(found, key=lambda action: action.action)

    def open_actions(self, run: int) -> list[Action]:
        ended = {entry.child for entry in self.entries(run)}
        return [action for action in self.actions(run) if action.action not in ended]

    # -- sources, cache, workers -------------------------------------------------------------------------------

    def source_id(self, source: Source) -> int:
        with self._lock:
            for number, known in enumerate(self._sources, 1):
                if known.digest == source.digest:
                    return number
            self._sources.append(source)
            return len(self._sources)

    def source(self, id: int) -> Source | None:
        with self._lock:
            return self._sources[id - 1] if 0 < id <= len(self._sources) else None

    def cache_get(self, key: bytes) -> bytes | None:
        with self._lock:
            return self._cache.get(key)

    def renew(self, worker: Worker) -> None:
        with self._lock:
            self._workers[worker.id] = worker

    def worker(self, id: str) -> Worker | None:
        with self._lock:
            return self._workers.get(id)

    def forget(self, id: str) -> None:
        with self._lock:
            self._workers.pop(id, None)


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

    def is_dead(self, worker: str) -> bool:
        return worker not in self._held
