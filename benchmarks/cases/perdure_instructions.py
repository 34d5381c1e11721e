"""perdure: how many instructions one durable call takes, sync or async, as valgrind's callgrind counts them.

A run of `FEW` calls and a run of `FEW + --count` calls are counted, each in a process of its own, and subtracted: the
start of Python, imports and the run itself cancel out. Nothing is fsynced, as an fsync takes time and no instructions.
Under valgrind everything takes some fifty times as long, so perdure's limits of time for a step of the loop and for a
slow commit are set a hundred times as high. The figure then hardly depends on what else the machine does.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import perdure
from _common import emit, parser, workdir
from perdure.core.body import loop
from perdure.core.commit import writer

FEW = 100
SLOWER = 100

env = perdure.TaskEnvironment(name="bench")


@perdure.trace
def step(number: int) -> int:
    return number


@perdure.trace
async def astep(number: int) -> int:
    return number


@env.task
def sync_main(count: int) -> int:
    return sum(step(number) for number in range(count))


@env.task
async def async_main(count: int) -> int:
    total = 0
    for number in range(count):
        total += await astep(number)
    return total


def drive(directory: Path, mode: str, count: int) -> None:
    """The process that is counted."""
    loop.SPIN_NS *= SLOWER
    writer.SLOW_NS *= SLOWER
    writer.FAST_NS *= SLOWER
    perdure.init(store=f"sqlite:///{directory / 'perdure.db'}", durability="process")
    perdure.run(sync_main if mode == "sync" else async_main, count=count)
    os._exit(0)


def counted(directory: Path, mode: str, count: int) -> int:
    """Instructions of a whole process with a run of so many calls."""
    folder = directory / str(count)
    command = [
        *("valgrind", "--tool=callgrind", f"--callgrind-out-file={directory / 'callgrind.out'}"),
        *(sys.executable, __file__, "--drive", "--mode", mode, "--count", str(count), "--dir", str(folder)),
    ]
    # Equal hashes, so that the dicts of both processes are alike; compiled modules, so that none is compiled.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONHASHSEED"] = "0"
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode != 0 or found is None:
        raise SystemExit(f"callgrind counted nothing (exit status {done.returncode}):\n{done.stderr[-2000:]}")
    return int(found[1])


def main() -> None:
    arguments = parser(__doc__, count=1000)
    arguments.add_argument("--mode", choices=("sync", "async"), default="sync")
    arguments.add_argument("--drive", action="store_true", help="be the process that is counted")
    options = arguments.parse_args()
    with workdir(options.dir) as directory:
        if options.drive:
            drive(directory, options.mode, options.count)
        counted(directory, options.mode, 1)  # compiles what is not compiled yet
        few, many = (counted(directory, options.mode, count) for count in (FEW, FEW + options.count))
    emit((many - few) / options.count, "instructions", count=options.count, mode=options.mode)


if __name__ == "__main__":
    main()
