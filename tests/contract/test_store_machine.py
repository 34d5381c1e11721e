"""A differential law: for every sequence of calls, SQLite and Postgres answer like their in-memory twin."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.contract._records import action, new_run, state, worker
from tests.postgres_server import Handed, programs, server

from perdure.core.ground.model import (
    ROOT,
    STORED_STATUSES,
    Awaited,
    CachePut,
    Claim,
    CreateRun,
    Ended,
    Finish,
    Kind,
    NewMessage,
    Park,
    Result,
    RunWrites,
    Segment,
    Source,
    Status,
    Take,
    Wake,
    WholeRun,
)
from perdure.core.ground.ports import Store
from perdure.store.memory import MemoryStore
from perdure.store.sqlite import SQLiteStore

TOKENS = st.sampled_from([b"a" * 16, b"b" * 16])
NAMES = st.sampled_from(["one", "two", "three", "four"])
RUNS = st.integers(0, 5)
ACTIONS = st.integers(0, 3)
STATUSES = st.frozensets(st.sampled_from(STORED_STATUSES))
ENDS = st.builds(
    Finish,
    st.sampled_from([Status.SUCCEEDED, Status.FAILED]),
    st.sampled_from([int(Result.VALUE), int(Result.ERROR)]),
    st.binary(max_size=4),
    st.integers(0, 99),
)
TASKS = {"etl.main"}
WAKES = st.builds(Wake, st.integers(0, 9), st.integers(-3, 3))
"""Half of them are due: the boot clock of these stores stands at 0."""
PARKS = st.builds(Park, WAKES, st.integers(0, 9), st.booleans())
BOXES = st.sampled_from(["condition:go", "mailbox:a", "mailbox:b"])
WAITING = st.just({}) | st.builds(lambda box: {"kind": int(Kind.RECEIVE), "name": box}, BOXES)
"""The fields of an action: any action, or a wait for a message."""
SCHEDULES = st.sampled_from(["daily", "hourly"])
PUTS = st.builds(CachePut, st.sampled_from([b"k", b"l"]), st.binary(max_size=3), st.integers(0, 9))


class Clock:
    """Shows another time for each question that all stores are asked, however often they look at it."""

    boot_id = "boot-1"

    def __init__(self) -> None:
        self.now = 1

    def wall(self) -> int:
        return self.now

    def boot(self) -> int:
        return 0


pytestmark = pytest.mark.timeout(300)

T = TypeVar("T")


@cache
def postgres_url() -> str:
    return server().url()


class Stores(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="perdure-machine-"))
        self.numbers = count(1)

    @initialize()
    def open(self) -> None:
        self.clock = Clock()
        self.memory: Store = MemoryStore(clock=self.clock)
        self.sqlite: Store = SQLiteStore(self.directory / "store.db", "process", clock=self.clock)
        self.stores = [self.memory, self.sqlite]
        if programs() is not None and os.environ.get("PERDURE_TEST_STORE") != "sqlite":
            self.stores.append(self._postgres())
            self.schema = postgres_url().rpartition("=")[2]
            for table in (
                "runs",
                "segments",
                "run_sources",
                "actions",
                "sources",
                "cache",
                "workers",
                "schedules",
                "paused_tasks",
                "messages",
            ):
                server().execute(f"TRUNCATE {self.schema}.{table} RESTART IDENTITY")

    def _postgres(self) -> Store:
        return cast(Store, Handed(self.clock, postgres_url()))

    def same(self, ask: Callable[[Any], T]) -> T:
        """What every store answers."""
        self.clock.now += 1
        first, *others = [ask(store) for store in self.stores]
        for other in others:
            assert other == first
        return first

    @rule()
    def reopen(self) -> None:
        old = [store.id for store in self.stores]
        self.sqlite.close()
        self.stores[1] = self.sqlite = SQLiteStore(self.directory / "store.db", "process", clock=self.clock)
        if len(self.stores) > 2:
            self.stores[2].close()
            self.stores[2] = self._postgres()
        assert [store.id for store in self.stores] == old

    @rule(data=st.data(), size=st.integers(0, 5))
    def commit(self, data: st.DataObject, size: int) -> None:
        batch = [self._creation(data) if data.draw(st.integers(0, 3)) == 0 else self._writes(data) for _ in range(size)]
        self.same(lambda store: store.commit(batch))

    def _creation(self, data: st.DataObject) -> CreateRun:
        new = new_run(data.draw(NAMES), inputs=data.draw(st.sampled_from([b"x", b"y"])))
        claim = data.draw(st.none() | st.builds(Claim, TOKENS, st.sampled_from(["w1", "w2"])))
        return CreateRun(new, claim, data.draw(st.none() | WAKES))

    def _writes(self, data: st.DataObject) -> RunWrites:
        # No caller knows a run's number before the batch that creates it is answered. Rows' numbers are never reused: a
        # driver counts them, fenced or not.
        run = data.draw(st.integers(0, len(self.memory.runs())))
        segments = [
            Segment(next(self.numbers), data.draw(st.binary(max_size=40))) for _ in range(data.draw(st.integers(0, 3)))
        ]
        actions = [
            action(run, next(self.numbers), parent=data.draw(ACTIONS), **data.draw(WAITING))
            for _ in range(data.draw(st.integers(0, 2)))
        ]
        known = [(a.action, a.parent) for a in (*self.memory.actions(run), *actions)]
        states = [
            state(run, number, parent, attempt=data.draw(st.integers(1, 9)))
            for number, parent in (data.draw(st.lists(st.sampled_from(known), max_size=2)) if known else [])
        ]
        puts = data.draw(st.lists(PUTS, max_size=2))
        finish = data.draw(st.none() | st.none() | ENDS)
        park = data.draw(st.none() | st.none() | PARKS) if finish is None else None
        ends = [
            Ended(parent, number, data.draw(st.booleans()))
            for number, parent in (data.draw(st.lists(st.sampled_from(known), max_size=2)) if known else [])
        ]
        sources = data.draw(st.sets(st.integers(1, 3), max_size=2))
        takes = data.draw(st.lists(st.builds(Take, st.integers(1, 3), st.none() | st.integers(1, 9)), max_size=2))
        return RunWrites(
            run, data.draw(TOKENS), segments, actions, states, puts, finish, park, ends, tuple(sources), takes
        )  # fmt: skip

    @rule(run=RUNS, token=TOKENS, expect=st.none() | TOKENS, entries=st.integers(0, 4), statuses=STATUSES)
    def claim(self, run: int, token: bytes, expect: bytes | None, entries: int, statuses: frozenset[Status]) -> None:
        claim = Claim(token, "w3")
        self.same(lambda store: store.claim(run, claim, expect=expect, entries=entries, statuses=statuses))

    @rule(run=RUNS, token=TOKENS, expect=st.none() | TOKENS)
    def claim_paused(self, run: int, token: bytes, expect: bytes | None) -> None:
        claim = Claim(token, "w3")
        self.same(
            lambda store: store.claim(run, claim, expect=expect, entries=0, statuses=STORED_STATUSES, resumes=True)
        )

    @rule(tokens=st.lists(TOKENS, max_size=3))
    def take_due(self, tokens: list[bytes]) -> None:
        claims = [Claim(token, "w4") for token in tokens]
        self.same(lambda store: store.next_due(TASKS))
        self.same(lambda store: store.take_due(TASKS, claims))

    @rule(workers=st.lists(st.sampled_from(["w1", "w2", "w3", "w4"])), limit=st.integers(0, 3))
    def abandoned(self, workers: list[str], limit: int) -> None:
        self.same(lambda store: store.abandoned(TASKS, workers, limit=limit))

    @rule(run=RUNS, token=TOKENS)
    def release(self, run: int, token: bytes) -> None:
        self.same(lambda store: store.release(run, token))

    @rule(run=RUNS, box=BOXES, key=st.none() | st.sampled_from(["", "k"]), value=st.binary(max_size=40))
    def send(self, run: int, box: str, key: str | None, value: bytes) -> None:
        self.same(lambda store: store.send(run, NewMessage(box, key, value, 3)))
        self.same(lambda store: store.news([Awaited(run, box, 0)]))

    @rule(run=RUNS, at=st.integers(0, 99))
    def abort(self, run: int, at: int) -> None:
        self.same(lambda store: store.abort(run, at))

    @rule(run=RUNS, reason=st.sampled_from(["", "x"]), until=st.none() | st.integers(0, 99), at=st.integers(0, 99))
    def cancel(self, run: int, reason: str, until: int | None, at: int) -> None:
        self.same(lambda store: store.cancel(run, reason, until, at))

    @rule(run=RUNS, at=st.integers(0, 99))
    def end_cancelled(self, run: int, at: int) -> None:
        self.same(lambda store: store.end_cancelled(run, at))

    @rule(run=RUNS, at=st.integers(0, 99))
    def pause(self, run: int, at: int) -> None:
        self.same(lambda store: store.pause(run, at))

    @rule(run=RUNS)
    def unpause(self, run: int) -> None:
        self.same(lambda store: store.unpause(run))

    @rule(task=st.sampled_from(sorted(TASKS)), at=st.integers(0, 99))
    def pause_task(self, task: str, at: int) -> None:
        self.same(lambda store: store.pause_task(task, at))
        self.same(lambda store: store.paused_tasks())

    @rule(task=st.sampled_from(sorted(TASKS)))
    def resume_task(self, task: str) -> None:
        self.same(lambda store: store.resume_task(task))
        self.same(lambda store: store.paused_tasks())

    @rule(run=RUNS)
    def wake(self, run: int) -> None:
        self.same(lambda store: store.wake(run))

    @rule(runs=st.lists(RUNS, max_size=3), before=st.integers(0, 99), statuses=STATUSES)
    def remove(self, runs: list[int], before: int, statuses: frozenset[Status]) -> None:
        self.same(lambda store: store.ended(before, statuses, limit=2))
        self.same(lambda store: store.remove(runs, before, statuses))
        for store in self.stores:
            while store.purge(2):
                pass
        self._number_on()

    def _number_on(self) -> None:
        if len(self.stores) > 2:
            # Here alone a removed run's number is never used again; the others begin behind the highest that is left.
            server().execute(
                f"SELECT setval(pg_get_serial_sequence('{self.schema}.runs', 'id'), coalesce(max(id), 0) + 1, false) "
                f"FROM {self.schema}.runs"
            )

    @rule(keys=st.lists(st.sampled_from([b"k", b"l"]), max_size=2), before=st.integers(0, 9))
    def uncache(self, keys: list[bytes], before: int) -> None:
        self.same(lambda store: store.uncache(keys, before))

    @rule(digest=st.sampled_from([b"1", b"2", b"3"]))
    def source(self, digest: bytes) -> None:
        source = Source(digest, "3.11", {"m": digest})
        number = self.same(lambda store: store.source_id(source))
        self.same(lambda store: store.source(number))

    @rule(name=st.sampled_from(["w1", "w2"]), lease=st.integers(0, 99))
    def renew(self, name: str, lease: int) -> None:
        self.same(lambda store: store.renew(worker(name, lease)))

    @rule(name=st.sampled_from(["w1", "w2"]))
    def forget(self, name: str) -> None:
        self.same(lambda store: store.forget(name))

    @rule(key=SCHEDULES, at=st.integers(0, 9), expect=st.none() | st.integers(0, 9), names=st.lists(NAMES, max_size=2))
    def advance(self, key: str, at: int, expect: int | None, names: list[str]) -> None:
        self._advance(key, at, expect, names)

    @rule(key=SCHEDULES, ahead=st.integers(0, 3), names=st.lists(NAMES, max_size=2))
    def advance_from_where_it_stands(self, key: str, ahead: int, names: list[str]) -> None:
        row = self.memory.schedule(key)
        expect = None if row is None else row.at
        self._advance(key, (expect or 0) + ahead, expect, names)

    def _advance(self, key: str, at: int, expect: int | None, names: list[str]) -> None:
        runs = [new_run(name) for name in names]
        self.same(lambda store: store.advance(key, at, expect=expect, runs=runs, fired=at if runs else None))

    @rule(name=SCHEDULES, now=st.integers(0, 9))
    def pause_schedules(self, name: str, now: int) -> None:
        self.same(lambda store: store.pause_schedules(name, now))

    @rule(name=SCHEDULES, now=st.integers(0, 9))
    def resume_schedules(self, name: str, now: int) -> None:
        self.same(lambda store: store.resume_schedules(name, now))

    @rule(limit=st.none() | st.integers(0, 4), statuses=st.none() | STATUSES, below=st.none() | RUNS)
    def list_runs(self, limit: int | None, statuses: frozenset[Status] | None, below: int | None) -> None:
        self.same(lambda store: store.runs(limit=limit, statuses=statuses, below=below))
        self.same(lambda store: store.runs(limit=limit, statuses=statuses, below=below, task="etl.main"))
        self.same(lambda store: store.counts())

    @rule(runs=st.lists(RUNS, max_size=3), to=st.sampled_from(["there", "yonder"]))
    def move(self, runs: list[int], to: str) -> None:
        self.same(lambda store: store.move(runs, to))

    @rule(runs=st.lists(RUNS, max_size=2), at=st.sampled_from(["one", "two"]))
    def arrived(self, runs: list[int], at: str) -> None:
        self.same(lambda store: store.arrived(runs, at))

    @rule(run=RUNS)
    def take_back(self, run: int) -> None:
        self.same(lambda store: store.take_back(run))

    @rule(number=RUNS, name=NAMES, due=st.none() | WAKES)
    def adopt(self, number: int, name: str, due: Wake | None) -> None:
        """A run under its own name comes back; under another's it is a stranger."""
        known = self.memory.run_by_id(number)
        if known is not None and known.status is not Status.RUNNING:
            run = known._replace(name=name, status=Status.SLEEPING if due else Status.ABORTED, ended_at=5)
            whole = WholeRun(
                run, [Segment(next(self.numbers), b"s" * 40)], [action(number, 2)], due, [Ended(ROOT, 2, True)], [1]
            )  # fmt: skip
            self.same(lambda store: store.adopt([whole]))
        self._number_on()

    @invariant()
    def read_alike(self) -> None:
        self.same(lambda store: store.uids())
        self.same(lambda store: (store.open_waits(), store.unread()))
        self.same(lambda store: store.claimed_since())
        self.same(lambda store: {value for value in store.stored() if len(value) > 31})
        for run in range(6):
            self.same(lambda store: self._of_run(store, run))  # noqa: B023 - called at once
        for found in self.same(lambda store: store.runs()):
            self.same(lambda store: (store.run(found.name), store.similar(found.task, found.inputs_hash)))  # noqa: B023
        self.same(lambda store: [store.cache_get(key) for key in (b"k", b"l")])
        self.same(lambda store: sorted(store.workers()))
        self.same(lambda store: [store.worker(name) for name in ("w1", "w2")])
        self.same(lambda store: [store.schedule(key) for key in ("daily", "hourly")])

    @staticmethod
    def _of_run(store: Store, run: int) -> list[Any]:
        parts: list[Any] = [store.run_by_id(run), list(store.segments(run)), store.actions(run)]
        parts += [store.journal_length(run), store.open_actions(run), store.last_action(run)]
        parts += [list(store.all_messages(run)), store.messages(run, "mailbox:a"), store.message(run, "mailbox:a", "k")]
        for number in range(4):
            parts += [list(store.segments(run, [number, number + 9])), store.actions(run, number)]
        return parts

    def teardown(self) -> None:
        for store in self.stores:
            store.close()
        shutil.rmtree(self.directory)


TestStores = Stores.TestCase
TestStores.settings = settings(
    max_examples=15, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
