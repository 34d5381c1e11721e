"""A store whose own code fails: with an error that no store declares (an OSError of a sleep, a full memory, a bug)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# For each call of the store in turn: a fork in which that call, or that call and each later call, raises; then, where
# the run has not ended, the same run once more. A line for each fork that does not end well.
SCRIPT = r"""
import asyncio, os, signal, sys
import perdure
from perdure.extras import durable_sleep
from perdure.store.sqlite.store import SQLiteStore

env = perdure.TaskEnvironment(name="faulty")
kind, lasting = sys.argv[1], sys.argv[2] == "lasting"

@perdure.trace
async def step(number: int) -> int:
    return number

@perdure.trace
def sync_step(number: int) -> int:
    return number

@env.task
async def child(number: int) -> int:
    return await step(number)

@env.task
async def flow() -> int:
    first = await step(1)
    second, third = await asyncio.gather(child(2), step(3))
    await durable_sleep.aio(0.01)
    return first + second + third + await asyncio.to_thread(sync_step, 4)

def fails_from(number):
    calls = 0
    def failing(verb):
        def call(self, *arguments, **options):
            nonlocal calls
            calls += 1
            if calls == number or (lasting and calls > number):
                raise {"OSError": OSError(22, "Invalid argument"), "MemoryError": MemoryError(),
                       "RuntimeError": RuntimeError("a bug")}[kind]
            return verb(self, *arguments, **options)
        return call
    for name, verb in list(vars(SQLiteStore).items()):
        if callable(verb) and not name.startswith("_") and name != "close":
            setattr(SQLiteStore, name, failing(verb))

def forked(number, fail):
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    signal.alarm(30)
    perdure.init(f"sqlite:///{os.getcwd()}/{number}.db")
    if fail:
        fails_from(number)
    try:
        os._exit(0 if perdure.with_runcontext(name="r").run(flow).result == 10 else 3)
    except BaseException:
        os._exit(1)

ended = 0
for number in range(1, 40):
    code = forked(number, True)
    again = forked(number, False)
    if code not in (0, 1) or again != 0:
        print(f"call {number}: {code}, then {again}")
    ended = ended + 1 if code == 0 else 0
    if ended == 3:
        break
else:
    print("every call fails")
"""


@pytest.mark.parametrize("lasts", ["once", "lasting"])
@pytest.mark.parametrize("kind", ["OSError", "MemoryError", "RuntimeError"])
def test_a_run_ends_at_a_fault_in_any_call_of_the_store(tmp_path: Path, kind: str, lasts: str) -> None:
    """D4, P1. The family: errors that are no `StoreError`, at each call of the store, once or from there on. The caller
    of the run waited for ever, because the release of the claim raised as well. Afterwards the same call carries on."""
    script = tmp_path / "flow.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, script, kind, lasts], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "HOME": str(tmp_path)},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, ""), done.stderr[-3000:]
