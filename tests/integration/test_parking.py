"""Runs that sleep leave memory and come back: what parks and what stays, and that nobody can tell afterwards (D5, P4).

Whatever a test is about, no run may ever be parked beyond a deadline that it has recorded (`Watched`).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import socket
import sqlite3
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import errors, runtime
from perdure.api.loading import find_task
from perdure.core.ground.model import Claim, Kind, RunWrites, Status
from perdure.core.ground.spec import TaskSpec
from perdure.core.process import serving as serving_module
from perdure.core.process.serving import Outcome, Server
from perdure.core.run.driver import Driver
from perdure.executors.local import DaemonThreads
from perdure.extras import durable_sleep

pytestmark = pytest.mark.filterwarnings("ignore::perdure.errors.PerdureWarning")

env = perdure.TaskEnvironment(name="park")

NAP = 0.35
"""Long enough to be parked for."""
PARK_AFTER = 0.1
FOR_EVER = float("inf")


class Watched:
    """Checks D5 at every park: the wake time is not later than a recorded deadline that is still waited for."""

    def __init__(self, store: Any) -> None:
        self.late: list[str] = []
        self.parks: Counter[int] = Counter()
        self._store = store
        self._commit = store.commit
        self.before: Callable[[Any], None] = lambda writes: None
        store.commit = self.commit

    def commit(self, writes: Any) -> Any:
        self.before(writes)
        answers = self._commit(writes)
        for write, answer in zip(writes, answers, strict=True):
            if not isinstance(write, RunWrites) or write.park is None or not answer:
                continue
            self.parks[write.run] += 1
            now = runtime.worker().clock.boot()
            for action in self._store.open_actions(write.run):
                waits = action.kind == Kind.SLEEP or (action.kind == Kind.TASK and (action.wake_boot or 0) > now)
                if waits and action.wake_boot is not None and write.park.wake.boot > action.wake_boot + 20_000:
                    self.late.append(f"run {write.run}: {action.name}, {write.park.wake.boot - action.wake_boot} us")
        return answers


watched: Watched


def open_store(directory: Path) -> None:
    global watched
    perdure.init(store=directory / "perdure.db")
    watched = Watched(runtime.worker().store)


@pytest.fixture(autouse=True)
def store(tmp_path: Path) -> Iterator[None]:
    open_store(tmp_path)
    seen.clear()
    counts.clear()
    counts_by_run.clear()
    yield
    perdure.init()
    assert watched.late == []


class Serving:
    """A server in a thread of its own."""

    def __init__(
        self, park_after: float = PARK_AFTER, *, specs: dict[str, TaskSpec] | None = None, **more: Any
    ) -> None:
        found = {task.name: task.spec for task in globals().values() if isinstance(task, perdure.api.task.Task)}
        self.outcomes: list[Outcome] = []
        self.server = Server(runtime.worker(), specs or found, park_after=park_after, tell=self.outcomes.append, **more)
        self._thread = threading.Thread(target=self.server.serve, name="perdure-test-server", daemon=True)

    def __enter__(self) -> Serving:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.stop()
        self._thread.join(10)
        self.server.drain(1.0)

    def parks(self, run: Any = None) -> int:
        return sum(o.status == Status.SLEEPING for o in self.outcomes if run is None or o.run == run.name)


def until(what: Callable[[], Any], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)


def parked(run: Any) -> bool:
    return bool(run.row.status == Status.SLEEPING)


counts: Counter[str] = Counter()
"""How often each trace was executed."""
counts_by_run: Counter[tuple[str, str]] = Counter()
seen: list[Any] = []
"""What bodies did outside of the journal."""


@perdure.trace
async def step(name: str, seconds: float = 0.0) -> str:
    count(name)
    await asyncio.sleep(seconds)
    return name


@perdure.trace
def sync_step(name: str) -> str:
    count(name)
    return name


def count(name: str) -> None:
    counts[name] += 1
    found = perdure.ctx()
    assert found is not None
    counts_by_run[found.run_name, name] += 1


def attempt() -> int:
    found = perdure.ctx()
    assert found is not None
    return found.attempt


# -- what parks ------------------------------------------------------------------------------------------------


async def nap_between(name: str, seconds: float = NAP) -> str:
    await step(f"{name} before")
    await durable_sleep.aio(seconds)
    return await step(f"{name} after")


@env.task
async def gathers() -> Any:
    return await asyncio.gather(*(nap_between(f"g{n}") for n in range(3)))


@env.task
async def groups() -> Any:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(nap_between(f"t{n}")) for n in range(3)]
    return [task.result() for task in tasks]


@env.task
async def queues() -> Any:
    queue: asyncio.Queue[str] = asyncio.Queue()

    async def produce() -> None:
        for n in range(2):
            await queue.put(await nap_between(f"q{n}", NAP / 2))

    async with asyncio.TaskGroup() as group:
        group.create_task(produce())
        return [await queue.get(), await queue.get()]


@env.task
async def events() -> Any:
    event, lock = asyncio.Event(), asyncio.Lock()

    async def setter() -> None:
        async with lock:
            await nap_between("e")
            event.set()

    async def locked() -> str:
        await asyncio.sleep(0)
        async with lock:
            return await step("locked")

    task, other = asyncio.create_task(setter()), asyncio.create_task(locked())
    await event.wait()
    await task
    return await other


@env.task
async def shields() -> Any:
    return await asyncio.shield(asyncio.create_task(nap_between("s")))


@env.task
async def async_child(n: int) -> int:
    await step(f"c{n}")
    await durable_sleep.aio(NAP)
    await step(f"d{n}")
    return 10 * n + attempt()


@env.task
def sync_child(n: int) -> int:
    sync_step(f"c{n}")
    durable_sleep(NAP)
    sync_step(f"d{n}")
    return 10 * n + attempt()


@env.task
async def async_from_async() -> Any:
    return await asyncio.gather(*(async_child(n) for n in range(3)))


@env.task
async def sync_from_async() -> Any:
    return await asyncio.gather(*(sync_child.aio(n) for n in range(3)))


@env.task
def sync_from_sync() -> Any:
    return [sync_child(1)]


@env.task
def async_from_sync() -> Any:
    return [async_child(1)]


@env.task
async def maps_async() -> Any:
    return [value async for value in perdure.map.aio(async_child, range(3))]


@env.task
def maps_sync() -> Any:
    return list(perdure.map(sync_child, range(3)))


@env.task
async def threads() -> Any:
    def nap(n: int) -> str:
        sync_step(f"c{n}")
        durable_sleep(NAP + n / 10)
        return sync_step(f"d{n}")

    return await asyncio.gather(*(asyncio.to_thread(nap, n) for n in range(3)))


BACKOFF = perdure.RetryStrategy(count=2, backoff=perdure.Backoff(initial=NAP, factor=1.0))


def fail_first(name: str) -> int:
    seen.append((name, attempt()))
    if attempt() == 1:
        raise ValueError("first attempt")
    return attempt()


@env.task(retries=BACKOFF)
async def retries_async() -> int:
    await step("r")
    return fail_first("async")


@env.task(retries=BACKOFF)
def retries_sync() -> int:
    sync_step("r")
    return fail_first("sync")


@env.task
async def retries_children() -> Any:
    return await asyncio.gather(retries_async(), retries_sync.aio())


@env.task
def retries_child_inline() -> Any:
    return retries_sync(), attempt()


@env.task
async def bounded_nap() -> Any:
    try:
        async with perdure.durable.timeout(NAP):
            await step("in")
            await durable_sleep.aio(30)
    except TimeoutError:
        return await step("late")


@env.task
async def bounded_in_time() -> Any:
    async with perdure.durable.timeout(30):
        await durable_sleep.aio(NAP)
        return await step("in time")


@env.task
def sync_bounded() -> Any:
    with perdure.durable.timeout(30):
        durable_sleep(NAP)
        return sync_step("in time")


PARKING = {
    gathers: ["g0 after", "g1 after", "g2 after"],
    groups: ["t0 after", "t1 after", "t2 after"],
    queues: ["q0 after", "q1 after"],
    events: "locked",
    shields: "s after",
    async_from_async: [1, 11, 21],
    sync_from_async: [1, 11, 21],
    sync_from_sync: [11],
    async_from_sync: [11],
    maps_async: [1, 11, 21],
    maps_sync: [1, 11, 21],
    threads: ["d0", "d1", "d2"],
    retries_async: 2,
    retries_sync: 2,
    retries_child_inline: (2, 1),
    bounded_nap: "late",
    bounded_in_time: "in time",
    sync_bounded: "in time",
}


def test_what_waits_for_recorded_deadlines_parks() -> None:
    with Serving() as serving:
        runs = {task: perdure.with_runcontext(name=task.fn.__name__).submit(task) for task in PARKING}
        for task, run in runs.items():
            result = run.wait(15).result
            assert (tuple(result) if task is retries_child_inline else result) == PARKING[task], run.name
    assert [run.name for run in runs.values() if not serving.parks(run)] == []
    assert [of_run for of_run, count in counts_by_run.items() if count > 1] == []
    for run in runs.values():
        if "retries" not in run.name:  # a replay is one more attempt
            assert_replays(run)


def test_several_backoffs_and_children_park_together() -> None:
    with Serving() as serving:
        assert perdure.submit(retries_children).wait(15).result == [2, 2]
    assert serving.parks() >= 1
    assert sorted(seen) == [("async", 1), ("async", 2), ("sync", 1), ("sync", 2)]


def assert_replays(run: Any) -> None:
    """The finished journal, replayed from its first entry, gives the same and executes nothing (P1, P4)."""
    result, executed = run.result, counts.copy()
    worker = runtime.worker()
    with contextlib.closing(sqlite3.connect(worker.store.path, timeout=10)) as database, database:  # type: ignore[attr-defined]
        database.execute("UPDATE runs SET status = 'RUNNING', result = NULL, value = NULL WHERE id = ?", (run.row.id,))
    row = worker.store.run(run.name)
    assert row is not None
    driver = worker.take(row, run._spec, (Status.RUNNING,))
    assert driver is not None
    value = driver.done.result(15)[2]
    assert value == result
    assert driver.executed == 0
    assert counts == executed


# -- what stays ------------------------------------------------------------------------------------------------


@perdure.trace
async def waits_inside(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "traced"


@perdure.trace
def blocks_inside(seconds: float) -> str:
    time.sleep(seconds)
    return "traced"


@perdure.trace
async def async_items() -> AsyncIterator[int]:
    await asyncio.sleep(2 * NAP)
    yield 1


@perdure.trace
def sync_items() -> Iterator[int]:
    time.sleep(2 * NAP)
    yield 1


async def beside(other: Any) -> Any:
    """Something that lasts as long as a durable sleep, and longer."""
    return (await asyncio.gather(other, durable_sleep.aio(NAP * 1.5)))[0]


@env.task
async def stays_for(what: str) -> Any:
    loop = asyncio.get_running_loop()
    if what == "timer":
        return await beside(asyncio.sleep(2 * NAP, "x"))
    if what == "timeout":
        async with asyncio.timeout(30):
            await durable_sleep.aio(2 * NAP)
        return "x"
    if what == "wait_for":
        await asyncio.wait_for(durable_sleep.aio(2 * NAP), 30)
        return "x"
    if what == "thread":
        return await beside(asyncio.to_thread(lambda: (time.sleep(2 * NAP), "x")[1]))
    if what == "socket":
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        threading.Timer(2 * NAP, theirs.send, [b"x"]).start()
        try:
            return (await beside(loop.sock_recv(ours, 1))).decode()
        finally:
            ours.close()
            theirs.close()
    if what == "subprocess":
        command = f"import time; time.sleep({2 * NAP}); print('x', end='')"
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", command, stdout=asyncio.subprocess.PIPE)
        return (await beside(process.communicate()))[0].decode()
    if what == "async trace":
        return await beside(waits_inside(2 * NAP))
    if what == "sync trace":
        return await beside(blocks_inside.aio(2 * NAP))
    if what == "async trace from a thread":
        return await beside(asyncio.to_thread(waits_inside, 2 * NAP))  # type: ignore[arg-type]
    if what == "async generator":

        async def consume() -> Any:
            return [item async for item in async_items()]

        return await beside(consume())
    if what == "sync generator":
        return await beside(asyncio.to_thread(lambda: list(sync_items())))
    raise AssertionError(what)


@env.task(timeout=30)
async def has_a_timeout() -> str:
    await durable_sleep.aio(2 * NAP)
    return "x"


@env.task
async def child_has_a_timeout() -> str:
    return await has_a_timeout()


STAYS = [
    "timer", "timeout", "wait_for", "thread", "socket", "subprocess", "async trace", "sync trace",
    "async trace from a thread", "async generator", "sync generator",
]  # fmt: skip


def test_what_waits_for_something_else_stays() -> None:
    """D5."""
    with Serving() as serving:
        runs = [perdure.submit(stays_for, what) for what in STAYS]
        runs += [perdure.submit(has_a_timeout), perdure.submit(child_has_a_timeout)]
        results = [run.wait(15).result for run in runs]
    assert all(result in ("x", "traced", [1]) for result in results), results
    assert serving.parks() == 0


# -- unwinding -------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def resource() -> AsyncIterator[None]:
    seen.append("open")
    try:
        yield
    finally:
        await asyncio.sleep(0.01)
        seen.append("close")


@env.task
async def cleans_up() -> int:
    async with resource():
        try:
            await durable_sleep.aio(NAP)
        except asyncio.CancelledError:
            seen.append("cancelled")
            for call in (step("never"), durable_sleep.aio(0.01), async_child(1)):
                try:
                    await call
                except errors.Parked:
                    seen.append("refused")
            raise ValueError("what a body says while it unwinds") from None
    return attempt()


@env.task
def cleans_up_sync() -> int:
    seen.append("open")
    try:
        durable_sleep(NAP)
    except errors.Parked:
        with pytest.raises(errors.Parked):
            sync_step("never")
        seen.append("cancelled")
        return -1
    finally:
        seen.append("close")
    return attempt()


@pytest.mark.parametrize("task", [cleans_up, cleans_up_sync])
def test_code_unwinds_and_nothing_durable_happens_meanwhile(task: Any) -> None:
    """D3."""
    with Serving() as serving:
        run = perdure.submit(task).wait(10)
    assert run.result == 1
    assert serving.parks() == 1
    assert counts["never"] == 0
    refused = ["refused"] * 3 if task is cleans_up else []
    assert seen == ["open", "cancelled", *refused, "close", "open", "close"]
    [entry] = runtime.worker().store.entries(run.row.id)
    assert entry.kind == Kind.SLEEP


stop_swallowing = threading.Event()


@env.task
async def swallows() -> str:
    while not stop_swallowing.is_set():
        try:
            await durable_sleep.aio(NAP)
            return await step("slept")
        except BaseException as error:
            seen.append(type(error).__name__)
    return "never"


@env.task
def swallows_sync() -> str:
    while not stop_swallowing.is_set():
        try:
            durable_sleep(NAP)
            return sync_step("slept")
        except BaseException as error:
            seen.append(type(error).__name__)
    return "never"


@env.task
async def lingers() -> str:
    for _ in range(2):
        try:
            await durable_sleep.aio(NAP)
        except asyncio.CancelledError:
            await asyncio.sleep(3)
    return await step("slept")


def test_what_does_not_unwind_neither_ends_the_run_nor_spins(caplog: pytest.LogCaptureFixture) -> None:
    stop_swallowing.clear()
    try:
        with Serving() as serving:
            runs = [perdure.submit(task) for task in (swallows, swallows_sync, lingers)]
            assert [run.wait(15).result for run in runs] == ["slept"] * 3
            # Were what is left collected, it would be made to end once more, and swallow that for ever.
            gc.collect()
            assert perdure.submit(retries_sync).wait(10).result == 2
        assert set(counts_by_run.values()) == {1}
        assert [serving.parks(run) for run in runs] == [1] * 3
        assert caplog.text.count("does not unwind") == 3
        assert len(seen) <= 2 * 1001 + 2
    finally:
        stop_swallowing.set()


@env.task
async def slow_to_unwind(naps: int) -> int:
    for _ in range(naps):
        try:
            await durable_sleep.aio(NAP)
        finally:
            await asyncio.sleep(NAP * 1.3)
    return attempt()


def test_a_wake_time_that_passes_while_the_run_unwinds(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Driver.parked

    def slowly(self: Driver) -> None:
        # The row says that it sleeps, and nobody here has been told: others may act on that by now.
        self.worker._watch()
        time.sleep(0.05)
        plain(self)

    monkeypatch.setattr(Driver, "parked", slowly)
    with Serving() as serving:
        runs = [perdure.submit(slow_to_unwind, 1) for _ in range(3)]
        assert [run.wait(20).result for run in runs] == [1] * 3
        until(lambda: len(serving.outcomes) >= 6 and not serving.server.driven)
    ends = Counter(outcome.status for outcome in serving.outcomes)
    assert ends.keys() == {Status.SLEEPING, Status.SUCCEEDED}, serving.outcomes
    assert ends[Status.SUCCEEDED] == 3
    assert ends[Status.SLEEPING] == sum(watched.parks.values())


@env.task
async def is_quick() -> str:
    return "done"


def test_a_claim_that_nobody_knows_of_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_module, "DOUBT_SECONDS", 0.2)
    run = perdure.submit(is_quick)
    worker = runtime.worker()
    worker.attend()
    [taken] = worker.store.take_due([is_quick.name], [Claim(b"t" * 16, worker.id)])
    assert taken.run.name == run.name
    with Serving():
        assert run.wait(10).result == "done"


def test_a_thread_that_sleeps_gives_its_place_back() -> None:
    peak = 0
    before = set(threading.enumerate())
    with Serving(concurrency=5) as serving:
        runs = [perdure.submit(sync_child, n) for n in range(40)]
        while not all(run.row.status == Status.SUCCEEDED for run in runs):
            here = set(threading.enumerate()) - before
            peak = max(peak, sum(thread.name.startswith("perdure-body") for thread in here))
            time.sleep(0.02)
    assert serving.parks() >= 20
    # Not one for each of the forty.
    assert peak <= 25
    assert set(counts.values()) == {1}


# -- deadlines -------------------------------------------------------------------------------------------------


@env.task
async def naps_of_all_lengths() -> Any:
    order: list[str] = []

    async def nap(n: int) -> None:
        await durable_sleep.aio(0.3 * n)
        order.append(await step(f"n{n}"))

    await asyncio.gather(*(nap(n) for n in (3, 1, 2)))
    return order


def test_each_deadline_wakes_the_run_and_the_journal_shows_their_order() -> None:
    with Serving() as serving:
        run = perdure.submit(naps_of_all_lengths).wait(10)
    assert run.result == ["n1", "n2", "n3"]
    assert serving.parks() >= 1
    entries = list(runtime.worker().store.entries(run.row.id))
    assert [(entry.kind, entry.result) for entry in entries] == [(Kind.SLEEP, 0), (Kind.TRACE, 0)] * 3
    for entry, length in zip(entries[::2], (0.3, 0.6, 0.9), strict=True):
        assert length - 0.01 <= entry.took / 1e6 < length + 0.5
    assert_replays(run)


@env.task
async def two_threads_sleep() -> str:
    def short() -> str:
        durable_sleep(NAP)
        return sync_step("short")

    long = asyncio.create_task(durable_sleep.aio(60))
    try:
        return await asyncio.to_thread(short)
    finally:
        long.cancel()


def test_a_deadline_that_passes_just_now_is_not_slept_over(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = DaemonThreads.resumed

    def resumed(self: DaemonThreads) -> None:
        # As if the thread were not given the processor for a while, between any two lines of waking up.
        plain(self)
        for driver in list(runtime.worker().drivers.values()):
            driver.loop.soon(driver.consider, 0.1)
        time.sleep(0.1)

    monkeypatch.setattr(DaemonThreads, "resumed", resumed)
    with Serving(FOR_EVER):
        assert perdure.submit(two_threads_sleep).wait(10).result == "short"


# -- races -----------------------------------------------------------------------------------------------------


@env.task
async def loses_a_race_then_calls() -> Any:
    task = asyncio.create_task(step("slow", 0.1))
    done, _ = await asyncio.wait({task}, timeout=0.02)
    late = not done
    await task
    return late, await async_child(1 if late else 2)


@env.task
async def loses_a_race_then_sleeps() -> Any:
    task = asyncio.create_task(step("slow", 0.1))
    done, _ = await asyncio.wait({task}, timeout=0.02)
    late = not done
    await task
    await durable_sleep.aio(NAP)
    return late, await step(f"late {late}")


@env.task
async def sleeps_while_it_loses_a_race() -> Any:
    sleep = asyncio.create_task(durable_sleep.aio(1.2))
    task = asyncio.create_task(step("slow", 0.1))
    done, _ = await asyncio.wait({task}, timeout=0.02)
    late = not done
    await asyncio.gather(task, sleep)
    return late, await step("last")


@env.task
async def races_a_sleep() -> Any:
    task = asyncio.create_task(durable_sleep.aio(1.2))
    done, _ = await asyncio.wait({task}, timeout=0.1)
    late = not done
    await task
    return late, await step("last")


@env.task
async def orders_a_sleep() -> Any:
    order: list[str] = []

    async def durable() -> None:
        await durable_sleep.aio(1.2)
        order.append("durable")

    async def plain() -> None:
        await asyncio.sleep(0.1)
        order.append("plain")

    await asyncio.gather(durable(), plain())
    return order == ["plain", "durable"], None


@env.task
async def cancels_then_sleeps() -> Any:
    late = False
    try:
        async with asyncio.timeout(0.05):
            await step("slow", 5)
    except TimeoutError:
        late = True
    await durable_sleep.aio(NAP)
    return late, await step("after")


RACES = [
    loses_a_race_then_calls, loses_a_race_then_sleeps, sleeps_while_it_loses_a_race, races_a_sleep, orders_a_sleep,
    cancels_then_sleeps,
]  # fmt: skip


def test_a_race_that_a_plain_timer_has_won_stays_won() -> None:
    """B7."""
    with Serving() as serving:
        runs = {task: perdure.with_runcontext(name=task.fn.__name__).submit(task) for task in RACES}
        assert [run.name for run in runs.values() if run.wait(15).result[0] is not True] == []
    assert [run.name for run in runs.values() if not serving.parks(run)] == []
    assert set(counts_by_run.values()) == {1}
    for task, run in runs.items():
        if task is not orders_a_sleep:  # no call depends on that order, and no timeout: a replay from the start is free
            assert_replays(run)


def test_waking_again_and_again_notes_nothing_twice() -> None:
    with Serving():
        run = perdure.submit(wakes_often).wait(15)
    assert run.result == [True, "last"]
    rows = list(runtime.worker().store.entries(run.row.id))
    assert sum(row.races is not None for row in rows) == 1


@env.task
async def wakes_often() -> Any:
    task = asyncio.create_task(step("slow", 0.1))
    done, _ = await asyncio.wait({task}, timeout=0.02)
    late = not done
    await task
    await asyncio.gather(*(durable_sleep.aio(0.3 * n) for n in range(1, 5)))
    return [late, await step("last")]


# -- who drives it ---------------------------------------------------------------------------------------------


@env.task
async def sleeps_long(seconds: float = 60.0) -> int:
    await step("before")
    await durable_sleep.aio(seconds)
    await step("after")
    return attempt()


def test_a_parked_run_that_is_asked_for_by_name_goes_on_here_in_the_same_attempt() -> None:
    with Serving():
        run = perdure.with_runcontext(name="mine").submit(sleeps_long, 1.0)
        until(lambda: parked(run))
    assert perdure.with_runcontext(name="mine").run(sleeps_long, 1.0).result == 1
    assert counts == {"before": 1, "after": 1}


def test_a_parked_run_is_taken_over_while_a_worker_serves() -> None:
    with Serving() as serving:
        run = perdure.with_runcontext(name="mine").submit(sleeps_long, 1.0)
        until(lambda: parked(run))
        assert perdure.with_runcontext(name="mine").run(sleeps_long, 1.0).result == 1
        time.sleep(0.1)
    assert serving.parks() == 1
    assert counts == {"before": 1, "after": 1}


def test_a_worker_whose_runs_sleep_does_nothing() -> None:
    with Serving() as serving:
        runs = [perdure.submit(sleeps_long, 60) for _ in range(20)]
        until(lambda: serving.parks() == len(runs) and not serving.server.driven)
        busy = time.process_time()
        time.sleep(1.0)
        assert time.process_time() - busy < 0.2


def test_aborting_a_parked_run() -> None:
    from perdure.api import operate

    with Serving() as serving:
        run = perdure.submit(sleeps_long, 0.6)
        until(lambda: parked(run))
        assert operate.abort(run.name)
        time.sleep(0.8)
    assert run.status == Status.ABORTED
    assert counts == {"before": 1}
    assert serving.parks() == 1


@env.task
async def unwinds_for_a_while() -> None:
    try:
        await durable_sleep.aio(60)
    finally:
        seen.append("unwinding")
        await asyncio.sleep(0.4)


@pytest.mark.parametrize("notice", [True, False])
def test_aborting_a_run_that_is_being_parked(notice: bool) -> None:
    from perdure.api import operate

    with Serving() as serving:
        run = perdure.submit(unwinds_for_a_while)
        until(lambda: seen)
        assert operate.abort(run.name)
        if notice:
            runtime.worker()._watch()
        until(lambda: serving.outcomes)
        time.sleep(0.5)
        assert perdure.submit(retries_sync).wait(10).result == 2
    assert run.status == Status.ABORTED
    assert [outcome.status for outcome in serving.outcomes if outcome.run == run.name] == [Status.ABORTED]


def test_a_store_that_fails_just_then_loses_no_run() -> None:
    failed: list[bool] = []

    def fail(writes: Any) -> None:
        if not failed and any(isinstance(write, RunWrites) and write.park for write in writes):
            failed.append(True)
            raise errors.StoreUnavailableError("the disk is full")

    watched.before = fail
    with Serving() as serving:
        run = perdure.submit(sleeps_long, 0.5).wait(15)
    assert run.status == Status.SUCCEEDED
    assert failed
    assert serving.outcomes[0].status == Status.INTERRUPTED
    assert counts == {"before": 1, "after": 1}


def test_slow_commits() -> None:
    # Deadlines and cancellations are long on their way; the writer has a thread of its own then.
    watched.before = lambda writes: time.sleep(0.02)
    with Serving(0.05) as serving:
        runs = [perdure.submit(task) for task in (*RACES, gathers, threads, maps_sync, events)]
        for run in runs:
            run.wait(20)
    assert all(run.status == Status.SUCCEEDED for run in runs)
    assert [run.result[0] for run in runs[: len(RACES)]] == [True] * len(RACES)
    assert serving.parks() >= len(runs) // 2


# -- code that changes -----------------------------------------------------------------------------------------

fits = True


@env.task
async def may_not_fit() -> str:
    await step("a" if fits else "b")
    await durable_sleep.aio(0.5)
    return await step("end")


def test_code_that_no_longer_fits_is_reported_and_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    global fits
    monkeypatch.setattr(serving_module, "FIRST_RETRY", 0.3)
    try:
        with Serving() as serving:
            run = perdure.submit(may_not_fit)
            until(lambda: parked(run))
            fits = False
            until(lambda: sum(o.run == run.name and o.again is not None for o in serving.outcomes) >= 2)
            assert perdure.submit(retries_sync).wait(10).result == 2
            fits = True
            assert run.wait(15).result == "end"
    finally:
        fits = True
    told = [outcome for outcome in serving.outcomes if outcome.run == run.name and outcome.again is not None]
    assert all(isinstance(outcome.error, errors.NonDeterminismError) for outcome in told)
    assert [outcome.again for outcome in told[:2]] == [0.3, 0.6]
    assert (counts["a"], counts["b"], counts["end"]) == (1, 0, 1)


EDITED = """
import asyncio
import perdure
from perdure.extras import durable_sleep

