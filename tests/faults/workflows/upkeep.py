"""The upkeep of a store as a process: `prepare` it, then `move`, `backup` or `collect`. Answers as `small` does."""

from __future__ import annotations

import json
import os
import sys
from datetime import timedelta
from pathlib import Path

import perdure
from perdure import runtime
from perdure.io import Dir, File
from perdure.upkeep.backups import backup
from perdure.upkeep.collecting import collect
from perdure.upkeep.moving import move

env = perdure.TaskEnvironment(name="upkeep")
SOURCES = Path(__file__).parent


@env.task
async def work(number: int) -> list[File | Dir]:
    return [await File.from_local.aio(str(SOURCES / "small.py")), await Dir.from_local.aio(str(SOURCES / "tree"))]


def prepare() -> None:
    """Three runs that have ended, and one that waits."""
    for number in range(3):
        perdure.with_runcontext(name=f"r{number}").run(work, number)
    perdure.with_runcontext(name="waits").submit(work, 9)


MODES = {
    "prepare": prepare,
    "move": lambda: move(".perdure/perdure.db", "moved.db"),
    "backup": lambda: backup(runtime.store_url(), "copy.db"),
    "collect": lambda: collect(timedelta(0)),
}


def main() -> None:
    """Do what the command line names, and print how it ended."""
    try:
        MODES[sys.argv[1]]()
        answer: dict[str, object] = {"value": sys.argv[1]}
    except Exception as error:
        answer = {"error": [kind.__name__ for kind in type(error).__mro__], "text": str(error)}
    os.writev(1, [json.dumps(answer).encode()])
    os._exit(0)


main()
