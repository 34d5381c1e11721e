"""What a body may do to the event loop, which all runs of the process share, and what the loop needs of the policy.

The family: each setting of an asyncio loop that outlives the body, deadlines that the loop cannot keep because a body
blocks it, and subprocesses under a policy without a child watcher.
"""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import errors

env = perdure.TaskEnvironment(name="shared_loop")
pytestmark = pytest.mark.filterwarnings("ignore::perdure.errors.PerdureWarning")


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    perdure.init(store=tmp_path / "perdure.db")
    yield
    perdure.init()


@perdure.trace
async def step(name: str) -> str:
    await asyncio.sleep(0)
    return name


@env.task
async def plain() -> list[str]:
    return list(await asyncio.gather(*(step(name) for name in "ab")))


# -- settings --------------------------------------------------------------------------------------------------


def plain_tasks(loop: asyncio.AbstractEventLoop) -> Any:
    return loop.set_task_factory(lambda loop, coro, **options: asyncio.Task(coro, loop=loop, **options))


SETTINGS = {
    "set_task_factory": plain_tasks,
    "set_task_factory to none": lambda loop: loop.set_task_factory(None),
    "set_debug": lambda loop: loop.set_debug(True),
    "set_default_executor": lambda loop: loop.set_default_executor(ThreadPoolExecutor(1)),
    "shutdown_default_executor": lambda loop: loop.shutdown_default_executor(),
    "shutdown_asyncgens": lambda loop: loop.shutdown_asyncgens(),
}


@env.task
async def sets(what: str, inside: str) -> str:
    await (traced_change if inside == "trace" else change)(what)
    return "set"


async def change(what: str) -> None:
    answer = SETTINGS[what](asyncio.get_running_loop())
    if answer is not None:
        await answer


traced_change = perdure.trace(change)


@pytest.mark.parametrize("inside", ["body", "trace"])
@pytest.mark.parametrize("what", SETTINGS)
def test_a_setting_of_the_shared_loop_is_refused_and_later_runs_go_on(what: str, inside: str) -> None:
    """A body that replaced the task factory ended every later run of the process with an empty reason."""
    with pytest.raises(errors.UsageError, match=rf"loop\.{what.split()[0]}\(\) is refused: all runs of this process"):
        _ = perdure.run(sets, what, inside).result
    assert perdure.run(plain).result == ["a", "b"]


heard: dict[str, list[str]] = {}


@env.task
async def loses_errors(tag: str, hears: bool) -> str:
    loop = asyncio.get_running_loop()
    if hears:
        found = heard.setdefault(tag, [])
        loop.set_exception_handler(lambda _, context: found.append(str(context.get("exception"))))
        assert loop.get_exception_handler() is not None
    else:
        assert loop.get_exception_handler() is None

    async def fails() -> None:
        raise ValueError(f"lost by {tag}")

    def callback() -> None:
        raise ValueError(f"called by {tag}")

    await step("before")
    task = asyncio.ensure_future(fails())
    loop.call_soon(callback)
    await asyncio.sleep(0.01)
    assert task.done()
    del task
    gc.collect()
    await step("after")
    return tag


def test_an_exception_handler_hears_of_its_own_body_only() -> None:
    """Of tasks and of callbacks; bodies at the same time, and the bodies after them, keep the loop's own handler."""

    async def both() -> None:
        await asyncio.gather(perdure.run.aio(loses_errors, "one", True), perdure.run.aio(loses_errors, "two", False))

    heard.clear()
    asyncio.run(both())
    assert perdure.run(loses_errors, "three", False).result == "three"
    assert sorted(heard["one"]) == ["called by one", "lost by one"]
    assert list(heard) == ["one"]


# -- deadlines -------------------------------------------------------------------------------------------------


@env.task(timeout=0.3)
async def blocks_late() -> str:
    time.sleep(0.8)
    return "late"


@env.task(timeout=0.3)
async def blocks_late_and_fails() -> str:
    time.sleep(0.8)
    raise ValueError("late")


@env.task(timeout=0.3)
def holds_late() -> str:
    """Holds the interpreter's lock, so that the waiting thread cannot hear of the deadline."""
    import ctypes

    ctypes.PyDLL(None).usleep(800_000)
    return "late"


@env.task(timeout=0.3)
async def holds_late_async() -> str:
    import ctypes

    ctypes.PyDLL(None).usleep(800_000)
    return "late"


@env.task(timeout=30.0)
async def blocks_in_time() -> str:
    time.sleep(0.2)
    return "in time"


@env.task
async def calls(name: str) -> str:
    return str(await LATE[name].aio())


@env.task
def calls_sync(name: str) -> str:
    return str(LATE[name]())


LATE = {
    task.name.rpartition(".")[2]: task for task in (blocks_late, blocks_late_and_fails, holds_late, holds_late_async)
}


@pytest.mark.parametrize("caller", [None, calls, calls_sync], ids=["run", "async", "sync"])
@pytest.mark.parametrize("name", LATE)
def test_a_body_that_ends_after_its_timeout_has_timed_out(name: str, caller: Any) -> None:
    """The deadline is judged when the body ends: neither a blocked event loop nor a held interpreter lock makes a late
    end a success."""
    with pytest.raises(errors.TaskTimeoutError, match=r"took longer than its timeout of 0\.3 s"):
        _ = perdure.run(LATE[name]).result if caller is None else perdure.run(caller, name).result


def test_a_body_that_blocks_and_ends_in_time_succeeds() -> None:
    assert perdure.run(blocks_in_time).result == "in time"


# -- policies --------------------------------------------------------------------------------------------------

PROGRAM = """
import asyncio, sys
{policy}
import perdure

env = perdure.TaskEnvironment(name="policy")

@env.task
async def lists() -> str:
    program = await asyncio.create_subprocess_exec(sys.executable, "-c", "print(6 * 7)", stdout=asyncio.subprocess.PIPE)
    out, _ = await program.communicate()
    again = await asyncio.create_subprocess_shell("exit 3")
    return out.decode().strip() + str(await again.wait())

async def main():
    print((await perdure.run.aio(lists)).result)

asyncio.run(main())
print(perdure.run(lists).result)
"""

POLICIES = {
    "the default": "",
    "uvloop": "import uvloop; uvloop.install()",
    "a policy of loops alone": textwrap.dedent("""
        class Policy(asyncio.events.BaseDefaultEventLoopPolicy):
            _loop_factory = asyncio.SelectorEventLoop
        asyncio.set_event_loop_policy(Policy())
    """),
}


@pytest.mark.parametrize("policy", POLICIES)
def test_subprocesses_of_bodies_start_under_any_policy(tmp_path: Path, policy: str) -> None:
    """A policy need not have a child watcher (Python up to 3.13 asks the policy for one): uvloop's has none."""
    if policy == "uvloop":
        pytest.importorskip("uvloop")
    script = tmp_path / "script.py"
    script.write_text(PROGRAM.format(policy=POLICIES[policy]))
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.stdout.split() == ["423", "423"], done.stderr