env = perdure.TaskEnvironment(name="edited")

@perdure.trace
async def mark(text: str) -> str:
    return text

@env.task
async def naps(seconds: float) -> float:
    await durable_sleep.aio(seconds)
    return seconds

@env.task
async def main() -> list:
    first = await mark({first!r})
    found = await asyncio.gather({calls})
    return [first, *found, await mark("end")]
"""


def test_code_that_was_edited_meanwhile_goes_on_and_parks_again(tmp_path: Path) -> None:
    file = tmp_path / "edited.py"

    def serving(first: str, calls: str) -> Serving:
        file.write_text(EDITED.format(first=first, calls=calls))
        sys.modules.pop("edited", None)
        # Another process, as far as anybody looks at the sources.
        open_store(tmp_path)
        tasks = [find_task(str(file), name) for name in ("main", "naps")]
        return Serving(specs={task.name: task.spec for task in tasks})

    with serving("one", "naps(2.5), naps(30)") as before:
        run = perdure.submit(find_task(str(file), "main"))
        until(lambda: parked(run))
    # It is woken by hand, as its first deadline is far away, and calls one child less than are under way.
    with contextlib.closing(sqlite3.connect(runtime.worker().store.path, timeout=10)) as database, database:  # type: ignore[attr-defined]
        database.execute("UPDATE runs SET wake_boot = 0")
    with serving("one", "naps(2.5)") as after:
        until(lambda: after.parks() == 1, 3)
        assert run.wait(15).result == ["one", 2.5, "end"]
    assert before.parks() == 1


# -- many cycles -----------------------------------------------------------------------------------------------


async def mixture(seed: int) -> list[Any]:
    """A workflow of gathers, races, children and threads; what it gives depends on the order of their deadlines."""
    dice = random.Random(seed)
    order: list[Any] = []

    async def leaf(name: str) -> str:
        kind, length = dice.randrange(6), 0.12 * dice.randrange(1, 4)
        if kind == 0:
            await durable_sleep.aio(length)
        elif kind == 1:
            await durable_sleep.aio(length)
            await naps.aio(length)
        elif kind == 2:
            await naps_sync.aio(length)
        elif kind == 3:
            await asyncio.to_thread(durable_sleep, length)
        elif kind == 4:
            with contextlib.suppress(TimeoutError):
                async with perdure.durable.timeout(length):
                    await durable_sleep.aio(0.3)
        else:
            waiting = {asyncio.create_task(durable_sleep.aio(n)) for n in (length, length + 0.3)}
            _, late = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in late:
                task.cancel()
        return await step(f"{seed} {name}")

    async def tree(name: str, depth: int) -> Any:
        if depth == 0:
            return await leaf(name)
        if dice.random() < 0.5:
            return await asyncio.gather(*(tree(f"{name}{n}", depth - 1) for n in range(2)))
        return [await tree(f"{name}{n}", depth - 1) for n in range(2)]

    order.append(await tree("", 2))
    order.append(await perdure.durable.random.aio() >= 0)
    return order


@env.task
async def naps(seconds: float) -> float:
    await durable_sleep.aio(seconds)
    return seconds


@env.task
def naps_sync(seconds: float) -> float:
    durable_sleep(seconds)
    return seconds


@env.task
async def mixes(seed: int) -> list[Any]:
    return await mixture(seed)


def test_parked_or_not_the_outcome_is_the_same() -> None:
    results: list[list[Any]] = []
    for park_after in (FOR_EVER, 0.05):
        counts.clear()
        with Serving(park_after) as serving:
            runs = [perdure.submit(mixes, seed) for seed in range(24)]
            results.append([run.wait(30).result for run in runs])
        assert set(counts.values()) == {1}
    assert results[0] == results[1]
    assert serving.parks() > 15
    for run in runs:
        assert_replays(run)


@env.task
async def naps_often(naps: int) -> int:
    for _ in range(naps):
        await durable_sleep.aio(0.2)
    return naps


def test_nothing_of_a_parked_run_stays_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    drivers: list[weakref.ref[Driver]] = []
    plain = Driver.start

    def start(self: Driver) -> None:
        drivers.append(weakref.ref(self))
        plain(self)

    monkeypatch.setattr(Driver, "start", start)
    with Serving(0.05, concurrency=300) as serving:
        runs = [perdure.submit(task, 6) for task in (naps_often, naps_often_sync) for _ in range(90)]
        for run in runs:
            assert run.wait(30).result == 6
        assert serving.parks() >= 500
        assert len(drivers) == serving.parks() + len(runs)
        until(lambda: not serving.server.driven)
        time.sleep(0.1)
        gc.collect()
        alive = [found for ref in drivers if (found := ref()) is not None]
        assert alive == [], [type(holder) for holder in gc.get_referrers(alive[0])]
    assert not runtime.worker().drivers


@env.task
def naps_often_sync(naps: int) -> int:
    for _ in range(naps):
        durable_sleep(0.2)
    return naps
