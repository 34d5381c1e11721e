"""W1 after a commit that failed: records that waited behind that commit are refused, so no entry number is missing.

The family: a commit fails (disk full, I/O error, locked database, lost connection) while other threads and the event
loop have records of the same run in line, and the next commit would succeed.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.journals import recorded
from tests.waiting import wait_for

import perdure
from perdure import errors, runtime
from perdure.core.ground.model import Status

env = perdure.TaskEnvironment(name="failed_commits")


@pytest.fixture(autouse=True)
def store(tmp_path: Path) -> Iterator[None]:
    Commits.reset()
    perdure.init(store=tmp_path / "perdure.db")
    yield
    perdure.init()


class Commits:
    """The commit of the step `first`: fails once, and only after the next record of the run has come into line."""

    armed = False
    failing = threading.Event()
    behind = threading.Event()
    error: Exception = errors.StoreUnavailableError("the disk is full")

    @classmethod
    def reset(cls) -> None:
        cls.armed = False
        cls.failing, cls.behind = threading.Event(), threading.Event()

    @classmethod
    def fail_once(cls, monkeypatch: pytest.MonkeyPatch) -> None:
        store = runtime.worker().store

        def failing(plain: Any) -> Any:
            def write(*args: Any) -> Any:
                if not cls.armed or cls.failing.is_set():
                    return plain(*args)
                cls.failing.set()
                [driver] = runtime.worker().drivers.values()
                wait_for(lambda: driver.outbox)
                raise cls.error

            return write

        for name in ("commit", "append"):
            monkeypatch.setattr(store, name, failing(getattr(store, name)))


@perdure.trace
def first(name: str) -> str:
    Commits.armed = True
    return name


@perdure.trace
async def behind_on_the_loop(name: str) -> str:
    while not Commits.failing.is_set():
        await asyncio.sleep(0.001)
    return name


@perdure.trace
def before(name: str) -> str:
    return name


@env.task
async def a_thread_behind() -> list[str]:
    await asyncio.to_thread(before, "x")
    return await asyncio.gather(asyncio.to_thread(first, "a"), asyncio.to_thread(second, "b"))


@perdure.trace
def second(name: str) -> str:
    wait_for(Commits.failing.is_set)
    return name


@env.task
async def many_threads_behind() -> list[str]:
    await asyncio.to_thread(before, "x")
    more = [asyncio.to_thread(second, f"b{number}") for number in range(5)]
    return await asyncio.gather(asyncio.to_thread(first, "a"), *more)


@env.task
async def the_loop_behind() -> list[str]:
    await asyncio.to_thread(before, "x")
    return await asyncio.gather(asyncio.to_thread(first, "a"), behind_on_the_loop("b"))


@env.task
async def nothing() -> None: ...


@env.task
async def child(name: str) -> str:
    return await asyncio.to_thread(second, name)


@env.task
async def a_child_behind() -> list[str]:
    await asyncio.to_thread(before, "x")
    return await asyncio.gather(asyncio.to_thread(first, "a"), child("b"))


@pytest.mark.parametrize("task", [a_thread_behind, many_threads_behind, the_loop_behind, a_child_behind])
def test_records_behind_a_failed_commit_are_refused(task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """W1, SG2. The run stops with the store's error, its journal stays whole, and the same call carries on."""
    run = perdure.with_runcontext(name="r").run
    perdure.with_runcontext(name="warm").run(nothing)
    Commits.fail_once(monkeypatch)
    with pytest.raises(errors.StoreUnavailableError):
        run(task)
    row = runtime.worker().store.run("r")
    assert row is not None
    assert row.status is Status.RUNNING
    numbers = [entry.n for entry in recorded(runtime.worker().store, row)]
    assert numbers == list(range(1, len(numbers) + 1))
    found = run(task).result
    assert found[0] == "a"
    numbers = [entry.n for entry in recorded(runtime.worker().store, row)]
    assert numbers == list(range(1, len(numbers) + 1))
