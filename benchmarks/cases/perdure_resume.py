"""perdure: resume a run with many entries whose process died behind the last of them.

`--stage build` makes the run and dies like a killed process (exit status 9, no clean-up); `--stage resume` times how
long the same call takes to replay it to its end. Without a stage: both, in a new directory.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import perdure
from _common import VALUE, emit, parser, workdir

NAME = "big"
DIE = "BENCH_DIE"

env = perdure.TaskEnvironment(name="bench")


@perdure.trace
def step(number: int) -> bytes:
    return VALUE


@perdure.trace
async def astep(number: int) -> bytes:
    return VALUE


@perdure.trace
def last() -> int:
    if os.environ.get(DIE):
        os._exit(9)
    return 1


@env.task
def sync_main(count: int) -> int:
    return sum(len(step(number)) for number in range(count)) + last()


@env.task
async def async_main(count: int) -> int:
    total = 0
    for number in range(count):
        total += len(await astep(number))
    ended: int = await last.aio()
    return total + ended


def drive(path: Path, mode: str, count: int) -> float:
    # Building with fewer fsyncs changes no row; it only saves time.
    perdure.init(store=f"sqlite:///{path}", durability="process" if os.environ.get(DIE) else "power")
    task = sync_main if mode == "sync" else async_main
    started = perf_counter()
    run = perdure.with_runcontext(name=NAME).run(task, count=count)
    elapsed = perf_counter() - started
    if run.outputs()[0] != count * len(VALUE) + 1:
        raise SystemExit("the resumed run gave another result")
    return elapsed


def build(path: Path, mode: str, count: int) -> None:
    command = [sys.executable, __file__, "--stage", "drive", "--mode", mode, "--count", str(count), "--db", str(path)]
    done = subprocess.run(command, env={**os.environ, DIE: "1"}, capture_output=True, text=True, check=False)
    if done.returncode != 9:
        raise SystemExit(f"the run to resume was not built (exit status {done.returncode}):\n{done.stderr}")


def main() -> None:
    arguments = parser(__doc__, count=100_000)
    arguments.add_argument("--mode", choices=("sync", "async"), default="sync")
    arguments.add_argument("--stage", choices=("build", "resume", "drive"), default=None)
    arguments.add_argument("--db", type=Path, default=None, help="the database of the stage")
    options = arguments.parse_args()
    with workdir(options.dir if options.db is None else options.db.parent) as directory:
        path = directory / (options.db.name if options.db else "perdure.db")
        if options.stage == "drive":
            drive(path, options.mode, options.count)
            return
        if options.stage != "resume":
            started = perf_counter()
            build(path, options.mode, options.count)
            if options.stage == "build":
                emit(perf_counter() - started, "s", count=options.count, mode=options.mode, stage="build")
                return
        elapsed = drive(path, options.mode, options.count)
    emit(elapsed, "s", count=options.count, mode=options.mode)


if __name__ == "__main__":
    main()
