"""perdure: sleeping runs on one worker: how fast they are parked, what they cost on disk and in memory, and how late
those wake whose time comes.

Some runs are really driven: each records three traces and is parked in a sleep. The rest of them is written through
the store's port, as the rows that a driven one has left, because a million driven ones would take the bench an hour.
"""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from statistics import quantiles
from time import perf_counter, sleep, time

import perdure
from _common import emit, parser, workdir
from _workers import resident, workers
from perdure import durable, runtime
from perdure.core.ground.model import NO_PARENT, Claim, Created, CreateRun, NewRun, Park, RunWrites, Status, Wake
from perdure.core.ground.ports import Store
from perdure.core.journal.segment import Journal, journal_of
from perdure.extras import durable_sleep

env = perdure.TaskEnvironment(name="bench")
MONTH = 30 * 86_400
CHUNK = 1000


@perdure.trace
async def step(number: int) -> bytes:
    return b"twenty bytes of data"


@env.task
async def parked(number: int) -> int:
    for part in range(3):
        await step(part)
    await durable_sleep.aio(MONTH)
    return number


@env.task
async def timed(target: float) -> float:
    for part in range(3):
        await step(part)
    await durable_sleep.aio(max(0.0, target - await durable.time.aio()))
    return time()


async def submit_parked(count: int) -> None:
    for first in range(0, count, CHUNK):
        last = min(first + CHUNK, count)
        await asyncio.gather(*(perdure.submit.aio(parked, number=number) for number in range(first, last)))


async def submit_timed(begin: float, count: int, over: float) -> list[perdure.Run]:
    return await asyncio.gather(
        *(perdure.submit.aio(timed, target=begin + over * number / count) for number in range(count))
    )


def settle(store: Store) -> None:
    while store.runs(limit=1, statuses={Status.QUEUED, Status.RUNNING}):
        sleep(0.02)


def fill(store: Store, count: int) -> None:
    """Write more runs like the first parked one."""
    model = store.runs(statuses={Status.SLEEPING})[-1]
    new = NewRun._make(getattr(model, field) for field in NewRun._fields)
    entries, actions = list(journal_of(store, model)), store.actions(model.id)
    clock = runtime.worker().clock
    wake = Wake(clock.wall() + MONTH * 1_000_000, clock.boot() + MONTH * 1_000_000)
    token = secrets.token_bytes(16)
    claim = Claim(token, runtime.worker().id)
    for first in range(0, count, CHUNK):
        numbers = range(first, min(first + CHUNK, count))
        created = store.commit([
            CreateRun(new._replace(uid=secrets.token_bytes(16), name=f"parked-{number}"), claim) for number in numbers
        ])  # fmt: skip
        runs = [answer.run for answer in created if isinstance(answer, Created)]
        store.commit([
            RunWrites(
                run.id, token, Journal(run.name, run.uid, token).append(entries)[0],
                [action._replace(run=run.id) for action in actions], park=Park(wake, len(entries)),
            )
            for run in runs
        ])  # fmt: skip


def lateness(store: Store, runs: list[perdure.Run]) -> list[float]:
    """Milliseconds from each sleep's recorded deadline to the body's going on."""
    late = []
    for run in runs:
        [sleeping] = [action for action in store.actions(run.row.id) if action.wake_at and action.parent != NO_PARENT]
        assert sleeping.wake_at is not None
        late.append(run.wait().result * 1000 - sleeping.wake_at / 1000)
    return late


def size(path: Path) -> int:
    return sum(part.stat().st_size for part in path.parent.glob(f"{path.name}*") if part.is_file())


def main() -> None:
    arguments = parser(__doc__, count=20_000)
    arguments.add_argument("--driven", type=int, default=2_000, help="how many of them are really driven (2000)")
    arguments.add_argument("--wakes", type=int, default=1_000, help="how many others wake (1000)")
    arguments.add_argument("--over", type=float, default=10.0, help="seconds that these are spread over (10)")
    options = arguments.parse_args()
    with workdir(options.dir) as directory:
        path = directory / "perdure.db"
        url = f"sqlite:///{path}"
        perdure.init(store=url)
        store = runtime.worker().store
        with workers(__file__, url, 1) as [pid]:
            sleep(3)
            idle = resident(pid)
        with workers(__file__, url, 1, "--park-after", "1s") as [pid]:
            started = perf_counter()
            asyncio.run(submit_parked(options.driven))
            settle(store)
            driven = options.driven / (perf_counter() - started)
        runtime.worker().lease.attend()
        started = perf_counter()
        fill(store, options.count - options.driven)
        filled = (options.count - options.driven) / (perf_counter() - started)
        on_disk = size(path) / options.count
        with workers(__file__, url, 1, "--park-after", "1s") as [pid]:
            sleep(3)
            full = resident(pid)
            begin = time() + 3 + options.wakes / 200
            runs = asyncio.run(submit_timed(begin, options.wakes, options.over))
            settle(store)
            if time() > begin:
                raise SystemExit("the runs that are to wake were not parked in time")
            for run in runs:
                run.wait(options.over + 120)
            late = sorted(lateness(store, runs))
            busy = resident(pid)
    cuts = quantiles(late, n=100)
    emit(
        cuts[98], "ms late (p99)", p50=cuts[49], worst=late[-1], count=options.count, driven_per_second=driven,
        filled_per_second=filled, bytes_per_run=on_disk, idle_bytes=idle, full_bytes=full, busy_bytes=busy,
    )  # fmt: skip


if __name__ == "__main__":
    main()
