"""Bodies that tell the outside world of each outcome at once: what was told of must survive a power cut."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
import threading
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "crash" / "workflows"))

from lab import async_items, env, log, step, sync_step

import perdure
from perdure import runtime
from perdure.core.process.serving import Server
from perdure.extras import durable_sleep
from perdure.io import Dir, File
from perdure.upkeep.backups import backup
from perdure.upkeep.collecting import collect
from perdure.upkeep.moving import move


def told(name: str) -> None:
    """The outcome of that step has been handed to the body."""
    log("told", name)


@env.task
async def in_turn() -> list[str]:
    found = []
    for number in range(6):
        found.append(await step(f"s{number}"))
        told(f"s{number}")
    return found


@env.task
def in_turn_sync() -> list[str]:
    found = []
    for number in range(6):
        found.append(sync_step(f"s{number}"))
        told(f"s{number}")
    return found


@env.task
async def gathered() -> list[str]:
    async def one(number: int) -> str:
        value = await step(f"s{number}", -0.004)
        told(f"s{number}")
        return value

    return await asyncio.gather(*(one(number) for number in range(12)))


@env.task
async def child(name: str) -> str:
    value = await step(name)
    told(name)
    await durable_sleep.aio(0.01)
    return value


@env.task
async def with_children() -> list[str]:
    async def one(name: str) -> str:
        value = await child(name)
        told(f"task {name}")
        return value

    return await asyncio.gather(*(one(f"c{number}") for number in range(3)))


@env.task
async def with_items() -> list[str]:
    found = []
    async for item in async_items("i", 5):
        told(item)
        found.append(item)
    return found


@perdure.trace
async def make_file(number: int) -> File:
    log("executed", f"file{number}")
    path = Path(os.environ["LAB_LOG"]).with_name(f"made{number}")
    path.write_bytes(bytes([number]) * (3000 * number + 10))
    return await File.from_local.aio(str(path))


@perdure.trace
async def make_tree() -> Dir:
    log("executed", "tree")
    path = Path(os.environ["LAB_LOG"]).with_name("tree")
    (path / "below").mkdir(parents=True, exist_ok=True)
    (path / "a").write_bytes(b"a" * 700)
    (path / "below" / "b").write_bytes(b"b" * 5000)
    return await Dir.from_local.aio(str(path))


@env.task
async def with_files() -> list[str]:
    files = []
    for number in range(3):
        files.append(await make_file(number))
        told(f"file{number}")
    tree = await make_tree()
    told("tree")
    paths = [*(file.path for file in files), f"{tree.path}/a", f"{tree.path}/below/b"]
    return [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths]


@env.task
async def leaf(number: int) -> int:
    await step(f"leaf{number}")
    return number


def submissions() -> None:
    """Runs are submitted one by one, for workers that come later; each is told of once `submit` has returned."""
    log("alive")
    for number in range(4):
        run = perdure.with_runcontext(name=f"leaf{number}").submit(leaf, number)
        log("submitted", run.name)
    print('{"value": null}')


@env.task
async def napping() -> list[str]:
    """Steps, and a sleep in which a worker parks the run, twice."""
    found = []
    for number in range(3):
        found.append(await step(f"s{number}"))
        told(f"s{number}")
        if number < 2:
            await durable_sleep.aio(0.15)
    return found


def parked() -> None:
    """A worker drives run `r`, parks it in each sleep, and wakes it."""
    run = perdure.with_runcontext(name="r").submit(napping)
    log("submitted", run.name)
    server = Server(runtime.worker(), {napping.name: napping.spec}, park_after=0.02)
    threading.Thread(target=server.serve, daemon=True).start()
    run.wait()
    log("ended", run.result)
    server.stop()
    print('{"value": null}', flush=True)
    os._exit(0)


def moved() -> None:
    """Runs with a result, one of them with files, and a queued run are moved to another store."""
    wanted = {"leaf0": (leaf, 0), "leaf1": (leaf, 1), "r": (with_files,)}
    for name, (task, *inputs) in wanted.items():
        with suppress(perdure.errors.RunMovedError):  # the program is started again
            perdure.with_runcontext(name=name).run(task, *inputs)
        log("submitted", name)
    with suppress(perdure.errors.RunMovedError):
        perdure.with_runcontext(name="queued").submit(leaf, 9)
    log("submitted", "queued")
    move(".perdure/perdure.db", "moved.db")
    log("moved")
    print('{"value": null}')


def backed_up() -> None:
    """A store is copied while a run is in it, twice."""
    perdure.with_runcontext(name="r").run(in_turn)
    for number in range(2):
        backup(runtime.store_url(), f"copy{number}.db")
        log("copied", f"copy{number}.db")
    print('{"value": null}')


def collected() -> None:
    """Runs that have ended are removed, and a run that goes on keeps what it has."""
    for number in range(3):
        perdure.with_runcontext(name=f"leaf{number}").run(leaf, number)
    gone = collect(timedelta(0), dry_run=False)
    log("collected", len(gone.runs))
    perdure.with_runcontext(name="r").run(with_files)
    log("ended", "r")
    print('{"value": null}')


COMMANDS = {each.__name__: each for each in (submissions, parked, moved, backed_up, collected)}


def main() -> None:
    """The command or task named on the command line; a task is run `r`, and its end is told of as well."""
    if sys.argv[1] in COMMANDS:
        COMMANDS[sys.argv[1]]()
        return
    run = perdure.with_runcontext(name="r").run(globals()[sys.argv[1]])
    log("ended", run.result)
    print(json.dumps({"value": run.result}))


if __name__ == "__main__":
    main()
