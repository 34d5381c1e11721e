"""A small workflow over all that writes: steps, threads, a child task, a sleep, a file, a tree.

The outside log and the answer are written with `writev`, a call that no fault is injected into.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

import perdure
from perdure.extras import durable_sleep
from perdure.io import Dir, File

env = perdure.TaskEnvironment(name="faults")
_log = os.open(os.environ["LAB_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
SOURCES = Path(__file__).parent


def log(kind: str, name: str) -> None:
    """One line of the outside log."""
    os.writev(_log, [json.dumps([os.getpid(), kind, name]).encode() + b"\n"])


@perdure.trace
async def step(name: str) -> str:
    log("executed", name)
    return name


@perdure.trace
def sync_step(name: str) -> str:
    log("executed", name)
    return name


@env.task
async def child(name: str) -> str:
    found = await step(name)
    log("told", name)
    return found


@perdure.trace
async def make_file() -> File:
    log("executed", "file")
    return await File.from_local.aio(str(SOURCES / "small.py"))


@perdure.trace
async def make_tree() -> Dir:
    log("executed", "tree")
    return await Dir.from_local.aio(str(SOURCES / "tree"))


async def told(name: str, call: Any) -> str:
    """Await a durable call, and tell the outside world that its outcome was handed out."""
    await call
    log("told", name)
    return name


@env.task
async def small() -> list[str]:
    found = [await told("a", step("a"))]
    threads = [told(f"t{number}", asyncio.to_thread(sync_step, f"t{number}")) for number in range(3)]
    found += await asyncio.gather(*threads, told("b", step("b")), told("child", child("c")))
    await durable_sleep.aio(0.01)
    file, tree = await make_file(), await make_tree()
    log("told", "file")
    log("told", "tree")
    for path in (file.path, f"{tree.path}/a"):
        found.append(hashlib.sha256(Path(path).read_bytes()).hexdigest())
    return [*found, await told("z", step("z"))]


def failed_run() -> Any:
    """The run, where a step has failed: that is an outcome, too, and `resume` tries the step again."""
    try:
        run = perdure.Run.get("r")
    except perdure.errors.RunNotFoundError:
        return None
    return run if run.status == "FAILED" else None


def limit_files() -> None:
    """No file may become larger than LAB_LIMIT bytes. The write that crosses the limit is short, the next one fails."""
    if "LAB_LIMIT" in os.environ:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(os.environ["LAB_LIMIT"]), resource.RLIM_INFINITY))


def main() -> None:
    """Run it as run "r", or carry on with it; print how it ended: its value, or the kinds of its error."""
    limit_files()
    try:
        if sys.argv[1] == "again" and (failed := failed_run()) is not None:
            run = failed.resume()
        else:
            run = perdure.with_runcontext(name="r").run(small)
        answer: dict[str, Any] = {"value": run.result}
    except Exception as error:
        answer = {"error": [kind.__name__ for kind in type(error).__mro__], "text": str(error)}
    os.writev(1, [json.dumps(answer).encode()])
    os._exit(0)


main()
