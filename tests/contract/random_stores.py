"""Gives SQLite, or Postgres, and its twin in memory the same random calls, and prints where their answers differ.

python random_stores.py FIRST_SEED COUNT [postgres]

Beside `test_store_machine.py`: a hundred times as many calls in the same time, the clock moves, the machine boots, and
most calls are nearly right: the run exists, and every second token is the stored token.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.contract._records import action, new_run, state, worker

from perdure.core.ground.model import (
    STORED_STATUSES,
    CachePut,
    Claim,
    CreateRun,
    Ended,
    Finish,
    Park,
    Result,
    RunRow,
    RunWrites,
    Segment,
    Source,
    Status,
    Wake,
    WholeRun,
)
from perdure.store.memory import MemoryStore
from perdure.store.sqlite import SQLiteStore

TASKS = ("etl.main", "etl.other")
NAMES = ("one", "two", "three", "four", "five")
WORKERS = ("w1", "w2")
STEPS = 60


class Differs(Exception):
    """Two stores have answered differently."""


class Hands:
    """A clock that the history moves."""

    def __init__(self) -> None:
        self.boot_id = "boot-1"
        self.at = 100
        self.since = 0

    def wall(self) -> int:
        return self.at

    def boot(self) -> int:
        return self.at - self.since


class History:
    """One history; `run` raises `Differs`."""

    def __init__(
        self,
        seed: int,
        open_store: Callable[[Hands], Any],
        *,
        reboots: bool = True,
        number_on: Callable[[Any], None] = lambda store: None,
    ) -> None:
        """`number_on`: let a store whose numbers may have gaps give the next run the number after the highest."""
        self.dice = random.Random(seed)
        self.clock = Hands()
        self.twin = MemoryStore(clock=self.clock)
        self.open_store = open_store
        self.store = open_store(self.clock)
        self.reboots = reboots
        self.number_on = number_on
        self.number = 1
        self.told: list[str] = []

    def run(self) -> None:
        verbs = [verb for name in dir(self) if name.startswith("do_") for verb in [getattr(self, name)]]
        weights = [8 if verb.__name__ in ("do_writes", "do_create", "do_claim") else 2 for verb in verbs]
        try:
            for _ in range(STEPS):
                self.clock.at += self.dice.randrange(3)
                [verb] = self.dice.choices(verbs, weights)
                verb()
                self.look()
        finally:
            self.store.close()

    def same(self, ask: Callable[[Any], Any], said: str = "") -> Any:
        self.told.append(said)
        first, other = ask(self.twin), ask(self.store)
        if first != other:
            raise Differs(f"{said}\n  in memory: {first}\n  the store: {other}\n  after {self.told[-6:-1]}")
        return first

    # -- what is asked ---------------------------------------------------------------------------------------------

    def some_run(self) -> RunRow | None:
        runs = self.twin.runs()
        return self.dice.choice(runs) if runs else None

    def token(self, run: RunRow) -> bytes:
        return run.token if run.token is not None and self.dice.random() < 0.6 else self.dice.randbytes(16)

    def wake(self) -> Wake:
        ahead = self.dice.randrange(-2, 6)
        return Wake(self.clock.wall() + ahead, self.clock.boot() + ahead)

    def statuses(self) -> frozenset[Status]:
        return frozenset(self.dice.sample(STORED_STATUSES, self.dice.randrange(2, len(STORED_STATUSES))))

    def writes(self, run: RunRow) -> RunWrites:
        dice, number = self.dice, self.number
        self.number += 10
        segments = [
            Segment(number + place, dice.randbytes(dice.choice((8, 40, 140)))) for place in range(dice.randrange(3))
        ]
        actions = [action(run.id, number + 5 + place, parent=dice.randrange(3)) for place in range(dice.randrange(2))]
        known = [(one.action, one.parent) for one in (*self.twin.actions(run.id), *actions)]
        chosen = dice.sample(known, min(len(known), dice.randrange(3)))
        finish = park = None
        if dice.random() < 0.2:
            result = dice.choice((Result.VALUE, Result.ERROR))
            finish = Finish(
                Status.SUCCEEDED if result == Result.VALUE else Status.FAILED, int(result), dice.randbytes(3),
                self.clock.at,
            )  # fmt: skip
        elif dice.random() < 0.3:
            park = Park(self.wake(), number)
        return RunWrites(
            run.id, self.token(run), segments, actions, [state(run.id, n, parent) for n, parent in chosen[:1]],
            [CachePut(dice.choice((b"k", b"l")), dice.randbytes(2), self.clock.at)] if dice.random() < 0.2 else [],
            finish, park, [Ended(parent, n, dice.random() < 0.7) for n, parent in chosen],
            tuple({dice.randrange(1, 4)}) if dice.random() < 0.3 else (),
        )  # fmt: skip

    def creation(self) -> CreateRun:
        dice = self.dice
        reuse = dice.choice(NAMES) if dice.random() < 0.3 else None
        new = new_run(dice.choice(NAMES), task=dice.choice(TASKS), reuse=reuse)
        claim = Claim(dice.randbytes(16), dice.choice(WORKERS)) if dice.random() < 0.5 else None
        return CreateRun(new._replace(created_at=self.clock.at), claim, self.wake() if dice.random() < 0.5 else None)

    def do_create(self) -> None:
        create = self.creation()
        self.same(lambda store: store.commit([create]), f"commit {create}")

    def do_writes(self) -> None:
        if (run := self.some_run()) is not None:
            batch: list[Any] = [self.writes(run)]
            if self.dice.random() < 0.4 and (other := self.some_run()) is not None:
                batch.append(self.writes(other))
            if self.dice.random() < 0.1:
                batch.append(self.creation())
            self.same(lambda store: store.commit(batch), f"commit {batch}")

    def do_append(self) -> None:
        if (run := self.some_run()) is not None:
            token, segment = self.token(run), Segment(self.number, self.dice.randbytes(40))
            self.number += 10
            self.same(lambda store: store.append(run.id, token, segment), f"append {run.id}")

    def do_claim(self) -> None:
        if (run := self.some_run()) is not None:
            claim = Claim(self.dice.randbytes(16), self.dice.choice(WORKERS))
            expect = run.token if self.dice.random() < 0.6 else self.dice.choice((None, b"x" * 16))
            length, statuses, crashed = self.twin.journal_length(run.id), self.statuses(), self.dice.random() < 0.7
            resumes = self.dice.random() < 0.3
            after = self.same(
                lambda store: store.claim(
                    run.id, claim, expect=expect, entries=length, statuses=statuses, crashed=crashed, resumes=resumes
                ),
                f"claim {run.id} expecting {expect!r}",
            )
            # Both stores share this rule, so their answers are alike even where the rule is wrong.
            if after is not None and after.crashes != (1 if length > run.mark else run.crashes + crashed):
                raise Differs(f"{after.crashes} crashes in a row; before, {run}, and now {length} entries")

    def do_take_due(self) -> None:
        tasks = self.dice.sample(TASKS, self.dice.randrange(1, 3))
        claims = [Claim(self.dice.randbytes(16), self.dice.choice(WORKERS)) for _ in range(self.dice.randrange(1, 3))]
        self.same(lambda store: store.next_due(tasks), f"next due of {tasks}")
        self.same(lambda store: store.take_due(tasks, claims), f"take due of {tasks}")

    def do_release(self) -> None:
        if (run := self.some_run()) is not None:
            token = self.token(run)
            self.same(lambda store: store.release(run.id, token), f"release {run.id}")

    def do_abort(self) -> None:
        if self.dice.random() < 0.4 and (run := self.some_run()) is not None:
            self.same(lambda store: store.abort(run.id, self.clock.at), f"abort {run.id}")

    def do_pause(self) -> None:
        if self.dice.random() < 0.4 and (run := self.some_run()) is not None:
            self.same(lambda store: store.pause(run.id, self.clock.at), f"pause {run.id}")

    def do_unpause(self) -> None:
        if (run := self.some_run()) is not None:
            self.same(lambda store: store.unpause(run.id), f"unpause {run.id}")

    def do_pause_task(self) -> None:
        task = self.dice.choice(TASKS)
        if self.dice.random() < 0.3:
            self.same(lambda store: store.pause_task(task, self.clock.at), f"pause task {task}")
        else:
            self.same(lambda store: store.resume_task(task), f"resume task {task}")

    def do_find_abandoned(self) -> None:
        alive = self.dice.sample(WORKERS, self.dice.randrange(3))
        self.same(lambda store: store.abandoned(TASKS, alive, limit=3), f"abandoned by all but {alive}")

    def do_remove(self) -> None:
        runs = self.twin.runs()[1:]  # the number of the newest run would be used again, in some stores
        if runs:
            chosen = [run.id for run in self.dice.sample(runs, min(len(runs), 2))]
            before, statuses = self.clock.at - self.dice.randrange(-2, 20), self.statuses()
            self.same(lambda store: store.ended(before, statuses, limit=3), f"ended before {before}")
            self.same(lambda store: store.remove(chosen, before, statuses), f"remove {chosen} before {before}")
            while self.store.purge(2):
                pass

    def do_uncache(self) -> None:
        before = self.clock.at - self.dice.randrange(9)
        self.same(lambda store: store.uncache([b"k", b"l"], before), f"uncache before {before}")

    def do_source(self) -> None:
        source = Source(self.dice.choice((b"1", b"2", b"3")), "3.11", {"m": b"m"})
        self.same(lambda store: store.source_id(source), "source")

    def do_drop_sources(self) -> None:
        """A worker lives, so no snapshot goes. When none lives, the twin forgets more than the store dares to."""
        rows = self.twin.workers()
        if rows:
            alive = self.dice.choice(rows).id
            self.same(lambda store: store.drop_sources(lambda id: id != alive), f"drop sources beside {alive}")

    def do_renew(self) -> None:
        row = worker(self.dice.choice(WORKERS), self.dice.randrange(1, 9))._replace(boot=self.clock.boot_id)
        self.same(lambda store: store.renew(row), f"renew {row.id}")

    def do_forget(self) -> None:
        name = self.dice.choice(WORKERS)
        self.same(lambda store: store.forget(name), f"forget {name}")

    def do_advance(self) -> None:
        key = self.dice.choice(("daily", "hourly"))
        row = self.twin.schedule(key)
        stands = None if row is None else row.at
        expect = stands if self.dice.random() < 0.6 else self.dice.choice((None, self.clock.at - 3))
        at = (stands or 0) + self.dice.randrange(-1, 9)
        runs = [new_run(name) for name in self.dice.sample(NAMES, self.dice.randrange(2))]
        fired = self.dice.choice((None, at))
        self.same(
            lambda store: store.advance(key, at, expect=expect, runs=runs, fired=fired),
            f"advance {key} {expect} to {at}",
        )

    def do_pause_schedules(self) -> None:
        key = self.dice.choice(("daily", "hourly"))
        now = self.clock.at
        if self.dice.random() < 0.4:
            self.same(lambda store: store.pause_schedules(key, now), f"pause {key}")
        else:
            self.same(lambda store: store.resume_schedules(key, now), f"resume {key}")

    def do_move(self) -> None:
        if (run := self.some_run()) is not None:
            self.same(lambda store: store.move([run.id], "there"), f"move {run.id}")
            if self.dice.random() < 0.5:
                self.same(lambda store: store.arrived([run.id], "there"), f"arrived {run.id}")

    def do_take_back(self) -> None:
        if (run := self.some_run()) is not None:
            self.same(lambda store: store.take_back(run.id), f"take back {run.id}")

    def do_adopt(self) -> None:
        run = self.some_run()
        if run is not None and run.status is not Status.RUNNING:
            if self.dice.random() < 0.5:
                name = self.dice.choice(NAMES)
                run = run._replace(name=name, uid=f"from afar {name}".encode().ljust(16, b"\0"))
            due = self.wake() if self.dice.random() < 0.5 else None
            run = run._replace(status=Status.SLEEPING if due else Status.ABORTED, ended_at=None if due else 5)
            whole = WholeRun(run, [Segment(1, b"s" * 40)], [action(run.id, 2)], due, [Ended(0, 2, True)], [1])
            self.same(lambda store: store.adopt([whole]), f"adopt {run.name}")
            while self.store.purge(9):
                pass
            self.number_on(self.store)

    def do_boot(self) -> None:
        """The machine boots: wake times follow the wall clock, and no lease of the boot before holds."""
        if self.reboots and self.dice.random() < 0.3:
            self.told.append("boot")
            self.store.close()
            self.clock.boot_id, self.clock.since = f"boot-{self.clock.at}", self.clock.at - self.dice.randrange(5)
            for run in self.twin.runs():
                if run.id in self.twin._wakes and run.wake_at is not None:
                    self.twin._wakes[run.id] = self.clock.boot() + run.wake_at - self.clock.wall()
            self.store = self.open_store(self.clock)

    # -- what is there ---------------------------------------------------------------------------------------------

    def look(self) -> None:
        self.same(lambda store: store.runs(), "runs")
        self.same(lambda store: sorted(store.counts().items()), "counts")
        self.same(lambda store: store.paused_tasks(), "paused tasks")
        for run in self.twin.runs():
            self.same(
                lambda store: (
                    list(store.segments(run.id)), store.actions(run.id), store.open_actions(run.id),  # noqa: B023
                    store.journal_length(run.id), store.last_action(run.id), store.run(run.name),  # noqa: B023
                ),
                f"rows of {run.id}",
            )  # fmt: skip
        self.same(lambda store: [store.cache_get(key) for key in (b"k", b"l")], "cache")
        self.same(lambda store: [store.schedule(key) for key in ("daily", "hourly")], "schedules")
        self.same(lambda store: sorted(value for value in store.stored() if len(value) >= 32), "stored")
        self.same(lambda store: store.claimed_since(), "claimed since")
        self.same(lambda store: sorted(store.uids()), "uids")
        self.same(self._workers, "workers")

    def _workers(self, store: Any) -> list[Any]:
        """A lease that was counted from another boot has run out; the twin knows of no boot."""
        rows = store.workers()
        if store is self.twin:
            rows = [row if row.boot == self.clock.boot_id else row._replace(lease=0) for row in rows]
        return sorted(rows)


def sqlite(folder: Path) -> Callable[[Hands], Any]:
    return lambda clock: SQLiteStore(folder / "store.db", "process", clock=clock)


def on_postgres(seed: int) -> History:
    from tests.postgres_server import Handed, server

    def number_on(store: Any) -> None:
        schema = store.schema_url.rpartition("=")[2]
        server().execute(
            f"SELECT setval(pg_get_serial_sequence('{schema}.runs', 'id'), coalesce(max(id), 0) + 1, false) "
            f"FROM {schema}.runs"
        )

    return History(seed, Handed, reboots=False, number_on=number_on)


def main(arguments: list[str]) -> None:
    first, count = int(arguments[0]), int(arguments[1])
    calls = 0
    for seed in range(first, first + count):
        folder = Path(tempfile.mkdtemp(prefix="perdure-random-", dir="/dev/shm"))
        if "postgres" in arguments:
            history = on_postgres(seed)
        else:
            history = History(seed, sqlite(folder))
        try:
            history.run()
        except Exception as error:
            print(f"seed {seed}, call {len(history.told)}: {type(error).__name__}: {error}")
            sys.exit(1)
        finally:
            shutil.rmtree(folder)
        calls += len(history.told)
    print(f"{count} histories, {calls} calls: all alike")


if __name__ == "__main__":
    main(sys.argv[1:])
